"""`TrainableModule`: what it is before anything runs."""

import timeit

import pytest
from gguf_file import gguf

import lazynb
from lazynb.errors import EngineNotInstalledError, LazynbError, ModelNotFoundError, OptionError


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LAZYLLM_HOME", str(tmp_path))
    return tmp_path


def test_building_one_asks_nothing_and_starts_nothing(home):
    module = lazynb.TrainableModule("no-such-model")
    assert module.status() == "not started"
    assert repr(module) == "TrainableModule('no-such-model', status='not started')"
    assert not list(home.iterdir())


def test_an_unknown_model_is_an_error_with_near_names_when_it_starts():
    with pytest.raises(ModelNotFoundError, match="smollm2-135m-instruct"):
        lazynb.TrainableModule("smollm2-135m-instuct").start()


def test_without_a_model_or_a_url_there_is_nothing_to_start():
    with pytest.raises(OptionError, match="no model"):
        lazynb.TrainableModule().start()


def test_autostart_can_be_switched_off(monkeypatch):
    monkeypatch.setenv("LAZYLLM_AUTOSTART", "false")
    with pytest.raises(LazynbError, match=r"Call start\(\) first"):
        lazynb.TrainableModule("smollm2-135m-instruct")("hello")


def test_the_messages_are_what_the_model_sees():
    module = lazynb.TrainableModule("qwen2-1.5b").prompt(
        {"system": "你是一个专业的{system_role}", "user": "{user_input}"}
    )
    assert module.messages({"system_role": "编程助手", "user_input": "写代码"}) == [
        {"role": "system", "content": "你是一个专业的编程助手"},
        {"role": "user", "content": "写代码"},
    ]


def test_no_hidden_system_prompt_is_added():
    messages = lazynb.TrainableModule("qwen2-1.5b").messages("hello")
    assert messages == [{"role": "user", "content": "hello"}]


def test_a_share_changes_nothing_of_its_parent():
    base = lazynb.TrainableModule("qwen2-1.5b").prompt("base").formatter(str.upper)
    share = base.share(prompt="other", format=str.lower, stream={"color": "blue"})
    assert base.messages("x")[0]["content"] == "base"
    assert share.messages("x")[0]["content"] == "other"
    assert base.stream is False
    assert share.stream == {"color": "blue"}
    share.prompt("third")
    assert base.messages("x")[0]["content"] == "base"


def test_a_share_keeps_what_it_is_not_given():
    base = lazynb.TrainableModule("qwen2-1.5b", stream=True).prompt("base")
    assert base.share().messages("x") == base.messages("x")
    assert base.share().stream is True


def test_a_share_costs_under_20_microseconds():
    base = lazynb.TrainableModule("qwen2-1.5b").prompt("base")
    assert min(timeit.repeat(base.share, number=1000, repeat=5)) / 1000 < 20e-6


@pytest.mark.parametrize("name", ["LMDeploy", "lmdeploy", "LMDEPLOY"])
def test_methods_ignore_case(name):
    assert getattr(lazynb.deploy, name) == lazynb.deploy.LMDeploy


def test_an_unknown_method_suggests_near_ones():
    with pytest.raises(AttributeError, match="vllm"):
        _ = lazynb.deploy.vlm


def test_a_finetune_method_is_no_deploy_method():
    with pytest.raises(OptionError):
        lazynb.TrainableModule("x").deploy_method(lazynb.finetune.auto)


def test_unknown_looks_and_colors_suggest_near_ones():
    with pytest.raises(OptionError, match="prefix_color"):
        lazynb.TrainableModule("x", stream={"prefix_colour": "blue"})
    with pytest.raises(OptionError, match="green"):
        lazynb.TrainableModule("x", stream={"color": "gren"})


def test_a_generation_parameter_that_does_not_exist_suggests_near_ones():
    module = lazynb.TrainableModule("smollm2-135m-instruct")
    with pytest.raises(OptionError, match="temperature"):
        module.answer("hello", temprature=1)


def test_fine_tuning_says_what_is_missing():
    with pytest.raises(OptionError, match="trainset"):
        lazynb.TrainableModule("qwen2-1.5b").mode("finetune").update()


def test_a_url_of_lazynbs_own_service_needs_no_key(jobs):
    job = jobs.service()
    job.wait(timeout=20)
    at = f"http://localhost:{job.state.port}/v1/"
    module = lazynb.TrainableModule().deploy_method(lazynb.deploy.vllm, url=at)
    assert module._deployment.endpoint().key == job.key
    given = lazynb.TrainableModule().deploy_method("vllm", url=at, api_key="mine")
    assert given._deployment.endpoint().key == "mine"
    elsewhere = at.replace("localhost", "models.example")
    module.deploy_method("vllm", url=elsewhere)
    assert module._deployment.endpoint().key == ""
    job.stop()
    module.deploy_method("vllm", url=at)
    assert module._deployment.endpoint().key == ""


def test_an_engine_that_cannot_be_started_here_is_one_clear_error_and_starts_nothing(home):
    module = lazynb.TrainableModule("smollm2-135m-instruct").deploy_method(lazynb.deploy.vllm)
    with pytest.raises(EngineNotInstalledError, match="%lazyllm install vllm"):
        module.start()
    assert not list(home.glob("jobs/*"))


def test_tuned_weights_at_the_target_path_are_what_is_served(home, monkeypatch):
    monkeypatch.setenv("LAZYLLM_TRAIN_TARGET_ROOT", str(home / "tuned"))
    deployment = lazynb.TrainableModule("qwen2-1.5b", target_path="mine")._deployment
    assert deployment.weights == "qwen2-1.5b"
    gguf(home / "tuned" / "mine" / "model.gguf")
    assert deployment.weights == str(home / "tuned" / "mine")
    assert deployment.resolve().path == str(home / "tuned" / "mine" / "model.gguf")
    elsewhere = lazynb.TrainableModule("qwen2-1.5b", target_path=home / "tuned" / "mine")
    assert elsewhere._deployment.weights == deployment.weights


def test_the_catalogue_tells_the_type_of_a_model_that_is_not_here():
    assert lazynb.TrainableModule("internvl-chat-2b-v1-5").type == "vlm"
    assert lazynb.TrainableModule("bge-large-zh-v1.5").type == "embed"


def test_a_service_that_was_started_again_at_its_url_is_asked_with_its_new_key(jobs):
    first = jobs.service()
    first.wait(timeout=20)
    module = lazynb.TrainableModule().deploy_method("vllm", url=first.url)
    assert module._deployment.endpoint().key == first.key
    first.stop()
    second = jobs.service(port=int(first.url.split(":")[2].removesuffix("/v1")))
    second.wait(timeout=20)
    module._started()
    assert module._deployment.endpoint().key == second.key != first.key
