"""LoRA adapters beside their base model: one option, `lora_modules={'name': 'folder'}`, for all that serve them.

A request chooses one by its `model`; the service's own name is the base.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from lazynb.engines.base import Option

if TYPE_CHECKING:
    from collections.abc import Mapping

CONFIG = "adapter_config.json"
VERSION = "version.json"


@dataclass(frozen=True)
class Adapters(Option):
    """The option: its folders are looked at before anything starts."""

    plain: bool = False
    """Whether the engine knows nothing but plain LoRA: no DoRA, no trained biases, no modules trained as a whole."""

    def convert(self, value: Any) -> dict[str, str]:
        """Return name → absolute path of an adapter; on a magic's line it is written `name=folder,name=folder`.

        Raises
        ------
        ValueError
            One is no LoRA adapter, or the engine cannot serve it.
        """
        if isinstance(value, str):
            value = value.split(",")
        if isinstance(value, list):
            value = dict(str(item).partition("=")[::2] for item in value)
        if not isinstance(value, dict) or not all(value) or not all(value.values()):
            raise ValueError("it is {'name': 'folder of an adapter'}")
        return {str(name): self._checked(Path(path)) for name, path in value.items()}

    def _checked(self, given: Path) -> str:
        folder = _within_run(given.expanduser().absolute())
        facts = config_of(folder)
        if facts.get("peft_type") != "LORA":
            raise ValueError(f"{folder} is an adapter of type {facts.get('peft_type')}, not LORA")
        special = [
            name for name in ("use_dora", "modules_to_save", "target_parameters") if facts.get(name)
        ]
        special += ["bias"] if facts.get("bias", "none") != "none" else []
        if self.plain and special:
            raise ValueError(
                f"{folder} has {', '.join(special)}, which is more than LoRA; merge it into its base"
            )
        return str(folder)


def option(*, plain: bool = False) -> Adapters:
    """Return the option of an engine."""
    text = "name → folder of a LoRA adapter, which a call chooses by model='name'"
    return Adapters(dict[str, str], text, plain=plain)


def config_of(folder: Path) -> dict[str, Any]:
    """Return what PEFT wrote about an adapter.

    Raises
    ------
    ValueError
        There is none.
    """
    try:
        return msgspec.json.decode((folder / CONFIG).read_bytes(), type=dict[str, Any])
    except OSError:
        raise ValueError(f"{folder} is no adapter: it has no {CONFIG}") from None
    except msgspec.MsgspecError as error:
        raise ValueError(f"{folder / CONFIG} cannot be read: {error}") from None


def rank(folders: Mapping[str, str]) -> int:
    """Return the highest rank among adapters."""
    return max(int(config_of(Path(folder)).get("r", 8)) for folder in folders.values())


def _within_run(folder: Path) -> Path:
    """Return the adapter in the folder of a fine-tuning run; another folder as it is."""
    try:
        adapter = json.loads((folder / VERSION).read_bytes()).get("adapter")
    except (OSError, ValueError, AttributeError):
        return folder
    return folder / adapter if adapter else folder
