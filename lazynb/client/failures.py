"""What went wrong with a request, in words: the service, the cause, and what to do.

Servers say it in many shapes; `server_message` finds the sentence in any of them. A key never
gets into a message, not even when the server repeats it.
"""

from __future__ import annotations

import os
import ssl
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import msgspec

from lazynb.errors import ServiceError

if TYPE_CHECKING:
    from lazynb.client.endpoint import Endpoint

_LONGEST = 600  # characters of a server's own message


def server_message(body: bytes) -> str:
    """Return the sentence in an error's body: JSON in any of the usual shapes, or plain text."""
    try:
        text = _sentence(msgspec.json.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError):
        text = body.decode("utf-8", "replace")
        if text.lstrip().startswith("<"):  # a page for browsers says nothing that helps
            text = ""
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def _sentence(value: Any) -> str:
    if isinstance(value, dict):
        for field in ("error", "message", "detail", "msg"):
            if value.get(field):
                return _sentence(value[field])
    if isinstance(value, list) and value:
        return _sentence(value[0])
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def failure(
    endpoint: Endpoint, message: str, *, hint: str = "", status: int | None = None
) -> ServiceError:
    """Make the error of a service, free of its key."""
    if endpoint.key:
        message = message.replace(endpoint.key, "…")
    return ServiceError(message, hint=hint, service=endpoint.name, status=status)


def refusal(
    endpoint: Endpoint, status: int, body: bytes, retry_after: str | None = None
) -> ServiceError:
    """Make the error of an answer whose status is not 2xx."""
    said = server_message(body)
    if status in (401, 403):
        what, hint = _key_words(endpoint)
    elif status in (404, 405):
        what = "does not know the model or the route"
        model = endpoint.model or "none given"
        hint = f"Check the url ({endpoint.place}) and the model's name ({model})."
    elif status == 429:  # noqa: PLR2004
        what, hint = "gets too many requests", _wait_words(retry_after)
    elif status >= 500:  # noqa: PLR2004
        what, hint = "failed", _look_words(endpoint)
    else:
        what = "refused the request"
        hint = "Check the messages, their length and the generation parameters."
    message = f"{endpoint.name} {what} ({status})" + (f": {said}" if said else "")
    return failure(endpoint, message, hint=hint, status=status)


def broken(endpoint: Endpoint, said: bytes) -> ServiceError:
    """Make the error of a stream in which the server reports an error."""
    message = f"{endpoint.name} failed in mid-answer: {server_message(said)}"
    return failure(endpoint, message, hint=_look_words(endpoint))


def cut(endpoint: Endpoint) -> ServiceError:
    """Make the error of an answer that stopped before its end."""
    return failure(
        endpoint,
        f"{endpoint.name} broke off in mid-answer",
        hint=f"The server may have died. {_look_words(endpoint)}",
    )


def nonsense(endpoint: Endpoint, body: bytes) -> ServiceError:
    """Make the error of an answer that is not what the API sends."""
    start = body[:120].decode("utf-8", "replace").strip()
    what = f"something that is not an answer: {start!r}" if start else "an empty answer"
    return failure(
        endpoint,
        f"{endpoint.name} sent {what}",
        hint=f"Is {endpoint.place} an OpenAI-compatible server? Its url usually ends with /v1.",
    )


def unreachable(endpoint: Endpoint, cause: BaseException) -> ServiceError:
    """Make the error of a request that no server took."""
    why = _why(cause)
    hint = "Is the server running?"
    if endpoint.local:
        hint = "Is it running? `%lazyllm ps` lists the services."
    return failure(
        endpoint, f"{endpoint.name} cannot be reached at {endpoint.place}: {why}", hint=hint
    )


def _why(cause: BaseException) -> str:
    inner = getattr(cause, "certificate_error", None) or getattr(cause, "os_error", None) or cause
    if isinstance(inner, TimeoutError):
        return "no connection in time"
    if isinstance(inner, ssl.SSLError):
        return f"no safe connection ({getattr(inner, 'verify_message', '') or inner.reason})"
    if isinstance(inner, OSError) and inner.errno:
        return os.strerror(inner.errno) if inner.errno > 0 else str(inner.strerror)
    return "it closed the connection"


def silent(endpoint: Endpoint, seconds: float) -> ServiceError:
    """Make the error of a server that accepts a request and says nothing."""
    return failure(
        endpoint,
        f"{endpoint.name} said nothing for {seconds:g} seconds",
        hint=f"It may be stuck or overloaded: wait longer with timeout=…. {_look_words(endpoint)}",
    )


def _key_words(endpoint: Endpoint) -> tuple[str, str]:
    if endpoint.key:
        return "refused the key", "Check it (api_key=…): it may be wrong or expired."
    return "wants a key", "Give one: api_key=…."


def _look_words(endpoint: Endpoint) -> str:
    if endpoint.local:
        return f"`%lazyllm logs {endpoint.name}` shows what it says."
    return "Try again later, or ask those who run it."


def _wait_words(retry_after: str | None) -> str:
    seconds = _seconds(retry_after)
    return f"Try again in {seconds:g} s." if seconds else "Try again later, or send fewer at once."


def _seconds(retry_after: str | None) -> float | None:
    """Read a Retry-After header: seconds or a date."""
    if not retry_after:
        return None
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        return max(0.0, round(parsedate_to_datetime(retry_after).timestamp() - time.time()))
    except (TypeError, ValueError):
        return None
