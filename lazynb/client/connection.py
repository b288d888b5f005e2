"""One request on a shared connection.

Connections are kept alive and shared by all requests. A server may close such a
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

import aiohttp
import msgspec
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_exponential

from lazynb.client import activity, failures
from lazynb.client.loop import at_exit, get_loop
from lazynb.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from lazynb.client.endpoint import Endpoint

TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=5)
READ_TIMEOUT = 600.0
"""Seconds without a byte after which a server counts as stuck."""
PAUSE = 0.033
"""Seconds that what comes in quick succession may wait for what comes next."""

_sessions: dict[asyncio.AbstractEventLoop, aiohttp.ClientSession] = {}  # one, and one more per fork


class Body:
    """The body of an answer, while it arrives."""

    def __init__(self, response: aiohttp.ClientResponse, seconds: float) -> None:
        self._response = response
        self._seconds = seconds
        self._heard = 0.0
        self._timer: asyncio.TimerHandle | None = None

    async def read(self) -> bytes:
        """Return all of it."""
        async with asyncio.timeout(self._seconds):
            return await self._response.read()

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield what arrives, as it arrives; what comes in quick succession is taken together."""
        loop = asyncio.get_running_loop()
        self._heard = loop.time()
        self._watch()
        try:
            async for data in self._response.content.iter_any():
                waited, self._heard = loop.time() - self._heard, loop.time()
                yield data
                if waited < PAUSE:
                    await self._pause()
                    self._heard = loop.time()
        finally:
            if self._timer is not None:
                self._timer.cancel()

    async def _pause(self) -> None:
        """Let some more arrive: a wake-up costs ten times what an event does."""
        connection = self._response.connection
        if connection is None or connection.transport is None:
            return  # all is here
        connection.transport.pause_reading()
        await asyncio.sleep(PAUSE)
        connection.transport.resume_reading()

    def _watch(self) -> None:
        """Give up when nothing came for too long: one timer for all, since one for each read is dear."""
        loop = asyncio.get_running_loop()
        left = self._heard + self._seconds - loop.time()
        if left > 0:
            self._timer = loop.call_later(left, self._watch)
        else:
            self._response.content.set_exception(TimeoutError())


@asynccontextmanager
async def request(
    endpoint: Endpoint, method: str, url: str, body: dict[str, Any] | None, timeout: float | None
) -> AsyncGenerator[Body, None]:
    """Send a request; gives the body of a response of status 2xx.

    Leaving before its end closes the connection, so that the server sees that nobody listens.

    Raises
    ------
    ServiceError
        No server, a status that is not 2xx, silence, or a connection that broke in mid-answer.
    """
    seconds = timeout or READ_TIMEOUT
    try:
        with activity.counted(endpoint):
            async with asyncio.timeout(seconds):
                response = await _send(endpoint, method, url, _encode(body))
                await _check(endpoint, response)
            try:
                yield Body(response, seconds)
            finally:
                if response.content.at_eof():
                    response.release()
                else:
                    response.close()
    except aiohttp.ConnectionTimeoutError as error:
        raise failures.unreachable(endpoint, error) from None
    except TimeoutError:
        raise failures.silent(endpoint, seconds) from None
    except (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError, ConnectionError):
        raise failures.cut(endpoint) from None  # `_send` has named what comes before the answer
    except aiohttp.ClientError as error:
        said = getattr(error, "message", "") or type(error).__name__
        raise failures.nonsense(endpoint, said.encode()) from None


async def _check(endpoint: Endpoint, response: aiohttp.ClientResponse) -> None:
    if response.ok:
        return
    async with response:
        wait = response.headers.get("Retry-After")
        raise failures.refusal(endpoint, response.status, await response.read(), wait)


async def _send(
    endpoint: Endpoint, method: str, url: str, body: bytes | None
) -> aiohttp.ClientResponse:
    headers = {"Content-Type": "application/json"}
    if endpoint.key:
        headers["Authorization"] = f"Bearer {endpoint.key}"
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
                    method, url, data=body, headers=headers, timeout=TIMEOUT, proxy=_proxy(endpoint)
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
    """Return the connections of the client's loop."""
    here = asyncio.get_running_loop()
    if here is not get_loop():
        raise RuntimeError("Requests run on the client's loop: use lazynb.client.loop.run or spawn")
    if here not in _sessions:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30)
        _sessions[here] = aiohttp.ClientSession(connector=connector)
        at_exit(_sessions[here].close)
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
