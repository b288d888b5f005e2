"""What real embeddings and rankings leave in a saved notebook, which is looked at without a kernel."""

import base64
import subprocess
import sys

import nbformat
import pytest
from bs4 import BeautifulSoup

from lazynb.engines.environment import environment
from tests import small_models
from tests.engines.conftest import ENVIRONMENTS

TEXTS = ["A cat sat on the mat.", "A kitten rests on a <b>rug</b>.", "The stock market fell."]
DOCUMENTS = ["Cows eat grass and hay.", "Paris is the capital of France.", "Hamlet is a play."]


def cells(model, reranker):
    return [
        f"import lazynb\nm = lazynb.TrainableModule({model!r})\nm.start(wait=False).wait();",
        f"m({TEXTS[0]!r})",
        f"m({TEXTS!r})",
        f"ranker = lazynb.TrainableModule({reranker!r}).start()",
        f"ranker('What is the capital of France?', documents={DOCUMENTS!r}, top_n=2)",
        f"print(type(m({TEXTS[0]!r})[:2]), len(str(m({TEXTS!r}))) > 3 * 384 * 8)\nm.stop(), ranker.stop();",
    ]


@pytest.fixture
def env(kernel_env, monkeypatch):
    monkeypatch.setenv("LAZYLLM_ENVS_DIR", str(ENVIRONMENTS))
    if not environment("embedding").usable:
        pytest.skip("the environment of embedding is not installed: make envs")
    return {**kernel_env, "LAZYLLM_ENVS_DIR": str(ENVIRONMENTS)}


@pytest.mark.slow
@pytest.mark.one_kernel
def test_a_saved_notebook_shows_embeddings_and_rankings(tmp_path, env, model_cache, running):
    reranker = small_models.reranker_model(model_cache)
    made = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in cells(small_models.EMBEDDING, reranker)]
    )
    nbformat.write(made, tmp_path / "in.ipynb")
    convert = [sys.executable, "-m", "nbconvert", "--to"]
    words = ["notebook", "--execute", "in.ipynb", "--output", "out.ipynb"]
    ran = subprocess.run([*convert, *words], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert not running()

    saved = nbformat.read(tmp_path / "out.ipynb", 4)
    nbformat.validate(saved)
    _, one, several, _, ranking, printed = [cell.outputs for cell in saved.cells]
    for outputs in (one, several, ranking):
        assert [output.output_type for output in outputs] == ["execute_result"]
        assert outputs[0].data.keys() == {"text/plain", "text/html"}
    assert one[0].data["text/plain"].startswith("embedding of 384 numbers, norm 1.00: [0.")
    assert (
        several[0].data["text/plain"].startswith("3 embeddings of 384 numbers, cosine similarity:")
    )
    assert "1  Paris is the capital of France." in ranking[0].data["text/plain"].splitlines()[1]
    assert printed[0].text == "<class 'list'> True\n"

    subprocess.run([*convert, "html", "out.ipynb"], cwd=tmp_path, env=env, check=True)
    page = BeautifulSoup((tmp_path / "out.html").read_text(), "html.parser")
    heat, matrix, table = page.select(".jp-OutputArea-executeResult .jp-RenderedHTML")
    assert "embedding of 384 numbers, norm 1.00, from" in heat.text
    assert heat.img["src"].startswith("data:image/png;base64,")
    picture = base64.b64decode(matrix.img["src"].partition("base64,")[2]).decode()
    assert "A kitten rests on a &lt;b&gt;rug" in picture
    assert not matrix.find_all("b")
    assert [cell.text for cell in table.find_all("tr")[1].find_all("td")][2:] == ["1", DOCUMENTS[1]]
    assert len(table.find_all("img")) == 2
