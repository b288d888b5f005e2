"""`%lazyllm plot`: several runs in one picture, in the cell and in a file."""

import json
import os
import struct
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

ENVS = Path(__file__).parents[2] / ".cache" / "envs"
pytestmark = pytest.mark.one_kernel


@pytest.fixture
def shell(start_kernel, kernel_env, tmp_path):
    """A kernel that finds the runs of two targets, one with a Chinese name, and one run that has no losses yet."""
    root = tmp_path / "ckpt"
    kernel_env |= {"LAZYLLM_TRAIN_TARGET_ROOT": str(root)}
    kernel_env |= {"LAZYLLM_ENVS_DIR": os.environ.get("LAZYLLM_ENVS_DIR", str(ENVS))}
    plan = {"version": {"base": "demo", "method": "lora", "created": 0}}
    for name, steps in (("bot", 60), ("客服", 40), ("new", 0)):
        output = root / name / f"{name}-1" / "output"
        output.mkdir(parents=True)
        (output.parent / "plan.json").write_text(json.dumps(plan))
        entries = [{"current_steps": n, "loss": 2 / n + n % 3 / 10} for n in range(1, steps + 1)]
        entries += [{"current_steps": steps, "eval_loss": 2.2 / steps}] if steps else []
        log = "".join(json.dumps(entry) + "\n" for entry in entries)
        (output / "trainer_log.jsonl").write_text(log)
    shell = start_kernel()
    shell.run("%load_ext lazynb")
    return shell


def trainer_needed():
    if not (ENVS / "torch").exists() and "LAZYLLM_ENVS_DIR" not in os.environ:
        pytest.skip("the environment of llamafactory is not installed: make envs")


def test_runs_are_drawn_in_the_cell_and_an_svg(shell, tmp_path):
    shown = shell.run("%lazyllm plot bot 客服 -o pictures/loss.svg")
    assert shown.status == "ok", shown.error
    svg = shown.settled["image/svg+xml"]
    saved = next(tmp_path.rglob("pictures/loss.svg")).read_text()
    assert saved == svg
    assert len(ET.fromstring(svg).findall(".//{*}circle")) == 2
    assert "客服" in svg


@pytest.mark.slow
def test_a_png_is_drawn_by_the_trainers_matplotlib(shell, tmp_path):
    trainer_needed()
    for name in ("loss.png", "loss.PDF"):
        drawn = shell.run(f"%lazyllm plot bot 客服 --output '{name}'")
        assert drawn.status == "ok", drawn.error
    data = next(tmp_path.rglob("loss.png")).read_bytes()
    assert data.startswith(b"\x89PNG")
    assert struct.unpack(">II", data[16:24]) == (1280, 640)
    assert len(data) > 20_000  # two curves, not an empty frame
    assert next(tmp_path.rglob("loss.PDF")).read_bytes().startswith(b"%PDF")
    assert shell.run("import sys; print('matplotlib.figure' in sys.modules)").text == "False"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "needs a run"),
        ("nobody", "There is no run 'nobody'"),
        ("new", "has no losses yet"),
        ("bot -o loss.txt", "loss.txt is not a picture"),
        ("bot -o /proc/loss.svg", "/proc/loss.svg cannot be written"),
        pytest.param(
            "bot -o /proc/loss.png", "/proc/loss.png cannot be written", marks=pytest.mark.slow
        ),
    ],
)
def test_what_cannot_be_drawn_is_said(shell, words, said):
    if ".png" in words:
        trainer_needed()
    failed = shell.run(f"%lazyllm plot {words}")
    assert failed.status == "error"
    assert said in str(failed.error)


def test_without_the_trainer_it_names_the_line_that_installs_it(shell, tmp_path):
    shell.run(f"%env LAZYLLM_ENVS_DIR={tmp_path}")
    failed = shell.run("%lazyllm plot bot -o loss.png")
    assert "%lazyllm install llamafactory" in str(failed.error)
