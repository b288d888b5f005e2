"""The threads that torch computes with on a processor."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def no_pool(wanted: int | None) -> Iterator[None]:
    """Have this thread compute alone; afterwards one does with `wanted` threads, or with as many as torch takes.

    OpenMP keeps a pool of threads for every thread that ever computed with several. With more threads in all pools
    than cores, GNU's no longer waits awake between two operations: where the thread that loaded a model had a pool
    beside the one that generated, tokens came at half the rate.
    """
    import torch

    count = wanted or torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(count)
