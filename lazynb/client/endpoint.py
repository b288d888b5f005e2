"""Where requests go: an address, a key, and the wire format that is spoken there."""

from __future__ import annotations

import ipaddress
from typing import Literal, Self
from urllib.parse import urlsplit

import msgspec

from lazynb.errors import OptionError

Protocol = Literal["openai", "vllm"]

_ROUTES = ("/chat/completions", "/completions", "/embeddings", "/rerank", "/models")


class Endpoint(msgspec.Struct, frozen=True):
    """A server that answers requests for a model.

    Parameters
    ----------
    url : str
        The root of an OpenAI-compatible API (`http://127.0.0.1:8000/v1`), or the `/generate`
        route itself.
    name : str
        What messages call it.
    key : str
        Sent as a bearer token; never shown.
    model : str
        The model's name on the wire; empty: asked from the server when it is first needed.
    protocol : {'openai', 'vllm'}
        'vllm' is the format of the `/generate` route that old versions of vLLM had.
    used : str
        The path of a file whose time tells when it was used last; empty: nobody asks.
    """

    url: str
    name: str
    key: str = ""
    model: str = ""
    protocol: Protocol = "openai"
    used: str = ""

    @classmethod
    def from_url(cls, url: str, key: str = "", name: str = "", model: str = "") -> Self:
        """Read an address as users write it.

        `…/generate` is vLLM's old format; `…/v1`, `…/v1/chat/completions` and a bare host are the
        OpenAI API. A trailing slash makes no difference.

        Raises
        ------
        OptionError
            That is no http address.
        """
        text = url.strip()
        parts = urlsplit(text if "://" in text else f"http://{text}")
        try:
            valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:  # a port that is no number
            valid = False
        if not valid:
            raise OptionError(
                f"{url!r} is no address of a server",
                hint="It looks like 'http://localhost:8000/v1' or 'http://localhost:8000/generate'.",
            )
        path = parts.path.rstrip("/")
        protocol: Protocol = "vllm" if path.endswith("/generate") else "openai"
        for route in _ROUTES:
            path = path.removesuffix(route)
        full = parts._replace(path=path or "/v1", fragment="").geturl()
        return cls(full, name or model or _host(full), key.strip(), model, protocol)

    @property
    def place(self) -> str:
        """The address as it may be shown: without user and password."""
        parts = urlsplit(self.url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()

    @property
    def local(self) -> bool:
        """Whether the server runs on this machine."""
        host = urlsplit(self.url).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

    @property
    def port(self) -> int | None:
        """The port that is named in the url."""
        return urlsplit(self.url).port

    def route(self, path: str) -> str:
        """Return the address of a route, such as '/models'."""
        parts = urlsplit(self.url)
        return parts._replace(path=parts.path.rstrip("/") + path).geturl()

    def __repr__(self) -> str:
        key = ", key=…" if self.key else ""
        return f"Endpoint({self.place!r}, name={self.name!r}, model={self.model!r}{key})"


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]
