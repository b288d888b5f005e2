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

LONG_RUN = """
import json, sys, time
from pathlib import Path
log = Path("output/trainer_log.jsonl")
log.parent.mkdir()
def entry(step):
    return json.dumps({"current_steps": step, "total_steps": 100_000, "lr": 1e-4,
                       "loss": 2 / (1 + step / 5000) + 0.05 * (step % 7)}) + "\\n"
log.write_text("".join(map(entry, range(1, 99_001))))
with log.open("a", buffering=1) as file:
    for step in range(99_001, 100_001):
        file.write(entry(step))
        print("\\n@progress " + json.dumps({"text": f"step {step}", "done": step, "total": 100_000}), flush=True)
        time.sleep(0.03)
Path("version.json").write_text(json.dumps({"id": Path.cwd().name, "base": "demo", "method": "none"}))
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


def test_the_view_of_a_run_of_100000_steps_is_light(kernel, measured, tmp_path):
    """The last thousand steps of 100,000, at 30 a second: what the view costs once there is much to show."""
    started = kernel.run(START)
    (run,) = [
        output["data"]["state"]["run"]
        for output in started.outputs
        if output["msg_type"] == "comm_open" and "run" in output["data"].get("state", {})
    ]
    page = {"comm_id": "page", "target_name": "lazynb.view", "data": {"answer": run}}
    kernel.client.shell_channel.send(kernel.client.session.msg("comm_open", page))
    log = tmp_path / "ckpt" / "long" / "run-1" / "output" / "trainer_log.jsonl"
    while not log.exists():
        time.sleep(0.1)
    time.sleep(3)  # the first picture, of all that was there
    process = psutil.Process(kernel.pid)
    begin, before = time.monotonic(), sum(process.cpu_times()[:2])
    biggest, sent = 0, 0
    while time.monotonic() < begin + 20:
        while kernel.client.iopub_channel.msg_ready():
            message = kernel.client.get_iopub_msg(timeout=1)
            biggest = max(biggest, len(json.dumps(message["content"])))
            sent += "curve" in message["content"].get("data", {}).get("state", {})
        time.sleep(0.2)
    used = (sum(process.cpu_times()[:2]) - before) / (time.monotonic() - begin)
    measured("live view of 100,000 steps: of a core", used, at_most=0.02)
    measured("live view of 100,000 steps: a message", biggest / 1e3, at_most=20, unit="kB")
    assert sent > 20


@pytest.fixture
def place(tmp_path, model_cache, monkeypatch):
    if not (ENVS / "torch").exists():
        pytest.skip("the environment of llamafactory is not installed: make envs")
    monkeypatch.setenv("LAZYLLM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LAZYLLM_MODEL_CACHE_DIR", str(model_cache))
    monkeypatch.setenv("LAZYLLM_ENVS_DIR", str(ENVS))
    monkeypatch.setenv("LAZYLLM_TRAIN_TARGET_ROOT", str(tmp_path / "ckpt"))
    return tmp_path


def bare(run, folder):
    """Train by the bare command line with the configuration of a run; return the seconds."""
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
    begin = time.monotonic()
    subprocess.run(
        [ENVS / "torch" / "bin" / "llamafactory-cli", "train", str(folder / "train.yaml")],
        env=env,
        check=True,
        capture_output=True,
    )
    return time.monotonic() - begin


def test_training_through_lazynb_takes_the_time_of_the_bare_command_line(place, measured):
    """From the start of the program to the end of the training; merging and packing come after it."""
    from lazynb.training import start

    ours, theirs = [], []
    for turn in range(TURNS):  # the best of each: other programs can only slow one down
        if turn >= 2 and min(ours) / min(theirs) <= 1.02:
            break
        run = start(DEMO, ROWS, target=f"turn-{turn}", options=OPTIONS)
        run.wait(400)
        ours.append(run.version.seconds)
        theirs.append(bare(run, place / f"bare-{turn}"))
    measured("training, bare command line", min(theirs), unit="s")
    measured("training through lazynb, to bare", min(ours) / min(theirs), at_most=1.02)
