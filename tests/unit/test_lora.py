"""The option for LoRA adapters: looked at before anything starts, written for each engine as that wants it."""

import json
import sys

import pytest

from lazynb.engines import get, plan
from lazynb.errors import OptionError
from tests.unit.test_engines import given


@pytest.fixture
def adapter(tmp_path):
    def make(name, **facts):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "adapter_config.json").write_text(
            json.dumps({"peft_type": "LORA", "r": 8, **facts})
        )
        return folder

    return make


def test_folders_become_absolute_and_a_magics_line_is_read(adapter, tmp_path, monkeypatch):
    one, two = adapter("one"), adapter("two")
    monkeypatch.chdir(tmp_path)
    wanted = {"lora_modules": {"a": str(one), "b": str(two)}}
    for value in ({"a": one, "b": "two"}, "a=one,b=two", ["a=one", f"b={two}"]):
        assert get("transformers").check({"lora_modules": value}) == wanted


def test_the_folder_of_a_training_run_stands_for_its_adapter(adapter, tmp_path):
    folder = adapter("run/adapter")
    (tmp_path / "run" / "version.json").write_text(json.dumps({"adapter": "adapter"}))
    checked = get("vllm").check({"lora_modules": {"mine": tmp_path / "run"}})
    assert checked == {"lora_modules": {"mine": str(folder)}}


@pytest.mark.parametrize("wrong", [3, "", "name", {"": "x"}, {"a": ""}, {"a": "/nowhere"}], ids=str)
def test_what_is_no_adapter_is_an_error(wrong):
    with pytest.raises(OptionError, match="lora_modules"):
        get("transformers").check({"lora_modules": wrong})


def test_more_than_plain_lora_is_refused_where_it_would_be_left_out(adapter):
    for facts in ({"use_dora": True}, {"bias": "all"}, {"modules_to_save": ["lm_head"]}):
        folder = adapter("-".join(facts), **facts)
        with pytest.raises(OptionError, match=f"has {next(iter(facts))}"):
            get("transformers").check({"lora_modules": {"a": folder}})
        get("vllm").check({"lora_modules": {"a": folder}})  # which says itself what it cannot do
    with pytest.raises(OptionError, match="of type IA3"):
        get("vllm").check({"lora_modules": {"a": adapter("other", peft_type="IA3")}})


def test_vllm_makes_room_for_the_adapters_and_gets_their_names(adapter, tmp_path, monkeypatch):
    monkeypatch.setenv("LAZYLLM_VLLM_PYTHON", sys.executable)
    monkeypatch.setattr(sys.modules["lazynb.engines.vllm"], "nvidia", lambda: 0)
    folders = {"a": adapter("one"), "b": adapter("two", r=24)}
    model = given(tmp_path / "full", "chat", "safetensors")
    argv = plan(model, get("vllm"), {"lora_modules": folders}, "demo").argv
    assert {"--enable-lora", "--max-lora-rank=32", "--max-loras=3"} <= set(argv)
    start = argv.index("--lora-modules")
    named = [json.loads(text) for text in argv[start + 1 : start + 3]]
    assert named == [{"name": name, "path": str(folder)} for name, folder in folders.items()]


def test_lmdeploy_serves_them_with_the_backend_that_can(adapter, tmp_path, monkeypatch):
    monkeypatch.setenv("LAZYLLM_LMDEPLOY_PYTHON", sys.executable)
    model = given(tmp_path / "full", "chat", "safetensors")
    folder = adapter("one")
    argv = plan(model, get("lmdeploy"), {"lora_modules": {"a": folder}}, "demo").argv
    assert "--backend=pytorch" in argv
    assert argv[argv.index("--adapters") + 1] == f"a={folder}"
