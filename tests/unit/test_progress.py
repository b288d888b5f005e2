"""How a service comes up, as the cell shows it."""

from types import SimpleNamespace

import pytest

from lazynb.jobs.spec import JobState
from lazynb.notebook.progress import _bundle, line


def job(tail=()):
    return SimpleNamespace(
        name="demo",
        url="http://127.0.0.1:1/v1",
        spec=SimpleNamespace(kind="service", created=100.0, why=""),
        tail=lambda _: list(tail),
    )


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (JobState(phase="queued"), "demo · queued"),
        (
            JobState(phase="downloading", text="weights 3 of 8"),
            "demo · downloading: weights 3 of 8",
        ),
        (
            JobState(phase="ready", since=101.5, engine="llamacpp"),
            "demo · ready in 1.5 s · llamacpp · http://127.0.0.1:1/v1",
        ),
        (JobState(phase="stopped"), "demo · stopped"),
        (JobState(phase="failed", cause="no memory"), "demo · failed: no memory"),
    ],
)
def test_each_phase_is_one_line(state, said):
    assert line(job(), state) == said
    assert _bundle(job(), state)["text/plain"].splitlines()[0] == said


@pytest.mark.parametrize(
    ("done", "total", "width"), [(1, 4, "25%"), (None, None, "0%"), (3, 0, "0%"), (9, 4, "100%")]
)
def test_the_bar_is_as_wide_as_what_is_done(done, total, width):
    state = JobState(phase="downloading", done=done, total=total)
    assert f"width:{width};" in _bundle(job(), state)["text/html"]


def test_the_log_is_text_behind_a_triangle_until_the_service_is_ready():
    tail = ["<script>alert(1)</script>"]
    html = _bundle(job(tail), JobState(phase="loading"))["text/html"]
    assert "<details>" in html
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "details" not in _bundle(job(tail), JobState(phase="ready"))["text/html"]


def test_a_failure_shows_cause_hint_and_its_last_lines():
    state = JobState(phase="failed", cause="<b>", hint="Use less.", log_tail=["last words"])
    bundle = _bundle(job(), state)
    assert bundle["text/plain"] == "demo · failed: <b>\nUse less."
    assert "&lt;b&gt;" in bundle["text/html"]
    assert "Use less." in bundle["text/html"]
    assert "last words" in bundle["text/html"]
