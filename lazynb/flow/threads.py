"""Threads for the branches of flows: bounded, shared, free of deadlocks at any depth.

There is no queue in front of the threads. Whoever forks takes a free thread for each task; when
none is free, the forking thread does the task itself. So a thread only ever waits for tasks that
another thread is at work on, and a hundred nested forks end with one thread as they do with
sixty-four. Threads are daemons: a branch that an interrupt left behind does not keep the
interpreter alive.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Task = Callable[[], Iterable["Task"]]  # returns the tasks that can begin now that it is done

MAX_THREADS = 64
_free = threading.BoundedSemaphore(MAX_THREADS)


def run_all(tasks: Iterable[Task], limit: int) -> None:
    """Run tasks, and those that follow from them, at most `limit` at a time.

    Raises
    ------
    BaseException
        The first error of a task, at once: tasks that have not begun are dropped, those under way are left alone.
        A KeyboardInterrupt in the waiting thread does the same.
    """
    _Crew(tasks, limit).run()


class _Crew:
    """The tasks of one fork and the threads that work on them."""

    def __init__(self, tasks: Iterable[Task], limit: int) -> None:
        self._waiting = deque(tasks)
        self._working = 0
        self._limit = limit
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def run(self) -> None:
        try:
            with self._changed:
                while self._error is None and (self._waiting or self._working):
                    if not self._waiting or self._working >= self._limit:
                        self._changed.wait()
                        continue
                    task = self._waiting.popleft()
                    if not self._hire(task):
                        self._do(task)
        finally:
            self._waiting.clear()
        if self._error is not None:
            raise self._error

    def _hire(self, task: Task) -> bool:
        """Start one more thread with that task, where one is free."""
        if not _free.acquire(blocking=False):
            return False
        thread = threading.Thread(target=self._work, args=(task,), name="lazynb-flow", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system gives no more threads
            _free.release()
            return False
        self._working += 1
        return True

    def _work(self, task: Task) -> None:
        """Do a task, and then what else is waiting."""
        try:
            with self._changed:
                self._do(task)
                while self._waiting:
                    self._do(self._waiting.popleft())
                self._working -= 1
                self._changed.notify_all()
        finally:
            _free.release()

    def _do(self, task: Task) -> None:
        """Do a task; called with the lock held, which is let go meanwhile."""
        self._changed.release()
        following: Iterable[Task] = ()
        error: BaseException | None = None
        try:
            following = task()
        except BaseException as caught:  # noqa: BLE001 - raised where the fork waits
            error = caught
        finally:
            self._changed.acquire()
        if error is not None:
            self._error = self._error or error
            self._waiting.clear()
        elif self._error is None:
            self._waiting.extend(following)
        self._changed.notify_all()
