"""Settings: `LAZYLLM_*` environment variables, read when they are used.

Nothing is frozen at import, so `os.environ[...] = ...` in a cell takes effect in the next one.
`lazynb.config` shows each setting with its value and where the value came from.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import msgspec

from lazynb.errors import OptionError

PREFIX = "LAZYLLM_"


@dataclass(frozen=True)
class Setting:
    """One setting: its type, its default and one line of help."""

    type: Any
    default: Any
    help: str


SETTINGS: dict[str, Setting] = {
    "home": Setting(str, "~/.lazyllm", "Where lazynb keeps models, environments and jobs"),
    "model_path": Setting(str, "", "Folders to look for models in, separated by ':'"),
    "model_cache_dir": Setting(str, "", "Where downloaded models go (default: HOME/models)"),
    "envs_dir": Setting(str, "", "Where engines' environments are made (default: HOME/envs)"),
    "model_source": Setting(
        Literal["modelscope", "huggingface"], "modelscope", "The hub that is asked first"
    ),
    "offline": Setting(bool, False, "Never download: only what is on this machine"),
    "train_target_root": Setting(str, "./save_ckpt", "Where fine-tuned weights are saved"),
    "autostart": Setting(bool, True, "Calling a model that is not running starts it"),
    "plain": Setting(bool, False, "Never use widgets: plain output in every front end"),
    "start_timeout": Setting(float, 600.0, "Seconds a service may take until it is ready"),
    "stop_grace": Setting(float, 5.0, "Seconds between SIGTERM and SIGKILL when a job is stopped"),
    "idle_timeout": Setting(float, 0.0, "Seconds after which an unused service stops (0: never)"),
    "memory_check": Setting(bool, True, "A service that would not fit into memory is not started"),
    "log_bytes": Setting(int, 4_000_000, "Size at which a job's log file is rotated, in bytes"),
}


class Config:
    """The settings as attributes: `config.home`, `config.model_source`, …

    Order: a value set on this object, the environment variable, the default.
    """

    def __init__(self) -> None:
        object.__setattr__(self, "_overrides", {})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self.lookup(name)[0]

    def __setattr__(self, name: str, value: Any) -> None:
        self._overrides[name] = self._convert(name, value, "config")

    def __delattr__(self, name: str) -> None:
        self._setting(name)
        self._overrides.pop(name, None)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *SETTINGS]

    def lookup(self, name: str) -> tuple[Any, str]:
        """Return a setting's value and where it came from."""
        setting = self._setting(name)
        if name in self._overrides:
            return self._overrides[name], "set in this kernel"
        variable = PREFIX + name.upper()
        if variable in os.environ:
            return self._convert(name, os.environ[variable], variable), variable
        return setting.default, "default"

    def _setting(self, name: str) -> Setting:
        if name not in SETTINGS:
            near = get_close_matches(name, SETTINGS, n=3) or sorted(SETTINGS)
            raise OptionError(
                f"There is no setting {name!r}", hint=f"Did you mean: {', '.join(near)}?"
            )
        return SETTINGS[name]

    def _convert(self, name: str, value: Any, origin: str) -> Any:
        setting = self._setting(name)
        if isinstance(value, str) and setting.type is bool:
            value = value.strip().lower()
            value = {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(value, value)
        try:
            return msgspec.convert(value, setting.type, strict=False)
        except msgspec.ValidationError as error:
            raise OptionError(f"{origin}: {name} = {value!r}: {error}", hint=setting.help) from None

    def __repr__(self) -> str:
        rows = [(name, *self.lookup(name)) for name in SETTINGS]
        width = max(len(name) for name in SETTINGS)
        return "\n".join(f"{name:<{width}}  {value!r}  ({origin})" for name, value, origin in rows)

    # Folders that follow from the settings.

    @property
    def home_dir(self) -> Path:
        """The folder of everything that lazynb keeps."""
        return Path(self.home).expanduser()

    @property
    def jobs_dir(self) -> Path:
        """One folder per background job."""
        return self.home_dir / "jobs"

    @property
    def cache_dir(self) -> Path:
        """Downloaded models."""
        return Path(self.model_cache_dir or self.home_dir / "models").expanduser()

    @property
    def envs_path(self) -> Path:
        """The environments of engines."""
        return Path(self.envs_dir or self.home_dir / "envs").expanduser()

    @property
    def model_roots(self) -> list[Path]:
        """The folders of `LAZYLLM_MODEL_PATH`."""
        return [Path(root).expanduser() for root in self.model_path.split(":") if root]


config = Config()
