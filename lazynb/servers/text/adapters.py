"""LoRA adapters beside their base model, each request its own: all in one batch, over one copy of the base."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping


class Adapters:
    """The adapters of a model.

    Parameters
    ----------
    model : PreTrainedModel
        The base; its layers get the adapters' weights beside their own.
    folders : mapping
        Name → folder, as PEFT writes it.
    """

    def __init__(self, model: Any, folders: Mapping[str, str]) -> None:
        self._inner = {name: f"adapter{i}" for i, name in enumerate(folders)}
        self._rows: dict[str, torch.Tensor] = {}
        wrapped: Any = None
        for name, folder in folders.items():
            from peft import PeftModel

            inner = self._inner[name]
            if wrapped is None:
                wrapped = PeftModel.from_pretrained(model, folder, adapter_name=inner)
            else:
                wrapped.load_adapter(folder, adapter_name=inner)
        if folders:
            from peft.tuners.lora import LoraLayer

            for layer in model.modules():
                if isinstance(layer, LoraLayer):
                    layer.forward = partial(self._forward, layer)

    def assign(self, spans: list[tuple[str, int]]) -> None:
        """Say whose the tokens of the next step are.

        Parameters
        ----------
        spans : list of (str, int)
            For each request in the batch its adapter, and how many tokens it has there. Other names are the base.
        """
        rows: dict[str, list[int]] = {}
        begin = 0
        for name, length in spans:
            if name in self._inner:
                rows.setdefault(self._inner[name], []).extend(range(begin, begin + length))
            begin += length
        self._rows = {name: torch.tensor(places) for name, places in rows.items()}

    def _forward(self, layer: Any, x: torch.Tensor) -> torch.Tensor:
        """Compute a layer for a batch of one row, (1, tokens, width)."""
        result: torch.Tensor = layer.base_layer(x)
        for name, rows in self._rows.items():
            if name in layer.lora_A:
                part = x[:, rows].to(layer.lora_A[name].weight.dtype)
                more = layer.lora_B[name](layer.lora_A[name](part)) * layer.scaling[name]
                result[:, rows] += more.to(result.dtype)
        return result
