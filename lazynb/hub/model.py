"""A model: a name, and where its weights lie on this machine or come from."""

from __future__ import annotations

from typing import Literal

import msgspec

ModelType = Literal["chat", "vlm", "embed", "rerank", "image", "tts", "stt"]
Format = Literal["gguf", "safetensors", "other"]


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """What `resolve` found out about a name."""

    name: str
    """The short name that the user sees, and the model's name on the wire."""
    path: str
    """The file (GGUF) or the folder of the weights: where they are, or where they will be."""
    type: ModelType
    format: Format
    source: str
    """'path', 'root', 'cache', 'package', 'modelscope' or 'huggingface'."""
    present: bool
    """Whether the weights are on this machine; else `fetch` brings them."""
    size: int | None = None
    """Bytes to download, or on disk."""
