"""What lazynb adds to a fine-tuning run: to the time of the training, and to the kernel that shows its curve."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from tests.kernel.conftest import Kernel

pytestmark = [pytest.mark.bench, pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
ENVS = Path(os.environ.get("LAZYNB_TEST_ENVS", ROOT / ".cache" / "envs"))
DEMO = "smollm2-135m-instruct"
WORDS = "the river runs from the old mill to the sea past " * 12
ROWS = [{"instruction": f"Story {n}?", "output": f"{n}: {WORDS}"} for n in range(60)]
OPTIONS = {"max_steps": 12, "per_device_train_batch_size": 4, "save_steps": 1000}
TURNS = 6

STEPS, RATE = 100_000, 30
"""Of the run that is shown; a second."""
FULL = 50_500
"""A while before the step at which the curve has the most points: 200 of 256 steps."""

LONG_RUN = f"""
import json, time
from pathlib import Path
log = Path("output/trainer_log.jsonl")
log.parent.mkdir()
def entries(first, last):
    for step in range(first, last + 1):
        at = {{"current_steps": step, "total_steps": {STEPS}, "elapsed_time": "0:42:10", "remaining_time": "0:13:25"}}
        yield json.dumps(at | {{"lr": 1.23e-4 * (1 - step / {STEPS + 1}), "loss": 2 / (1 + step / 5000) + 0.0517 * (step % 7)}})
        if step % 50 == 0:
            yield json.dumps(at | {{"eval_loss": 2.2 / (1 + step / 5000) + 0.0173 * (step % 3)}})
def write(first, last):
    with log.open("a") as file:
        file.writelines(line + "\\n" for line in entries(first, last))
time.sleep(3)  # the view is there before the first step
write(1, {FULL})
for step in range({FULL + 1}, {FULL} + 26 * {RATE}):
    write(step, step)
    print("\\n@progress " + json.dumps({{"text": f"step {{step}}", "done": step, "total": {STEPS}}}), flush=True)
    time.sleep(1 / {RATE})
write({FULL} + 26 * {RATE}, {STEPS})
Path("version.json").write_text(json.dumps({{"id": Path.cwd().name, "base": "demo", "method": "none"}}))
"""
START = """
import json, sys
from pathlib import Path
from lazynb.jobs import manager
from lazynb.jobs.spec import Command, JobSpec
from lazynb.notebook.curve import show_run
from lazynb.training import Run
root = Path("ckpt", "long", "run-1").absolute()
root.mkdir(parents=True)
(root / "plan.json").write_text(json.dumps({"version": {"base": "demo", "method": "none", "created": 0}}))
command = Command(argv=[sys.executable, str(Path("long_run.py").absolute())], cwd=str(root), serves=False)
spec = JobSpec(id="long", name="long", kind="training", command=command, options={"folder": str(root)})
run = Run(root, manager().submit(spec))
show_run(run, block=False)
"""


@pytest.fixture
def kernel(tmp_path):
    env = {**os.environ, "LAZYLLM_HOME": str(tmp_path / "home"), "JPY_SESSION_NAME": "a.ipynb"}
    env |= {"IPYTHONDIR": str(tmp_path / "ipython"), "JUPYTER_RUNTIME_DIR": str(tmp_path / "run")}
    (tmp_path / "long_run.py").write_text(LONG_RUN)
    kernel = Kernel(sys.executable, tmp_path, env)
    kernel.run("%load_ext lazynb")
    yield kernel
    kernel.kill()
    kernel.manager.cleanup_resources()


def test_the_view_of_a_run_of_100000_steps_is_light(kernel, measured):
    """All messages of a run of 100,000 steps and 2,000 evaluations, from the first to the settled output.

    Scaled: most steps are written at once, and 26 seconds are as they would be at 30 steps a second, about where the
    curve has the most points. The kernel's time is all that it takes in these seconds, and what it takes to read the
    steps that were written at once, over the time in which they would have been made.
    """
    process = psutil.Process(kernel.pid)

    def spent():
        return sum(process.cpu_times()[:2])

    messages = kernel.run(START).outputs
    (run,) = [
        output["data"]["state"]["run"]
        for output in messages
        if output["msg_type"] == "comm_open" and "run" in output["data"].get("state", {})
    ]
    page = {"comm_id": "page", "target_name": "lazynb.view", "data": {"answer": run}}
    kernel.client.shell_channel.send(kernel.client.session.msg("comm_open", page))
    before = spent()
    states = follow(kernel, messages, lambda state: state.get("curve", {}).get("loss"))
    time.sleep(1)
    read = spent() - before
    begin, before = time.monotonic(), spent()
    states += follow(kernel, messages, lambda _: time.monotonic() > begin + 20)
    live = (spent() - before) / (time.monotonic() - begin)
    states += follow(kernel, messages, lambda state: state.get("settled"))
    follow(kernel, messages, lambda _: True, least=2)
    points = [sum(map(len, _points(state["curve"]))) for state in states if "curve" in state]
    assert len(points) > 20
    assert any(m["msg_type"] == "update_display_data" for m in messages)
    measured("live view of 100,000 steps: of a core", live + read / (FULL / RATE), at_most=0.02)
    measured("live view of 100,000 steps: points", max(points), at_most=600)
    biggest = max(len(json.dumps(message)) for message in messages)
    measured("live view of 100,000 steps: a message", biggest / 1e3, at_most=20, unit="kB")


def follow(kernel, messages, over, least=0):
    """Take the kernel's messages until a state of the view says that it is enough; return the states."""
    states, begin = [], time.monotonic()
    while time.monotonic() < begin + 60:
        while kernel.client.iopub_channel.msg_ready():
            message = kernel.client.get_iopub_msg(timeout=1)
            messages.append({**message["content"], "msg_type": message["msg_type"]})
            states.append(message["content"].get("data", {}).get("state", {}))
        if time.monotonic() > begin + least and over(
            next((s for s in reversed(states) if s.get("curve") or s.get("settled")), {})
        ):
            return states
        time.sleep(0.1)
    raise AssertionError("the view did not get there")


def _points(curve):
    return [value for value in curve.values() if isinstance(value, list)]


@pytest.fixture
def place(tmp_path, model_cache, monkeypatch):
    if not (ENVS / "torch").exists():
        pytest.skip("the environment of llamafactory is not installed: make envs")
    monkeypatch.setenv("LAZYLLM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LAZYLLM_MODEL_CACHE_DIR", str(model_cache))
    monkeypatch.setenv("LAZYLLM_ENVS_DIR", str(ENVS))
    monkeypatch.setenv("LAZYLLM_TRAIN_TARGET_ROOT", str(tmp_path / "ckpt"))
    return tmp_path


def seconds(output, begin):
    """Return the time from a beginning to the last file that the training wrote, be it ours or theirs."""
    return max(path.stat().st_mtime for path in output.rglob("*") if path.is_file()) - begin


def through_lazynb(target, options):
    """Train through lazynb; return the run, and the seconds from the call on: checks, supervisor, imports and all."""
    from lazynb.training import start

    begin = time.time()
    run = start(DEMO, ROWS, target=target, options=options)
    run.wait(600)
    return run, seconds(run.folder, begin)


def bare(run, folder):
    """Train by the bare command line with the configuration of a run; return the seconds from its start on."""
    folder.mkdir()
    plan = run.plan
    config = {
        **plan["train"],
        "model_name_or_path": plan["unpacked"],
        "dataset_dir": str(run.root / "data"),
        "output_dir": str(folder / "output"),
    }
    (folder / "train.yaml").write_text(yaml.safe_dump(config))
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "DISABLE_VERSION_CHECK": "1"}
    begin = time.time()
    subprocess.run(
        [ENVS / "torch" / "bin" / "llamafactory-cli", "train", str(folder / "train.yaml")],
        env=env,
        check=True,
        capture_output=True,
    )
    return seconds(folder / "output", begin)


@pytest.mark.timeout(1800)
def test_training_through_lazynb_takes_the_time_of_the_bare_command_line(place, measured):
    """From the call, or the start of the program, to the last file of the training; we merge and pack after it."""
    through_lazynb("warm", {**OPTIONS, "max_steps": 1})  # unpacks the base model's weights, once
    ours, theirs = [], []
    for turn in range(TURNS):  # the best of each: other programs can only slow one down
        if turn >= 2 and min(ours) / min(theirs) <= 1.02:
            break
        run, took = through_lazynb(f"turn-{turn}", OPTIONS)
        ours.append(took)
        theirs.append(bare(run, place / f"bare-{turn}"))
        print(f"turn {turn}: {ours[-1]:.2f} s, bare {theirs[-1]:.2f} s")
    measured("training, bare command line", min(theirs), unit="s")
    measured("training through lazynb, to bare", min(ours) / min(theirs), at_most=1.02)
