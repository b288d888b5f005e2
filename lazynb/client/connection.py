"""One request on a shared connection.

Connections are kept alive and shared by all requests of a loop. A server may close such a
connection at the very moment a request is sent on it (llama.cpp does under load), so a request
that failed before its first byte is sent again, a few times. One that was answered, with whatever
status, never is.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass
from weakref import WeakKeyDictionary

import aiohttp
import msgspec
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_exponential

from lazynb.client import failures, loop
from lazynb.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from lazynb.client.endpoint import Endpoint

CONNECT_TIMEOUT = 5.0
READ_TIMEOUT = 600.0
"""Seconds without a byte after which a server counts as stuck."""

_sessions: WeakKeyDictionary[asyncio.AbstractEventLoop, aiohttp.ClientSession] = WeakKeyDictionary()


@asynccontextmanager
async def request(
    endpoint: Endpoint, method: str, url: str, body: dict[str, Any] | None, timeout: float | None
) -> AsyncIterator[aiohttp.ClientResponse]:
    """Send a request; gives a response of status 2xx. Leaving early closes the connection.

    Raises
    ------
    ServiceError
        No server, a status that is not 2xx, or a connection that broke while the answer was read.
    """
    seconds = timeout or READ_TIMEOUT
    try:
        response = await _send(endpoint, method, url, _encode(body), seconds)
        try:
            await _check(endpoint, response)
            yield response
        except BaseException:
            response.close()  # the server sees at once that nobody listens
            raise
        response.release()
    except aiohttp.ConnectionTimeoutError as error:
        raise failures.unreachable(endpoint, error) from None
    except TimeoutError:
        raise failures.silent(endpoint, seconds) from None
    except (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError, ConnectionError):
        raise failures.cut(endpoint) from None  # `_send` has named what comes before the answer
    except aiohttp.ClientError as error:
        raise failures.failure(endpoint, f"{endpoint.name} answered nonsense: {error}") from None


async def _check(endpoint: Endpoint, response: aiohttp.ClientResponse) -> None:
    if not response.ok:
        wait = response.headers.get("Retry-After")
        raise failures.refusal(endpoint, response.status, await response.read(), wait)


async def _send(
    endpoint: Endpoint, method: str, url: str, body: bytes | None, seconds: float
) -> aiohttp.ClientResponse:
    headers = {"Content-Type": "application/json"}
    if endpoint.key:
        headers["Authorization"] = f"Bearer {endpoint.key}"
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=seconds)
    retrying = AsyncRetrying(
        retry=retry_if_exception(_before_the_first_byte),
        stop=stop_after_attempt(3),
        wait=wait_exponential(multiplier=0.05),
        reraise=True,
    )
    try:
        async for attempt in retrying:
            with attempt:
                return await _session().request(
                    method, url, data=body, headers=headers, timeout=timeout, proxy=_proxy(endpoint)
                )
    except (aiohttp.ClientConnectionError, ConnectionError) as error:
        if isinstance(error, TimeoutError):
            raise
        raise failures.unreachable(endpoint, error) from None
    raise AssertionError  # tenacity returns or raises


def _before_the_first_byte(error: BaseException) -> bool:
    """Tell a connection that broke from one that is slow: waiting again would not help."""
    broke = isinstance(error, aiohttp.ClientConnectionError | ConnectionError)
    return broke and not isinstance(error, TimeoutError | aiohttp.ClientSSLError)


def _session() -> aiohttp.ClientSession:
    """Return the connections of the running loop."""
    here = asyncio.get_running_loop()
    if here not in _sessions:
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30)
        )
        _sessions[here] = session
        if here is loop.get_loop():
            loop.at_exit(session.close)
    return _sessions[here]


def _encode(body: dict[str, Any] | None) -> bytes | None:
    try:
        return None if body is None else msgspec.json.encode(body)
    except (TypeError, ValueError) as error:
        raise OptionError(f"The request cannot be sent as JSON: {error}") from None


def _proxy(endpoint: Endpoint) -> str | None:
    """Return the proxy of the environment; a server on this machine is never behind one."""
    parts = urlsplit(endpoint.url)
    if endpoint.local or proxy_bypass(parts.hostname or ""):
        return None
    return getproxies().get(parts.scheme)
