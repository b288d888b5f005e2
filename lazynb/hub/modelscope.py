"""ModelScope, through its own client.

`MODELSCOPE_ENDPOINT`, `MODELSCOPE_API_TOKEN`, saved logins and proxies work as it documents them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lazynb.hub.selection import RemoteFile
from lazynb.hub.transfer import Failure, Listing

if TYPE_CHECKING:
    from pathlib import Path

name = "modelscope"
title = "ModelScope"
token = "Set MODELSCOPE_API_TOKEN, or run: ms-hub login."  # noqa: S105 - says what to do
endpoint = "MODELSCOPE_ENDPOINT"
branch = "master"


def url(repo: str) -> str:
    """Return the page of a repository."""
    return f"{_api()._config.endpoint}/models/{repo}"


def listing(repo: str, revision: str) -> Listing:
    """Ask which files a repository has."""
    files = _api().list_repo_files(repo, "model", revision=revision or branch)
    found = [
        RemoteFile(file.path, file.size or 0, file.sha256 or "")
        for file in files
        if file.type != "tree"
    ]
    return Listing(revision or branch, found)


def download(repo: str, revision: str, file: RemoteFile, folder: Path) -> None:
    """Bring one file, going on where an earlier attempt ended; the client checks the sum."""
    _api().download_file(
        repo,
        "model",
        file.path,
        revision=revision,
        local_dir=folder,
        expected_sha256=file.sha256 or None,
        file_size=file.size,
    )


def explain(error: Exception) -> Failure | None:
    """Say what an error of the client means; None for one that is not the client's."""
    from modelscope_hub import errors

    if f"{type(error).__module__}.".startswith(("requests.", "urllib3.")):
        return "network"
    meanings: dict[Failure, tuple[type[Exception], ...]] = {
        "missing": (errors.NotExistError, errors.InvalidParameter),
        "checksum": (errors.FileIntegrityError,),
        "denied": (errors.AuthenticationError, errors.PermissionDeniedError),
        "busy": (errors.RateLimitError,),
        "network": (errors.NetworkError, ConnectionError, TimeoutError),
        "server": (errors.HubError,),
    }
    return next((meaning for meaning, kinds in meanings.items() if isinstance(error, kinds)), None)


def _api() -> Any:
    from modelscope_hub import HubApi

    return HubApi()
