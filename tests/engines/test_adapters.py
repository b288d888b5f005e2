"""LoRA adapters beside their base, made by PEFT, on the engines that serve them."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

import lazynb
from lazynb.engines.environment import environment
from lazynb.errors import OptionError
from tests.conftest import DEMO
from tests.engines.conftest import PROGRAMS
from tests.small_models import full_model

pytestmark = pytest.mark.slow

QUESTION = "Tell me about the sea."
RANKS = {"sailor": 4, "poet": 12}


@pytest.fixture(scope="module")
def adapters(installed, model_cache, demo_model, tmp_path_factory):
    """Name → (folder, what PEFT itself says to the question)."""
    installed("transformers")
    full = full_model(demo_model, model_cache)
    made = {}
    for name, rank in RANKS.items():
        folder = tmp_path_factory.mktemp("adapters") / name
        run = [
            environment("transformers").python,
            PROGRAMS / "make_adapter.py",
            full,
            folder,
            str(rank),
        ]
        done = subprocess.run(run, check=True, capture_output=True, text=True)
        made[name] = (folder, done.stdout.strip())
    return made


@pytest.fixture(scope="module", params=["transformers", "vllm"])
def service(request, installed, submit, demo_model, adapters):
    installed(request.param)
    folders = {name: str(folder) for name, (folder, _) in adapters.items()}
    job = submit(str(demo_model), request.param, dtype="float32", lora_modules=folders)
    job.wait(timeout=300)
    return job


@pytest.fixture
def ask(service):
    with openai.OpenAI(base_url=service.url, api_key=service.key, timeout=120) as client:

        def said(model):
            answer = client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": QUESTION}], temperature=0, max_tokens=12
            )  # fmt: skip
            return answer.choices[0].message.content.strip()

        said.client = client
        yield said


def test_each_is_a_model_of_the_service_whose_base_comes_first(ask):
    assert [model.id for model in ask.client.models.list()] == ["demo", "sailor", "poet"]


def test_each_answers_as_peft_does(ask, adapters):
    for name, (_, text) in adapters.items():
        assert ask(name) == text
    assert len({ask("demo"), *(text for _, text in adapters.values())}) == 3


def test_all_at_once_answer_as_each_alone(ask):
    names = ["demo", "sailor", "poet"] * 4
    alone = {name: ask(name) for name in set(names)}
    with ThreadPoolExecutor(len(names)) as threads:
        assert list(threads.map(ask, names)) == [alone[name] for name in names]


def test_an_adapter_that_there_is_not_is_not_found(ask):
    with pytest.raises(openai.NotFoundError):
        ask("pirate")


def test_a_module_chooses_one_by_its_model(adapters, place, model_cache, monkeypatch):
    folder, text = adapters["sailor"]
    module = lazynb.TrainableModule(DEMO).deploy_method(
        lazynb.deploy.transformers, dtype="float32", lora_modules={"sailor": folder}
    )
    try:
        assert module(QUESTION, model="sailor", temperature=0, max_tokens=12).strip() == text
        assert module(QUESTION, temperature=0, max_tokens=12).strip() != text
    finally:
        module.stop()


@pytest.mark.parametrize("wrong", ["text", {"a": "/nowhere"}, {"a": "."}], ids=str)
def test_what_is_no_adapter_is_refused_before_anything_starts(place, wrong):
    module = lazynb.TrainableModule(DEMO).deploy_method(
        lazynb.deploy.transformers, lora_modules=wrong
    )
    with pytest.raises(OptionError, match=r"adapter"):
        module.start()
