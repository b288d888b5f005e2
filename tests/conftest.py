"""What all tests share: the demo model, downloaded once, and a home of its own for each test."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

# A shell ignores interrupts for what it runs in the background, and a Python started that way goes on ignoring them.
signal.signal(signal.SIGINT, signal.default_int_handler)

DEMO = "smollm2-135m-instruct"
CACHE = Path(__file__).parents[1] / ".cache" / "models"


@pytest.fixture(scope="session")
def model_cache() -> Path:
    """The folder that holds the models of all test runs (`LAZYNB_TEST_CACHE`)."""
    return Path(os.environ.get("LAZYNB_TEST_CACHE", CACHE)).absolute()


@pytest.fixture(scope="session")
def demo_model(model_cache: Path) -> Path:
    """The GGUF file of the demo's chat model, found and fetched as a user's would be."""
    from lazynb.hub import fetch, resolve

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAZYLLM_MODEL_CACHE_DIR", str(model_cache))
        patch.delenv("LAZYLLM_MODEL_PATH", raising=False)
        patch.chdir(Path(__file__).parent)
        return Path(fetch(resolve(DEMO, prefer="gguf"), report=lambda *_: None).path)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_cache: Path) -> Path:
    """A home of its own for a test, in which the models of the test run are downloaded already."""
    path = tmp_path / "home"
    monkeypatch.setenv("LAZYLLM_HOME", str(path))
    monkeypatch.setenv("LAZYLLM_MODEL_CACHE_DIR", str(model_cache))
    monkeypatch.delenv("LAZYLLM_MODEL_PATH", raising=False)
    return path
