"""Care for memory: what a service takes, what makes room for it, and what is said when memory ran out."""

import os
import signal
import subprocess
import sys
import time

import pytest

import lazynb
from lazynb.client.endpoint import Endpoint
from lazynb.client.loop import spawn
from lazynb.client.requests import post
from lazynb.engines import embedding, llamacpp, machine, memory, vllm
from lazynb.errors import JobError, NotEnoughMemoryError
from lazynb.jobs import causes, load, manager
from lazynb.service import Deployment, service

DEMO = "smollm2-135m-instruct"
MB = 1_000_000


# Why it failed: lines that the programs really print.


@pytest.mark.parametrize(
    ("rules", "line", "cause", "hint"),
    [
        (
            vllm.CAUSES,
            (
                "ValueError: To serve at least one request with the model's max seq len (131072), (16.0 GiB KV cache is"
                " needed, which is larger than the available KV cache memory (7.85 GiB). Based on the available memory,"
                " the estimated maximum model length is 64288. Try increasing `gpu_memory_utilization` …"
            ),
            "a context of 131072 tokens does not fit into the cache",
            "max_model_len=64288 would fit. It takes 3 GB.",
        ),
        (
            vllm.CAUSES,
            "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when …",
            "not enough free memory for the model and its cache",
            "It takes 3 GB.",
        ),
        (
            vllm.CAUSES,
            "ValueError: Available memory on node 0 (0.91/23.0 GiB) on startup is less than desired CPU memory …",
            "not enough free memory",
            "It takes 3 GB.",
        ),
        (
            vllm.CAUSES[:-1],
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 224.00 MiB. GPU 0 has …",
            "the GPU has not enough free memory",
            "It takes 3 GB.",
        ),
        (
            llamacpp.CAUSES,
            "llama_kv_cache: failed to allocate buffer for kv cache",
            "not enough memory for the model and its context",
            "Use a smaller n_ctx or n_parallel, or a smaller quantisation of the model. It takes 3 GB.",
        ),
        (
            embedding.CAUSES,
            (
                "RuntimeError: [enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory:"
                " you tried to allocate 4294967296 bytes."
            ),
            "the machine has not enough free memory",
            "It takes 3 GB.",
        ),
        (
            [],
            "terminate called after throwing an instance of 'std::bad_alloc'",
            "free memory",
            "3 GB",
        ),
    ],
)
def test_running_out_of_memory_is_recognised_and_what_it_takes_is_said(rules, line, cause, hint):
    found = causes.diagnose(["loading", line, "bye"], 1, rules, advice="It takes 3 GB.")
    assert cause in found[0]
    assert hint in found[1]


def test_other_failures_do_not_talk_of_memory():
    found = causes.diagnose(["OSError: No space left on device"], 1, [], advice="It takes 3 GB.")
    assert "3 GB" not in found[1]


def test_a_process_that_the_system_killed_for_memory_is_certain_about_it():
    found = causes.diagnose(["RuntimeError: Engine core failed"], 1, vllm.CAUSES, killed=True)
    assert found[0] == "the machine ran out of memory, and the system killed it"


def test_a_killed_service_says_what_it_took(jobs):
    job = jobs.service(command={"advice": "It takes about 3.1 GB."})
    job.wait(30)
    os.kill(job.state.process.pid, signal.SIGKILL)
    with pytest.raises(JobError, match=r"signal 9.*memory") as caught:
        job.wait(20, ended=True)
    assert caught.value.hint.endswith("It takes about 3.1 GB.")


def test_a_program_that_really_runs_out_of_memory_is_explained(jobs):
    code = "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 28,) * 2); bytearray(1 << 30)"
    job = jobs.script(code, command={"advice": "It takes about 1.1 GB."})
    with pytest.raises(JobError, match="the machine has not enough free memory") as caught:
        job.wait(20, ended=True)
    assert "It takes about 1.1 GB." in caught.value.hint


# An idle service.


def test_a_service_that_nobody_uses_stops_and_says_why(jobs):
    job = jobs.service(idle=0.5)
    job.wait(30)
    state = job.wait(20, ended=True)
    assert (state.phase, state.cause) == ("stopped", "idle for 0.5 s")
    assert "starts again" in state.hint


@pytest.mark.slow
def test_the_setting_counts_where_the_service_has_none_of_its_own(jobs, monkeypatch):
    monkeypatch.setenv("LAZYLLM_IDLE_TIMEOUT", "0.5")
    never, job = jobs.service(idle=0.0), jobs.service()
    job.wait(30)
    assert job.wait(20, ended=True).cause == "idle for 0.5 s"
    assert never.wait(30).phase == "ready"
    time.sleep(2.5)
    assert never.state.phase == "ready"


@pytest.mark.slow
def test_a_service_that_is_used_now_and_then_goes_on(jobs):
    job = jobs.service(idle=1.5)
    job.wait(30)
    for _ in range(8):
        job.mark_used()
        time.sleep(0.5)
    assert job.state.phase == "ready"


@pytest.mark.slow
def test_requests_that_only_the_engine_knows_of_keep_it_up(jobs, tmp_path):
    running = tmp_path / "running"
    running.write_text("1")
    job = jobs.service("--running", str(running), command={"load": "/metrics"}, idle=0.6)
    job.wait(30)
    time.sleep(3.5)
    assert job.state.phase == "ready"
    running.write_text("0")
    assert job.wait(20, ended=True).cause == "idle for 0.6 s"


@pytest.mark.slow
def test_a_service_that_hangs_is_not_taken_for_idle(jobs, tmp_path):
    running = tmp_path / "running"
    running.write_text("0")
    job = jobs.service("--running", str(running), command={"load": "/metrics"}, idle=0.6)
    job.wait(30)
    os.kill(job.state.process.pid, signal.SIGSTOP)
    try:
        time.sleep(4)
        assert job.state.phase == "ready"
    finally:
        os.kill(job.state.process.pid, signal.SIGCONT)


def test_who_uses_it_in_the_last_moment_is_served(jobs, eventually):
    job = jobs.service(idle=1.0)
    job.wait(30)
    eventually(lambda: job.state.phase == "stopping")
    job.mark_used()
    assert eventually(lambda: job.state.phase != "stopping")
    assert job.state.phase == "ready"


@pytest.mark.slow
def test_a_request_keeps_a_service_up_that_has_no_counters(jobs):
    job = jobs.service(idle=1.0)
    job.wait(30)
    endpoint = Endpoint(job.url, "demo", key=job.key, model="demo", used=str(job.used_path))
    request = spawn(post(endpoint, "/long", {}))
    time.sleep(0.2)
    choosing = memory.Start(*[None] * 4, owner=job.spec.owner, say=print, jobs=[job])
    assert choosing._idle(on_gpu=False) == []
    assert request.result(20) == {}
    assert choosing._idle(on_gpu=False) == [job]
    assert job.wait(20, ended=True).cause == "idle for 1 s"


@pytest.mark.slow
def test_a_run_is_never_idle(jobs):
    job = jobs.script("import time; time.sleep(3)", idle=0.3, kind="training")
    assert job.wait(20, ended=True).returncode == 0


# What a service works on.


def test_the_slots_of_llamacpp_tell_requests_and_tokens():
    slot = b'{"id": %d, "is_processing": %s, "id_task": %d, "next_token": [{"n_decoded": %d}]}'
    idle = b'{"id": 2, "is_processing": false}'
    looks = [
        load.read(b"[" + b",".join([slot % (0, b"true", task, n), idle]) + b"]")
        for task, n in ((5, 10), (5, 30), (9, 4))
    ]
    assert [look.running for look in looks] == [1, 1, 1]
    assert looks[1].rate(looks[0]) * (looks[1].at - looks[0].at) == pytest.approx(20, rel=0.1) or (
        looks[1].at - looks[0].at < 1e-3  # a rate is taken over a millisecond at least
    )
    assert looks[2].moved(looks[1])


def test_a_short_request_between_two_looks_is_seen():
    before, after = (
        load.read(b'[{"id": 0, "is_processing": false, "id_task": %d}]' % n) for n in (2, 3)
    )
    assert (after.running, after.moved(before), before.moved(before)) == (0, True, False)


def test_the_counters_that_prometheus_reads_are_added_up():
    look = load.read(
        b"# HELP vllm:num_requests_running Number of requests\n"
        b'vllm:num_requests_running{engine="0"} 2.0\nvllm:num_requests_waiting{engine="0"} 1.0\n'
        b'vllm:generation_tokens_total{engine="0"} 1.5e+03\nvllm:prompt_tokens_total{engine="0"} 62.0\n'
    )
    assert look.running == 3
    assert list(look.tokens.values()) == [1500.0]
    assert list(look.others.values()) == [62.0]


# Room on the machine. The engine and its weights are real; the machine is a small one.


class Small:
    """A machine with little memory: what its services take is really measured."""

    def __init__(self, monkeypatch):
        self.total = 100_000 * MB
        monkeypatch.setattr(machine, "available_memory", lambda: max(0, self.total - self.taken))

    @property
    def taken(self):
        return sum(job.memory() for job in manager().jobs())


@pytest.fixture
def small(home, demo_model, monkeypatch):
    yield Small(monkeypatch)
    for job in manager().jobs():
        job.stop()


def start(context, **facts):
    job = service(DEMO, engine="llamacpp", options={"n_ctx": context, "n_parallel": 1}, **facts)
    job.wait(60)
    return job


@pytest.mark.parametrize("context", [512, 8192])
def test_the_estimate_is_close_to_what_it_really_takes(small, context):
    job = start(context)
    assert job.command.memory == pytest.approx(job.memory(), rel=0.3)


@pytest.mark.slow
def test_what_was_not_used_for_longest_makes_room_and_is_back_when_it_is_called(small, capsys):
    modules = [
        lazynb.TrainableModule(DEMO).deploy_method("llamacpp", n_ctx=n, n_parallel=1)
        for n in (512, 768, 1024)
    ]
    old, other, fresh = modules
    old.start()
    other.start()
    old("hi", max_tokens=2)  # now the other one is the one that was not used for longest
    small.total = small.taken + 150 * MB
    fresh.start()
    assert [m.status() for m in modules] == ["ready", "stopped", "ready"]
    assert other.job.state.cause == f"to make room for {DEMO}"
    assert f"was stopped to make room for {DEMO}: idle for" in capsys.readouterr().out
    small.total += 500 * MB
    assert other("hi", max_tokens=2)
    assert [m.status() for m in modules] == ["ready", "ready", "ready"]


def test_a_kept_service_and_one_at_work_are_left_alone(small):
    kept = start(512, keep=True)
    module = lazynb.TrainableModule(DEMO).deploy_method("llamacpp", n_ctx=768, n_parallel=1).start()
    answer = module.answer("count", max_tokens=400, ignore_eos=True)
    while answer.status == "waiting":
        time.sleep(0.02)
    small.total = small.taken + 150 * MB
    with pytest.raises(NotEnoughMemoryError, match="does not fit"):
        start(1024)
    answer.cancel()
    assert (kept.state.phase, module.status()) == ("ready", "ready")


def test_a_service_that_another_client_uses_is_left_alone(small):
    job = start(512)
    curl = (
        "import sys, urllib.request as u; u.urlopen(u.Request(sys.argv[1], sys.argv[2].encode(), "
        "{'Authorization': 'Bearer ' + sys.argv[3], 'Content-Type': 'application/json'})).read()"
    )
    body = '{"messages": [{"role": "user", "content": "count"}], "max_tokens": 400, "ignore_eos": true}'
    with subprocess.Popen(
        [sys.executable, "-c", curl, f"{job.url}/chat/completions", body, job.key]
    ) as client:
        while not (found := load.loads([job], 1)) or not found[job.id].running:
            time.sleep(0.02)
        small.total = small.taken + 150 * MB
        with pytest.raises(NotEnoughMemoryError):
            start(1024)
        client.kill()
    assert job.state.phase == "ready"


def test_where_even_all_would_not_do_nothing_is_stopped_and_what_would_fit_is_said(small):
    job = start(512)
    small.total = small.taken + 60 * MB
    begun = time.monotonic()
    with pytest.raises(
        NotEnoughMemoryError, match=r"takes about 6\.3 GB \(weights 0\.1 GB"
    ) as caught:
        start(262144)
    assert time.monotonic() - begun < 2
    assert job.state.phase == "ready"
    assert f"{DEMO} (0.2 GB)" in caught.value.hint
    assert "LAZYLLM_MEMORY_CHECK=0" in caught.value.hint
    small.total = small.taken + 400 * MB
    with pytest.raises(NotEnoughMemoryError, match=r"n_ctx=(\d+) would fit") as caught:
        start(262144)
    context = int(str(caught.value).partition("n_ctx=")[2].split()[0])
    assert start(context).state.phase == "ready"


def test_the_check_can_be_switched_off(small, monkeypatch):
    small.total = 0
    monkeypatch.setenv("LAZYLLM_MEMORY_CHECK", "0")
    assert start(512).state.phase == "ready"


def test_what_a_service_that_is_starting_will_take_is_not_given_away(small, jobs):
    jobs.manager = manager()
    begun = jobs.service("--load", "60", command={"memory": 500 * MB})
    small.total = small.taken + 600 * MB
    with pytest.raises(NotEnoughMemoryError):
        start(512)
    begun.stop()
    assert start(512).state.phase == "ready"


# Code that comes with a checkpoint.


@pytest.mark.parametrize(
    ("trust", "wanted"), [(True, {"trust_remote_code": True}), (None, {}), (False, {})]
)
def test_trust_in_remote_code_reaches_the_engines_that_know_it(
    home, embedding_folder, monkeypatch, trust, wanted
):
    monkeypatch.setenv("LAZYLLM_EMBEDDING_PYTHON", sys.executable)
    module = lazynb.TrainableModule(str(embedding_folder), trust_remote_code=trust)
    try:
        assert module.start(wait=False).job.spec.options == wanted
    finally:
        module.job.stop()


def test_an_engine_without_that_option_is_not_given_it(small):
    deployment = Deployment(model=DEMO, engine="llamacpp", remote_code=True)
    assert deployment.start().spec.options == {}


@pytest.fixture
def embedding_folder(tmp_path):
    folder = tmp_path / "embedder"
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["BertModel"]}')
    (folder / "modules.json").write_text("[]")
    (folder / "model.safetensors").write_bytes(b"")
    return folder


def test_weights_that_a_folder_holds_twice_count_once(tmp_path):
    for name, size in (("model.safetensors", 300), ("pytorch_model.bin", 500), ("readme.md", 9)):
        (tmp_path / name).write_bytes(b"x" * size)
    assert memory.weight_bytes(tmp_path) == 300


def test_the_reason_for_an_engine_is_kept_where_nobody_named_one(small):
    assert service(DEMO).spec.why.startswith("llamacpp: the first engine for gguf chat models")
    assert start(512).spec.why == ""
