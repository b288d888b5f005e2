"""What other programs have downloaded already: the caches of the two hubs' own clients, used as they lie.

transformers, diffusers, vLLM and ModelScope put models there. A snapshot counts when it is whole: every part that its
index names is there, and what the text is cut up with.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from lazynb.hub.checkpoint import recognise
from lazynb.hub.hubs import HUBS, Place
from lazynb.hub.model import Model

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lazynb.hub.source import Report, Wanted

TOKENIZERS = ("tokenizer*", "*.model", "vocab*", "*/tokenizer*")


class ClientCaches:
    """The caches of `huggingface_hub` and of ModelScope."""

    name = "hub cache"

    def find(self, wanted: Wanted) -> Iterator[Model]:
        """Yield whole snapshots of the model under its ids."""
        for hub in HUBS:
            for form in ("gguf", "safetensors"):
                place = hub.place(wanted.text, form)
                if place is None:
                    continue
                folders = {"huggingface": _huggingface, "modelscope": _modelscope}[hub.name]
                for folder in folders(place):
                    if model := _model(folder, wanted, place):
                        yield model

    def looked(self, wanted: Wanted) -> list[str]:  # noqa: ARG002
        """Say which folders these are."""
        return [
            str(folder) for folder in (_huggingface_home(), _modelscope_home()) if folder.is_dir()
        ]

    def fetch(self, model: Model, report: Report) -> None:
        """Never called: what lies here is present."""


def _model(folder: Path, wanted: Wanted, place: Place) -> Model | None:
    found = recognise(folder, place.file)
    if found is None or (place.file and place.file.lower() not in found.path.name.lower()):
        return None
    if found.format != "gguf" and not _whole(folder):
        return None
    return Model(
        name=wanted.name,
        path=str(found.path),
        type=wanted.type or (wanted.entry.type if wanted.entry else found.type),
        format=found.format,
        source=ClientCaches.name,
        present=True,
    )


def _whole(folder: Path) -> bool:
    if not any(True for pattern in TOKENIZERS for _ in folder.glob(pattern)):
        return False
    for index in folder.glob("*.index.json"):
        with suppress(OSError, ValueError, AttributeError):
            parts = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            if not all((folder / part).exists() for part in parts):
                return False
    return (folder / "config.json").exists() or (folder / "model_index.json").exists()


def _huggingface_home() -> Path:
    home = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or f"{home}/hub").expanduser()


def _huggingface(place: Place) -> Iterator[Path]:
    root = _huggingface_home() / f"models--{place.repo.replace('/', '--')}"
    revision = place.revision or "main"
    with suppress(OSError):
        revision = (root / "refs" / revision).read_text().strip()
    yield root / "snapshots" / revision


def _modelscope_home() -> Path:
    return Path(os.environ.get("MODELSCOPE_CACHE") or "~/.cache/modelscope").expanduser()


def _modelscope(place: Place) -> Iterator[Path]:
    root = _modelscope_home()
    flat = root / "models" / place.repo.replace("/", "--") / "snapshots"
    yield flat / (place.revision or "master")
    if not place.revision:  # older clients keep one revision, and write dots as `___`
        repo = Path("models", place.repo.replace(".", "___"))
        yield from (root / repo, root / "hub" / repo)
