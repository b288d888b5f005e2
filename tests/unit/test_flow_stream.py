"""`StreamCallHelper`: chunks as they arrive, from anywhere in a flow."""

import asyncio
import contextlib
import io
import json
import os
import pickle
import signal
import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lazynb.errors import OptionError
from lazynb.flow import parallel, pipeline, warp
from lazynb.session import Chunk, cancelling, check_color, current_sink
from lazynb.stream_helper import StreamCallHelper


class Talker:
    """Stands for a streaming module: pushes pieces and returns their text."""

    def __init__(self, pieces, *, pause=0.0, source="", forever=False):
        self.pieces, self.pause, self.source, self.forever = pieces, pause, source, forever
        self.cancelled = threading.Event()
        self.said = 0

    def __call__(self, x):
        sink = current_sink()
        with cancelling(self.cancelled.set):
            for piece in self.pieces:
                self.said += 1
                if sink is not None:
                    sink.push(piece, source=self.source)
                time.sleep(self.pause)
            if self.forever:
                self.cancelled.wait(10)
        return "".join(self.pieces)


# What comes


def test_chunks_come_while_the_call_runs_and_the_result_after():
    stream = StreamCallHelper(pipeline(Talker(["a", "b"], pause=0.1), str.upper))("x")
    chunks, times = [], []
    begun = time.perf_counter()
    for chunk in stream:
        chunks.append(chunk)
        times.append(time.perf_counter() - begun)
    assert chunks == ["a", "b"]
    assert times[0] < 0.09 < times[1]
    assert stream.result == "AB"


def test_what_does_not_stream_comes_as_one_chunk():
    assert list(StreamCallHelper(str.upper)("hello")) == ["HELLO"]
    stream = StreamCallHelper(pipeline(len))("hello")
    assert list(stream) == []
    assert stream.result == 5


def test_the_result_alone_runs_the_call():
    assert StreamCallHelper(Talker(["a", "b"]))("x").result == "ab"


def test_nothing_runs_before_the_loop_begins():
    talker = Talker(["a"])
    stream = StreamCallHelper(talker)("x")
    time.sleep(0.02)
    assert talker.said == 0
    assert list(stream) == ["a"]


def test_modules_without_a_listener_just_return():
    assert pipeline(Talker(["a"]))("x") == "a"
    assert current_sink() is None


def test_branches_in_threads_stream_into_the_same_loop_with_their_source():
    flow = parallel(Talker(["1", "2"], source="a"), Talker(["3", "4"], source="b"))
    chunks = list(StreamCallHelper(warp(flow))(["x"]))
    assert "".join(c for c in chunks if c.source == "a") == "12"
    assert "".join(c for c in chunks if c.source == "b") == "34"


def test_an_error_comes_after_the_chunks_before_it_and_in_the_result():
    stream = StreamCallHelper(pipeline(talk=Talker(["a", "b"]), fail=lambda x: 1 / 0))("x")
    seen = []
    with pytest.raises(ZeroDivisionError) as caught:  # noqa: PT012
        for chunk in stream:
            seen.append(chunk)
    assert seen == ["a", "b"]
    assert "pipeline > fail" in caught.value.__notes__[0]
    with pytest.raises(ZeroDivisionError):
        _ = stream.result


# A chunk


def test_a_chunk_is_plain_text_that_prints_in_colour():
    green, plain = Chunk("hi", "prefix", "m", "green"), Chunk(" there")
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        print(green, end="")
        print(plain)
    assert out.getvalue() == "\x1b[32mhi\x1b[0m there\n"
    chunks = [green, plain]
    assert "".join(chunks) == green + plain == f"{green}{plain}" == "hi there"
    assert json.dumps([green]) == '["hi"]'
    assert (green.kind, green.source, green.color) == ("prefix", "m", "green")
    copied = pickle.loads(pickle.dumps(green))
    assert (copied, copied.color) == ("hi", "green")


def test_reasoning_is_marked_and_printed_dim():
    assert str(Chunk("hm", "reasoning")) == "\x1b[2mhm\x1b[0m"


def test_an_unknown_colour_lists_the_near_ones():
    assert check_color("blue") == "blue"
    with pytest.raises(OptionError, match="green"):
        check_color("gren")


# Leaving early


def test_leaving_the_loop_cancels_what_runs_and_begins_no_further_step():
    talker, after = Talker(["a"], forever=True), Talker(["never"])
    for chunk in StreamCallHelper(pipeline(parallel(talker, talker).sum, after))("x"):
        assert chunk == "a"
        break
    assert talker.cancelled.wait(1)
    time.sleep(0.02)
    assert after.said == 0


def test_an_exception_in_the_loop_cancels_too():
    talker = Talker(["a"], forever=True)
    stream = StreamCallHelper(talker)("x")
    try:
        for _ in stream:
            _ = 1 / 0
    except ZeroDivisionError:
        pass
    assert talker.cancelled.wait(1)
    assert stream.result == "a", "a call that ends in spite of it has its result"


def test_a_function_that_only_pushes_is_stopped_by_its_next_push():
    stopped = threading.Event()

    def chatter(x):
        try:
            while True:
                current_sink().push("a")
        except CancelledError:
            stopped.set()
            raise

    stream = StreamCallHelper(chatter)("x")
    for _ in stream:
        break
    assert stopped.wait(1)
    with pytest.raises(CancelledError):
        _ = stream.result


def test_sink_on_cancel_is_called_once_and_can_be_taken_back():
    called = []

    def module(x):
        sink = current_sink()
        sink.on_cancel(lambda: called.append("forgotten"))()
        sink.on_cancel(lambda: called.append("kept"))
        sink.push("a")
        time.sleep(0.1)

    for _ in StreamCallHelper(module)("x"):
        break
    time.sleep(0.02)
    assert called == ["kept"]


def test_an_interrupt_in_the_loop_cancels():
    talker = Talker(["a"], forever=True)
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        for _ in StreamCallHelper(talker)("x"):
            pass
    assert talker.cancelled.wait(1)


# async for


def test_async_for_reads_async_and_plain_calls():
    async def talk(x):
        for piece in "abc":
            current_sink().push(piece)
            await asyncio.sleep(0.005)
        return x

    async def read(call):
        stream = StreamCallHelper(call)("x")
        return [chunk async for chunk in stream], stream.result

    async def main():
        return await asyncio.gather(
            read(talk), read(pipeline(talk, str.upper)), read(Talker(["a", "b"]))
        )

    assert asyncio.run(main()) == [
        (["a", "b", "c"], "x"),
        (["a", "b", "c"], "X"),
        (["a", "b"], "ab"),
    ]


def test_async_errors_and_early_exit():
    talker = Talker(["a"], forever=True)

    async def main():
        with pytest.raises(ZeroDivisionError):
            async for _ in StreamCallHelper(lambda x: 1 / 0)("x"):
                pass
        async for _ in StreamCallHelper(pipeline(talker))("x"):
            break

    asyncio.run(main())
    assert talker.cancelled.wait(1)


def test_a_cancelled_reader_cancels_the_call():
    talker = Talker(["a"], forever=True)

    async def main():
        async def read():
            async for _ in StreamCallHelper(talker)("x"):
                pass

        task = asyncio.create_task(read())
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert talker.cancelled.wait(1)


# Many at once

PIECES = st.lists(st.text(min_size=1), max_size=6)


@settings(max_examples=25, deadline=None)
@given(st.lists(PIECES, min_size=1, max_size=6))
def test_streams_at_the_same_time_never_mix(all_pieces):
    def flow(pieces):
        return pipeline(parallel(Talker(pieces, pause=0.0005), lambda x: x).astuple)

    def read(pieces):
        stream = StreamCallHelper(flow(pieces))("x")
        return list(stream), stream.result

    async def aread(pieces):
        stream = StreamCallHelper(flow(pieces))("x")
        return [chunk async for chunk in stream], stream.result

    async def main():
        return await asyncio.gather(*map(aread, all_pieces))

    expected = [(pieces, ("".join(pieces), "x")) for pieces in all_pieces]
    with ThreadPoolExecutor(len(all_pieces)) as pool:
        assert list(pool.map(read, all_pieces)) == expected
    assert asyncio.run(main()) == expected


def test_a_hundred_async_streams_that_stall_do_not_hold_up_each_other():
    release = asyncio.Event()

    async def talk(x):
        current_sink().push(str(x))
        await release.wait()

    async def read(x):
        async for chunk in StreamCallHelper(talk)(x):
            got.append(chunk)
            if len(got) == 100:
                release.set()

    async def main():
        await asyncio.wait_for(asyncio.gather(*map(read, range(100))), 5)

    got = []
    asyncio.run(main())
    assert sorted(map(int, got)) == list(range(100))
