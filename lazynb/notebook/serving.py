"""Serve what pages send while a cell blocks.

A kernel takes one message of its shell channel at a time, so what a page sends waits until the running cell ends: the
report of a view, a click on Stop, and all that a page asks for after a reload. While a cell waits for an answer, its
thread has nothing else to do; here it takes the messages of comms itself, and leaves the others, in their order, for
afterwards.

ipykernel 7 hands the main thread its messages through a socket that is read here. For ipykernel 6 the library
jupyter_ui_poll does the same. Where neither fits, a page that opens a comm is still served by a subshell.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

CONCURRENT = {"comm_open", "comm_msg", "comm_close"}
SERVED = CONCURRENT | {"comm_info_request"}


def serving(kernel: Any) -> AbstractContextManager[Callable[[], object]]:
    """Give a function that serves the messages of comms that came since it was called last.

    It must be called in the main thread, in the cell that is running.
    """
    thread = getattr(kernel, "shell_channel_thread", None)
    pair = getattr(getattr(thread, "manager", None), "get_shell_channel_to_subshell_pair", None)
    if pair is not None:
        return _serving_pair(kernel, pair(None))
    if hasattr(kernel, "do_one_iteration"):
        return _serving_poll()
    return nullcontext(lambda: None)


@contextmanager
def _serving_poll() -> Iterator[Callable[[], object]]:
    from jupyter_ui_poll import ui_events

    with ui_events() as poll:
        yield lambda: poll(4)


@contextmanager
def _serving_pair(kernel: Any, pair: Any) -> Iterator[Callable[[], object]]:
    left: list[Any] = []

    def serve() -> None:
        while pair.to_socket.poll(0):
            frames = pair.to_socket.recv_multipart(copy=False)
            if not _serve(kernel, frames):
                left.append(frames)

    try:
        yield serve
    finally:
        # The stream's own callback takes the rest in the order in which it came, and then what it missed.
        for frames in left:
            kernel.io_loop.add_callback(pair.to_stream._recv_callback, frames)
        kernel.io_loop.add_callback(pair.to_stream.flush)


def _serve(kernel: Any, frames: Any) -> bool:
    """Handle a message that belongs to a comm; False for any other."""
    try:
        _, parts = kernel.session.feed_identities(frames, copy=False)
        header = kernel.session.deserialize(parts, content=False, copy=False)["header"]
    except Exception:  # noqa: BLE001 - whatever is wrong with it, the kernel will say
        return False
    kind = header["msg_type"]
    if kind not in SERVED:
        return False
    parent, ident = kernel.get_parent("shell"), kernel._shell_parent_ident.get()
    try:
        handling = kernel.dispatch_shell(frames, subshell_id=None, concurrent=kind in CONCURRENT)
        handling.send(None)  # the handlers of comms do not await
        handling.close()
    except StopIteration:
        pass
    finally:
        kernel.set_parent(ident, parent, channel="shell")
    return True
