"""A question with files: a string on its way through flows, content parts on its way to a server.

`encode_query_with_filepaths(question, files)` makes a `Query`, a string in the wire form
`<lazyllm-query>{"query": …, "files": […]}`. It passes through flows like any other string. When it
is sent, the files are read and go along as data, so the server need not see this disk. Only a
`Query` is opened: text that merely looks like one (say, the answer of the first model in a flow of
two) must not be able to have files read.
"""

from __future__ import annotations

import base64
import json
import mimetypes
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from lazynb.errors import LazynbError

if TYPE_CHECKING:
    from collections.abc import Sequence

    File = str | os.PathLike[str]

PREFIX = "<lazyllm-query>"
MAX_BYTES = 50_000_000  # all files of one message, the limit of OpenAI's own API

# What the standard library does not know, or takes from the machine's /etc/mime.types.
_TYPES = {
    ".avif": "image/avif",
    ".flac": "audio/flac",
    ".m4a": "audio/mp4",
    ".mkv": "video/x-matroska",
    ".ogg": "audio/ogg",
    ".opus": "audio/ogg",
    ".ts": "text/typescript",
    ".webm": "video/webm",
    ".webp": "image/webp",
}


class Query(str):
    """A query with files, in its wire form."""

    __slots__ = ()


class _Wire(msgspec.Struct):
    query: str = ""
    files: list[str] = []


def encode_query_with_filepaths(query: str = "", files: File | Sequence[File] | None = None) -> str:
    """Put a question and files into one string that a model can be called with.

    Parameters
    ----------
    query : str
        The question.
    files : path or list of paths
        Images, audio, video, text or other files. They are read when the query is sent.

    Returns
    -------
    str
        `<lazyllm-query>{"query": …, "files": […]}`, or the question itself when there are no files.
    """
    single = isinstance(files, str | os.PathLike)
    listed: list[Any] = [files] if single else list(files or ())  # type: ignore[arg-type]
    for index, file in enumerate(listed):
        if not isinstance(file, str | os.PathLike):
            raise LazynbError(f"files[{index}] is no path: {file!r}", hint="Give paths to files.")
    if not listed and not query.startswith(PREFIX):
        return query
    # ASCII: a file name may hold bytes that are no characters; only an escape can write those.
    return Query(PREFIX + json.dumps({"query": query, "files": [os.fspath(f) for f in listed]}))


def decode_query_with_filepaths(query: str) -> dict[str, Any] | str:
    """Return `{"query": …, "files": […]}` of an encoded query, and any other text as it is.

    Raises
    ------
    LazynbError
        What follows the prefix is not the wire form.
    """
    if not query.lstrip().startswith(PREFIX):
        return query
    try:
        wire = msgspec.convert(json.loads(query.strip()[len(PREFIX) :]), _Wire)
    except (ValueError, RecursionError) as error:  # msgspec's and json's errors are ValueErrors
        raise LazynbError(
            f"A query with files cannot be read: {error}",
            hint="Make it with encode_query_with_filepaths(question, files).",
        ) from None
    return {"query": wire.query, "files": wire.files}


def split(text: str) -> tuple[str, list[str]]:
    """Return the text and the files of an input: none, unless it is a `Query`.

    Raises
    ------
    LazynbError
        A plain string is in the wire form: nobody knows who wrote it, so its files are not read.
    """
    if isinstance(text, Query):
        decoded = decode_query_with_filepaths(text)
        if isinstance(decoded, dict):
            return decoded["query"], decoded["files"]
    elif text.lstrip().startswith(PREFIX):
        raise LazynbError(
            "The input looks like a query with files, but encode_query_with_filepaths did not make "
            "it; its files are not read",
            hint="If you trust it: encode_query_with_filepaths(**decode_query_with_filepaths(…)).",
        )
    return str.__str__(text), []  # str() of a subclass may add colours


def content(text: str, files: Sequence[File]) -> str | list[dict[str, Any]]:
    """Return the `content` of an OpenAI message: the text, or content parts when there are files.

    Images become `image_url` and video `video_url` parts (data URLs), audio `input_audio`, text a
    `text` part with the file's name; anything else is a `file` part.

    Raises
    ------
    LazynbError
        A file is missing, is no file, cannot be read, or together they are larger than `MAX_BYTES`.
    """
    if not files:
        return text
    paths = [Path(file).expanduser() for file in files]
    _check(paths)
    parts = [_part(path) for path in paths]
    return [{"type": "text", "text": text}, *parts] if text else parts


def _check(paths: list[Path]) -> None:
    size = 0
    for path in paths:
        if not path.is_file():  # neither a folder nor a pipe that would block
            what = "is no file" if path.exists() else "does not exist"
            raise LazynbError(
                f"{str(path)!r} {what}", hint=f"Relative paths start at {str(Path.cwd())!r}."
            )
        size += path.stat().st_size
    if size > MAX_BYTES:
        raise LazynbError(
            f"The files of this query have {size / 1e6:.1f} MB",
            hint=f"At most {MAX_BYTES / 1e6:.0f} MB can be sent: send fewer or smaller files.",
        )


def _part(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise LazynbError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    mime = _TYPES.get(path.suffix.lower()) or mimetypes.guess_type(path.name, strict=False)[0] or ""
    name = path.name.encode(errors="replace").decode()
    encoded = base64.b64encode(data).decode()
    url = f"data:{mime or 'application/octet-stream'};base64,{encoded}"
    match mime.partition("/")[0]:
        case "image":
            return {"type": "image_url", "image_url": {"url": url}}
        case "video":
            return {"type": "video_url", "video_url": {"url": url}}
        case "audio":
            sound = {"data": encoded, "format": path.suffix[1:].lower()}
            return {"type": "input_audio", "input_audio": sound}
    text = _text(data)
    if text is not None:
        return {"type": "text", "text": f"{name}:\n\n{text}"}
    return {"type": "file", "file": {"filename": name, "file_data": url}}


def _text(data: bytes) -> str | None:
    """Return the file's text, or None for a binary file."""
    if b"\0" in data:
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
