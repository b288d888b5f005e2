"""The guide's own snippets, taken out of `docs/guide.zh.md` and run in their order, as a reader would.

They share one namespace and a folder of their own. What is changed in them: `import lazyllm` imports lazynb, the files
of `/path/to` are real ones, and port 8000 is a free port. The chat model of the guide's name is the demo's model. Lines
that begin with a dot belong to the line before, with a backslash or without.

Each block has a check of what the guide says comes out. What cannot work yet stands in `WAITS`, statement by statement.
"""

from __future__ import annotations

import ast
import io
import json
import re
import subprocess
import sys
import urllib.request
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import lazynb
from lazynb.engines import llamacpp
from lazynb.errors import EngineNotInstalledError, LazynbError, OptionError
from lazynb.formatter import JsonFormatter
from lazynb.jobs import manager, ports
from lazynb.methods import Method

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytest.importorskip("xllamacpp")
pytestmark = pytest.mark.slow

DOCUMENT = Path(__file__).parents[2] / "docs" / "guide.zh.md"
GENERATE = Path(__file__).parents[1] / "programs" / "generate.py"
GENERATED = " 很高兴 认识 你。"

PREAMBLE = "import lazynb as lazyllm; from lazynb import encode_query_with_filepaths"


@dataclass(frozen=True)
class Wait:
    """A statement that cannot work yet, by its beginning; those that need its result are left out."""

    statement: str
    error: type[LazynbError]
    match: str
    issue: str
    reason: str


ENGINE = EngineNotInstalledError
NONE = "none: it runs where the engine is, see the tests of the engine"
MEDIA = "images, speech and vision: an issue to come, which issue 4 announces"

WAITS: dict[str, list[Wait]] = {
    "执行微调": [
        Wait("model.update()", ENGINE, "llamafactory is not installed", NONE, "only llama.cpp is"),
    ],
    "连接已有的服务": [
        Wait(
            "model = lazyllm.TrainableModule().deploy_method(",
            OptionError,
            "no model to start",
            "none: the guide names no model there",
            "nothing can be started without a model's name",
        ),
    ],
    "Embedding 模型": [
        Wait("embeddings = ", ENGINE, "embedding is not installed", NONE, "only llama.cpp is"),
        Wait("embedding_model.update()", ENGINE, "is not installed", NONE, "only llama.cpp is"),
    ],
    "Rerank 模型": [
        Wait("results = ", ENGINE, "rerank is not installed", NONE, "only llama.cpp is"),
    ],
    "图像生成 (SD)": [
        Wait("image_result = ", ENGINE, "an? image model", MEDIA, "no engine for images yet"),
    ],
    "语音转文本 (STT)": [
        Wait("text_result = ", ENGINE, "an? stt model", MEDIA, "no engine for speech yet"),
    ],
    "文本转语音 (TTS)": [
        Wait("audio_result = ", ENGINE, "an? tts model", MEDIA, "no engine for speech yet"),
    ],
    "视觉语言模型 (VLM)": [
        Wait("response = ", ENGINE, "lmdeploy is not installed", MEDIA, "only llama.cpp is"),
    ],
    "基于 vLLM 启动 OpenAI 服务": [
        Wait("model.start()", ENGINE, "vllm", NONE, "only llama.cpp is installed in this test"),
    ],
}
"""Block → its statements that wait for another issue. One that begins to work fails the test."""


@dataclass(frozen=True)
class Block:
    """A block of Python in the guide, named by its section and, from the second one on, its number there."""

    name: str
    source: str


def blocks(text: str) -> list[Block]:
    """Return the blocks of Python in a Markdown text."""
    found: list[Block] = []
    section, number = "", 0
    for match in re.finditer(
        r"^#+ ([^\n]*)$|^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL
    ):
        title, language, source = match.groups()
        if title:
            section, number = title, 0
        elif language == "python":
            number += 1
            found.append(Block(section if number == 1 else f"{section} {number}", source))
    return found


def joined(source: str) -> str:
    """Put lines that begin with a dot behind the line before them."""
    return re.sub(r"(?<!\\)\n[ \t]+(?=\.[A-Za-z_])", "", source)


BLOCKS = blocks(DOCUMENT.read_text(encoding="utf-8"))


@dataclass
class Run:
    """What a block did."""

    names: dict[str, Any] = field(default_factory=dict)
    """All names as they were when it ended."""
    made: dict[str, list[Any]] = field(default_factory=dict)
    """Each value that it gave to a name."""
    printed: list[Any] = field(default_factory=list)
    """What it gave to `print`."""
    shown: Any = None
    """The value of its last line, which a notebook would show."""
    output: str = ""
    """All that was written to the cell."""
    error: BaseException | None = None
    left_out: list[str] = field(default_factory=list)


class Guide:
    """Runs the blocks, each once, in the order of the document."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = ports.free()
        self.server = subprocess.Popen(
            [sys.executable, str(GENERATE)], stdout=subprocess.PIPE, text=True
        )
        assert self.server.stdout is not None
        self.generate_port = int(self.server.stdout.readline())
        self.names: dict[str, Any] = {}
        self.missing: set[str] = set()
        self.runs: dict[str, Run] = {}
        exec(PREAMBLE, self.names)

    def run(self, name: str) -> Run:
        """Run all blocks up to this one that did not run yet."""
        for block in BLOCKS:
            if block.name not in self.runs:
                self.runs[block.name] = self._run(block)
            if block.name == name:
                break
        done = self.runs[name]
        if done.error is not None:
            raise done.error
        return done

    def requests(self) -> list[dict[str, Any]]:
        """Return what the server of the old format was asked."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.generate_port}/seen") as answer:
            return json.loads(answer.read())

    def _run(self, block: Block) -> Run:
        run = Run()
        self.names["print"] = lambda *values: (run.printed.extend(values), print(*values))
        output = io.StringIO()
        try:
            if prepare := PREPARE.get(block.name):
                prepare(self)
            with redirect_stdout(output):
                self._run_statements(block, run)
        except BaseException as error:
            run.error = error
        run.output, run.names = output.getvalue(), dict(self.names)
        return run

    def _run_statements(self, block: Block, run: Run) -> None:
        source = self._here(joined(block.source))
        waits = list(WAITS.get(block.name, ()))
        for node in ast.parse(source).body:
            statement = ast.get_source_segment(source, node) or ""
            used = {(type(n.ctx), n.id) for n in ast.walk(node) if isinstance(n, ast.Name)}
            stored = {name for context, name in used if context is ast.Store}
            if any(context is ast.Load and name in self.missing for context, name in used):
                run.left_out.append(statement)
                self.missing |= stored
                continue
            wait = next((wait for wait in waits if statement.startswith(wait.statement)), None)
            if wait is None:
                run.shown = self._execute(node)
            else:
                waits.remove(wait)
                self._expect_failure(node, wait)
                self.missing |= stored
                continue
            self.missing -= stored
            for name in stored:
                run.made.setdefault(name, []).append(self.names[name])
        assert not waits, f"the guide has no such statement any more: {waits}"

    def _execute(self, node: ast.stmt) -> Any:
        if isinstance(node, ast.Expr):
            return eval(compile(ast.Expression(node.value), "guide", "eval"), self.names)
        exec(compile(ast.Module([node], []), "guide", "exec"), self.names)
        return None

    def _expect_failure(self, node: ast.stmt, wait: Wait) -> None:
        try:
            self._execute(node)
        except wait.error as error:
            if re.search(wait.match, error.message) and error.hint:
                return
            raise
        pytest.fail(f"{wait.statement!r} works now: check what it gives, not that it waits")

    def _here(self, source: str) -> str:
        """Return a block for this machine: lazynb, the test's files, free ports."""
        source = re.sub(r"^import lazyllm$", "import lazynb as lazyllm", source, flags=re.MULTILINE)
        source = source.replace("/path/to", f"{self.folder}/path/to")
        source = source.replace(
            "localhost:8000/generate", f"localhost:{self.generate_port}/generate"
        )
        return source.replace("8000", str(self.port))


@pytest.fixture(scope="module")
def guide(place, demo_model, tmp_path_factory) -> Iterator[Guide]:
    """The guide in a folder of its own, with the models and files that it names."""
    folder = tmp_path_factory.mktemp("guide")
    fill(folder, demo_model)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("LAZYLLM_ENVS_DIR", str(folder / "no-environments"))
        patch.setenv("LAZYLLM_MODEL_PATH", str(folder / "models"))
        # Asked in Chinese, the small model rambles on to the end of its context.
        patch.setattr(llamacpp, "CONTEXT", 256)
        guide = Guide(folder)
        try:
            yield guide
        finally:
            guide.server.kill()
            guide.server.communicate()
            for job in manager().jobs():
                job.stop()


def fill(folder: Path, demo_model: Path) -> None:
    """Lay out the guide's models and files. Models without an engine are there by their names only."""
    models = folder / "models"
    for name in (
        "bge-large-zh-v1.5/model.safetensors",
        "bge-reranker-large/model.safetensors",
        "stable-diffusion-3-medium/model_index.json",
        "SenseVoiceSmall/configuration.json",
        "SenseVoiceSmall/model.pt",
        "ChatTTS/asset/model.safetensors",
        "../path/to/image.jpg",
        "../path/to/audio.wav",
    ):
        path = models / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"{}")
    rows = {
        "path/to/training/data": [{"instruction": "你好", "output": "你好！"}],
        "path/to/embedding_data": [{"query": "a", "pos": ["b"], "neg": ["c"]}],
    }
    for name, data in rows.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(data))
    (models / "qwen2-1.5b").mkdir()
    (models / "qwen2-1.5b" / "model.gguf").symlink_to(demo_model)


def serve_at_the_guides_port(guide: Guide) -> None:
    """Serve there what the block before would: with the engine that this machine has."""
    guide.names["served"] = (
        lazynb.TrainableModule("qwen2-1.5b")
        .deploy_method(lazynb.deploy.llamacpp, openai_api=True, port=guide.port)
        .start()
    )


PREPARE: dict[str, Callable[[Guide], None]] = {"连接 OpenAI 格式的服务": serve_at_the_guides_port}


# What the guide says of each block.

CHECKS: dict[str, Callable[[Run, Guide], None]] = {}


def check(name: str) -> Callable[[Callable[[Run, Guide], None]], None]:
    """Register what must come of a block."""

    def register(function: Callable[[Run, Guide], None]) -> None:
        assert name not in CHECKS
        CHECKS[name] = function

    return register


def test_every_block_of_the_guide_has_its_check():
    assert [block.name for block in BLOCKS] == list(CHECKS)
    assert WAITS.keys() <= CHECKS.keys()
    assert PREPARE.keys() <= CHECKS.keys()


@pytest.mark.parametrize("name", [block.name for block in BLOCKS])
def test_the_guides_block_runs_and_gives_what_the_guide_says(guide, name):
    run = guide.run(name)
    CHECKS[name](run, guide)


def json_of(item: dict[str, Any]) -> dict[str, Any]:
    """Return parameters that make the small model answer with a list of two such objects."""
    schema = {"type": "array", "items": item, "minItems": 2, "maxItems": 2}
    return {
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
        "max_tokens": 100,
    }


PAIRS = json_of(
    {
        "type": "object",
        "properties": {"a": {"type": "boolean"}},
        "required": ["a"],
        "additionalProperties": False,
    }
)


def live() -> list[Any]:
    return [job for job in manager().jobs() if job.live]


@check("创建和使用 TrainableModule")
def _(run: Run, guide: Guide) -> None:
    model = run.names["model"]
    assert isinstance(model, lazynb.TrainableModule)
    assert model.base_model == "qwen2-1.5b"


@check("创建和使用 TrainableModule 2")
def _(run: Run, guide: Guide) -> None:
    assert run.names["model"]._deployment.target.path == guide.folder / "save_ckpt" / "my_model"


@check("基本推理")
def _(run: Run, guide: Guide) -> None:
    assert run.names["model"].status() == "ready"
    assert isinstance(run.names["response"], str)
    assert run.names["response"].strip()
    assert run.printed == [run.names["response"]]
    notice, _, rest = run.output.partition("\n")
    assert str(guide.folder / "save_ckpt" / "my_model") in notice  # no tuned weights there: said so
    assert rest == run.names["response"] + "\n"


@check("执行微调")
def _(run: Run, guide: Guide) -> None:
    auto, llamafactory = run.made["model"]
    assert auto._deployment.target.path == guide.folder / "path/to/model"
    assert auto._finetune == (Method("finetune", "auto"), {})
    options = {"learning_rate": 1e-4, "num_train_epochs": 3}
    assert llamafactory._finetune == (Method("finetune", "llamafactory"), options)
    for model in (auto, llamafactory):
        assert model._trainset == f"{guide.folder}/path/to/training/data"
        assert model._mode == "finetune"


@check("微调参数配置")
def _(run: Run, guide: Guide) -> None:
    method, options = run.names["model"]._finetune
    assert method == lazynb.finetune.llamafactory
    assert options == {
        "learning_rate": 1e-4,
        "num_train_epochs": 3,
        "per_device_train_batch_size": 4,
        "max_samples": 1000,
        "val_size": 0.1,
    }


@check("启用流式输出")
def _(run: Run, guide: Guide) -> None:
    assert run.names["model"].stream is True


@check("流式输出的使用")
def _(run: Run, guide: Guide) -> None:
    is_streamed(run)


@check("流式输出的使用 2")
def _(run: Run, guide: Guide) -> None:
    is_streamed(run)


def is_streamed(run: Run) -> None:
    assert len(run.printed) > 3
    assert {chunk.kind for chunk in run.printed} == {"text"}
    assert run.output == "".join(f"{chunk}\n" for chunk in run.printed)


@check("流式输出配置")
def _(run: Run, guide: Guide) -> None:
    chunks = list(lazynb.StreamCallHelper(run.names["model"])("hello", max_tokens=10))
    prefix, *texts, suffix = chunks
    assert "".join(chunks) == f"AI: {''.join(texts)}End\n"
    assert (prefix.kind, prefix.color, str(prefix)) == ("prefix", "blue", "\x1b[34mAI: \x1b[0m")
    assert {(chunk.kind, chunk.color) for chunk in texts} == {("text", "green")}
    assert (suffix.kind, suffix.color) == ("suffix", "red")


@check("基础 Prompt 设置")
def _(run: Run, guide: Guide) -> None:
    assert run.names["model"].messages("你是谁？") == [
        {"role": "system", "content": "继续对话"},
        {"role": "user", "content": "你好"},
        {"role": "assistant", "content": "你好！有什么可以帮助你的吗？"},
        {"role": "user", "content": "你是谁？"},
    ]
    assert run.names["model"]("你是谁？", max_tokens=10)


@check("使用字典格式的 Prompt")
def _(run: Run, guide: Guide) -> None:
    given = {"system_role": "编程助手", "user_input": "根据用户的需求编程"}
    lazynb_saw = lazynb.TrainableModule("qwen2-1.5b").prompt(run.names["prompt_config"])
    assert lazynb_saw.messages(given) == [
        {"role": "system", "content": "你是一个专业的编程助手"},
        {"role": "user", "content": "根据用户的需求编程"},
    ]
    assert isinstance(run.shown, str)
    assert run.shown.strip()


@check("清除 Prompt")
def _(run: Run, guide: Guide) -> None:
    assert run.names["model"].messages("你好") == [{"role": "user", "content": "你好"}]


@check("使用内置格式化器")
def _(run: Run, guide: Guide) -> None:
    values = run.names["model"]("Two objects.", **PAIRS)
    assert [type(value) for value in values] == [bool, bool]


@check("自定义格式化器")
def _(run: Run, guide: Guide) -> None:
    first, model = run.made["model"]
    custom = first.share(format=run.names["my_formatter"])("hello", max_tokens=10)
    assert custom.startswith("处理后的结果: ")
    chained = model("Two objects.", **PAIRS)
    assert isinstance(chained, str)
    assert [list(item) for item in json.loads(chained)] == [["a"], ["a"]]


@check("基础共享")
def _(run: Run, guide: Guide) -> None:
    base, chat, code = (run.names[name] for name in ("base_model", "chat_model", "code_model"))
    assert chat.messages("hi")[0]["content"] == "你是一个聊天机器人"
    assert code.messages("hi")[0]["content"] == "你是一个编程助手"
    assert base.messages("hi") == [{"role": "user", "content": "hi"}]
    assert base.status() == "ready"
    assert chat.job is code.job is base.job
    assert [job.id for job in live()] == [base.job.id]  # one service for all of the guide so far
    assert chat("hi", max_tokens=5)
    assert code("hi", max_tokens=5)


@check("共享参数配置")
def _(run: Run, guide: Guide) -> None:
    shared = run.names["shared_model"]
    assert shared.job is run.names["base_model"].job
    assert shared.messages("hi")[0] == {"role": "system", "content": "新的 prompt"}
    stream = lazynb.StreamCallHelper(shared)("Two objects.", **PAIRS)
    chunks = list(stream)
    assert {chunk.color for chunk in chunks} == {"blue"}
    assert stream.result == json.loads("".join(chunks))
    assert len(stream.result) == 2


@check("连接已有的服务")
def _(run: Run, guide: Guide) -> None:
    remote = run.names["remote_model"]
    assert remote.status() == "remote"
    assert run.names["response"] == GENERATED
    assert guide.requests()[-1]["prompt"] == "你好"
    pieces = list(lazynb.StreamCallHelper(remote.share(stream=True))("你好"))
    assert len(pieces) > 1
    assert "".join(pieces) == GENERATED
    assert guide.requests()[-1]["stream"] is True
    # With a model, it is the engine that is missing, and how to get it that is said.
    with pytest.raises(EngineNotInstalledError, match="%lazyllm install vllm"):
        lazynb.TrainableModule("qwen2-1.5b").deploy_method(lazynb.deploy.vllm).start()


@check("Embedding 模型")
def _(run: Run, guide: Guide) -> None:
    first, second = run.made["embedding_model"]
    assert first.type == second.type == "embed"
    assert second._finetune == (lazynb.finetune.flagembedding, {})
    assert second._trainset == f"{guide.folder}/path/to/embedding_data"
    assert second._mode == "finetune"
    assert run.left_out == ["print(embeddings)"]


@check("Embedding 模型 2")
def _(run: Run, guide: Guide) -> None:
    assert run.names["embedding_model"].type == "embed"


@check("Rerank 模型")
def _(run: Run, guide: Guide) -> None:
    assert run.names["rerank_model"].type == "rerank"
    assert run.left_out == ["print(results)"]


@check("Rerank 模型 2")
def _(run: Run, guide: Guide) -> None:
    assert run.names["embedding_model"].type == "rerank"


@check("图像生成 (SD)")
def _(run: Run, guide: Guide) -> None:
    assert run.names["sd_model"].type == "image"


@check("语音转文本 (STT)")
def _(run: Run, guide: Guide) -> None:
    assert run.names["stt_model"].type == "stt"


@check("文本转语音 (TTS)")
def _(run: Run, guide: Guide) -> None:
    assert run.names["tts_model"].type == "tts"


@check("视觉语言模型 (VLM)")
def _(run: Run, guide: Guide) -> None:
    assert run.names["vlm_model"].type == "vlm"
    assert run.names["vlm_model"]._deployment.engine == "lmdeploy"
    query = lazynb.encode_query_with_filepaths(run.names["question"], run.names["image_path"])
    text, image = run.names["vlm_model"].messages(query)[0]["content"]
    assert text == {"type": "text", "text": "这张图片中有什么？"}
    assert image["image_url"]["url"].startswith("data:image/jpeg;base64,")


@check("基于 vLLM 启动 OpenAI 服务")
def _(run: Run, guide: Guide) -> None:
    deployment = run.names["model"]._deployment
    assert (deployment.engine, deployment.port, deployment.options) == ("vllm", guide.port, {})


@check("连接 OpenAI 格式的服务")
def _(run: Run, guide: Guide) -> None:
    served, remote = run.names["served"], run.names["openai_model"]
    assert served.url == f"http://127.0.0.1:{guide.port}/v1"
    assert remote.status() == "remote"
    assert isinstance(run.names["response"], str)
    assert run.names["response"].strip()
    assert isinstance(remote.share(format=JsonFormatter("[0][a]"))("Two objects.", **PAIRS), bool)
