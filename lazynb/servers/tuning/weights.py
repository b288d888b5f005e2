"""Weights in the forms that training and serving take: GGUF to a full-precision folder, and back.

A trainer needs a folder that transformers reads. A GGUF file is unpacked into one, once per machine. What was
tuned goes back into a GGUF file that keeps the original's metadata and tokenizer, so that llama.cpp serves it exactly
as it served the base model.
"""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

PERMUTED = ("llama", "mistral")
"""Architectures whose query and key rows llama.cpp orders differently."""


def unpack(gguf: Path, folder: Path) -> None:
    """Write the full-precision folder of a GGUF file, at once or not at all."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    fresh = folder.with_name(f"{folder.name}.{os.getpid()}")
    where = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    model: Any = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.bfloat16)
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    tokenizer = AutoTokenizer.from_pretrained(**where)
    # transformers takes the first special token for the end of a text; the GGUF file says which one it is.
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(model.config.eos_token_id)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model.save_pretrained(fresh)
    tokenizer.save_pretrained(fresh)
    (fresh / "source.json").write_text(json.dumps({"gguf": gguf.name, "size": gguf.stat().st_size}))
    try:
        fresh.rename(folder)
    except OSError:  # another run was faster
        shutil.rmtree(fresh)


def pack(folder: Path, original: Path, target: Path) -> None:
    """Write the weights of a folder as a GGUF file (Q8_0) with the metadata and the tokenizer of another."""
    import gguf
    from safetensors import safe_open

    reader = gguf.GGUFReader(original)
    kind = reader.fields["general.architecture"].contents()
    layers = reader.fields[f"{kind}.block_count"].contents()
    architecture = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == kind)
    names = gguf.get_tensor_name_map(architecture, layers)
    heads = {
        "q_proj": reader.fields[f"{kind}.attention.head_count"].contents(),
        "k_proj": reader.fields[f"{kind}.attention.head_count_kv"].contents(),
    }
    fresh = target.with_suffix(".new")
    writer = gguf.GGUFWriter(fresh, kind)
    _copy_metadata(reader, writer, gguf)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118  (it is no mapping)
                name = names.get_name(key, try_suffixes=(".weight", ".bias"))
                if name is None:
                    raise ValueError(f"llama.cpp has no place for the tensor {key}")
                data = tensors.get_tensor(key).float().numpy()
                for projection, count in heads.items():
                    if f".{projection}." in key and kind in PERMUTED:
                        data = _permute(data, count)
                _add(writer, gguf, name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    fresh.rename(target)


def _copy_metadata(reader: Any, writer: Any, gguf: Any) -> None:
    skipped = ("GGUF.", "general.architecture", "general.file_type", "general.quantization_version")
    for name, field in reader.fields.items():
        if name.startswith(skipped):
            continue
        array = field.types[0] == gguf.GGUFValueType.ARRAY
        inner = field.types[-1] if array else None
        writer.add_key_value(name, field.contents(), field.types[0], sub_type=inner)


def _permute(data: Any, heads: int) -> Any:
    """Order the rows of a query or key projection as llama.cpp's rotary embedding takes them."""
    half = data.shape[0] // heads // 2
    return data.reshape(heads, 2, half, *data.shape[1:]).swapaxes(1, 2).reshape(data.shape)


def _add(writer: Any, gguf: Any, name: str, data: Any) -> None:
    eight = gguf.GGMLQuantizationType.Q8_0
    block = gguf.GGML_QUANT_SIZES[eight][0]
    if data.ndim == 1:
        writer.add_tensor(name, data)
    elif data.shape[-1] % block:
        writer.add_tensor(name, data.astype("float16"))
    else:
        writer.add_tensor(name, gguf.quants.quantize(data, eight), raw_dtype=eight)
