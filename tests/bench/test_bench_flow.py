"""What a flow costs on top of what its steps do."""

import statistics
import time

import pytest

from lazynb.flow import pipeline

pytestmark = pytest.mark.bench


def add_one(x):
    return x + 1


def microseconds(call, repeat=2000):
    """Return the median time of a call."""
    times = []
    for _ in range(repeat):
        begun = time.perf_counter()
        call(1)
        times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1e6


def test_a_pipeline_of_three_adds_little_to_a_call(measured):
    flow = pipeline(add_one, add_one, add_one)
    plain = microseconds(lambda x: add_one(add_one(add_one(x))))
    added = microseconds(flow) - plain
    measured("pipeline of three: added to a call", added, at_most=100, unit="µs")

    # Against what such a call is for: one request to a server on the same machine takes a millisecond and more.
    def request(x):
        time.sleep(0.001)
        return x

    bare = microseconds(request, 200)
    through = microseconds(pipeline(add_one, request, add_one), 200)
    measured("pipeline of three around 1 ms / the 1 ms alone", through / bare, at_most=1.2)
