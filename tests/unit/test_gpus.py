"""Which GPUs a service runs on. The machine's `nvidia-smi` is a stand-in that speaks its protocol; so is the engine."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lazynb.engines import get, machine, memory
from lazynb.errors import NotEnoughMemoryError
from lazynb.hub import resolve
from lazynb.jobs import manager, process
from lazynb.service import service

GIB = 1 << 30
SMI = """#!{python}
import sys
from pathlib import Path
rows = [line.split() for line in Path("{table}").read_text().splitlines()]
words = " ".join(sys.argv[1:])
if words == "-L":
    for index, total, free, mig in rows:
        print(f"GPU {{index}}: NVIDIA H100 80GB HBM3 (UUID: GPU-{{index}}-aaaa)")
elif words == "--query-gpu=index,uuid,mig.mode.current,memory.total,memory.free,name --format=csv,noheader,nounits":
    for index, total, free, mig in rows:
        print(f"{{index}}, GPU-{{index}}-aaaa, {{mig}}, {{total}}, {{free}}, NVIDIA H100 80GB HBM3")
elif words == "--query-compute-apps=pid,used_gpu_memory --format=csv,noheader,nounits":
    print(Path("{table}.apps").read_text(), end="")
else:
    sys.exit(f"ERROR: Option {{words}} is not recognized.")
"""
ENGINE = """#!{python}
import os, sys
port = sys.argv[sys.argv.index("--port") + 1]
os.environ["KEY"] = os.environ["VLLM_API_KEY"]
os.execv(sys.executable, [sys.executable, "{service}", port, *{options}])
"""


class Gpus:
    """The GPUs of a machine: (GiB in all, GiB free)."""

    def __init__(self, folder, monkeypatch):
        self.table = folder / "gpus"
        (folder / "gpus.apps").write_text("")
        program(folder / "bin" / "nvidia-smi", SMI.format(python=sys.executable, table=self.table))
        monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def are(self, *gpus, mig="[N/A]"):
        rows = [
            f"{i} {int(total * 1024)} {int(free * 1024)} {mig}"
            for i, (total, free) in enumerate(gpus)
        ]
        fresh = self.table.with_suffix(".new")
        fresh.write_text("\n".join(rows))
        fresh.replace(self.table)


def program(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def gpus(tmp_path, home, monkeypatch):
    """A machine with GPUs, and an engine that is ready at once."""
    engine(tmp_path, monkeypatch)
    yield Gpus(tmp_path, monkeypatch)
    for job in manager().jobs():
        job.stop()


def engine(folder, monkeypatch, *options):
    service = Path(__file__).parents[1] / "programs" / "service.py"
    text = ENGINE.format(python=sys.executable, service=service, options=list(options))
    program(folder / "bin" / "python-of-vllm", text)
    monkeypatch.setenv("LAZYLLM_VLLM_PYTHON", str(folder / "bin" / "python-of-vllm"))


@pytest.fixture
def model(tmp_path):
    """Make a model whose weights have so many GiB: a file with a hole in it."""

    def make(gib, name="model", heads=32, context=8192):
        folder = tmp_path / name
        folder.mkdir()
        facts = {
            "architectures": ["LlamaForCausalLM"],
            "num_attention_heads": heads,
            "num_key_value_heads": 8,
            "num_hidden_layers": 32,
            "hidden_size": heads * 128,
            "max_position_embeddings": context,
        }
        (folder / "config.json").write_text(json.dumps(facts))
        with (folder / "model.safetensors").open("wb") as file:
            file.truncate(int(gib * GIB))
        return str(folder)

    return make


def launch(path, said=None, **options):
    """Return the command of a start that nobody waits for."""
    say = [].append if said is None else said.append
    return memory.launch(
        resolve(path), get("vllm"), options, "demo", owner=process.myself(), say=say
    )


def option(command, name):
    flag = f"--{name.replace('_', '-')}="
    return next((word.removeprefix(flag) for word in command.argv if word.startswith(flag)), None)


# How many.


@pytest.mark.parametrize(
    ("gib", "free", "count"),
    [
        (14, [79, 79], 1),
        (130, [79, 79], 2),
        (130, [79, 79, 79, 79], 2),
        (260, [79] * 8, 4),
        (100, [79, 20, 79, 20], 2),
    ],
)
def test_as_few_gpus_as_hold_the_weights_and_a_context(gpus, model, gib, free, count):
    gpus.are(*((80, one) for one in free))
    command = launch(model(gib))
    assert len(command.gpus) == count
    assert option(command, "tensor_parallel_size") == (str(count) if count > 1 else None)
    assert command.env["CUDA_VISIBLE_DEVICES"] == ",".join(map(str, command.gpus))
    assert command.env["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert all(free[index] == 79 for index in command.gpus)


def test_a_number_that_does_not_divide_the_attention_heads_is_not_chosen(gpus, model):
    gpus.are(*[(80, 79)] * 8)
    with pytest.raises(NotEnoughMemoryError):
        launch(model(200, heads=14))  # 2 would be too few, and 4 do not divide 14


def test_the_users_own_number_counts(gpus, model):
    gpus.are(*[(80, 79)] * 4)
    command = launch(model(14), tensor_parallel_size=2, pipeline_parallel_size=2)
    assert len(command.gpus) == 4
    assert option(command, "tensor_parallel_size") == "2"


def test_only_gpus_that_the_user_shows_are_taken(gpus, model, monkeypatch):
    gpus.are(*[(80, 79)] * 4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert set(launch(model(130)).gpus) == {2, 3}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1-aaaa")
    assert launch(str(Path(model(14, "other")))).gpus == [1]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert machine.nvidia() == 0


def test_gpus_that_are_cut_into_instances_are_left_to_their_user(gpus, model):
    gpus.are((80, 79), mig="Enabled")
    command = launch(model(14))
    assert (command.gpus, "CUDA_VISIBLE_DEVICES" in command.env) == ([], False)


def test_the_engine_asks_for_no_more_than_is_free(gpus, model):
    gpus.are((80, 40))
    share = option(launch(model(14)), "gpu_memory_utilization")
    assert 0.4 < float(share) < 0.5
    gpus.are((80, 79))
    assert option(launch(model(14, "other")), "gpu_memory_utilization") is None


def test_a_context_that_would_not_fit_is_limited_and_that_is_said(gpus, model):
    gpus.are((24, 23.5))
    said = []
    command = launch(model(16, context=131072), said)
    limit = int(option(command, "max_model_len"))
    assert 8192 <= limit < 131072
    assert f"max_model_len = {limit} of 131072 tokens" in said[0]
    assert option(launch(model(2, "small", context=8192)), "max_model_len") is None


def test_what_does_not_fit_is_an_error_that_says_what_would(gpus, model):
    gpus.are((24, 23.5))
    with pytest.raises(
        NotEnoughMemoryError, match=r"takes about .* and 25\.2 GB of GPU 0 are free"
    ):
        launch(model(60))
    with pytest.raises(NotEnoughMemoryError, match=r"max_model_len=\d+ would fit"):
        launch(model(16, "other"), max_model_len=131072)


def test_a_driver_that_fails_or_hides_its_memory_stops_nothing(gpus, model):
    gpus.are((80, 79))
    gpus.table.write_text("0 [N/A] [N/A] [N/A]")
    (found,) = machine.gpus()
    assert found.free == pytest.approx(machine.available_memory(), rel=0.2)
    gpus.table.unlink()
    assert machine.gpus() == []


def test_the_memory_of_processes_on_gpus_is_told(gpus):
    gpus.are((80, 79))
    gpus.table.with_name("gpus.apps").write_text("4711, 5210\n4711, 100\n4712, [N/A]\n")
    assert machine.gpu_memory(10) == {4711: 5310 << 20}


# One at a time.

STARTER = """
import sys
from lazynb.errors import NotEnoughMemoryError
from lazynb.service import service
print("go", flush=True)
sys.stdin.readline()
try:
    job = service(sys.argv[1], engine="vllm", keep=True)
except NotEnoughMemoryError as error:
    print("none", error.message)
else:
    print(*job.command.gpus)
"""


def test_starts_at_once_in_several_kernels_never_take_the_same_gpu(
    gpus, model, tmp_path, monkeypatch
):
    engine(tmp_path, monkeypatch, "--load", "60")
    gpus.are(*[(80, 79)] * 3)
    starts = [
        subprocess.Popen(
            [sys.executable, "-c", STARTER, model(14, f"model-{n}")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(4)
    ]
    for one in starts:
        assert one.stdout.readline() == "go\n"
    for one in starts:
        one.stdin.write("\n")
        one.stdin.flush()
    told = sorted(one.communicate(timeout=60)[0].strip() for one in starts)
    assert told[:3] == ["0", "1", "2"]
    assert told[3].startswith("none")
    assert "3 more start another service now" in told[3]


def test_a_service_that_is_ready_can_share_its_gpu_where_none_is_unused(gpus, model):
    gpus.are((80, 79), (80, 79))
    first = service(model(14, "first"), engine="vllm")
    first.wait(30)
    second = service(model(14, "second"), engine="vllm")
    second.wait(30)
    assert {*first.command.gpus, *second.command.gpus} == {0, 1}
    gpus.are((80, 30), (80, 8))
    third = service(model(14, "third"), engine="vllm")
    assert third.command.gpus == [0]
    assert float(option(third.command, "gpu_memory_utilization")) < 0.4


def test_an_idle_service_makes_room_on_its_gpu(gpus, model, capsys):
    gpus.are((80, 79))
    first = service(model(14, "first"), engine="vllm")
    first.wait(30)
    gpus.are((80, 5))  # it took what it was given

    def free_again():
        while first.live:
            time.sleep(0.02)
        time.sleep(0.3)  # the driver takes a moment
        gpus.are((80, 79))

    threading.Thread(target=free_again).start()
    second = service(model(20, "second"), engine="vllm")
    assert second.command.gpus == [0]
    assert first.state.cause == "to make room for second"
    assert "first was stopped to make room for second" in capsys.readouterr().out


def test_without_a_gpu_none_is_given(home, monkeypatch, model):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("LAZYLLM_VLLM_PYTHON", sys.executable)
    command = launch(model(0.1))
    assert (command.gpus, "CUDA_VISIBLE_DEVICES" in command.env) == ([], False)
