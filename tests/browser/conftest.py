"""A real JupyterLab, a real Chromium, and a server at the far side of the real protocol that says what it is told."""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import expect, sync_playwright

from tests.browser.find import find_chromium

PARROT = Path(__file__).parents[1] / "programs" / "parrot.py"
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
RUN = re.compile(r"\[(\*|\d+)\]")
PRELUDE = """
import json
from lazynb.client.endpoint import Endpoint
from lazynb.notebook.answerview import show_answer
from lazynb.streaming import ask
def say(chunks, rate=100, **kw):
    message = {"role": "user", "content": json.dumps({"say": chunks, "rate": rate})}
    answer = ask(Endpoint(url="http://127.0.0.1:PORT/v1", name="demo", model="demo"), [message])
    show_answer(answer, **kw)
    return None
"""


@pytest.fixture(scope="module")
def parrot():
    """The port of a server that says what it is told."""
    with subprocess.Popen([sys.executable, PARROT], stdout=subprocess.PIPE, text=True) as process:
        yield int(process.stdout.readline())
        process.kill()


class Lab:
    """A running JupyterLab."""

    def __init__(self, folder: Path, python: str, labconfig: dict | None = None):
        self.folder = folder / "notebooks"
        self.folder.mkdir(parents=True)
        settings = folder / "settings" / "@jupyterlab" / "apputils-extension"
        settings.mkdir(parents=True)
        (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false"}')
        (folder / "config" / "labconfig").mkdir(parents=True)
        (folder / "config" / "labconfig" / "page_config.json").write_text(
            json.dumps(labconfig or {})
        )
        runtime = folder / "runtime"
        kernels = folder / "data" / "kernels" / "python3"
        kernels.mkdir(parents=True)
        spec = {
            "argv": [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            "display_name": "Python 3",
            "language": "python",
        }
        (kernels / "kernel.json").write_text(json.dumps(spec))
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "jupyterlab",
                "--no-browser",
                "--allow-root",
                "--ServerApp.port=0",
                "--IdentityProvider.token=test",
                f"--ServerApp.root_dir={self.folder}",
                "--ServerApp.ip=127.0.0.1",
                "--LabApp.news_url=",
                "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
            ],
            env={
                **os.environ,
                "JUPYTER_RUNTIME_DIR": str(runtime),
                "JUPYTER_CONFIG_DIR": str(folder / "config"),
                "JUPYTER_DATA_DIR": str(folder / "data"),
                "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
                "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
                "LAZYLLM_HOME": str(folder / "home"),
            },
            stdout=(folder / "lab.log").open("w"),
            stderr=subprocess.STDOUT,
        )
        deadline = time.monotonic() + 60
        while not (found := list(runtime.glob("jpserver-*.json"))):
            assert time.monotonic() < deadline, (folder / "lab.log").read_text()
            time.sleep(0.1)
        self.url = json.loads(found[0].read_text())["url"].rstrip("/")

    def write(self, name: str, *cells: str) -> Path:
        """Write a notebook of code cells."""
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(cell) for cell in cells]
        )
        notebook.metadata.kernelspec = {
            "name": "python3",
            "display_name": "Python 3",
            "language": "python",
        }
        nbformat.write(notebook, self.folder / name)
        return self.folder / name

    def address(self, name: str) -> str:
        """Return the address of a notebook, in a workspace of its own."""
        return f"{self.url}/lab/workspaces/{name.split('.', maxsplit=1)[0]}/tree/{name}?token=test"

    def api(self, path: str, method: str = "GET"):
        """Ask the server itself."""
        request = urllib.request.Request(
            f"{self.url}/api/{path}", method=method, headers={"Authorization": "token test"}
        )
        with urllib.request.urlopen(request) as response:
            return json.loads(response.read() or b"null")

    def stop(self):
        """Stop it with its kernels."""
        for kernel in self.api("kernels"):
            self.api(f"kernels/{kernel['id']}", "DELETE")
        self.process.terminate()
        self.process.wait(20)


PYTHONS = os.environ.get("LAZYNB_TEST_PYTHONS", sys.executable).split(":")


@pytest.fixture(scope="module", params=PYTHONS, ids=lambda python: Path(python).parts[-3])
def lab(tmp_path_factory, request):
    """A JupyterLab with its widgets, and kernels of each interpreter."""
    lab = Lab(tmp_path_factory.mktemp("lab"), request.param)
    yield lab
    lab.stop()


@pytest.fixture(scope="module")
def bare_lab(tmp_path_factory):
    """A JupyterLab whose server lacks the widget extensions, as on many a JupyterHub."""
    off = {"disabledExtensions": {"@jupyter-widgets/jupyterlab-manager": True, "anywidget": True}}
    lab = Lab(tmp_path_factory.mktemp("bare"), PYTHONS[0], labconfig=off)
    yield lab
    lab.stop()


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    """A page; what it requested is in `page.requested`."""
    context = browser.new_context(viewport={"width": 1100, "height": 800})
    page = context.new_page()
    page.requested = []
    page.on("request", lambda request: page.requested.append(request.url))
    page.set_default_timeout(30_000)
    yield page
    context.close()


class Notebook:
    """A notebook that is open in a page."""

    def __init__(self, lab: Lab, page, name: str, *cells: str, port: int = 0):
        self.lab, self.page, self.name = lab, page, name
        self.path = lab.write(name, PRELUDE.replace("PORT", str(port)), *cells)
        self.open()
        self.run_cell(0)
        self.wait_idle()

    def open(self):
        """Open the notebook and wait for its kernel."""
        self.page.goto(self.lab.address(self.name))
        self.page.wait_for_selector(".jp-Notebook .jp-CodeCell")
        self.page.wait_for_selector(
            ".jp-Notebook-ExecutionIndicator[data-status=idle]", state="attached"
        )

    def cell(self, index: int):
        """Return a cell."""
        return self.page.locator(".jp-Notebook .jp-CodeCell").nth(index)

    def run_cell(self, index: int):
        """Run a cell and return at once."""
        prompt = self.cell(index).locator(".jp-InputPrompt")
        before = prompt.inner_text()
        for _ in range(10):  # the page may not listen yet
            self.dismiss_dialogs()
            self.cell(index).locator(".cm-content").click(timeout=3000)
            self.page.keyboard.press("Control+Enter")
            try:
                expect(prompt).to_have_text(RUN, timeout=1000)
                expect(prompt).not_to_have_text(before, timeout=1000)
            except AssertionError:
                continue
            return

    def dismiss_dialogs(self):
        """Accept what JupyterLab itself asks."""
        for button in self.page.locator(".jp-Dialog .jp-mod-accept").all():
            print("JupyterLab asked:", self.page.locator(".jp-Dialog").first.inner_text())
            button.click()

    def wait_idle(self):
        """Wait until the kernel has nothing to do."""
        self.page.wait_for_timeout(200)
        self.page.wait_for_selector(
            ".jp-Notebook-ExecutionIndicator[data-status=idle]", state="attached", timeout=60_000
        )

    def output(self, index: int):
        """Return the output area of a cell."""
        return self.cell(index).locator(".jp-Cell-outputArea")

    def save(self):
        """Save the notebook."""
        self.page.keyboard.press("Escape")
        self.page.keyboard.press("Control+s")
        self.page.wait_for_timeout(800)

    def saved(self):
        """Return what is on the disk."""
        return nbformat.read(self.path, as_version=4)


@pytest.fixture
def notebook(lab, page, parrot, request):
    """Open a notebook of the given cells; `say(chunks, rate)` in them shows an answer."""
    names = iter(range(100))

    def open_notebook(*cells: str, lab: Lab = lab) -> Notebook:
        name = f"{request.node.originalname.replace('_', '-')}-{next(names)}.ipynb"
        return Notebook(lab, page, name, *cells, port=parrot)

    return open_notebook
