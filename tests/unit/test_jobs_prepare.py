"""A job whose command is not known yet: a program prepares it, with progress, and can be stopped."""

import sys

import pytest

from lazynb.errors import JobError
from lazynb.jobs.process import marked

WRITE = """
import json, pathlib, sys, time
def progress(**facts): print('@progress', json.dumps(facts), flush=True)
progress(text='downloading weights', done=1, total=4)
time.sleep(0.4)
progress(text='downloading weights', done=4, total=4)
time.sleep(0.4)
command = {'argv': [sys.executable, '-c', 'print("trained")'], 'serves': False, 'engine': 'chosen'}
pathlib.Path(sys.argv[-1], 'command.json').write_text(json.dumps(command))
"""


def prepare(code):
    return {"prepare": [sys.executable, "-c", code]}


def test_a_preparation_reports_progress_and_writes_the_command(jobs):
    job = jobs.submit(**prepare(WRITE))
    states = []
    job.subscribe(states.append)
    state = job.wait(30, ended=True)
    assert (state.phase, state.engine) == ("stopped", "chosen")
    assert job.tail() == ["trained"]
    seen = [(s.text, s.done, s.total) for s in states if s.phase == "downloading" and s.done]
    assert ("downloading weights", 1.0, 4.0) in seen
    assert ("downloading weights", 4.0, 4.0) in seen


def test_a_preparation_that_fails_tells_why_itself(jobs):
    code = """print('@failed {"cause": "no model is called x", "hint": "Did you mean y?"}'); raise SystemExit(1)"""
    with pytest.raises(JobError) as caught:
        jobs.submit(**prepare(code)).wait(30)
    assert caught.value.message == "demo failed: no model is called x"
    assert caught.value.hint == "Did you mean y?"
    assert caught.value.returncode == 1


def test_a_preparation_that_breaks_is_diagnosed_like_any_program(jobs):
    with pytest.raises(JobError, match="ZeroDivisionError: division by zero"):
        jobs.submit(**prepare("1 / 0")).wait(30)


@pytest.mark.parametrize(
    "content", ["pass", "import sys; open(sys.argv[-1] + '/command.json', 'w').write('{')"]
)
def test_a_preparation_that_writes_no_command_is_a_failure(jobs, content):
    with pytest.raises(JobError, match="its preparation wrote no command"):
        jobs.submit(**prepare(content)).wait(30)


def test_stopping_during_the_preparation_ends_it(jobs, eventually):
    code = "import subprocess as s; print('@progress {\"text\": \"x\"}', flush=True); s.run(['sleep', '60'])"
    job = jobs.submit(**prepare(code))
    eventually(lambda: job.state.text == "x" and len(marked(job.id)) == 2)
    job.stop()
    assert job.state.phase == "stopped"
    assert marked(job.id) == []


def test_what_a_preparation_leaves_running_is_ended_before_the_program_starts(jobs):
    code = "import subprocess as s; s.Popen(['sleep', '60'])\n" + WRITE
    look = "from lazynb.jobs.process import *; print(len(marked(mark_of(myself().pid))))"
    job = jobs.submit(**prepare(code.replace('print("trained")', look)))
    assert job.wait(30, ended=True).phase == "stopped"
    assert job.tail() == ["0"]
