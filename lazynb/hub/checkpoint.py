"""What lies in a file or folder: is it a model, in which format, and what is it for?

The type comes from the checkpoint's own words (`config.json`, the head of a GGUF file), then from
its name.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lazynb.hub import gguf

if TYPE_CHECKING:
    from pathlib import Path

    from lazynb.hub.model import Format, ModelType

# Files that make a folder a model, whatever wrote it: transformers, diffusers, FunASR, ChatTTS.
CONFIGS = ("config.json", "model_index.json", "config.yaml", "configuration.json")
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".onnx")

# Endings of the class names in `architectures`; the first one that fits counts.
ARCHITECTURES: tuple[tuple[tuple[str, ...], ModelType], ...] = (
    (("ForSequenceClassification",), "rerank"),
    (("WhisperForConditionalGeneration", "ForCTC", "ForSpeechSeq2Seq"), "stt"),
    (("InternVLChatModel", "ForVisionText2Text"), "vlm"),
    (("ForCausalLM", "LMHeadModel", "ChatModel"), "chat"),
    (("Model", "ForMaskedLM"), "embed"),
)
NAMES: tuple[tuple[tuple[str, ...], ModelType], ...] = (
    (("rerank",), "rerank"),
    (("whisper", "sensevoice", "paraformer", "asr"), "stt"),
    (("tts", "cosyvoice", "bark"), "tts"),
    (("embed", "bge-", "gte-", "e5-", "minilm", "jina-"), "embed"),
    (("diffusion", "sdxl", "flux"), "image"),
    (("-vl-", "vl2", "internvl", "llava", "vision"), "vlm"),
)
GGUF_EMBEDDERS = (
    "bert",
    "nomic-bert",
    "nomic-bert-moe",
    "jina-bert-v2",
    "jina-bert-v3",
    "gemma-embedding",
)


@dataclass(frozen=True)
class Checkpoint:
    """Weights that were recognised: the GGUF file, or the folder."""

    path: Path
    format: Format

    @property
    def type(self) -> ModelType:
        """What the model is for, by its own words, else by its name; a chat model when nothing tells."""
        return _gguf_type(self.path) if self.format == "gguf" else _folder_type(self.path)

    @property
    def size(self) -> int:
        """Bytes on disk."""
        if self.path.is_file():
            return self.path.stat().st_size
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())


def recognise(path: Path, file: str = "") -> Checkpoint | None:
    """Return the checkpoint at a path, or None when there are no weights.

    Parameters
    ----------
    path : Path
        A GGUF file or a folder.
    file : str
        The GGUF file to prefer in a folder that holds several.
    """
    if path.is_file():
        return Checkpoint(path, "gguf") if gguf.is_gguf(path) else None
    return _recognise_folder(path, file) if path.is_dir() else None


def _recognise_folder(path: Path, file: str) -> Checkpoint | None:
    try:
        names = {item.name for item in path.iterdir()}
    except OSError:
        return None
    if any(name.endswith(".safetensors") for name in names) or "model_index.json" in names:
        return Checkpoint(path, "safetensors")
    ggufs = [name for name in names if name.endswith(".gguf") and not name.startswith("mmproj")]
    if ggufs:
        return Checkpoint(path / _best(ggufs, file), "gguf")
    other = names.intersection(CONFIGS) and any(name.endswith(WEIGHTS) for name in names)
    if other or recognise(path / "asset"):  # ChatTTS
        return Checkpoint(path, "other")
    return None


def _best(names: list[str], file: str) -> str:
    """Choose among the quantisations of a model: the one asked for, else the usual one."""
    if file in names:
        return file
    return min(names, key=lambda name: ("q4_k_m" not in name.lower(), name))


def _gguf_type(path: Path) -> ModelType:
    architecture = gguf.metadata(path).get("architecture", "")
    by_name = name_type(path.stem)
    if architecture in GGUF_EMBEDDERS and by_name != "rerank":
        return "embed"
    return by_name


def _folder_type(path: Path) -> ModelType:
    if (path / "modules.json").is_file():  # sentence-transformers
        return "embed"
    if (path / "model_index.json").is_file():  # diffusers
        return "image"
    facts = _read_json(path / "config.json")
    for name in facts.get("architectures") or []:
        if name.endswith("ForConditionalGeneration") and "vision_config" in facts:
            return "vlm"
        for endings, kind in ARCHITECTURES:
            if name.endswith(endings):
                return kind
    return name_type(path.name)


def name_type(name: str) -> ModelType:
    """Guess what a model is for by its name."""
    name = name.casefold()
    return next((kind for parts, kind in NAMES if any(part in name for part in parts)), "chat")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}
