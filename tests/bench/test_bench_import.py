"""What lazynb adds to a bare IPython kernel, before a model is used."""

import statistics
import subprocess
import sys

import pytest

pytestmark = pytest.mark.bench

BARE = """
import sys, time
import ipykernel.ipkernel
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
pages = lambda: int(open('/proc/self/statm').read().split()[1])
before, begin = pages(), time.perf_counter()
{code}
seconds = time.perf_counter() - begin
heavy = [m for m in ("torch", "matplotlib", "aiohttp", "anywidget", "ipywidgets", "psutil", "xllamacpp") if m in sys.modules]
print(seconds, (pages() - before) * 4096 / 1e6, *heavy)
"""
LAZYNB = "import lazynb; shell.run_line_magic('load_ext', 'lazynb')"


def loaded(code, tmp_path):
    command = [sys.executable, "-c", BARE.format(code=code)]
    out = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=True,
        env={"LAZYLLM_HOME": str(tmp_path), "HOME": str(tmp_path)},
    ).stdout.split()
    return float(out[0]), float(out[1]), out[2:]


def test_loading_the_extension_adds_150_ms_and_25_mb_at_most(measured, tmp_path):
    runs = [loaded(LAZYNB, tmp_path) for _ in range(7)]
    assert all(heavy == [] for _, _, heavy in runs)
    measured(
        "load_ext lazynb: time",
        statistics.median(run[0] for run in runs) * 1000,
        at_most=150,
        unit="ms",
    )
    measured(
        "load_ext lazynb: memory", statistics.median(run[1] for run in runs), at_most=25, unit="MB"
    )
