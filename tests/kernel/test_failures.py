"""What goes wrong says so: in the cell, in one line, in seconds; and the kernel goes on as if nothing had been."""

import json
import os
import resource
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.unit.fault_server import FaultServer

MODEL = "smollm2-135m-instruct"
SECONDS = 8


@pytest.fixture(scope="module")
def server():
    server = FaultServer()
    yield server
    server.close()


def fails(shell, cell, *said, seconds=SECONDS) -> str:
    """Run a cell that must fail in the way a user can act on; return what it shows."""
    begin = time.monotonic()
    reply = shell.run(cell)
    return failed(reply, *said, seconds=seconds, took=time.monotonic() - begin)


def failed(reply, *said, seconds=SECONDS, took=0.0) -> str:
    assert reply.status == "error"
    shown = "".join(o["text"] for o in reply.outputs if o["msg_type"] == "stream")
    assert reply.error.startswith("UsageError: ") or shown.startswith("UsageError: "), reply
    assert "Traceback" not in shown + reply.error
    for words in said:
        assert words in shown + reply.error
    said = shown[shown.index("UsageError") :].strip()
    assert len(said.splitlines()) <= 2, said  # what happened, and what to do
    assert took < seconds
    return shown


def goes_on(shell, running):
    """The next cell works, the manager does, and nothing is left of what failed."""
    assert shell.run("print(1 + 1)").text == "2"
    deadline = time.monotonic() + 5
    while left := running():
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    assert shell.run("%lazyllm ps").status == "ok"
    reply = shell.run(f"%%lazyllm {MODEL} --max-tokens 3 -o after\nhello")
    assert reply.status == "ok", reply.error
    assert shell.run("print(after.status)").text == "done"


def state_in(env, phase, seconds=20) -> dict:
    """Wait until some job is in a phase; return its state."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for path in Path(env["LAZYLLM_HOME"]).glob("jobs/*/state.json"):
            state = json.loads(path.read_bytes())
            if state["phase"] == phase and state.get("process"):
                return state
        time.sleep(0.005)
    raise AssertionError(f"no job was {phase}")


# Models and machines.


@pytest.mark.parametrize("cell", ["%lazyllm deploy {}", "%%lazyllm {}\nhi"])
def test_an_unknown_model_is_named_with_the_near_ones(shell, running, cell):
    fails(shell, cell.format("smollm2-135-instruct"), "'smollm2-135-instruct'", MODEL)
    fails(shell, cell.format("./no/such.gguf"), "no/such.gguf")
    assert not running()


@pytest.mark.parametrize("cell", ["%lazyllm deploy {} --wait", "%%lazyllm {}\nhi"])
def test_a_truncated_gguf_is_called_incomplete(shell, running, demo_model, tmp_path, cell):
    weights = demo_model.read_bytes()
    for size in (len(weights) // 2, 50_000):
        (tmp_path / "short.gguf").write_bytes(weights[:size])
        fails(shell, cell.format("./short.gguf"), "incomplete or broken", "get it again")
    goes_on(shell, running)


def test_a_file_that_is_no_gguf_or_cannot_be_read_is_named(shell, running, tmp_path):
    (tmp_path / "noise.gguf").write_bytes(b"GGUF" + os.urandom(4096))
    fails(shell, "%lazyllm deploy ./noise.gguf --wait", "noise")
    (tmp_path / "page.gguf").write_text("<!doctype html><title>404</title>")
    fails(shell, "%lazyllm deploy ./page.gguf --wait", "page.gguf", "GGUF")
    (tmp_path / "empty.gguf").touch()
    fails(shell, "%%lazyllm ./empty.gguf\nhi", "empty.gguf")
    goes_on(shell, running)


def test_a_file_without_permission_is_named(shell, running, tmp_path, demo_model):
    path = tmp_path / "locked.gguf"
    path.write_bytes(demo_model.read_bytes())
    path.chmod(0)
    # Root may read everything; a link into a folder that is gone is as unreadable for everybody.
    (tmp_path / "gone.gguf").symlink_to(tmp_path / "nowhere" / "gone.gguf")
    fails(shell, "%lazyllm deploy ./gone.gguf --wait", "gone.gguf")
    if os.geteuid():
        fails(shell, "%lazyllm deploy ./locked.gguf --wait", "locked.gguf")
    goes_on(shell, running)


def test_a_taken_port_is_an_error_that_names_who_holds_it(shell, running):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        fails(shell, f"%lazyllm deploy {MODEL} --port {port} --wait", str(port), str(os.getpid()))
    goes_on(shell, running)


def test_a_home_that_cannot_be_written_to_is_named(shell, running, tmp_path, kernel_env):
    (tmp_path / "file").touch()
    shell.run(f"%lazyllm config home={tmp_path}/file/home")
    for cell in (f"%lazyllm deploy {MODEL}", f"%%lazyllm {MODEL}\nhi"):
        fails(shell, cell, "cannot be started", "file", "LAZYLLM_HOME")
    shell.run(f"%lazyllm config home={kernel_env['LAZYLLM_HOME']}")
    goes_on(shell, running)


def test_no_space_for_the_state_is_an_error(shell, running):
    """A limit on the size of files stands for the full disk: the write fails in the middle, with an errno."""
    _, hard = resource.prlimit(shell.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(shell.pid, resource.RLIMIT_FSIZE, (0, hard))
    fails(
        shell, f"%lazyllm deploy {MODEL}", "cannot be started", "File too large", "free some space"
    )
    assert not running()
    resource.prlimit(shell.pid, resource.RLIMIT_FSIZE, (hard, hard))
    goes_on(shell, running)


def fill(path):
    with (path / "rest").open("wb", buffering=0) as rest, suppress(OSError):
        while True:
            rest.write(bytes(4096))


@pytest.fixture
def full_disk(tmp_path):
    """A folder on a disk that has no space left."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=100", "tmpfs", path]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a disk cannot be mounted here: {mounted.stderr.strip()}")
    fill(path)
    yield path
    subprocess.run(["umount", "-l", path], check=True)


def test_a_full_disk_is_named(shell, running, full_disk, kernel_env):
    shell.run(f"%lazyllm config home={full_disk}")
    fails(shell, f"%%lazyllm {MODEL}\nhi", "No space left on device", "free some space")
    assert not list(full_disk.glob("jobs/*"))
    shell.run(f"%lazyllm config home={kernel_env['LAZYLLM_HOME']}")
    goes_on(shell, running)


def test_a_disk_that_fills_up_while_an_engine_runs_takes_nothing_with_it(
    shell, running, full_disk, kernel_env
):
    (full_disk / "rest").unlink()
    shell.run(f"%lazyllm config home={full_disk}")
    assert shell.run(f"%lazyllm deploy {MODEL} --wait").status == "ok"
    fill(full_disk)
    assert shell.run(f"%%lazyllm {MODEL} --max-tokens 3\nhello").status == "ok"
    assert shell.run("%lazyllm stop all", timeout=20).status == "ok"
    shell.run(f"%lazyllm config home={kernel_env['LAZYLLM_HOME']}")
    goes_on(shell, running)


# Engines that die.


@pytest.mark.parametrize("cell", [f"%lazyllm deploy {MODEL} --wait", f"%%lazyllm {MODEL}\nhi"])
def test_an_engine_that_is_killed_while_it_loads(shell, running, kernel_env, cell):
    begun = shell.begin(cell)
    os.kill(state_in(kernel_env, "loading")["process"]["pid"], signal.SIGKILL)
    begin = time.monotonic()
    failed(shell.finish(begun), MODEL, "signal 9", "memory", took=time.monotonic() - begin)
    goes_on(shell, running)


def test_an_engine_that_is_killed_in_mid_answer_leaves_the_text_that_came(
    shell, running, kernel_env
):
    shell.run(f"%lazyllm deploy {MODEL} --wait")
    begun = shell.begin(f"%%lazyllm {MODEL} --max-tokens 4000 --ignore-eos true -o answer\nCount.")
    time.sleep(1)
    os.kill(state_in(kernel_env, "ready")["process"]["pid"], signal.SIGKILL)
    begin = time.monotonic()
    reply = shell.finish(begun)
    failed(reply, MODEL, "mid-answer", took=time.monotonic() - begin)
    status, text = shell.run("print(answer.status, answer.text)").text.split(" ", 1)
    assert status == "failed"
    assert len(text) > 20
    assert reply.settled["text/plain"].startswith(text[:20])
    assert "mid-answer" in reply.settled["text/plain"]
    assert "mid-answer" in reply.settled["text/markdown"]
    goes_on(shell, running)


# Servers that are not ours.

SERVERS = {
    "status-401": ("wants a key", "api_key"),
    "status-429": ("too many requests", "7 s"),
    "status-500": ("failed", "500", "CUDA out of memory"),
    "html": ("not an answer", "Welcome to nginx"),
    "other-json": ("not an answer",),
    "not-http": ("not an answer",),
    "drops-all": ("cannot be reached", "closed the connection"),
    "silent": ("said nothing for 1 seconds", "timeout"),
}


@pytest.mark.parametrize("fault", SERVERS)
def test_a_server_that_fails_is_named_with_what_to_do(shell, server, fault):
    url = server.url(fault)
    shell.run(
        "import lazynb\n"
        f"m = lazynb.TrainableModule('demo').deploy_method(lazynb.deploy.vllm, url={url!r})"
    )
    fails(shell, "%%lazyllm m --timeout 1 -o answer\nhi", *SERVERS[fault], seconds=4)
    assert shell.run("print(answer.status, repr(answer.text))").text == "failed ''"
    assert shell.run("%lazyllm ps").status == "ok"


@pytest.mark.parametrize("fault", ["cut", "ends-early", "error-event", "bad-event", "stuck"])
def test_a_stream_that_breaks_leaves_the_text_that_came(shell, server, fault):
    url = server.url(fault)
    shell.run(
        "import lazynb\n"
        f"m = lazynb.TrainableModule('demo').deploy_method(lazynb.deploy.vllm, url={url!r})"
    )
    begun = shell.begin("%%lazyllm m --timeout 1 -o answer\nhi")
    queued = shell.begin("print('queued')")
    reply = shell.finish(begun, timeout=5)
    failed(reply)
    assert reply.settled["text/plain"].startswith("Paris")
    assert "failed" in reply.settled["text/markdown"]
    assert shell.finish(queued).status == "aborted"  # Run All stops
    assert shell.run("print(answer.status, answer.text)").text.startswith("failed Paris")


@pytest.mark.parametrize("fault", ["silent", "status-401"])
def test_a_server_that_does_not_even_say_what_it_serves(shell, server, fault):
    url = server.url(fault)
    shell.run(f"import lazynb\nm = lazynb.TrainableModule().deploy_method('vllm', url={url!r})")
    fails(shell, "%%lazyllm m --timeout 1\nhi", *SERVERS[fault], seconds=4)


def test_nobody_at_the_address(shell):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    shell.run(
        "import lazynb\n"
        f"m = lazynb.TrainableModule('demo').deploy_method(lazynb.deploy.vllm, url='127.0.0.1:{port}')"
    )
    fails(shell, "%%lazyllm m\nhi", "cannot be reached", "Connection refused", seconds=4)


def test_a_supervisor_that_is_killed_takes_its_engine_along(shell, running, kernel_env):
    shell.run(f"%lazyllm deploy {MODEL} --wait")
    state = state_in(kernel_env, "ready")
    os.kill(state["supervisor"]["pid"], signal.SIGKILL)
    psutil.wait_procs(
        [psutil.Process(p) for p in [state["process"]["pid"]] if psutil.pid_exists(p)], 5
    )
    goes_on(shell, running)
