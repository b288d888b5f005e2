"""The tutorials run from top to bottom, on the real models, and say the same in both languages."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
SAID = {
    "quickstart": ("The capital of France is Paris.", "quickstart"),
    "finetune": ("Brindlemark was founded by Ottoline Vance.", "llamafactory"),
    "embeddings": ("384", "embedding"),
}


def code(path):
    return [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SAID)
def test_a_tutorial_runs(name, installed, tmp_path, model_cache):
    said, engine = SAID[name]
    if engine != "quickstart":
        installed(engine)
    notebook = tmp_path / f"{name}.ipynb"
    notebook.write_bytes((NOTEBOOKS / f"{name}.ipynb").read_bytes())
    env = {**os.environ, "LAZYLLM_HOME": str(tmp_path), "LAZYLLM_MODEL_CACHE_DIR": str(model_cache)}
    run = [sys.executable, str(NOTEBOOKS / "run.py"), str(notebook)]
    ran = subprocess.run(run, env=env, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]
    assert said in ran.stdout


@pytest.mark.parametrize("name", SAID)
def test_both_languages_run_the_same_code(name):
    assert code(NOTEBOOKS / f"{name}.ipynb") == code(NOTEBOOKS / f"{name}.zh.ipynb")


def test_no_tutorial_carries_the_output_of_somebodys_machine():
    for path in NOTEBOOKS.glob("*.ipynb"):
        assert not any(cell.get("outputs") for cell in nbformat.read(path, 4).cells), path
