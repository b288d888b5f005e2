"""Many requests, one computing thread.

What arrives while the thread works is computed together next: nobody waits for a batch to fill, and many small requests
are as fast as one large one. Requests take turns, so that a large one does not hold up the others.
"""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Items = list[Any]

BATCH_COST = 300
"""Letters of padding that cost a processor as much as one more batch does."""


@dataclass(eq=False)
class _Request:
    """What one request wants, the longest first: neighbours are padded to the same length."""

    items: Items
    results: Items
    order: list[int]
    done: asyncio.Future[None]

    def take(self, room: int) -> list[tuple[_Request, int]]:
        """Return (this request, index) of the items that are next."""
        taken, self.order = self.order[:room], self.order[room:]
        return [(self, index) for index in taken]


class Batcher:
    """Computes the items of all requests that wait.

    Parameters
    ----------
    compute : callable
        Takes a list of items and returns a list of as many results.
    length : callable
        How long an item is.
    turn : int
        How many items are computed in one turn, of all requests together.
    """

    def __init__(
        self, compute: Callable[[Items], Items], length: Callable[[Any], int], turn: int
    ) -> None:
        self._compute = compute
        self._length = length
        self._turn = turn
        self._waiting: deque[_Request] = deque()
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1)
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, items: Items) -> Items:
        """Return the results for some items; a caller who leaves takes what was not begun along."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        order = sorted(range(len(items)), key=lambda index: -self._length(items[index]))
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        request = _Request(items, [None] * len(items), order, done)
        self._waiting.append(request)
        self._wake.set()
        await request.done  # cancelled with the caller
        return request.results

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            turn = self._next()
            if not turn:
                self._wake.clear()
                await self._wake.wait()
                continue
            items = [request.items[index] for request, index in turn]
            try:
                results = await loop.run_in_executor(self._thread, self._compute, items)
            except Exception as error:  # noqa: BLE001  those who asked get it
                for request, _ in turn:
                    if not request.done.done():
                        request.done.set_exception(error)
                continue
            for (request, index), result in zip(turn, results, strict=True):
                request.results[index] = result
            last = turn[-1][0]
            if last.order:
                self._waiting.append(last)  # behind those who came meanwhile
            for request in {request: None for request, _ in turn}:
                if not request.order and not request.done.done():
                    request.done.set_result(None)

    def _next(self) -> list[tuple[_Request, int]]:
        """Return the items of the next turn: all of some requests, and some of the last one."""
        turn: list[tuple[_Request, int]] = []
        while self._waiting and len(turn) < self._turn:
            request = self._waiting.popleft()
            if not request.done.done():
                turn += request.take(self._turn - len(turn))
        return turn


def batches(lengths: Sequence[int], size: int, *, cheap: bool) -> Iterator[list[int]]:
    """Yield the indices of items to compute together, the longest first.

    Parameters
    ----------
    lengths : sequence of int
        How many letters the items have.
    size : int
        The most in a batch.
    cheap : bool
        Whether another batch costs less than much padding, as it does on a processor.
    """
    batch: list[int] = []
    padding = 0
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if batch:
            padding += lengths[batch[0]] - lengths[index]
            if len(batch) == size or (cheap and padding > BATCH_COST):
                yield batch
                batch, padding = [], 0
        batch.append(index)
    if batch:
        yield batch
