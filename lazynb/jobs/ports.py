"""Ports of the loopback address: a free one, and who holds one that is not free."""

from __future__ import annotations

import socket

HOST = "127.0.0.1"


def free() -> int:
    """Return a port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def taken(port: int) -> bool:
    """Whether somebody listens on a port."""
    with socket.socket() as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # closed connections do not count
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
        return False


def holder(port: int) -> str:
    """Say which process listens on a port: its name and id, as far as this user may know."""
    import psutil

    from lazynb.jobs.process import mark_of

    for connection in psutil.net_connections("tcp"):
        address = connection.laddr
        if connection.status != psutil.CONN_LISTEN or not address or address.port != port:
            continue
        if connection.pid is None:
            break
        try:
            words = psutil.Process(connection.pid).cmdline()
        except psutil.Error:
            words = []
        job = mark_of(connection.pid)
        owner = f", job {job} of lazynb" if job else ""
        return f"process {connection.pid} ({_shortened(words)}{owner})"
    return "a process of another user"


def _shortened(words: list[str], width: int = 60) -> str:
    text = " ".join(words) or "unknown"
    return text if len(text) <= width else text[: width - 1] + "…"
