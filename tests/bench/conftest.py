"""Measured ratios: printed as a table at the end of the run, and kept in `test-results/bench.json`.

    def test_reading_is_cheap(measured):
        measured("CPU of reading a stream / openai client", ratio, at_most=1 / 3)

states the figure and its bound, and fails when the bound is not held; the table has the figure in either case. Other
programs on the machine can only make a figure worse: a test that fails is run again, twice at most, and the table has
its last figures.
"""

import json
import os
import platform
from pathlib import Path

import pytest

RESULTS = pytest.StashKey[dict]()


def pytest_configure(config):
    config.stash[RESULTS] = {}


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("bench"):
            item.add_marker(pytest.mark.flaky(reruns=2))


@pytest.fixture
def measured(request):
    """Record a figure, and check its bounds."""

    def record(what, value, *, at_most=None, at_least=None, unit=""):
        row = {"test": request.node.nodeid, "what": what, "value": value, "unit": unit}
        row |= {"at_most": at_most, "at_least": at_least}
        request.config.stash[RESULTS][row["test"], what] = row
        assert at_most is None or value <= at_most, f"{what}: {value:.3g} > {at_most:.3g}"
        assert at_least is None or value >= at_least, f"{what}: {value:.3g} < {at_least:.3g}"

    return record


def pytest_terminal_summary(terminalreporter, config):
    rows = [*config.stash[RESULTS].values()]
    if not rows:
        return
    terminalreporter.section("measured")
    width = max(len(row["what"]) for row in rows)
    for row in rows:
        terminalreporter.line(
            f"{row['what']:<{width}}  {row['value']:>9.3g} {row['unit']:<6} {_bound(row)}"
        )
    path = Path(config.rootpath) / "test-results" / "bench.json"
    path.parent.mkdir(exist_ok=True)
    earlier = json.loads(path.read_text())["rows"] if path.exists() else []
    kept = [row for row in earlier if (row["test"], row["what"]) not in config.stash[RESULTS]]
    machine = {"cpus": os.cpu_count(), "python": platform.python_version()}
    path.write_text(json.dumps({"machine": machine, "rows": kept + rows}, indent=1))


def _bound(row):
    bounds = [f"at most {row['at_most']:.3g}"] if row["at_most"] is not None else []
    bounds += [f"at least {row['at_least']:.3g}"] if row["at_least"] is not None else []
    return ", ".join(bounds)
