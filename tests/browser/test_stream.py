"""A streamed answer in a real JupyterLab."""

import re


def text_of(notebook, cell=1):
    return notebook.output(cell).locator(".lazynb-text").inner_text()


def test_the_text_appears_while_it_is_made_and_settles_to_markdown(notebook):
    nb = notebook('say(["**bold** "] + [f"w{i} " for i in range(150)], rate=50)')
    nb.run_cell(1)
    live = nb.output(1).locator(".lazynb-text")
    live.wait_for()
    nb.page.wait_for_function("document.querySelector('.lazynb-text').textContent.includes('w20 ')")
    assert "w149" not in live.inner_text()
    assert live.inner_text().startswith("**bold**")
    nb.page.screenshot(path="/tmp/shot-live.png")
    nb.page.wait_for_selector(".jp-RenderedMarkdown strong")
    settled = nb.output(1).inner_text()
    assert "w149" in settled
    assert re.search(r"demo · 151 tokens · \d+/s · \d\.\d s", settled)
    nb.page.screenshot(path="/tmp/shot-settled.png")
