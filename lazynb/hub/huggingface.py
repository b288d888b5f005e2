"""Hugging Face, through its own client: `HF_ENDPOINT`, `HF_TOKEN`, saved logins and proxies work as it documents them.

The client's high-level download gives up what it has of a file when its process ends; its `http_get` goes on from
any byte, so that one is used, with a partial file of our own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lazynb.hub.selection import RemoteFile
from lazynb.hub.transfer import Listing, partial

if TYPE_CHECKING:
    from pathlib import Path

    from lazynb.hub.transfer import Failure

name = "huggingface"
title = "Hugging Face"
token = "Set HF_TOKEN, or run: huggingface-cli login."  # noqa: S105 - says what to do
endpoint = "HF_ENDPOINT"
branch = "main"
TIMEOUT = 10.0  # seconds for one answer about a repository
STATUS: dict[int, Failure] = {401: "denied", 403: "denied", 408: "network", 429: "busy"}


def url(repo: str) -> str:
    """Return the page of a repository."""
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{repo}"


def listing(repo: str, revision: str) -> Listing:
    """Ask which files a repository has."""
    from huggingface_hub import HfApi

    info = HfApi().model_info(repo, revision=revision or None, files_metadata=True, timeout=TIMEOUT)
    files = [
        RemoteFile(file.rfilename, file.size or 0, file.lfs.sha256 if file.lfs else "")
        for file in info.siblings or []
    ]
    return Listing(info.sha or revision or branch, files)


def download(repo: str, revision: str, file: RemoteFile, folder: Path) -> None:
    """Bring one file, going on where an earlier attempt ended."""
    from huggingface_hub import constants, hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        build_hf_headers,
        disable_progress_bars,
    )

    disable_progress_bars()
    constants.DOWNLOAD_CHUNK_SIZE = 1 << 20  # ten times smaller: progress, and what a cut loses
    path = partial(folder, file)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as rest:
        if rest.tell() > file.size:
            rest.truncate(0)
        http_get(
            hf_hub_url(repo, file.path, revision=revision),
            rest,
            resume_size=rest.tell(),
            headers=build_hf_headers(),
            expected_size=file.size,
        )
    path.replace(folder / file.path)


def explain(error: Exception) -> Failure | None:
    """Say what an error of the client means; None for one that is not the client's."""
    from huggingface_hub import errors

    if isinstance(error, errors.HfHubHTTPError) and type(error) is errors.HfHubHTTPError:
        return STATUS.get(error.response.status_code, "server")
    if f"{type(error).__module__}.".startswith(("httpx.", "httpcore.", "requests.", "urllib3.")):
        return "network"
    meanings: dict[Failure, tuple[type[Exception], ...]] = {
        "offline": (errors.OfflineModeIsEnabled,),
        "denied": (errors.GatedRepoError, errors.DisabledRepoError),
        # Without a login, a private repository and one that is not there are told alike: 401.
        "missing": (
            errors.RepositoryNotFoundError,
            errors.RevisionNotFoundError,
            errors.EntryNotFoundError,
            errors.HFValidationError,
        ),
        "server": (errors.HfHubHTTPError,),
        "network": (ConnectionError, TimeoutError),
    }
    if isinstance(error, OSError) and "Consistency check failed" in str(error):
        return "network"
    return next((meaning for meaning, kinds in meanings.items() if isinstance(error, kinds)), None)
