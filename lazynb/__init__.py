"""lazynb: deploy, call and fine-tune models from a Jupyter notebook.

    %load_ext lazynb
    %%lazyllm smollm2-135m-instruct
    Tell me a joke about GPUs.

and the same in Python:

    m = lazynb.TrainableModule('smollm2-135m-instruct').start()
    m("Tell me a joke about GPUs.")

Every public name is imported when it is first used, so that importing lazynb costs nothing.
"""

import sys as _sys
from importlib import import_module as _import_module
from typing import TYPE_CHECKING, Any

from lazynb.config import config

if TYPE_CHECKING:
    from lazynb import errors, formatter
    from lazynb.flow import (
        bind,
        diverter,
        graph,
        ifs,
        loop,
        package,
        parallel,
        pipeline,
        switch,
        warp,
    )
    from lazynb.methods import deploy, finetune
    from lazynb.module import TrainableModule
    from lazynb.notebook import load_ipython_extension, unload_ipython_extension
    from lazynb.query import decode_query_with_filepaths, encode_query_with_filepaths
    from lazynb.stream_helper import StreamCallHelper
    from lazynb.streaming import Answer
    from lazynb.training import runs

__version__ = "0.1.0"

_HOME = {
    "Answer": "lazynb.streaming",
    "StreamCallHelper": "lazynb.stream_helper",
    "TrainableModule": "lazynb.module",
    "bind": "lazynb.flow",
    "decode_query_with_filepaths": "lazynb.query",
    "deploy": "lazynb.methods",
    "diverter": "lazynb.flow",
    "encode_query_with_filepaths": "lazynb.query",
    "errors": "lazynb.errors",
    "finetune": "lazynb.methods",
    "formatter": "lazynb.formatter",
    "graph": "lazynb.flow",
    "ifs": "lazynb.flow",
    "load_ipython_extension": "lazynb.notebook",
    "loop": "lazynb.flow",
    "package": "lazynb.flow",
    "parallel": "lazynb.flow",
    "pipeline": "lazynb.flow",
    "runs": "lazynb.training",
    "switch": "lazynb.flow",
    "unload_ipython_extension": "lazynb.notebook",
    "warp": "lazynb.flow",
    **{f"_{n}": "lazynb.flow" for n in range(10)},  # the placeholders of bind
}

__all__ = [
    "Answer",
    "StreamCallHelper",
    "TrainableModule",
    "bind",
    "config",
    "decode_query_with_filepaths",
    "deploy",
    "diverter",
    "encode_query_with_filepaths",
    "errors",
    "finetune",
    "formatter",
    "graph",
    "ifs",
    "load_ipython_extension",
    "loop",
    "package",
    "parallel",
    "pipeline",
    "runs",
    "switch",
    "unload_ipython_extension",
    "warp",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'lazynb' has no attribute {name!r}")
    home = _import_module(_HOME[name])
    value = home if home.__name__ == f"{__name__}.{name}" else getattr(home, name)
    globals()[name] = value
    if name == "TrainableModule":
        _show_progress_in_cells()
    return value


def _show_progress_in_cells() -> None:
    """Where a cell waits for a model that starts, let it show how the model comes up."""
    ipython = _sys.modules.get("IPython")
    if ipython is None or ipython.get_ipython() is None:
        return
    from lazynb import service

    service.on_start = lambda job: _import_module("lazynb.notebook.progress").show_job(
        job, block=True
    )
    service.on_run = lambda run: _import_module("lazynb.notebook.curve").show_run(run, block=True)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
