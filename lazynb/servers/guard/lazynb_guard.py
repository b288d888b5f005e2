"""What foreign servers leave open: the key for every route, and an end of all their processes with their parent.

vLLM and LMDeploy themselves ask for the key under `/v1` alone, and vLLM's engine and workers would outlive a server
that was killed. A folder of its own, which is put on the import path of such a server: nothing else of lazynb is to be
found there. vLLM runs `die_with_parent` in all of its processes, as the plugin that `entry_points.txt` names.
"""

from __future__ import annotations

import ctypes
import hmac
import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    Application = Callable[[Message, Receive, Send], Awaitable[None]]

PR_SET_PDEATHSIG = 1
OPEN = "/health"
REFUSAL = json.dumps(
    {
        "error": {
            "message": "The key is missing or wrong",
            "type": "invalid_request_error",
            "code": 401,
        }
    }
).encode()


def die_with_parent() -> None:
    """Ask the kernel for a SIGKILL when the parent of this process dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Guard:
    """ASGI middleware that answers nobody without the key, but for `/health`.

    Parameters
    ----------
    app : callable
        The application behind it.
    key : str, optional
        By default the one in `VLLM_API_KEY`.
    """

    def __init__(self, app: Application, key: str | None = None) -> None:
        self._app = app
        self._wanted = f"Bearer {key or os.environ['VLLM_API_KEY']}".encode()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "lifespan" or scope["path"] == OPEN:
            return await self._app(scope, receive, send)
        given = dict(scope["headers"]).get(b"authorization", b"")
        if hmac.compare_digest(given, self._wanted):
            return await self._app(scope, receive, send)
        if scope["type"] == "websocket":
            return await send({"type": "websocket.close", "code": 1008})
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 401, "headers": headers})
        return await send({"type": "http.response.body", "body": REFUSAL})
