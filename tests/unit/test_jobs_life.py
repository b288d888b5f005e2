"""The life of a job: started, ready, used, stopped; everything about it is in its folder."""

import json
import os
import shutil
import stat
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from lazynb.errors import JobError, LazynbError
from lazynb.jobs.process import marked

MODULE = sys.modules["lazynb.jobs.manager"]  # the name leads to the function


def post(job, path="/v1/chat/completions", key=None):
    headers = {"Authorization": f"Bearer {key or job.key}"}
    request = urllib.request.Request(job.url.removesuffix("/v1") + path, b"{}", headers)
    return urllib.request.urlopen(request, timeout=10).status


def test_submit_returns_at_once_and_the_service_answers_when_it_is_ready(jobs):
    began = time.monotonic()
    job = jobs.service()
    assert time.monotonic() - began < 0.2
    assert job.state.phase in ("queued", "loading")
    assert job.wait(30).phase == "ready"
    assert job.url == f"http://127.0.0.1:{job.state.port}/v1"
    assert post(job) == 200
    with pytest.raises(urllib.error.HTTPError, match="401"):
        post(job, key="another")


def test_stop_ends_everything_and_may_be_repeated(jobs, tmp_path, eventually):
    orphan = tmp_path / "orphan"
    job = jobs.service("--orphan", str(orphan))
    job.wait(30)
    pids = [
        job.state.supervisor.pid,
        job.state.process.pid,
        int(eventually(orphan.exists) and orphan.read_text()),
    ]
    assert all(Path(f"/proc/{pid}").exists() for pid in pids)
    job.stop()
    assert not any(Path(f"/proc/{pid}/exe").exists() for pid in pids)
    assert (job.state.phase, job.live, job.state.process) == ("stopped", False, None)
    job.stop()
    with pytest.raises(JobError, match="demo was stopped"):
        job.wait()
    assert job.wait(ended=True).phase == "stopped"


def test_a_job_can_be_stopped_before_its_supervisor_is_up(jobs):
    job = jobs.service("--load", "60")
    job.stop()
    assert job.state.phase == "stopped"


def test_stop_without_waiting_returns_at_once(jobs):
    job = jobs.service("--stubborn")
    job.wait(30)
    began = time.monotonic()
    job.stop(wait=False)
    assert time.monotonic() - began < 0.5
    assert job.wait(20, ended=True).phase == "stopped"


def test_another_kernel_finds_uses_and_stops_a_job(jobs):
    job = jobs.service()
    job.wait(30)
    for name in ("demo", job.id):
        other = jobs.another_kernel().find(name)
        assert (other.id, other.url, other.key) == (job.id, job.url, job.key)
    assert post(other) == 200
    other.stop()
    assert job.state.phase == "stopped"
    assert jobs.manager.find("demo") is None


def test_jobs_are_listed_newest_first_and_the_newest_of_a_name_is_found(jobs):
    submitted = [jobs.service(name=name) for name in ("a", "b", "a")]
    assert [job.id for job in jobs.manager.jobs()] == [job.id for job in reversed(submitted)]
    assert jobs.manager.find("a") is submitted[2]
    assert jobs.manager.find("c") is None


def test_nobody_else_can_read_anything_of_a_job(jobs):
    old = os.umask(0)
    try:
        job = jobs.service("--say", "hello")
        job.wait(30)
    finally:
        os.umask(old)
    files = list(job.folder.iterdir())
    assert {file.name for file in files} >= {
        "spec.json",
        "command.json",
        "state.json",
        "log",
        "events.jsonl",
        "key",
    }
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE(job.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(job.folder.parent.stat().st_mode) == 0o700


def test_the_key_is_in_no_argument_list_and_in_no_file_but_its_own(jobs):
    leak = "import os; print('key:', os.environ['K'], flush=True); print('@progress', '{\"text\": \"' + os.environ['K'] + '\"}')"
    job = jobs.script(leak + "; import time; time.sleep(60)", command={"env": {"K": "{key}"}})
    job.wait(30)
    while not job.tail():
        time.sleep(0.05)
    time.sleep(0.3)
    assert job.tail() == ["key: ***"]
    assert job.state.text == "***"
    for pid in (job.state.supervisor.pid, job.state.process.pid):
        assert job.key not in Path(f"/proc/{pid}/cmdline").read_text()
    holding = [file.name for file in job.folder.iterdir() if job.key in file.read_text()]
    assert holding == ["key"]


def test_the_history_has_one_line_per_phase(jobs):
    job = jobs.service()
    job.wait(30)
    job.stop()
    events = [json.loads(line) for line in (job.folder / "events.jsonl").read_text().splitlines()]
    assert [event["phase"] for event in events] == ["loading", "ready", "stopping", "stopped"]


def test_a_run_is_over_when_its_program_ends(jobs):
    job = jobs.script("print('done')", kind="training")
    state = job.wait(30, ended=True)
    assert (state.phase, state.returncode, state.port) == ("stopped", 0, None)
    assert job.tail() == ["done"]
    with pytest.raises(JobError, match="no address"):
        _ = job.url


def test_a_wait_that_takes_too_long_says_so_and_the_job_goes_on(jobs):
    job = jobs.service("--load", "1")
    with pytest.raises(JobError, match=r"not ready after 0\.2 s"):
        job.wait(0.2)
    assert job.wait(30).phase == "ready"


def test_subscribers_see_every_phase_until_the_last(jobs, eventually):
    job = jobs.service("--load", "0.5")
    phases, after_the_first = [], []
    job.subscribe(lambda state: phases.append(state.phase))
    end = job.subscribe(lambda state: after_the_first.append(state.phase) or end())
    job.wait(30)
    eventually(lambda: phases[-1:] == ["ready"])
    job.stop()
    eventually(lambda: phases[-1:] == ["stopped"])
    assert list(dict.fromkeys(phases)) in (
        ["queued", "loading", "ready", "stopped"],
        ["queued", "loading", "ready", "stopping", "stopped"],
    )
    assert len(after_the_first) == 1
    eventually(lambda: not any(thread.name == "lazynb-jobs" for thread in threading.enumerate()))


def test_ps_learns_memory_uptime_and_owner(jobs):
    job = jobs.service()
    job.wait(30)
    assert 10e6 < job.memory() < 200e6
    assert 0 < job.uptime < 60
    assert job.owned
    assert job.owner_alive
    job.stop()
    assert job.memory() == 0


def test_settings_changed_in_python_reach_the_supervisor(jobs, monkeypatch):
    from lazynb.config import config

    config.start_timeout = 0.3
    try:
        job = jobs.service("--load", "60")
    finally:
        del config.start_timeout
    with pytest.raises(JobError, match=r"not ready within 0\.3 s"):
        job.wait(30)


def test_what_concerns_the_kernel_alone_is_not_inherited(jobs, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    monkeypatch.setenv("JPY_PARENT_PID", "1")
    monkeypatch.setenv("HF_ENDPOINT", "kept")
    job = jobs.script(
        "import os; print([v for v in ('MPLBACKEND', 'JPY_PARENT_PID', 'HF_ENDPOINT') if v in os.environ])"
    )
    job.wait(30, ended=True)
    assert job.tail() == ["['HF_ENDPOINT']"]


def test_a_module_in_the_notebook_folder_does_not_stand_in_for_the_supervisors_own(
    jobs, tmp_path, monkeypatch
):
    (tmp_path / "selectors.py").write_text("raise RuntimeError('shadowed')")
    monkeypatch.chdir(tmp_path)
    assert jobs.script("print('fine')").wait(30, ended=True).phase == "stopped"


def test_old_folders_of_ended_jobs_are_dropped(jobs, monkeypatch):
    monkeypatch.setattr(MODULE, "KEPT_FOLDERS", 2)
    ended = [jobs.script("") for _ in range(3)]
    for job in ended:
        job.wait(30, ended=True)
    live = jobs.service()
    jobs.manager.collect()
    assert [job.folder.exists() for job in ended] == [False, True, True]
    assert live.live


def test_jobs_of_another_machine_with_the_same_home_are_left_alone(jobs, monkeypatch):
    job = jobs.service()
    job.wait(30)
    other = jobs.another_kernel()
    monkeypatch.setattr(MODULE, "_host", lambda: "elsewhere")
    assert other.jobs() == []
    other.collect()
    assert job.live


def test_a_job_ends_with_its_folder(jobs, eventually):
    job = jobs.service()
    job.wait(30)
    shutil.rmtree(job.folder)
    assert (job.state.phase, job.state.cause) == ("stopped", "its folder was removed")
    assert job.spec.name == "demo"
    job.stop()
    eventually(lambda: marked(job.id) == [])


def test_an_id_is_used_once(jobs):
    job = jobs.script("")
    with pytest.raises(LazynbError, match="There is a job"):
        jobs.manager.submit(job.spec)
    assert job.folder.exists()
