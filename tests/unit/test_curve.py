"""The curve of a run: what its log says, thinned out, and the picture of it."""

import json
from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from lazynb.notebook.drawing import Line, draw, image
from lazynb.training.metrics import Curve, Series, rows


def write(path, entries, mode="w"):
    with path.open(mode) as file:
        file.writelines(json.dumps(entry) + "\n" for entry in entries)


def test_a_log_is_read_as_it_grows_and_half_a_line_waits(tmp_path):
    path = tmp_path / "trainer_log.jsonl"
    curve = Curve(path)
    assert not curve.update()
    write(path, [{"current_steps": 1, "total_steps": 9, "loss": 2.0, "lr": 1e-4}])
    with path.open("a") as file:
        file.write('{"current_steps": 2, "lo')
    assert curve.update()
    assert curve.loss.shown == [(1, 2.0)]
    assert not curve.update()
    with path.open("a") as file:
        file.write('ss": 1.0}\n')
    write(path, [{"current_steps": 2, "eval_loss": 1.5}, {"current_steps": 9, "epoch": 3}], "a")
    curve.update()
    assert curve.loss.shown == [(1, 2.0), (2, 1.0)]
    assert curve.evaluated.shown == [(2, 1.5)]
    assert curve.latest == {
        "current_steps": 9,
        "total_steps": 9,
        "loss": 1.0,
        "lr": 1e-4,
        "eval_loss": 1.5,
        "epoch": 3,
    }
    assert len(rows(path)) == 4


def test_a_resumed_run_replaces_what_lay_after_its_checkpoint():
    series = Series()
    for step in [1, 2, 3, 4, 5]:
        series.add(step, 1.0)
    for step in [4, 5, 6]:
        series.add(step, 2.0)
    assert series.shown == [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (6, 2)]


@given(st.integers(1, 3000), st.integers(4, 50))
def test_a_run_of_any_length_has_few_points_which_keep_its_mean(length, limit):
    series = Series(limit)
    for step in range(length):
        series.add(step, step)
    assert len(series.points) <= limit + 1
    assert series.shown[0][0] <= series.stride
    assert series.shown[-1][0] >= length - 1 - series.stride
    assert all(step == value for step, value in series.shown)


def test_the_picture_is_well_formed_and_names_are_text():
    loss, evaluated = Series(), Series()
    for step in range(1, 50):
        loss.add(step, 2 / step)
    evaluated.add(25, 0.3)
    for lines in (
        [Line("<b>&", loss, evaluated)],
        [Line(f"<i>{n}", loss, evaluated) for n in "ab"],
    ):
        root = ET.fromstring(draw(lines))
        assert root.tag.endswith("svg")
        assert len(root.findall(".//{*}circle")) == len(lines)
        assert len(root.findall(".//{*}polyline")) == 2 * len(lines)
        strokes = {line.get("stroke") for line in root.findall(".//{*}polyline")}
        assert len(strokes) == len(lines)


def test_flat_and_single_losses_are_drawn():
    for values in ([0.0], [1.0, 1.0], [-3.0, 5e9]):
        series = Series()
        for step, value in enumerate(values):
            series.add(step, value)
        ET.fromstring(draw([Line("x", series, Series())]))


def test_a_long_run_is_few_points_and_a_small_picture_at_every_step(tmp_path):
    path = tmp_path / "trainer_log.jsonl"
    curve = Curve(path)
    most = longest = 0
    for begin in range(0, 110_000, 100):
        entries = [
            {"current_steps": n, "loss": 2 + n % 7 / 3e3, "lr": 1e-4 / (n + 1)}
            for n in range(begin, begin + 100)
        ]
        write(
            path, [*entries, {"current_steps": begin + 99, "eval_loss": 2.1 + begin % 7 / 3e3}], "a"
        )
        curve.update()
        loss, evaluated, rate = curve.loss.shown, curve.evaluated.shown, curve.rate.shown
        most = max(most, len(loss) + len(curve.loss.smoothed) + len(evaluated) + len(rate))
        longest = max(longest, len(image(draw([Line("x", curve.loss, curve.evaluated)]))))
    assert 400 < most <= 600
    assert longest < 18_000  # the table and the words beside it have 2 kB
