"""The bytes of a stream give the same answer however the network cuts them."""

import asyncio
import itertools
import json
from contextlib import asynccontextmanager

import pytest
from fault_server import event, events
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lazynb.client import generate
from lazynb.client.endpoint import Endpoint
from lazynb.client.wire import (
    Delta,
    EventStream,
    NonsenseError,
    StreamError,
    Usage,
    join_tool_calls,
)

texts = st.text(st.characters(codec="utf-8"), max_size=80)
ends = st.sampled_from([b"\n\n", b"\r\n\r\n", b"\n"])


def read(data, cuts=()):
    stream = EventStream()
    bounds = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    deltas = []
    for start, end in itertools.pairwise(bounds):
        deltas += stream.feed(data[start:end])
    if not stream.ended and stream.failure is None:
        deltas += stream.finish()
    return stream, deltas


def text_of(deltas):
    return "".join(delta.text for delta in deltas)


@given(texts, st.integers(1, 7), ends, st.booleans(), st.lists(st.integers(0, 10_000), max_size=12))
@example("巴黎🙂", 1, b"\r\n\r\n", True, list(range(600)))
def test_any_split_gives_the_same_text(text, size, end, done, cuts):
    stream, deltas = read(events(text, size, end, done), cuts)
    assert text_of(deltas) == text
    assert stream.failure is None
    assert stream.done
    assert stream.ended is done
    assert next(delta.usage for delta in deltas if delta.usage).prompt_tokens == 7
    assert [delta.finish_reason for delta in deltas if delta.finish_reason] == ["stop"]


@given(st.lists(st.integers(0, 10_000), max_size=12))
def test_what_came_before_an_error_is_given(cuts):
    data = event({"choices": [{"delta": {"content": "Paris"}}]}) + event(
        {"error": {"message": "no"}}
    )
    stream, deltas = read(data, cuts)
    assert text_of(deltas) == "Paris"
    assert isinstance(stream.failure, StreamError)


@given(st.binary(max_size=200))
def test_no_bytes_at_all_break_it(data):
    stream, _ = read(data)
    assert (
        stream.done
        or stream.failure is None
        or isinstance(stream.failure, StreamError | NonsenseError)
    )


def test_unknown_fields_and_missing_ones_are_no_matter():
    _, deltas = read(
        event({"choices": [{"delta": {"role": "assistant", "new": [1]}, "x": 1}], "y": {}})
    )
    assert deltas == [Delta()]
    _, deltas = read(
        event({"choices": [{"delta": {"content": None}, "logprobs": None}], "usage": None})
    )
    assert deltas == [Delta()]
    _, deltas = read(event({"usage": {"total_tokens": 3, "completion_tokens_details": {}}}))
    assert deltas == [Delta(usage=Usage(total_tokens=3))]


def test_errors_in_the_shapes_that_servers_have():
    for data in (
        {"error": "text"},
        {"error": {"message": "m"}},
        {"object": "error", "message": "m"},
    ):
        stream, _ = read(event(data))
        assert isinstance(stream.failure, StreamError)


def test_other_choices_than_the_first_are_left_out():
    other = {"index": 1, "delta": {"content": "no"}}
    _, deltas = read(
        event({"choices": [other]}) + event({"choices": [{"delta": {"content": "yes"}}, other]})
    )
    assert text_of(deltas) == "yes"


def test_tool_calls_without_pieces_stay_as_they_are():
    calls = [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": "[]"}},
    ]
    assert join_tool_calls(calls) == calls


# The old route of vLLM sends all of the text again and again.


def deltas_of(prompt, pieces, monkeypatch):
    """What `/generate` is read as when the network delivers these bytes."""

    class Arriving:
        async def pieces(self):
            for piece in pieces:
                yield piece

    @asynccontextmanager
    async def request(*_):
        yield Arriving()

    async def read():
        body = {"messages": [{"role": "user", "content": prompt}]}
        return [d async for batch in generate.stream(endpoint, body, None) for d in batch]

    endpoint = Endpoint("http://127.0.0.1:1/generate", "old", protocol="vllm")
    monkeypatch.setattr(generate, "request", request)
    return asyncio.run(read())


@given(
    texts,
    st.lists(texts, min_size=1, max_size=6),
    st.sampled_from([b"\0", b"\n"]),
    st.booleans(),
    st.lists(st.integers(0, 10_000), max_size=12),
)
@settings(deadline=None)
def test_any_split_of_the_old_route_gives_the_same_text(prompt, words, end, last, cuts):
    so_far = itertools.accumulate(words, initial=prompt)
    sent = [json.dumps({"text": [text]}).encode() for text in so_far]
    data = end.join(sent) + (end if last else b"")
    bounds = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    pieces = [data[start:stop] for start, stop in itertools.pairwise(bounds)]
    with pytest.MonkeyPatch.context() as patch:
        assert text_of(deltas_of(prompt, pieces, patch)) == "".join(words)
