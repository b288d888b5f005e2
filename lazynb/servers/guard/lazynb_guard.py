"""The key for every route of a foreign ASGI server: vLLM and LMDeploy themselves ask for it under `/v1` alone.

A folder of its own, which is put on the import path of such a server: nothing else of lazynb is to be found there.
"""

from __future__ import annotations

import hmac
import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    Application = Callable[[Message, Receive, Send], Awaitable[None]]

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
