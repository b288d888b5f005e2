"""The curve of a fine-tuning run in a real JupyterLab."""

import base64
import sys
from pathlib import Path

TRAINER = Path(__file__).parents[1] / "programs" / "trainer.py"
START = f"""
import json
from pathlib import Path
from lazynb.jobs import manager
from lazynb.jobs.spec import Command, JobSpec
from lazynb.notebook.curve import show_run
from lazynb.training import Run
def train(name, steps):
    root = Path("ckpt", name, "run-1").absolute()
    root.mkdir(parents=True)
    plan = {{"version": {{"base": "demo", "method": "none", "created": 0}}}}
    (root / "plan.json").write_text(json.dumps(plan))
    command = Command(argv=[{sys.executable!r}, {str(TRAINER)!r}, str(steps)], cwd=str(root), serves=False)
    spec = JobSpec(id=name, name=name, kind="training", command=command, options={{"folder": str(root)}})
    return Run(root, manager().submit(spec))
"""
PICTURE = "img[alt='Loss over steps']"


def picture(nb, index):
    source = nb.output(index).locator(PICTURE).get_attribute("src")
    return base64.b64decode(source.partition("base64,")[2]).decode()


def test_the_curve_is_drawn_while_the_model_trains_and_stays_in_the_saved_notebook(
    notebook, lab, request
):
    nb = notebook(START, "show_run(train('bot', 80), block=True)")
    nb.run_cell(1)
    nb.wait_idle()
    nb.run_cell(2)
    nb.page.wait_for_selector(PICTURE)
    nb.page.wait_for_timeout(2500)
    early = picture(nb, 2)
    assert "bot · training · step" in nb.output(2).inner_text()
    nb.page.wait_for_timeout(1500)
    later = picture(nb, 2)
    assert later.count(",") > early.count(",")  # it has grown
    folder = Path(request.config.rootpath) / "test-results"
    folder.mkdir(exist_ok=True)
    nb.cell(2).screenshot(path=folder / "curve.png")
    nb.wait_idle()
    assert "bot · finished · 80 steps" in nb.output(2).inner_text()
    assert "evaluation loss" in nb.output(2).inner_text()
    nb.save()
    (output,) = nb.saved().cells[2].outputs
    assert set(output.data) == {"text/html", "text/plain"}
    for kernel in lab.api("kernels"):
        lab.api(f"kernels/{kernel['id']}", "DELETE")
    nb.page.goto("about:blank")
    nb.page.goto(f"{lab.url}/lab/workspaces/curve-again/tree/{nb.name}?token=test")
    nb.page.wait_for_selector(PICTURE)
    assert "circle" in picture(nb, 2)
    assert nb.output(2).locator(PICTURE).evaluate("image => image.naturalWidth") > 0
    nb.cell(2).screenshot(path=folder / "curve-settled.png")
