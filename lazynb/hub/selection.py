"""Which files of a repository are needed: the weights in one format, and what is read beside them.

Repositories often hold the same weights several times: for other frameworks, in other precisions, as one file for
an older loader. Downloading all of it would take two to five times the bytes.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lazynb.hub.model import Format

PICKLES = (".bin", ".pt", ".pth", ".ckpt")
"""Weights that are only taken where there is nothing better."""
OTHERS = (".h5", ".msgpack", ".onnx", ".onnx_data", ".tflite", ".ot", ".mlmodel", ".gguf", ".ggml")
"""Weights of other programs."""
FOLDERS = frozenset({"onnx", "openvino", "coreml", "original", "metal", "flax", "tf", "gguf"})
"""Where they lie."""
NEVER = (
    *(".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg", ".mp4", ".pdf", ".ipynb", ".zip"),
    *(".gitattributes", ".gitignore", ".md", ".tar.gz", ".parquet"),
)
SPLIT = re.compile(r"-00001-of-(\d{5})\.gguf$")


class RemoteFile(msgspec.Struct, frozen=True):
    """A file of a repository."""

    path: str
    size: int
    sha256: str = ""
    """Empty where the hub knows none: small text files."""


def select(files: Sequence[RemoteFile], format: Format, wanted: str = "") -> list[RemoteFile]:  # noqa: A002
    """Return the files that a model needs.

    Parameters
    ----------
    files : sequence of RemoteFile
        What is in the repository.
    format : {'gguf', 'safetensors', 'other'}
        The form of the weights; 'other' takes everything but pictures and documents.
    wanted : str
        For GGUF: the file, or its quantisation (`Q8_0`); by default Q4_K_M, else the smallest.

    Returns
    -------
    list of RemoteFile
        Empty when the repository has no such weights.
    """
    files = [file for file in files if _inside(file.path)]
    if format == "gguf":
        return _ggufs(files, wanted)
    useful = [file for file in files if not file.path.lower().endswith(NEVER)]
    if format == "other":
        return useful
    useful = [f for f in useful if not f.path.lower().endswith(OTHERS) and not _elsewhere(f.path)]
    if not any(f.path.endswith((".safetensors", *PICKLES)) for f in useful):
        return []
    return [file for file in useful if not _redundant(file.path, {f.path for f in useful})]


def _inside(path: str) -> bool:
    """Whether a path stays in the folder that it is put into, whatever the hub says."""
    parts = PurePosixPath(path).parts
    return bool(parts) and ".." not in parts and not path.startswith("/") and "\\" not in path


def _elsewhere(path: str) -> bool:
    return any(part.lower() in FOLDERS for part in PurePosixPath(path).parts[:-1])


def _redundant(path: str, paths: set[str]) -> bool:
    """Whether the same weights lie beside it in a better form."""
    here = PurePosixPath(path)
    tensors = {
        p
        for p in map(PurePosixPath, paths)
        if p.parent == here.parent and p.suffix == ".safetensors"
    }
    plain = {p for p in tensors if not _is_variant(p) and not p.name.startswith("consolidated")}
    if here.suffix in PICKLES or path.endswith(".bin.index.json"):
        # A head beside the weights (BGE-M3's sparse_linear.pt) is no second copy of them.
        weights = here.name.startswith(
            ("pytorch_model", "diffusion_pytorch", "model", "flax", "tf_")
        )
        return bool(tensors) and (weights or here.suffix == ".ckpt")
    if here in tensors and here not in plain:
        return bool(plain)
    if here.parent == PurePosixPath() and here in tensors and "model_index.json" in paths:
        return True  # all of a diffusion model in one file, beside its parts
    return path == "params.json" and bool(plain)


def _is_variant(path: PurePosixPath) -> bool:
    """Whether it is another precision of the weights: `model.fp16.safetensors`, `….fp16-00001-of-00002.…`."""
    return bool(re.search(r"\.(fp16|bf16|fp32|non_ema|ema)(-\d+-of-\d+)?\.", path.name))


def _ggufs(files: Sequence[RemoteFile], wanted: str) -> list[RemoteFile]:
    models = [
        f
        for f in files
        if f.path.endswith(".gguf") and not PurePosixPath(f.path).name.startswith("mmproj")
    ]
    firsts = [
        f for f in models if SPLIT.search(f.path) or not re.search(r"-of-\d{5}\.gguf$", f.path)
    ]
    named = [f for f in firsts if f.path == wanted]
    like = [f for f in firsts if wanted and wanted.lower() in f.path.lower()]
    usual = [f for f in firsts if not wanted and "q4_k_m" in f.path.lower()]
    smallest = sorted(firsts, key=lambda f: (f.size, f.path))[:1] if not wanted else []
    chosen = next(iter(named or like or usual or smallest), None)
    if chosen is None:
        return []
    if not SPLIT.search(chosen.path):
        return [chosen]
    stem = SPLIT.sub("", chosen.path)
    return [f for f in models if re.fullmatch(re.escape(stem) + r"-\d{5}-of-\d{5}\.gguf", f.path)]
