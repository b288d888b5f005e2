"""`%lazyllm pull | models | rm` and a model of a hub in a cell, in real kernels, against the hub on this machine."""

import shutil

import pytest

from tests.local_hub import LocalHub

pytestmark = pytest.mark.one_kernel
REPO = "someone/smol-GGUF"


@pytest.fixture(params=["modelscope", "huggingface"])
def hub(request, tmp_path):
    hub = LocalHub(tmp_path / "hub", request.param, tmp_path / "hub-home")
    yield hub
    hub.close()


@pytest.fixture
def shell(hub, kernel_env, start_kernel, monkeypatch):
    """A kernel with the magics, whose hubs are the one here and whose cache is empty."""
    kernel_env |= {name: hub.env[name] for name in hub.env if name.startswith(("HF_", "MODELSC"))}
    kernel_env |= {"LAZYLLM_MODEL_SOURCE": hub.source, "LAZYLLM_MODEL_CACHE_DIR": ""}
    kernel = start_kernel()
    kernel.run("%load_ext lazynb")
    return kernel


def test_a_model_is_pulled_listed_and_removed(shell, hub):
    hub.repository()
    hub.faults(rate=6_000_000)
    assert shell.run("%lazyllm pull someone/tiny").status == "ok"
    pulled = shell.run("%lazyllm pull someone/tiny --wait")  # the same again joins it
    assert pulled.status == "ok", pulled.error
    assert pulled.settled["text/plain"].startswith("someone/tiny · downloaded in ")
    assert len(hub.asked()) == 1
    assert "is on this machine" in shell.run("%lazyllm pull someone/tiny").text
    outputs = shell.run("%lazyllm models tiny").outputs
    (listed,) = [o["data"]["text/plain"] for o in outputs if "data" in o]
    assert "someone/tiny  chat  safetensors  6 MB" in listed
    assert f"{hub.source}: someone/tiny@" in listed
    assert shell.run("%lazyllm rm someone/tiny").text == "someone/tiny · removed, 6 MB free"
    assert "There is no such model" in str(shell.run("%lazyllm models tiny").outputs)


def test_a_pull_that_fails_says_why_in_the_cell(shell):
    failed = shell.run("%lazyllm pull someone/nothing --wait")
    assert failed.status == "error"
    assert "has no model someone/nothing" in failed.error
    assert "Traceback" not in failed.error


@pytest.mark.slow
def test_a_model_of_a_hub_answers_in_a_cell(shell, hub, demo_model, running):
    folder = hub.folder / REPO
    folder.mkdir(parents=True)
    shutil.copy(demo_model, folder / "SmolLM2.Q4_K_M.gguf")
    answered = shell.run(f"%%lazyllm {REPO} --max-tokens 5 -o answer\nhello", timeout=120)
    assert answered.status == "ok", answered.error
    assert shell.run("print(answer.tokens)").text == "5"
    in_use = shell.run(f"%lazyllm rm {REPO}")
    assert in_use.status == "error"
    assert "is in use" in in_use.error
