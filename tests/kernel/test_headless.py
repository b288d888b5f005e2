"""The magics where there is no page: notebooks that are executed by programs, and IPython in a terminal."""

import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pexpect
import pytest
from bs4 import BeautifulSoup

from tests.unit.fault_server import FaultServer

MODEL = "smollm2-135m-instruct"
PARROT = Path(__file__).parents[1] / "programs" / "parrot.py"
ANSWER = """**Bold**, $x < 1$ and
<script>document.title = "harm"</script> <img src="x" onerror="alert('harm')">
[a link](javascript:alert('harm')) ![remote](https://example.invalid/harm.png)"""


@pytest.fixture(scope="module")
def echo():
    """The url of a server that says what it is told."""
    server = FaultServer()
    yield server.url("echo")
    server.close()


@pytest.fixture
def environment(kernel_env, tmp_path, python):
    """An environment in which `lazynb-test` is the kernel under test."""
    spec = {"argv": [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]}
    folder = tmp_path / "jupyter" / "kernels" / "lazynb-test"
    folder.mkdir(parents=True)
    named = {**spec, "display_name": "lazynb-test", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(named))
    return {**kernel_env, "JUPYTER_PATH": str(tmp_path / "jupyter")}


def notebook(path, *sources):
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in sources])
    made.metadata["kernelspec"] = {
        "name": "lazynb-test",
        "display_name": "lazynb-test",
        "language": "python",
    }
    nbformat.write(made, path)


TOOLS = {
    "papermill": ["-m", "papermill", "in.ipynb", "out.ipynb", "--no-progress-bar"],
    "nbclient": ["-c", "import nbclient.cli as c; c.main()", "in.ipynb", "--output=out.ipynb"],
    "nbconvert": [
        "-m",
        "nbconvert",
        "--execute",
        "--to=notebook",
        "in.ipynb",
        "--output=out.ipynb",
    ],
}


def execute(tool, cwd, env):
    command = [sys.executable, *TOOLS[tool]]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=100)


def convert(cwd, env, form):
    command = [sys.executable, "-m", "nbconvert", "--to", form, "out.ipynb", "--output", "shown"]
    subprocess.run(command, cwd=cwd, env=env, check=True, capture_output=True, timeout=100)
    return (cwd / {"html": "shown.html", "markdown": "shown.md"}[form]).read_text()


@pytest.mark.slow
@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.usefixtures("demo_model")
def test_an_executed_notebook_holds_the_answers_and_nothing_of_a_widget(
    tool, tmp_path, environment, echo, running
):
    notebook(
        tmp_path / "in.ipynb",
        "%load_ext lazynb\n"
        "import lazynb\n"
        f"m = lazynb.TrainableModule('demo').deploy_method(lazynb.deploy.vllm, url={echo!r})",
        f"%%lazyllm m -o answer\n{ANSWER}",
        f"%lazyllm deploy {MODEL}",
        f"%%lazyllm {MODEL} --max-tokens 20 -o real\nhello",
        "print(answer.text == answer.messages[-1]['content'], real.status, 0 < real.tokens <= 20)",
    )
    ran = execute(tool, tmp_path, environment)
    assert ran.returncode == 0, ran.stderr
    text = (tmp_path / "out.ipynb").read_text()
    assert "widget" not in text
    made = nbformat.reads(text, as_version=4)
    nbformat.validate(made)
    assert "widgets" not in made.metadata
    _, scripted, deployed, real, checked = (
        cell.outputs for cell in made.cells if "injected-parameters" not in cell.metadata
    )
    for outputs in (scripted, real):
        assert [output.output_type for output in outputs] == ["display_data"]
        assert outputs[0].data.keys() == {"text/markdown", "text/plain"}
    assert scripted[0].data["text/plain"].startswith(ANSWER)
    assert "**Bold**" in scripted[0].data["text/markdown"]
    assert "\n[demo · " in scripted[0].data["text/plain"]
    assert [output.output_type for output in deployed] == ["display_data"]
    assert [output.get("text") for output in checked] == ["True done True\n"]
    assert not running()

    page = BeautifulSoup(convert(tmp_path, environment, "html"), "html.parser")
    assert "Bold" in [tag.text for tag in page.find_all("strong")]
    assert not any("harm" in tag.text for tag in page.find_all("script"))
    assert not page.find_all(onerror=True)
    assert not page.find_all("img", src=lambda src: "harm" in src)
    assert not page.find_all("a", href=lambda href: "javascript:" in (href or ""))
    assert "**Bold**" in convert(tmp_path, environment, "markdown")


@pytest.mark.slow
def test_a_cell_that_fails_fails_the_run(tmp_path, environment, running):
    notebook(
        tmp_path / "in.ipynb", "%load_ext lazynb", "%%lazyllm no-such-model\nhi", "print('after')"
    )
    ran = execute("papermill", tmp_path, environment)
    assert ran.returncode != 0
    *_, failed, after = nbformat.read(tmp_path / "out.ipynb", 4).cells
    assert "There is no model 'no-such-model'" in str(failed.outputs)
    assert after.outputs == []
    assert not running()


# A terminal.


@pytest.fixture
def parrot():
    with subprocess.Popen([sys.executable, PARROT], stdout=subprocess.PIPE, text=True) as server:
        yield server.stdout.readline().strip()
        server.kill()


@pytest.fixture(params=["simple", "full"])
def terminal(request, python, kernel_env, tmp_path):
    """An IPython with the magics; `full` has the line editor that users have."""
    options = ["--simple-prompt"] if request.param == "simple" else []
    env = {**kernel_env, "TERM": "dumb", "PROMPT_TOOLKIT_NO_CPR": "1"}
    words = ["-m", "IPython", "--no-banner", "--colors=NoColor", "--no-confirm-exit", *options]
    child = pexpect.spawn(
        python, words, env=env, cwd=str(tmp_path), encoding="utf-8", timeout=20, echo=False
    )
    child.expect_exact("In [1]: ")
    child.sendline("%load_ext lazynb")
    child.expect_exact("In [2]: ")
    yield child
    child.close(force=True)


def say(terminal, chunks, rate, options=""):
    """Ask the parrot, by a call that is one short line whatever the line editor is; `chunks` is Python."""
    script = f"json.dumps({{'say': {chunks}, 'rate': {rate}}})"
    terminal.sendline(f"get_ipython().run_cell_magic('lazyllm', 'm {options}', {script})")


def use(terminal, port):
    terminal.sendline(
        "import json, lazynb; m = lazynb.TrainableModule('demo')"
        f".deploy_method('vllm', url='127.0.0.1:{port}/v1')"
    )
    terminal.expect_exact("In [3]: ")


def test_a_terminal_shows_the_text_while_it_is_made_and_one_prompt_afterwards(terminal, parrot):
    use(terminal, parrot)
    say(terminal, "[f'<{number}>' for number in range(30)]", 20)
    terminal.expect_exact("<0><1>")
    begin = time.monotonic()
    terminal.expect_exact("<29>")
    assert 0.9 < time.monotonic() - begin < 3
    terminal.expect(r"\r\n\[demo · 30 tokens · [\d.]+/s · [\d.]+ s\]\r\n")
    terminal.expect_exact("In [4]: ")
    assert "Out" not in terminal.before
    assert terminal.expect_exact(["In [", pexpect.TIMEOUT], timeout=0.5) == 1
    terminal.sendline("_.tokens")
    terminal.expect(r"Out\[4\]: (\x1b\[0m)?30\r\n")


def test_ctrl_c_in_a_terminal_ends_the_answer_and_keeps_its_text(terminal, parrot):
    use(terminal, parrot)
    say(terminal, "['word '] * 2000", 50, "-o answer")
    terminal.expect_exact("word word word word")
    terminal.sendintr()
    terminal.expect(r"\r\n\[demo · \d+ tokens · .* · stopped\]\r\n")
    terminal.expect_exact("In [4]: ")
    assert "Traceback" not in terminal.before
    for _ in range(100):  # the server sees the closed connection when it next writes
        if (running := urllib.request.urlopen(f"http://127.0.0.1:{parrot}/running").read()) == b"0":
            break
        time.sleep(0.05)
    assert running == b"0"
    terminal.sendline("print(answer.status, 3 < answer.tokens < 300)")
    terminal.expect_exact("cancelled True")


def test_a_terminal_deploys_and_stops(terminal, demo_model, running):
    terminal.sendline(f"%lazyllm deploy {MODEL} --wait")
    terminal.expect(rf"{MODEL} · ready in [\d.]+ s · llamacpp · http://127\.0\.0\.1:\d+/v1\r\n")
    terminal.expect_exact("In [3]: ")
    terminal.sendline("%lazyllm ps")
    terminal.expect(rf"{MODEL}  ready   llamacpp")
    terminal.expect_exact("In [4]: ")
    terminal.sendline("exit")
    terminal.expect(pexpect.EOF)
    deadline = time.monotonic() + 12
    while running():
        assert time.monotonic() < deadline
        time.sleep(0.1)
