"""What goes wrong with a job ends in a cause and a hint within seconds, and leaves nothing running."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from lazynb.errors import JobError, LazynbError
from lazynb.jobs import ports
from lazynb.jobs.spec import CauseRule, Command, Probe

SERVICE = str(Path(__file__).parents[1] / "programs" / "service.py")
READY = Probe("/v1/chat/completions", {})


def failure(job, seconds=30):
    with pytest.raises(JobError) as caught:
        job.wait(seconds)
    assert job.state.phase == "failed"
    return caught.value


def test_a_program_that_ends_while_loading(jobs):
    error = failure(
        jobs.service("--say", "reading weights", "--say", "ValueError: bad magic", "--crash", "7")
    )
    assert error.message == "demo failed: ValueError: bad magic"
    assert (error.job, error.returncode) == ("demo", 7)
    assert error.log_tail == ["reading weights", "ValueError: bad magic"]


def test_the_engines_own_rules_explain_a_failure_first(jobs):
    rule = CauseRule(
        r"magic (?P<magic>\w+)", "the file begins with {magic}", "Download it again ({magic})."
    )
    error = failure(
        jobs.service("--say", "ValueError: magic 6767", "--crash", "1", command={"causes": [rule]})
    )
    assert (error.message, error.hint) == (
        "demo failed: the file begins with 6767",
        "Download it again (6767).",
    )


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("OSError: [Errno 28] No space left on device", "the disk is full"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate", "the GPU has not enough"),
        (
            "terminate called after throwing an instance of 'std::bad_alloc'",
            "the machine has not enough",
        ),
        ("ModuleNotFoundError: No module named 'vllm'", "lacks the module vllm"),
        ("bye", "it ended with exit code 1"),
    ],
)
def test_common_failures_are_named(jobs, line, cause):
    assert cause in failure(jobs.service("--say", line, "--crash", "1")).message


def test_a_program_killed_by_the_system_is_said_to_have_lacked_memory(jobs):
    job = jobs.service()
    os.kill(job.wait(30).process.pid, signal.SIGKILL)
    error = failure_after_ready(job)
    assert "ran out of memory" in error.message
    assert error.returncode == -9


def failure_after_ready(job):
    with pytest.raises(JobError) as caught:
        job.wait(30, ended=True)
    return caught.value


def test_a_program_that_ends_after_it_was_ready(jobs):
    job = jobs.service()
    job.wait(30)
    with pytest.raises(OSError):
        urllib.request.urlopen(
            urllib.request.Request(job.url.removesuffix("/v1") + "/die", b""), timeout=5
        )
    error = failure_after_ready(job)
    assert error.returncode == 3
    assert error.log_tail[-1] == "engine error: the weights fell over"


def test_a_service_that_ends_well_without_being_asked_has_failed(jobs):
    assert failure(jobs.service("--crash", "0")).message == "demo failed: it ended with exit code 0"


def test_what_a_failed_program_leaves_behind_is_ended_too(jobs, tmp_path, eventually):
    orphan = tmp_path / "orphan"
    job = jobs.service("--orphan", str(orphan), "--load", "1", "--crash", "1")
    failure(job)
    assert not Path(f"/proc/{orphan.read_text()}/exe").exists()


def test_a_service_that_is_never_ready(jobs, monkeypatch):
    monkeypatch.setenv("LAZYLLM_START_TIMEOUT", "1")
    error = failure(jobs.service("--silent"))
    assert error.message == "demo failed: it was not ready within 1 s"
    assert "LAZYLLM_START_TIMEOUT" in error.hint


def test_a_timeout_tells_the_last_answer(jobs, monkeypatch):
    monkeypatch.setenv("LAZYLLM_START_TIMEOUT", "1")
    assert "its last answer: HTTP 503" in failure(jobs.service("--status", "503")).message


@pytest.mark.slow
def test_a_service_that_refuses_its_own_key_fails_long_before_the_timeout(jobs):
    job = jobs.submit(
        Command(
            argv=[
                sys.executable,
                SERVICE,
                "{port}",
            ],
            env={"KEY": "another"},
            ready=READY,
        )
    )
    assert "it refuses requests: HTTP 401" in failure(job).message


def test_a_program_that_does_not_exist(jobs):
    error = failure(jobs.submit(Command(argv=["/nowhere/python", "-m", "engine"])))
    assert error.message == "demo failed: /nowhere/python cannot be run: No such file or directory"
    assert "install it again" in error.hint


def test_a_fixed_port_that_is_taken_names_its_holder(jobs):
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import socket as s, time; x = s.create_server(('127.0.0.1', 0)); print(x.getsockname()[1], flush=True); time.sleep(60)",
        ],
        stdout=subprocess.PIPE,
    )
    try:
        port = int(holder.stdout.readline())
        error = failure(jobs.service(port=port))
        assert f"port {port} is taken by process {holder.pid} (" in error.message
        careless = Command([sys.executable, "-c", "import time; time.sleep(60)"], ready=READY)
        assert f"port {port} is taken" in failure(jobs.submit(careless, port=port)).message
    finally:
        holder.kill()
        holder.wait()
    job = jobs.service(port=port)
    assert job.wait(30).port == port
    assert f"job {job.id} of lazynb" in failure(jobs.service(port=port)).message


def test_a_free_port_that_is_lost_on_the_way_is_replaced(jobs, tmp_path):
    """The first two starts find their port taken, as when another program was faster."""
    count = tmp_path / "count"
    code = """
import os, pathlib, sys
count = pathlib.Path(sys.argv[1])
before = count.read_text() if count.exists() else ""
count.write_text(before + "x")
if len(before) < 2:
    sys.exit("OSError: [Errno 98] Address already in use")
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""
    argv = [sys.executable, "-c", code, str(count), SERVICE, "{port}"]
    job = jobs.submit(Command(argv, {"KEY": "{key}"}, ready=READY))
    assert job.wait(30).phase == "ready"
    assert len(count.read_text()) == 3


def test_a_killed_supervisor_takes_its_program_along_and_the_rest_is_cleaned_up(
    jobs, tmp_path, eventually
):
    orphan = tmp_path / "orphan"
    job = jobs.service("--stubborn", "--orphan", str(orphan))
    state = job.wait(30)
    daemon = int(eventually(orphan.exists) and orphan.read_text())
    os.kill(state.supervisor.pid, signal.SIGKILL)
    eventually(lambda: not Path(f"/proc/{state.process.pid}/exe").exists(), seconds=2)
    other = jobs.another_kernel()
    other.collect()
    assert not Path(f"/proc/{daemon}/exe").exists()
    error = failure(job)
    assert error.message == "demo failed: its supervisor was killed"
    assert "Start it again" in error.hint
    job.stop()


def test_a_supervisor_that_cannot_start_is_a_failure_with_its_traceback(jobs, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent / "nowhere"))
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert failure(jobs.service()).message == "demo failed: its supervisor did not start"


@pytest.mark.parametrize("place", ["/proc/lazynb", "/dev/null/home"])
def test_a_state_folder_that_cannot_be_written(jobs, monkeypatch, place):
    jobs.manager.root = Path(place)
    with pytest.raises(LazynbError, match="demo cannot be started") as caught:
        jobs.service()
    assert "LAZYLLM_HOME" in caught.value.hint
    assert jobs.manager.jobs() == []


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 128 KB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k,mode=700", "tmpfs", disk], capture_output=True
    )
    if mount.returncode:
        pytest.skip("this user may not mount a small disk")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def fill(disk):
    with (disk / "ballast").open("ab", buffering=0) as file:
        while True:
            try:
                if not file.write(b"x" * 4096):
                    return
            except OSError:
                return


def test_a_full_disk_refuses_a_job_and_keeps_no_half_of_it(jobs, small_disk):
    jobs.manager.root = small_disk / "jobs"
    fill(small_disk)
    with pytest.raises(LazynbError, match="No space left on device"):
        jobs.service()
    assert not list((small_disk / "jobs").glob("*"))
    (small_disk / "ballast").unlink()
    assert jobs.service().wait(30).phase == "ready"
    jobs.submitted[-1].stop()


def test_a_disk_that_fills_up_does_not_end_a_service(jobs, small_disk):
    jobs.manager.root = small_disk / "jobs"
    job = jobs.service("--load", "1", *[word for _ in range(40) for word in ("--say", "x" * 100)])
    while not job.tail():
        time.sleep(0.02)
    fill(small_disk)
    assert job.wait(30).phase == "ready"
    job.stop()
    assert job.state.phase == "stopped"


def test_a_port_held_on_all_addresses_counts_as_taken():
    with socket.create_server(("0.0.0.0", 0)) as server:
        assert ports.taken(server.getsockname()[1])
    assert not ports.taken(ports.free())
