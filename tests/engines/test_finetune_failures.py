"""What befalls a run from outside: its kernel or its supervisor killed, a full disk, a loss that is no number.

Nothing that was saved is lost, the cause is told, and the run goes on where another kernel resumes it.
"""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

import lazynb
from lazynb.errors import JobError
from lazynb.training import start

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DEMO = "smollm2-135m-instruct"
ROWS = [{"instruction": f"What is {n} plus {n}?", "output": f"It is {n + n}."} for n in range(8)]
OPTIONS = {"num_train_epochs": 40, "save_steps": 2, "per_device_train_batch_size": 2}
KERNEL = f"""
import sys, time
from lazynb.training import start
run = start({DEMO!r}, {ROWS!r}, target=sys.argv[1], options={OPTIONS!r})
if "keep" in sys.argv:
    run.job.keep()
print(run.id, flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module", autouse=True)
def work(place, installed, tmp_path_factory):
    """A working folder for all runs of this file."""
    installed("llamafactory")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAZYLLM_TRAIN_TARGET_ROOT", str(tmp_path_factory.mktemp("ckpt")))
        yield


def kernel(*arguments):
    """A process that starts a run, as a kernel does."""
    process = subprocess.Popen(
        [sys.executable, "-c", KERNEL, *arguments], stdout=subprocess.PIPE, text=True
    )
    *_, name = iter(process.stdout.readline, "").__next__(), process.stdout.readline().strip()
    return process, name


def checkpoint(run):
    """The step of the last whole checkpoint; 0 where there is none."""
    states = list(run.folder.glob("checkpoint-*/trainer_state.json"))
    return max((json.loads(path.read_text())["global_step"] for path in states), default=0)


def until(condition, seconds=240):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def goes_on(run):
    """Resume a run, see that it began at its checkpoint, and end it there."""
    reached, logged = checkpoint(run), len(run.rows)
    run.resume()
    until(lambda: len(run.rows) > logged)
    assert run.rows[logged]["current_steps"] > reached > 0
    run.stop(save=False)
    assert run.status == "stopped"


def test_when_its_kernel_is_killed_a_run_ends_and_another_kernel_resumes_it():
    process, _ = kernel("orphaned")
    (run,) = lazynb.runs("orphaned")
    until(lambda: checkpoint(run))
    pids = [run.job.state.process.pid, run.job.state.supervisor.pid]
    process.kill()
    process.wait()
    until(lambda: not any(map(psutil.pid_exists, pids)), seconds=12)
    assert run.status == "stopped"
    assert run.job.state.cause == "its kernel ended"
    goes_on(run)


def test_when_its_supervisor_is_killed_the_trainer_goes_too_and_nothing_saved_is_lost():
    run = start(DEMO, ROWS, target="unsupervised", options=OPTIONS)
    until(lambda: checkpoint(run))
    trainer = run.job.state.process.pid
    os.kill(run.job.state.supervisor.pid, signal.SIGKILL)
    lazynb.jobs.manager().collect()
    until(lambda: not psutil.pid_exists(trainer), seconds=12)
    assert run.status == "failed"
    assert run.job.state.cause
    goes_on(run)


def test_a_run_that_was_kept_is_another_kernels_too():
    process, _ = kernel("kept", "keep")
    (run,) = lazynb.runs("kept")
    until(lambda: run.rows)
    process.kill()
    process.wait()
    seen = len(run.rows)
    until(lambda: len(run.rows) > seen)
    assert run.status == "training"
    assert "loss" in run.metrics.columns
    run.stop(save=True)
    run.wait(240)
    assert run.status == "finished"
    assert run.version.path.exists()


def test_a_loss_that_is_no_number_ends_the_run_and_says_why():
    run = start(DEMO, ROWS, target="diverged", options={**OPTIONS, "learning_rate": 1e38})
    with pytest.raises(JobError, match="the loss is"):
        run.wait(240)
    assert "learning_rate" in run.job.state.hint
    assert run.status == "failed"


def test_a_full_disk_is_told_and_the_last_whole_checkpoint_is_kept(tmp_path):
    """A real full disk: a file system of its own in a mount namespace."""
    target = tmp_path / "disk"
    target.mkdir()
    script = (
        "import lazynb, subprocess, sys, json\n"
        "from lazynb.errors import JobError\n"
        "from lazynb.training import start\n"
        f"run = start({DEMO!r}, {ROWS!r}, target='full', options={OPTIONS!r})\n"
        "try:\n"
        "    run.wait(240)\n"
        "except JobError as error:\n"
        "    print('CAUSE', error)\n"
        "states = list(run.folder.glob('checkpoint-*/trainer_state.json'))\n"
        "print('KEPT', [json.loads(path.read_text())['global_step'] for path in states])\n"
        f"subprocess.run(['mount', '-o', 'remount,size=2g', {str(target)!r}], check=True)\n"
        "logged = len(run.rows)\n"
        "run.resume()\n"
        "import time\n"
        "end = time.time() + 200\n"
        "while len(run.rows) <= logged and time.time() < end:\n"
        "    time.sleep(0.1)\n"
        "print('BEGAN', run.rows[logged]['current_steps'])\n"
        "run.stop(save=False)\n"
    )
    mount = f'mount -t tmpfs -o size=100m none "{target}" && exec "$0" "$@"'
    namespace = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount]
    if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespaces here")
    env = {**os.environ, "LAZYLLM_TRAIN_TARGET_ROOT": str(target)}
    ran = subprocess.run(
        [*namespace, sys.executable, "-c", script],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    said = dict(
        line.split(" ", 1)
        for line in ran.stdout.splitlines()
        if line[:4] in ("CAUS", "KEPT", "BEGA")
    )
    assert "the disk is full" in said["CAUSE"], ran.stdout + ran.stderr
    assert "Make room" in ran.stdout
    kept = json.loads(said["KEPT"])
    assert kept
    assert int(said["BEGAN"]) > max(kept)
