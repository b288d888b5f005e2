"""An endpoint reads addresses as users write them, and never shows its key."""

import pytest

from lazynb.client.endpoint import Endpoint
from lazynb.errors import OptionError


@pytest.mark.parametrize(
    ("written", "url", "protocol"),
    [
        ("http://h:8000/v1", "http://h:8000/v1", "openai"),
        ("http://h:8000/v1/", "http://h:8000/v1", "openai"),
        ("http://h:8000/v1/chat/completions", "http://h:8000/v1", "openai"),
        ("http://h:8000/v1/chat/completions/", "http://h:8000/v1", "openai"),
        ("http://h:8000/v1/embeddings", "http://h:8000/v1", "openai"),
        ("http://h:8000", "http://h:8000/v1", "openai"),
        ("http://h:8000/", "http://h:8000/v1", "openai"),
        (" h:8000 ", "http://h:8000/v1", "openai"),
        ("https://h/api/v1/", "https://h/api/v1", "openai"),
        ("https://h/openai", "https://h/openai", "openai"),
        ("http://h:8000/generate", "http://h:8000/generate", "vllm"),
        ("http://h:8000/generate/", "http://h:8000/generate", "vllm"),
    ],
)
def test_urls_are_read_as_they_are_written(written, url, protocol):
    endpoint = Endpoint.from_url(written)
    assert (endpoint.url, endpoint.protocol) == (url, protocol)


@pytest.mark.parametrize("written", ["", "ftp://h/v1", "http://", "/some/path", "http://h:port/v1"])
def test_what_is_no_address_is_an_error(written):
    with pytest.raises(OptionError, match="no address"):
        Endpoint.from_url(written)


def test_the_name_is_the_one_given_or_the_model_or_the_host():
    assert Endpoint.from_url("http://h:8000/v1", name="mine", model="m").name == "mine"
    assert Endpoint.from_url("http://h:8000/v1", model="m").name == "m"
    assert Endpoint.from_url("http://me:pw@h:8000/v1").name == "h:8000"


def test_nothing_secret_is_shown():
    endpoint = Endpoint.from_url("http://me:hunter2@h:8000/v1?token=abc", key="sk-secret")
    shown = f"{endpoint!r} {endpoint} {endpoint.place} {endpoint.name} {[endpoint]}"
    for secret in ("hunter2", "sk-secret", "abc"):
        assert secret not in shown


def test_a_query_in_the_url_stays_behind_the_route():
    endpoint = Endpoint.from_url("https://h/v1?api-version=2")
    assert endpoint.route("/models") == "https://h/v1/models?api-version=2"


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:1/v1", True),
        ("http://localhost/v1", True),
        ("http://[::1]:1/v1", True),
        ("http://127.evil.com/v1", False),
        ("https://h/v1", False),
    ],
)
def test_a_server_on_this_machine_is_known_as_such(url, local):
    assert Endpoint.from_url(url).local is local
