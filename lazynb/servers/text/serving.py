"""What lazynb's own model servers share: the key, errors in the form of the OpenAI API, loopback, and an end.

These programs run by path in an engine's environment, which need not have lazynb. They never outlive their parent.
"""

from __future__ import annotations

import hmac
import json
import os
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

LARGEST = 256 << 20
"""Bytes of a request."""
NAMES = web.AppKey("names", list)
"""What a request can have as its model."""

COUNTS = {"requests_running": 0, "requests_total": 0, "tokens_total": 0}
"""What `/metrics` tells; who makes tokens counts them here."""


class RequestError(Exception):
    """A request that cannot be answered, and why."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def serve(  # noqa: C901  its handlers share the key
    name: str,
    port: int,
    routes: dict[str, Handler],
    shown: dict[str, Handler] | None = None,
    adapters: Collection[str] = (),
) -> None:
    """Answer requests on loopback until a signal ends the program.

    Parameters
    ----------
    name : str
        The model's name on the wire.
    port : int
        Where to listen.
    routes : dict
        Paths → what answers a POST there; `GET /health`, `/metrics` and `/v1/models` are added.
    shown : dict, optional
        Paths → what answers a GET there.
    adapters : collection of str, optional
        Other names that a request can choose as its model.
    """
    key = os.environ.pop("LAZYNB_KEY").encode()
    started = int(time.time())

    @web.middleware
    async def checked(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ").encode()
        if request.path != "/health" and not hmac.compare_digest(given, key):
            return failed("The key is missing or wrong", 401)
        COUNTS["requests_running"] += request.method == "POST"
        COUNTS["requests_total"] += request.method == "POST"
        try:
            return await handler(request)
        except RequestError as error:
            return failed(str(error), error.status)
        except web.HTTPException as error:
            return failed(error.reason or "", error.status)
        except Exception as error:  # noqa: BLE001  the service goes on
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)  # noqa: T201
            return failed(f"{type(error).__name__}: {error}", 500)
        finally:
            COUNTS["requests_running"] -= request.method == "POST"

    async def metrics(_: web.Request) -> web.StreamResponse:
        return web.Response(text="".join(f"lazynb:{name} {n}\n" for name, n in COUNTS.items()))

    async def health(_: web.Request) -> web.StreamResponse:
        return web.json_response({"status": "ok"})

    async def models(_: web.Request) -> web.StreamResponse:
        fact = {"object": "model", "created": started, "owned_by": "lazynb"}
        data = [{"id": name, **fact}, *({"id": one, "parent": name, **fact} for one in adapters)]
        return web.json_response({"object": "list", "data": data})

    app = web.Application(middlewares=[checked], client_max_size=LARGEST)
    app[NAMES] = [name, *adapters]
    app.router.add_get("/health", health)
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/v1/models", models)
    for path, handler in (shown or {}).items():
        app.router.add_get(path, handler)
    for path, handler in routes.items():
        app.router.add_post(path, handler)
    # An aiohttp server would wait for the requests that are running; there is no state to save.
    app.on_startup.append(_end_at_once)
    try:
        listener = socket.create_server(("127.0.0.1", port), backlog=512)
    except OSError:
        sys.exit(f"address already in use: port {port}")
    web.run_app(
        app, sock=listener, handler_cancellation=True, access_log=None, print=lambda *_: None
    )


async def _end_at_once(_: web.Application) -> None:
    import asyncio

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, os._exit, 0)


def failed(message: str, status: int) -> web.Response:
    """Return an error as the OpenAI API has it."""
    kind = "server_error" if status >= 500 else "invalid_request_error"  # noqa: PLR2004
    error = {"message": message, "type": kind, "code": status}
    return web.json_response({"error": error}, status=status)


async def read(request: web.Request) -> dict[str, Any]:
    """Return the JSON object of a request.

    Raises
    ------
    RequestError
        It is none, or it is for a model that is not served here.
    """
    try:
        body = json.loads(await request.read())
    except ValueError as error:
        raise RequestError(f"The request is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise RequestError("The request is not a JSON object")
    names = request.app[NAMES]
    if body.get("model") and body["model"] not in names:
        text = f"The model {body['model']!r} is not served here, but {', '.join(names)}"
        raise RequestError(text, 404)
    return body


def take(
    body: dict[str, Any], name: str, kinds: type | tuple[type, ...], default: Any = None
) -> Any:
    """Return a field of a request, which may be missing or null where there is a default.

    Raises
    ------
    RequestError
        It has another type.
    """
    value = body.get(name)
    if value is None:
        return default
    wanted = kinds if isinstance(kinds, tuple) else (kinds,)
    if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
        names = " or ".join(kind.__name__ for kind in wanted)
        raise RequestError(f"{name} must be {names}, not {type(value).__name__}")
    return value
