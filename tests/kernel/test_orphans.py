"""Nothing that a kernel starts outlives it, unless it is kept; and an interrupt stays in the kernel."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

SERVICE = str(Path(__file__).parents[1] / "programs" / "service.py")
LIMIT = 12.0

pytestmark = pytest.mark.slow

START = f"""
import os, sys, time, json, urllib.request
from lazynb.jobs import manager
from lazynb.jobs.spec import Command, JobSpec, Probe

def start(*options, keep=False):
    command = Command(
        argv=[sys.executable, {SERVICE!r}, "{{port}}", *options],
        env={{"KEY": "{{key}}"}},
        ready=Probe("/v1/chat/completions", {{}}),
    )
    return manager().submit(JobSpec(id=os.urandom(4).hex(), name="demo", command=command, keep=keep))

def ask(job):
    request = urllib.request.Request(job.url, b"{{}}", {{"Authorization": f"Bearer {{job.key}}"}})
    return urllib.request.urlopen(request, timeout=10).status
"""

FACTS = """
print(json.dumps({"supervisor": job.state.supervisor.pid, "process": job.state.process.pid,
                  "folder": str(job.folder), "phase": job.state.phase}))
"""


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def seconds_until_gone(pids):
    start = time.monotonic()
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() - start < LIMIT, f"still alive: {[p for p in pids if is_alive(p)]}"
        time.sleep(0.05)
    return time.monotonic() - start


def read_pid(path):
    deadline = time.monotonic() + 10
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return int(path.read_text())


@pytest.fixture
def family(kernel, tmp_path):
    """The processes of a service with a daemon that ignores SIGTERM, and its folder."""
    orphan = tmp_path / "orphan"
    reply = kernel.run(
        START + f"job = start('--stubborn', '--orphan', {str(orphan)!r}); job.wait(30)" + FACTS
    )
    assert reply.status == "ok", reply.error
    facts = json.loads(reply.text)
    pids = [facts["supervisor"], facts["process"], read_pid(orphan)]
    assert facts["phase"] == "ready"
    assert all(is_alive(pid) for pid in pids)
    assert os.getsid(pids[2]) != os.getsid(pids[0])
    yield pids, Path(facts["folder"])
    for pid in pids:
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("how", ["shutdown", "restart", "kill"])
def test_no_descendant_outlives_the_kernel(kernel, family, how):
    pids, folder = family
    getattr(kernel, how)()
    seconds_until_gone(pids)
    state = json.loads((folder / "state.json").read_text())
    assert (state["phase"], state["cause"]) == ("stopped", "its kernel ended")


def test_a_fork_of_the_kernel_does_not_keep_its_services_alive(kernel, family):
    pids, _ = family
    reply = kernel.run(
        "pid = os.fork()\nif not pid:\n    os.setsid(); time.sleep(60); os._exit(0)\nprint(pid)"
    )
    try:
        kernel.kill()
        seconds_until_gone(pids)
        assert is_alive(int(reply.text))
    finally:
        os.kill(int(reply.text), signal.SIGKILL)


def test_an_interrupt_never_reaches_the_program(kernel, family):
    pids, _ = family
    cell = kernel.begin("time.sleep(30)")
    time.sleep(0.5)
    kernel.interrupt()
    assert kernel.finish(cell).error.startswith("KeyboardInterrupt")
    reply = kernel.run(
        "print(job.state.phase, ask(job), 'was interrupted' in ' '.join(job.tail()))"
    )
    assert reply.text == "ready 200 False"
    assert all(is_alive(pid) for pid in pids)
    kernel.run("job.stop()")
    assert not any(is_alive(pid) for pid in pids)


def test_an_interrupted_wait_leaves_the_job_alone(kernel):
    cell = kernel.begin(START + "job = start('--load', '2'); job.wait()")
    time.sleep(1)
    kernel.interrupt()
    assert kernel.finish(cell).error.startswith("KeyboardInterrupt")
    assert kernel.run("print(job.wait(30).phase, ask(job)); job.stop()").text == "ready 200"


def test_a_kept_service_survives_and_the_next_kernel_uses_and_stops_it(start_kernel):
    first = start_kernel()
    facts = json.loads(first.run(START + "job = start(keep=True); job.wait(30)" + FACTS).text)
    first.kill()
    time.sleep(2.5)
    assert is_alive(facts["process"])
    second = start_kernel()
    reply = second.run(
        START + "job = manager().find('demo'); print(job.owned, job.owner_alive, ask(job))"
    )
    assert reply.text == "False False 200"
    assert (
        second.run("job.stop(); print(job.state.phase, manager().find('demo'))").text
        == "stopped None"
    )
    assert not any(is_alive(facts[who]) for who in ("supervisor", "process"))


def test_a_running_service_can_be_kept_later(start_kernel):
    first = start_kernel()
    first.run(START + "job = start(); job.wait(30); job.keep()")
    first.restart()
    time.sleep(2.5)
    reply = first.run(START + "job = manager().find('demo'); print(ask(job)); job.stop()")
    assert reply.text == "200"


def test_the_next_kernel_cleans_up_after_a_killed_supervisor(kernel, family, start_kernel):
    (supervisor, program, orphan), folder = family
    os.kill(supervisor, signal.SIGSTOP)  # it sees nothing of what follows
    kernel.kill()
    os.kill(supervisor, signal.SIGKILL)
    seconds_until_gone([supervisor, program])
    assert is_alive(orphan)
    next_kernel = start_kernel()
    next_kernel.run(START + "manager()")
    seconds_until_gone([orphan])
    assert next_kernel.run("print(manager().jobs()[0].live)").text == "False"
    state = json.loads((folder / "state.json").read_text())
    assert (state["phase"], state["cause"]) == ("failed", "its supervisor was killed")


def test_the_kernel_itself_notices_a_killed_supervisor(kernel, family):
    pids, _ = family
    os.kill(pids[0], signal.SIGKILL)
    reply = kernel.run("job.wait(ended=True)")
    assert "its supervisor was killed" in reply.error
    seconds_until_gone(pids)


def test_two_kernels_start_services_at_the_same_time(start_kernel):
    first, second = start_kernel(), start_kernel()
    code = START + "jobs = [start() for _ in range(2)]; print([job.wait(30).port for job in jobs])"
    cells = [(kernel, kernel.begin(code)) for kernel in (first, second)]
    ports = [port for kernel, cell in cells for port in json.loads(kernel.finish(cell).text)]
    assert len(set(ports)) == 4
    assert (
        first.run("print(len(manager().jobs()), sum(job.owned for job in manager().jobs()))").text
        == "4 2"
    )
    second.run("[job.stop() for job in manager().jobs()]")
    assert first.run("print({job.state.phase for job in jobs})").text == "{'stopped'}"
