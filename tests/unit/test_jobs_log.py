"""A job's log is readable, bounded, and turned into progress where a rule says how."""

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazynb.jobs.log import LONGEST_LINE, LineReader
from lazynb.jobs.spec import ProgressRule


def read(*pieces, secret=""):
    reader = LineReader(secret)
    found = [item for piece in pieces for item in reader.feed(piece)]
    return found + list(reader.end())


def kept(*pieces, **options):
    return [line for line, stays in read(*pieces, **options) if stays]


def test_a_progress_bar_becomes_its_last_state():
    assert kept(b"start\n\r 10%\r 50%\r100%\nend\n") == ["start", "100%", "end"]
    assert kept(b"10%\r", b"100%\r", b"\n", b"end") == ["100%", "end"]
    assert ("10%", False) in read(b"10%\r100%\n")


def test_windows_line_ends_and_blank_lines():
    assert kept(b"one\r\n\r\ntwo\r\n") == ["one", "", "two"]


def test_colours_and_control_characters_are_removed():
    assert kept(b"\x1b[1;31mred\x1b[0m \x1b]0;title\x07\x1b[2Kplain\x00\x08\n") == ["red plain"]


def test_what_is_not_text_is_replaced():
    assert kept(b"caf\xc3\xa9 \xff\n") == ["café \ufffd"]


def test_a_line_without_an_end_is_cut():
    lines = kept(b"x" * (LONGEST_LINE + 1), b"y\n")
    assert [len(line) for line in lines] == [LONGEST_LINE + 1, 1]


def test_a_secret_does_not_get_through():
    assert kept(b"key=s3cr", b"et!\n", secret="s3cret") == ["key=***!"]


@given(st.text(alphabet="ab\r\né\x1b[m", max_size=60), st.lists(st.integers(0, 80), max_size=5))
def test_lines_do_not_depend_on_how_the_bytes_arrive(text, cuts):
    data = text.encode()
    cuts = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    assert kept(*[data[a:b] for a, b in pairwise(cuts)]) == kept(data)


def test_the_log_file_is_bounded_and_its_end_is_kept(jobs, monkeypatch):
    monkeypatch.setenv("LAZYLLM_LOG_BYTES", "100000")
    job = jobs.script("for i in range(50000): print('line', i)")
    job.wait(60, ended=True)
    sizes = [file.stat().st_size for file in job.folder.glob("log*")]
    assert len(sizes) == 2
    assert sum(sizes) < 2 * 100_000 + 2 * 65536
    assert job.tail(3) == ["line 49997", "line 49998", "line 49999"]
    assert len(job.tail(1000)) == 1000
    assert job.tail(0) == []


def test_lines_become_progress(jobs, eventually):
    rules = [ProgressRule(r"shard (?P<done>\d+)/(?P<total>\d+)", "weights {done} of {total}")]
    code = "import time; print('shard 1/4\\r', end='', flush=True); time.sleep(60)"
    job = jobs.script(code, command={"progress": rules})
    state = eventually(lambda: (s := job.state).done and s)
    assert (state.text, state.done, state.total) == ("weights 1 of 4", 1.0, 4.0)


def test_a_flood_of_progress_costs_few_writes(jobs):
    code = "import json\nfor i in range(20000): print('@progress', json.dumps({'text': 'x', 'done': i, 'total': 20000}))"
    job = jobs.script(code)
    seen = []
    job.subscribe(seen.append)
    began = time.monotonic()
    job.wait(60, ended=True)
    assert len(seen) < 10 + 20 * (time.monotonic() - began)
    assert job.tail() == []


@pytest.mark.parametrize(
    "line", ["@progress nonsense", '@progress {"done": "x"}', '@failed {"hint": 1}', "@progress"]
)
def test_broken_reports_are_ignored(jobs, line):
    job = jobs.script(f"print({line!r})")
    assert job.wait(30, ended=True).phase == "stopped"
