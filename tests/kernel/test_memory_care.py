"""The care for memory as a notebook sees it: the table of what runs, idle services that end, room for others."""

import os
import re
import signal
import time

import psutil
import pytest

MODEL = "smollm2-135m-instruct"
CELL = re.compile(r"<t[hd][^>]*>(?:<span[^>]*>●</span> )?([^<]*)</t[hd]>")
JOBS = "from lazynb.jobs import manager; jobs = manager().jobs()"


def rows(shell):
    """Return what %lazyllm ps shows: a dict for each row, by column."""
    outputs = shell.run("%lazyllm ps").outputs
    (table,) = [o["data"]["text/html"] for o in outputs if o["msg_type"] == "execute_result"]
    names, *found = [CELL.findall(row) for row in table.split("<tr>")[1:]]
    return [dict(zip(names, row, strict=True)) for row in found]


def state(shell, name=MODEL):
    told = shell.run(
        f"{JOBS}; s = [j for j in jobs if j.name == {name!r}][0].state; print(s.phase, s.cause)"
    )
    return told.text


def wait_for(shell, wanted, seconds=15):
    deadline = time.monotonic() + seconds
    while (now := state(shell)) != wanted:
        assert time.monotonic() < deadline, now
        time.sleep(0.1)


def test_ps_tells_what_a_service_takes_and_does(shell):
    shell.run(f"%lazyllm deploy {MODEL} --wait")
    (row,) = rows(shell)
    assert (row["name"], row["status"], row["engine"]) == (MODEL, "ready", "llamacpp")
    assert (row["device"], row["owner"]) == ("CPU", "this kernel")
    assert 200 < int(row["memory (MB)"]) < 2000
    assert row["requests"] == "0"
    assert row["idle"].endswith(" s")
    assert "GPU memory (MB)" not in row
    shell.run(f"%%lazyllm {MODEL} --bg -o answer --max-tokens 2000\nTell a long story.")
    shell.run("import time\nwhile answer.tokens < 10: time.sleep(0.02)")
    (row,) = rows(shell)
    assert (row["requests"], row["idle"]) == ("1", "")
    assert int(row["tokens/s"]) > 0
    shell.run("answer.cancel()")


def test_ps_tells_of_requests_of_another_kernel(shell, start_kernel):
    shell.run(f"%lazyllm deploy {MODEL} --wait --keep")
    other = start_kernel()
    other.run("%load_ext lazynb")
    other.run(f"%%lazyllm {MODEL} --bg -o answer --max-tokens 2000\nTell a long story.")
    other.run("import time\nwhile answer.tokens < 10: time.sleep(0.02)")
    (row,) = rows(shell)
    assert row["requests"] == "1"
    assert int(row["tokens/s"]) > 0
    other.run("answer.cancel()")


def test_ps_does_not_wait_for_a_service_that_hangs(shell):
    shell.run(f"%lazyllm deploy {MODEL} --wait")
    shell.run("%lazyllm ps")  # what it imports is imported
    pid = int(shell.run(f"{JOBS}; print(jobs[0].state.process.pid)").text)
    os.kill(pid, signal.SIGSTOP)
    try:
        took = []
        for _ in range(3):
            begun = time.monotonic()
            (row,) = rows(shell)
            took.append(time.monotonic() - begun)
        assert (row["status"], row["requests"]) == ("ready", "")
        assert min(took) < 0.5
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.slow
def test_an_idle_service_ends_says_why_and_is_back_for_the_next_cell(shell):
    shell.run(f"%lazyllm deploy {MODEL} --wait --idle 1")
    pids = [p.pid for p in psutil.Process(shell.pid).children(recursive=True)]
    wait_for(shell, "stopped idle for 1 s")
    assert rows(shell)[0]["status"] == "stopped: idle for 1 s"
    assert not any(
        psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids
    )
    reply = shell.run(f"%%lazyllm {MODEL} --max-tokens 3 -o answer\nhello")
    assert reply.status == "ok", reply.error
    assert shell.run("print(answer.status)").text == "done"
    assert [row["status"] for row in rows(shell)] == ["ready"]


@pytest.mark.slow
def test_an_answer_that_takes_longer_than_the_idle_time_is_not_cut_off(shell):
    shell.run("%lazyllm config idle_timeout=1")
    shell.run(f"%lazyllm deploy {MODEL} --wait")
    code = f"import lazynb\nm = lazynb.TrainableModule({MODEL!r})\nm.start()\nimport time\nt = time.time()\n"
    code += "a = m.answer('count', max_tokens=500, ignore_eos=True, timeout=60).wait(100)\nprint(a.status, a.tokens)"
    assert shell.run(code, timeout=120).text.endswith("done 500")
    assert float(shell.run("print(a.seconds)").text) > 3
    wait_for(shell, "stopped idle for 1 s")
    assert shell.run("print(bool(m('hi', max_tokens=2)))").text.endswith("True")


def test_a_start_that_would_not_fit_makes_room_in_one_line(shell):
    shell.run(f"%lazyllm deploy {MODEL} --wait --n-ctx 512 --n-parallel 1")
    shell.run(
        "from lazynb.engines import machine\nfrom lazynb.jobs import manager\n"
        "taken = lambda: sum(j.memory() for j in manager().jobs())\n"
        "total = taken() + 150e6\nmachine.available_memory = lambda: int(total - taken())"
    )
    reply = shell.run(f"%lazyllm deploy {MODEL} --wait --n-ctx 1024 --n-parallel 1")
    assert reply.status == "ok", reply.error
    assert reply.text.startswith(f"{MODEL} was stopped to make room for {MODEL}: idle for ")
    assert "\n" not in reply.text
    statuses = {row["status"] for row in rows(shell)}
    assert "ready" in statuses
    reply = shell.run(f"%lazyllm deploy {MODEL} --n-ctx 262144 --n-parallel 1")
    assert reply.status == "error"
    assert "does not fit: it takes about 6.3 GB" in reply.error
    assert "would fit" in reply.error


@pytest.mark.parametrize(("engine", "said"), [("", True), ("--engine llamacpp", False)])
def test_a_start_says_why_its_engine_was_chosen(shell, engine, said):
    reply = shell.run(f"%lazyllm deploy {MODEL} --wait {engine}")
    assert ("the first engine for gguf chat models" in reply.settled["text/html"]) == said
