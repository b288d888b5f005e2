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
LIVE = ".lazynb-curve polyline"
PICTURE = "img[alt='Loss over steps']"


def picture(nb, index):
    source = nb.output(index).locator(PICTURE).get_attribute("src")
    return base64.b64decode(source.partition("base64,")[2]).decode()


def drawn(nb, index, least):
    """Wait until the live curve has so many points; return how many there are."""
    count = "element => element.getAttribute('points').split(' ').length"
    nb.page.wait_for_selector(LIVE, timeout=15_000)
    for _ in range(200):
        points = nb.output(index).locator(LIVE).first.evaluate(count)
        if points >= least:
            return points
        nb.page.wait_for_timeout(100)
    raise AssertionError(f"{points} points")


def test_the_curve_is_drawn_while_the_model_trains_and_stays_in_the_saved_notebook(
    notebook, lab, request
):
    nb = notebook(START, "show_run(train('bot', 80), block=True)")
    nb.run_cell(1)
    nb.wait_idle()
    nb.run_cell(2)
    early = drawn(nb, 2, 10)
    assert "bot · training · step" in nb.output(2).inner_text()
    assert drawn(nb, 2, early + 8) < 80  # it grows
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


def test_a_page_that_is_reloaded_in_mid_run_has_the_whole_curve_and_settles_it(notebook):
    nb = notebook(START, "show_run(train('again', 200), block=True)")
    nb.run_cell(1)
    nb.wait_idle()
    nb.run_cell(2)
    early = drawn(nb, 2, 20)
    nb.save()
    nb.page.reload()
    assert drawn(nb, 2, early + 20) < 200
    nb.page.wait_for_selector(PICTURE, timeout=40_000)  # this page settles the output itself
    assert nb.output(2).locator(".lazynb-curve").count() == 0
    nb.save()
    (output,) = nb.saved().cells[2].outputs
    assert set(output.data) == {"text/html", "text/plain"}
    assert "again · finished · 200 steps" in output.data["text/plain"]


def test_the_values_under_the_pointer_a_log_scale_and_the_picture_as_a_file(notebook):
    nb = notebook(START, "show_run(train('hover', 150), block=False)")
    nb.run_cell(1)
    nb.wait_idle()
    nb.run_cell(2)
    drawn(nb, 2, 25)
    output = nb.output(2)
    axis = "nodes => nodes.map(node => node.textContent).filter(text => text.includes('.'))"
    linear = output.locator("svg text").evaluate_all(axis)
    output.locator(".lazynb-curve svg").hover(position={"x": 200, "y": 100})
    values = output.locator(".lazynb-values").inner_text()
    assert values.startswith("step ")
    for name in ("loss ", "smoothed ", "evaluation ", "rate 1.0e-4"):
        assert name in values
    button = output.get_by_role("button", name="Logarithmic scale")
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    assert output.locator("svg text").evaluate_all(axis) != linear
    for kind, start in (("SVG", b"<svg "), ("PNG", b"\x89PNG")):
        with nb.page.expect_download() as download:
            output.get_by_role("button", name=f"Save the picture as {kind}").click()
        assert download.value.suggested_filename == f"hover.{kind.lower()}"
        assert Path(download.value.path()).read_bytes().startswith(start)


def test_a_page_without_widgets_gets_the_picture_instead(notebook):
    nb = notebook(START, "show_run(train('plain', 60), block=True)")
    nb.page.evaluate(
        "() => { window.WebSocket.prototype.send = new Proxy(window.WebSocket.prototype.send, { apply(send, self, [data]) {"
        " const text = typeof data === 'string' ? data : new TextDecoder().decode(data);"
        " if (!text.includes('lazynb.view')) return Reflect.apply(send, self, [data]); } }); }"
    )
    nb.run_cell(1)
    nb.wait_idle()
    nb.run_cell(2)
    nb.page.wait_for_selector(PICTURE, timeout=8000)
    assert nb.output(2).locator(".lazynb-curve").count() == 0
    assert "plain · training" in nb.output(2).inner_text()
    nb.wait_idle()
