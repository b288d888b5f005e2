"""An engine is a value: what it takes, what it would run, and what it says about what it does not take."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import msgspec
import pytest
from gguf_file import gguf

from lazynb import engines
from lazynb.engines import Engine, Option, choose, get, interpreter, plan
from lazynb.engines import llamacpp as llamacpp_module
from lazynb.engines.commandline import LAUNCH
from lazynb.engines.machine import available_memory, cores
from lazynb.errors import EngineNotInstalledError, OptionError
from lazynb.hub import Model
from lazynb.jobs.spec import Command, JobSpec

FACTS = {
    "general__architecture": "llama",
    "llama__block_count": 30,
    "llama__context_length": 8192,
    "llama__embedding_length": 576,
    "llama__attention__head_count": 9,
    "llama__attention__head_count_kv": 3,
}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty home; whatever engines this machine has, only the kernel's own count."""
    monkeypatch.setenv("LAZYLLM_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("LAZYLLM_LLAMACPP_PYTHON", raising=False)
    return tmp_path / "home"


@pytest.fixture
def model(tmp_path):
    return given(gguf(tmp_path / "tiny.gguf", **FACTS))


def given(path, type_="chat", format_="gguf"):
    return Model(
        name=path.stem, path=str(path), type=type_, format=format_, source="path", present=True
    )


def options_of(command: Command) -> dict:
    return msgspec.json.decode(command.argv[command.argv.index("--options") + 1])


# Names.


def test_an_engines_name_ignores_case():
    assert get("LlamaCpp") is get("llamacpp")


def test_an_unknown_engine_lists_the_near_ones():
    with pytest.raises(OptionError, match=r"no engine 'llama\.cpp'\nDid you mean llamacpp"):
        get("llama.cpp")


def test_lmdeploy_is_started_by_its_own_command_and_its_key_is_in_no_argument(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("LAZYLLM_LMDEPLOY_PYTHON", sys.executable)
    options = {"tensor_parallel_size": 2, "session_len": "4096"}
    command = plan(given(tmp_path / "full", "vlm", "safetensors"), get("LMDeploy"), options, "demo")
    argv = command.argv[command.argv.index("serve") :]
    assert argv[:3] == ["serve", "api_server", str(tmp_path / "full")]
    assert {"--tp=2", "--session-len=4096", "--model-name", "demo", "127.0.0.1"} <= set(argv)
    assert "{key}" not in " ".join(command.argv)


def test_a_key_that_a_server_takes_as_an_argument_stays_out_of_the_process_list(tmp_path):
    (tmp_path / "pretend.py").write_text(
        "import sys, pathlib\nprint(sys.argv[1:])\nprint(pathlib.Path('/proc/self/cmdline').read_bytes())"
    )
    run = [sys.executable, LAUNCH, "pretend", "--lazynb-key=--api-keys", "serve", "x", "--tp=2"]
    env = {"LAZYNB_KEY": "secret", "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(run, env=env, capture_output=True, text=True)
    said = done.stdout.splitlines()
    assert said[-2] == "['serve', 'x', '--tp=2', '--api-keys', 'secret']", done.stderr
    assert "secret" not in said[-1]


def test_a_method_without_an_engine_says_how_to_connect_to_a_server():
    for name in ("diffusers", "chattts", "funasr"):
        with pytest.raises(EngineNotInstalledError, match=rf"no engine {name.lower()}\n.*url="):
            get(name)


def test_another_package_adds_an_engine_by_an_entry_point(tmp_path, monkeypatch, model):
    site = tmp_path / "site"
    info = site / "their_engine-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-engine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[lazynb.engines]\ntheirs = their_engine:engine\nbroken = their_engine:nothing\nother = their_engine:other\n"
    )
    (site / "their_engine.py").write_text(
        "import dataclasses\nfrom lazynb.engines import get\n"
        "engine = dataclasses.replace(get('llamacpp'), name='theirs')\nother = 3\n"
    )
    monkeypatch.syspath_prepend(str(site))
    assert "theirs" in engines.names()
    assert get("Theirs").name == "theirs"
    assert (
        choose(model)[0].name == "llamacpp"
    )  # lazynb's own come first; a broken one is passed over
    with pytest.raises(OptionError, match="their-engine cannot be loaded"):
        get("broken")
    with pytest.raises(OptionError, match=r"is not a lazynb\.engines\.Engine"):
        get("other")


# Options.


def test_options_pass_through_under_the_engines_own_names(model):
    command = plan(model, get("llamacpp"), {"n_batch": 64, "use_jinja": False}, "tiny")
    assert options_of(command)["n_batch"] == 64
    assert options_of(command)["use_jinja"] is False


@pytest.mark.parametrize(
    ("given_as", "means"),
    [
        ({"ctx_size": 1024}, {"n_ctx": 1024}),
        ({"ctx-size": "1024"}, {"n_ctx": 1024}),
        ({"parallel": 2}, {"n_parallel": 2}),
        ({"gpu_layers": 0}, {"n_gpu_layers": 0}),
        ({"flash_attn": "on"}, {"flash_attn_type": "on"}),
        ({"tensor_split": "0.5,0.5"}, {"tensor_split": [0.5, 0.5]}),
        ({"use_jinja": "false"}, {"use_jinja": False}),
    ],
)
def test_the_names_of_llama_server_and_words_typed_on_a_line_work_too(given_as, means):
    assert get("llamacpp").check(given_as) == means


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_ctxx": 1}, r"no option 'n_ctxx'\nDid you mean n_ctx"),
        ({"tensor_parallel_size": 2}, "no option 'tensor_parallel_size'"),
        ({"n_ctx": "many"}, r"n_ctx = 'many' does not fit.*\nn_ctx: tokens of context"),
        ({"n_ctx": 1.5}, "does not fit"),
        ({"n_ctx": -1}, "does not fit"),
        ({"n_parallel": 0}, "does not fit"),
        ({"flash_attn": "maybe"}, r"does not fit.*\n.*\(auto, on, off\)"),
        ({"lora_adapters": 3}, "does not fit"),
        ({"n_ctx": 1, "ctx_size": 2}, "n_ctx is given twice"),
        ({"api_keys": ["mine"]}, "no option 'api_keys'"),
        ({"hostnames": ["0.0.0.0"]}, "no option 'hostnames'"),
    ],
)
def test_what_the_engine_does_not_take_is_refused_before_anything_starts(model, options, message):
    with pytest.raises(OptionError, match=message):
        plan(model, get("llamacpp"), options, "tiny")


# What is run.


def test_the_key_is_in_the_environment_and_never_in_the_arguments(model):
    command = plan(model, get("llamacpp"), {}, "tiny")
    assert command.env["LLAMA_API_KEY"] == "{key}"
    assert "{key}" not in "".join(command.argv)
    assert command.argv[0] == sys.executable


def test_the_server_program_is_run_by_its_path_and_needs_nothing_of_lazynb(model):
    program = Path(plan(model, get("llamacpp"), {}, "tiny").argv[1])
    assert program.is_file()
    assert "lazynb" not in [
        line.split()[1] for line in program.read_text().splitlines() if "import " in line[:7]
    ]


def test_every_request_gets_a_useful_context_of_its_own(model):
    chosen = options_of(plan(model, get("llamacpp"), {}, "tiny"))
    assert chosen["n_ctx"] // chosen["n_parallel"] == 4096
    assert chosen["n_parallel"] >= 4


def test_a_model_trained_with_less_context_gets_no_more_than_that(tmp_path):
    short = given(gguf(tmp_path / "short.gguf", **{**FACTS, "llama__context_length": 512}))
    chosen = options_of(plan(short, get("llamacpp"), {}, "short"))
    assert chosen["n_ctx"] // chosen["n_parallel"] == 512


def test_a_model_with_a_costly_context_is_given_fewer_requests_at_once(tmp_path):
    costly = {**FACTS, "llama__embedding_length": 4096, "llama__attention__head_count": 32}
    costly |= {
        "llama__attention__head_count_kv": 32,
        "llama__block_count": 32,
    }  # 2 GB for 4096 tokens
    chosen = options_of(plan(given(gguf(tmp_path / "c.gguf", **costly)), get("llamacpp"), {}, "c"))
    assert (chosen["n_parallel"], chosen["n_ctx"]) == (1, 4096)


@pytest.mark.parametrize("odd", [0, "many"])
def test_odd_facts_in_a_gguf_do_no_harm(tmp_path, odd):
    facts = dict.fromkeys(FACTS, odd) | {"general__architecture": "llama"}
    chosen = options_of(plan(given(gguf(tmp_path / "o.gguf", **facts)), get("llamacpp"), {}, "o"))
    assert chosen["n_ctx"] >= 4096


def test_more_requests_at_once_get_their_context_too(model):
    chosen = options_of(plan(model, get("llamacpp"), {"n_parallel": 3}, "tiny"))
    assert (chosen["n_parallel"], chosen["n_ctx"]) == (3, 3 * 4096)


def test_a_context_set_alone_means_what_it_means_to_llama_server(model):
    chosen = options_of(plan(model, get("llamacpp"), {"n_ctx": 8192}, "tiny"))
    assert (chosen["n_parallel"], chosen["n_ctx"]) == (-1, 8192)


# Choice.


def test_a_gguf_goes_to_llamacpp_and_one_line_says_why(model):
    engine, why = choose(model)
    assert engine.name == "llamacpp"
    assert why.startswith("llamacpp: ")
    assert "gguf" in why
    assert "\n" not in why


def test_vllm_gets_its_options_as_a_command_line_and_its_key_as_a_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("LAZYLLM_VLLM_PYTHON", sys.executable)
    options = {"tensor_parallel_size": "2", "max_model_len": "1k", "enable_prefix_caching": False}
    command = plan(given(tmp_path / "full", "chat", "safetensors"), get("vllm"), options, "demo")
    assert {"--tensor-parallel-size=2", "--max-model-len=1k", "--no-enable-prefix-caching"} <= set(
        command.argv
    )
    assert command.argv[command.argv.index("--served-model-name") + 1] == "demo"
    assert command.env["VLLM_API_KEY"] == "{key}"
    assert "{key}" not in " ".join(command.argv)


def test_vllm_gets_full_weights_out_of_a_gguf_file(model, monkeypatch):
    monkeypatch.setenv("LAZYLLM_VLLM_PYTHON", sys.executable)
    command = plan(model, get("vllm"), {}, "demo")
    assert command.argv[command.argv.index("--lazynb-gguf") + 1] == model.path
    unpacked = command.argv[command.argv.index("--lazynb-unpacked") + 1]
    assert command.argv[command.argv.index("--model") + 1] == unpacked


def test_vllm_refuses_an_option_that_it_has_not_and_those_that_lazynb_fills_in():
    with pytest.raises(OptionError, match=r"'max_model_length'\nDid you mean max_model_len"):
        get("vllm").check({"max_model_length": 3})
    with pytest.raises(OptionError, match="no option 'api_key'"):
        get("vllm").check({"api_key": "mine"})
    with pytest.raises(OptionError, match="tensor_parallel_size = 'two' does not fit"):
        get("vllm").check({"tensor_parallel_size": "two"})


@pytest.mark.parametrize(
    ("kind", "gpus", "first"),
    [
        ("chat", 0, "transformers"),
        ("chat", 1, "vllm"),
        ("vlm", 1, "lmdeploy"),
        ("embed", 1, "embedding"),
        ("rerank", 0, "rerank"),
    ],
)
@pytest.mark.usefixtures("home")
def test_the_machine_and_the_type_of_the_model_decide_about_its_engine(
    tmp_path, monkeypatch, kind, gpus, first
):
    monkeypatch.setattr(sys.modules["lazynb.engines.choose"], "nvidia", lambda: gpus)
    assert choose(given(tmp_path / "full", kind, "safetensors"))[0].name == first


def test_a_model_that_no_engine_runs_is_an_error_that_names_it(tmp_path):
    with pytest.raises(EngineNotInstalledError, match="pictures, a image model"):
        choose(given(tmp_path / "pictures", "image", "safetensors"))


def test_an_engine_refuses_a_model_that_is_not_its_own(tmp_path):
    with pytest.raises(OptionError, match=r"llamacpp does not run full.*\nIt runs chat models"):
        plan(given(tmp_path / "full", "chat", "safetensors"), get("llamacpp"), {}, "full")


# Interpreters.


def engine_of(package):
    return Engine(
        name="other", types=("chat",), formats=("gguf",), package=package, requirement="other-engine",
        options={"x": Option(int, "a number")}, command=lambda *_: Command(argv=[]),
    )  # fmt: skip


def test_an_engine_that_is_nowhere_says_how_to_install_it():
    with pytest.raises(EngineNotInstalledError, match=r"%pip install other-engine"):
        interpreter(engine_of("no_such_package"))


def test_the_managed_environment_comes_before_the_kernels_own(home):
    assert interpreter(get("llamacpp")) == sys.executable
    managed = home / "envs" / "llamacpp" / "bin" / "python"
    managed.parent.mkdir(parents=True)
    managed.symlink_to(sys.executable)
    assert interpreter(get("llamacpp")) == sys.executable, "one that was cut off is not used"
    (home / "envs" / "llamacpp" / "lazynb-requirements").write_text("of an older version")
    assert interpreter(get("llamacpp")) == str(managed)


def test_the_configured_interpreter_comes_first(home, monkeypatch):
    managed = home / "envs" / "llamacpp" / "bin" / "python"
    managed.parent.mkdir(parents=True)
    managed.symlink_to(sys.executable)
    monkeypatch.setenv("LAZYLLM_LLAMACPP_PYTHON", sys.executable)
    assert interpreter(get("llamacpp")) == sys.executable
    monkeypatch.setenv("LAZYLLM_LLAMACPP_PYTHON", "/no/such/python")
    with pytest.raises(
        EngineNotInstalledError, match="LAZYLLM_LLAMACPP_PYTHON names /no/such/python"
    ):
        interpreter(get("llamacpp"))


# Preparation.


def prepare(folder, **spec):
    folder.mkdir()
    spec = JobSpec(id="1", name="demo", **spec)
    (folder / "spec.json").write_bytes(msgspec.json.encode(spec))
    return subprocess.run(
        [sys.executable, "-m", "lazynb.engines.prepare", str(folder)],
        capture_output=True,
        text=True,
    )


def test_preparation_writes_the_command_for_the_jobs_own_name_and_the_engine_it_chose(
    tmp_path, model
):
    done = prepare(tmp_path / "job", model=model.path, engine="auto", options={"n_parallel": 2})
    assert done.returncode == 0, done.stderr
    path = tmp_path / "job" / "command.json"
    command = msgspec.json.decode(path.read_bytes(), type=Command)
    assert path.stat().st_mode & 0o777 == 0o600
    assert command.engine == "llamacpp"
    assert command.argv[command.argv.index("--name") + 1] == "demo"
    assert options_of(command)["n_parallel"] == 2


@pytest.mark.parametrize(
    ("spec", "cause"),
    [
        ({"model": "no-such-model"}, "There is no model"),
        ({"model": "/no/such.gguf"}, "There is nothing at"),
        ({"model": "smollm2-135m-instruct", "engine": "nothing"}, "There is no engine"),
    ],
)
def test_a_preparation_that_fails_says_the_cause_in_its_last_line(tmp_path, spec, cause):
    done = prepare(tmp_path / "job", **spec)
    assert done.returncode == 1
    last = done.stdout.splitlines()[-1]
    failure = msgspec.json.decode(last.removeprefix("@failed "))
    assert failure["cause"].startswith(cause)
    assert failure["hint"]
    assert "Traceback" not in done.stderr


# The machine.


def test_a_containers_limits_count(tmp_path, monkeypatch):
    monkeypatch.setattr("lazynb.engines.machine.CGROUP", tmp_path)
    free, whole = available_memory(), cores()
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    (tmp_path / "memory.max").write_text("2000000\n")
    (tmp_path / "memory.current").write_text("1500000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 100000\n")
    assert (cores(), available_memory()) == (1, 600_000)
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert cores() == whole
    assert available_memory() == pytest.approx(free, rel=0.2)


def test_importing_the_engines_imports_nothing_heavy():
    code = "import sys, lazynb.engines; print(sorted({'torch', 'psutil', 'aiohttp', 'xllamacpp'} & set(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


@pytest.mark.skipif(
    not metadata.packages_distributions().get("xllamacpp"), reason="needs xllamacpp"
)
def test_every_option_is_one_that_this_llamacpp_has():
    """In a process of its own: the kernel never imports xllamacpp."""
    code = (
        "import json, runpy, sys, typing, xllamacpp\n"
        "fill = runpy.run_path(sys.argv[1])['fill']\n"
        "for option, values in json.loads(sys.argv[2]).items():\n"
        "    for value in values: fill(xllamacpp.CommonParams(), option, value)\n"
    )
    samples = {
        int: [1],
        bool: [True],
        float: [0.5],
        str: ["x"],
        list[float]: [[1.0]],
        list[str]: [["x"]],
    }
    tried = {
        name: samples.get(getattr(option.type, "__origin__", option.type))
        or samples.get(option.type)
        or list(option.type.__args__)
        for name, option in llamacpp_module.OPTIONS.items()
    }
    arguments = [str(llamacpp_module.SERVER), msgspec.json.encode(tried).decode()]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert set(llamacpp_module.ALIASES.values()) <= set(llamacpp_module.OPTIONS)
