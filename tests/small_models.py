"""Small embedding and rerank models with real weights, made once for all test runs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "programs"
TUNING = Path(__file__).parents[1] / "lazynb" / "servers" / "tuning"
EMBEDDING = "all-minilm-l6-v2"


def embedding_model(cache: Path) -> str:
    """Return a sentence-transformers folder, found and fetched as a user's would be."""
    from lazynb.hub import fetch, resolve

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAZYLLM_MODEL_CACHE_DIR", str(cache))
        return fetch(resolve(EMBEDDING), report=lambda *_: None).path


def reranker_model(cache: Path) -> str:
    """Return a cross-encoder that was tuned a little."""
    return _made(cache, "make_reranker.py", cache / "tiny-reranker")


def many_kinds_model(cache: Path) -> str:
    """Return an embedding model with heads as those of BGE-M3; their weights are random."""
    return _made(cache, "make_m3.py", cache / "tiny-m3")


def full_model(gguf: Path, cache: Path) -> Path:
    """Return a GGUF model's weights in full, where the engines and the trainer look for them."""
    from lazynb.engines.environment import environment

    folder = cache / f"{gguf.stem}-full"
    if not folder.exists():
        unpack = "import sys; from pathlib import Path; import weights; weights.unpack(*map(Path, sys.argv[1:]))"
        command = [environment("transformers").python, "-c", unpack, gguf, folder]
        subprocess.run(command, check=True, capture_output=True, cwd=TUNING)
    return folder


def _made(cache: Path, program: str, target: Path) -> str:
    """Run a program of ours in the engine's environment, unless it did its work before."""
    from lazynb.engines.environment import environment

    done = target / ".made"
    if not done.exists():
        python = environment("embedding").python
        command = [python, PROGRAMS / program, embedding_model(cache), target]
        subprocess.run(command, check=True, capture_output=True)
        done.touch()
    return str(target)
