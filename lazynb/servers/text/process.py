"""How lazynb's own programs live with their supervisor."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Ask the kernel for a SIGKILL when the supervisor dies, however it dies."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("The supervisor is gone")


def progress(text: str) -> None:
    """Tell the user what is being done."""
    print(f"@progress {json.dumps({'text': text})}", flush=True)  # noqa: T201


def failed(cause: str, hint: str = "") -> None:
    """Tell the user why this program is about to end."""
    print(f"@failed {json.dumps({'cause': cause, 'hint': hint})}", flush=True)  # noqa: T201
