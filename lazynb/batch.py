"""Many inputs at once: `module.map(inputs, concurrency=16)`.

All requests run on the client's event loop; the caller's thread only draws the progress bar and applies the
formatter. One failing item does not spoil the others, and an interrupt keeps what is done.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence


class Results(list[Any]):
    """The results of `map`, in the order of the inputs.

    An item that failed, or that an interrupt left undone, is None; `errors` and `undone` say which is which.

    Attributes
    ----------
    errors : dict of int to Exception
        What went wrong, by the index of the input.
    undone : list of int
        The indices that an interrupt left undone.
    """

    errors: dict[int, Exception]
    undone: list[int]

    def __init__(self, items: Sequence[Any] = ()) -> None:
        super().__init__(items)
        self.errors = {}
        self.undone = []

    def raise_errors(self) -> Results:
        """Raise all errors together, or return the results when there are none."""
        if self.errors:
            raise ExceptionGroup(
                f"{len(self.errors)} of {len(self)} items failed", [*self.errors.values()]
            )
        return self


def run_all(
    request: Callable[[Any], Coroutine[Any, Any, Any]],
    finish: Callable[[Any], Any],
    inputs: Sequence[Any],
    *,
    concurrency: int,
    label: str,
    progress: bool,
) -> Results:
    """Run `finish(await request(x))` for each input, `concurrency` at a time."""
    from tqdm import tqdm

    from lazynb.client.loop import run

    missing = object()
    raw: list[Any] = [missing] * len(inputs)
    results = Results([None] * len(inputs))
    bar = tqdm(total=len(inputs), desc=label, unit="item", disable=not progress, mininterval=0.2)

    async def worker(queue: Any) -> None:
        for index in queue:
            try:
                raw[index] = await request(inputs[index])
            except Exception as error:  # noqa: BLE001 - reported per item
                results.errors[index] = error
            bar.update()

    async def everything() -> None:
        queue = iter(range(len(inputs)))  # shared: each worker takes the next index
        async with asyncio.TaskGroup() as group:
            for _ in range(min(concurrency, len(inputs))):
                group.create_task(worker(queue))

    try:
        run(everything())
    except KeyboardInterrupt:
        results.undone = [
            index
            for index, value in enumerate(raw)
            if value is missing and index not in results.errors
        ]
    finally:
        bar.close()
    for index, value in enumerate(raw):
        if value is missing:
            continue
        try:
            results[index] = finish(value)
        except Exception as error:  # noqa: BLE001 - reported per item
            results.errors[index] = error
    return results
