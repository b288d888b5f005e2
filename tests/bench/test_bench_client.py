"""Reading a stream costs little, and delays nothing that matters."""

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

HERE = Path(__file__).parent

pytestmark = [pytest.mark.bench, pytest.mark.slow]


@contextmanager
def sending(chunks, pause):
    """Run a server that sends, in a process of its own; gives its port."""
    command = [sys.executable, HERE / "sse_server.py", str(chunks), str(pause)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def read(client, port):
    """CPU and wall clock seconds, and characters, of one stream read in a process of its own."""
    command = [sys.executable, HERE / "read_stream.py", client, port, "1"]
    out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    return tuple(float(word) for word in out.split())


@pytest.mark.parametrize(
    ("what", "chunks", "pause"),
    [("20,000 chunks at once", 20_000, 0), ("400 chunks a second", 1_000, 0.0025)],
)
def test_a_stream_costs_a_third_of_what_it_costs_the_official_client(measured, what, chunks, pause):
    with sending(chunks, pause) as port:
        runs = {client: [read(client, port) for _ in range(2)] for client in ("lazynb", "openai")}
    ours, theirs = ([*map(min, zip(*runs[client], strict=True))] for client in ("lazynb", "openai"))
    assert ours[2] == theirs[2]  # the same text
    measured(f"CPU per chunk, {what}", 1e6 * ours[0] / chunks, unit="us")
    measured(f"CPU per chunk, {what}: openai", 1e6 * theirs[0] / chunks, unit="us")
    measured(f"time until read, {what}, to openai's", ours[1] / theirs[1], at_most=1.05)
    measured(f"CPU of reading {what}, to openai's", ours[0] / theirs[0], at_most=1 / 3)
