"""A server of the OpenAI API over real sockets that fails in the way its url says.

`server.url("cut")` is the address of an API that breaks off in mid-answer: the first part of the path names one of
the functions below. It records what it was asked and who went away.
"""

import asyncio
import contextlib
import json
import threading
import time
from collections import Counter

FAULTS = {}
TEXT = "Paris ist schön – 巴黎很美 🙂, n'est-ce pas?"


def fault(function):
    FAULTS[function.__name__.replace("_", "-")] = function
    return function


class FaultServer:
    def __init__(self):
        self.requests = []  # (fault, headers, body)
        self.left = {}  # fault -> when a client closed its connection in mid-answer
        self.connections = Counter()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop
        ).result()
        self.port = self._server.sockets[0].getsockname()[1]

    def url(self, name):
        return f"http://127.0.0.1:{self.port}/{name}/v1"

    def bodies(self, name):
        return [body for known, _, body in self.requests if known == name]

    def wait_left(self, name, seconds=2.0):
        """Seconds until the server saw that the client is gone; fails after `seconds`."""
        start = time.monotonic()
        while name not in self.left:
            assert time.monotonic() - start < seconds, "the client still holds its connection"
            time.sleep(0.01)
        return time.monotonic() - start

    def close(self):
        async def stop():
            self._server.close()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await asyncio.sleep(0)

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _serve(self, reader, writer):
        number = 0
        name = ""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = {
                    k.lower(): v for k, v in (line.split(": ", 1) for line in head[1:] if line)
                }
                size = int(headers.get("content-length", 0))
                body = json.loads(await reader.readexactly(size)) if size else None
                path = head[0].split()[1]
                name = path.split("/")[1]
                number += 1
                self.connections[name] += number == 1
                self.requests.append((name, headers, body))
                call = Call(
                    self, reader, writer, number=number, path=path, body=body, headers=headers
                )
                if await FAULTS[name](call) == "close":
                    return
        except asyncio.CancelledError:
            pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


class Call:
    """One request, and the means to answer it."""

    def __init__(self, server, reader, writer, *, number, path, body, headers):
        self.server, self.reader, self.writer = server, reader, writer
        self.number, self.path, self.body, self.headers = number, path, body, headers

    async def send(self, body, status="200 OK", mime="application/json", **headers):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        more = "".join(f"{key.replace('_', '-')}: {value}\r\n" for key, value in headers.items())
        head = f"HTTP/1.1 {status}\r\nContent-Type: {mime}\r\nContent-Length: {len(data)}\r\n{more}\r\n"
        self.writer.write(head.encode() + data)
        await self.writer.drain()

    async def fail(self, status, message, **headers):
        await self.send(
            {"error": {"message": message, "code": status}}, f"{status} Error", **headers
        )

    async def open(self):
        self.writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )

    async def raw(self, data):
        if data:
            self.writer.write(b"%x\r\n%s\r\n" % (len(data), data))
            await self.writer.drain()

    async def event(self, delta=None, reason=None, **more):
        choices = [{"index": 0, "delta": delta or {}, "finish_reason": reason}]
        await self.raw(event({"choices": choices, **more}))

    async def end(self):
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()

    async def until_left(self):
        with contextlib.suppress(ConnectionError):
            await self.reader.read()
        self.server.left[self.path.split("/")[1]] = time.monotonic()
        return "close"


def event(data, end=b"\n\n"):
    return b"data: " + json.dumps(data, ensure_ascii=False).encode() + end


def events(text=TEXT, size=3, end=b"\n\n", done=True):
    """The bytes of a whole answer."""
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    choices = [{"index": 0, "delta": {"content": piece}, "finish_reason": None} for piece in pieces]
    choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    data = b"".join(event({"choices": [choice]}, end) for choice in choices)
    usage = {"prompt_tokens": 7, "completion_tokens": len(pieces), "total_tokens": 7 + len(pieces)}
    data += event({"choices": [], "usage": usage}, end)
    return data + (b"data: [DONE]" + end if done else b"")


LAST = event({"choices": [{"index": 0, "delta": {"content": "the cap"}}]})


def whole(text=TEXT):
    message = {"role": "assistant", "content": text}
    return {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}


@fault
async def good(call):
    if call.path.endswith("/models"):
        await call.send({"data": [{"id": "the-model"}]})
    elif not call.body.get("stream"):
        await call.send(whole())
    else:
        await call.open()
        await call.raw(events())
        await call.end()


@fault
async def echo(call):
    """The last message again, a character at a time."""
    await call.open()
    for character in call.body["messages"][-1]["content"]:
        await call.event({"content": character})
        await asyncio.sleep(0.001)
    await call.event(reason="stop")
    await call.raw(b"data: [DONE]\n\n")
    await call.end()


@fault
async def slow(call):
    """Three words, a while apart."""
    await call.open()
    for word in ("one ", "two ", "three"):
        await call.event({"content": word})
        await asyncio.sleep(0.15)
    await call.event(reason="stop")
    await call.end()


@fault
async def reasoning(call):
    await call.open()
    await call.event({"reasoning_content": "Let me "})
    await call.event({"reasoning": "think."})
    await call.event({"content": "Four"})
    await call.event({"content": "."}, "stop")
    await call.raw(b"data: [DONE]\n\n")
    await call.end()


@fault
async def tools(call):
    def piece(**function):
        return {"tool_calls": [{"index": 0, "function": function}]}

    await call.open()
    start = piece(name="weather", arguments="")
    start["tool_calls"][0] |= {"id": "call_1", "type": "function"}
    await call.event(start)
    await call.event(piece(arguments='{"city": '))
    await call.event(piece(arguments='"Paris"}'))
    await call.event(reason="tool_calls")
    await call.end()


@fault
async def status_401(call):
    await call.fail(401, f"Incorrect API key provided: {call.headers.get('authorization', '')[7:]}")


@fault
async def status_404(call):
    await call.fail(404, "The model `demo` does not exist")


@fault
async def status_400(call):
    await call.fail(400, "temperature must be positive")


@fault
async def status_429(call):
    await call.fail(429, "Rate limit reached", Retry_After="7")


@fault
async def status_500(call):
    await call.send({"detail": "CUDA out of memory"}, "500 Internal Server Error")


@fault
async def status_502(call):
    await call.send(b"<html><h1>Bad Gateway</h1></html>", "502 Bad Gateway", "text/html")


@fault
async def html(call):
    await call.send(b"<!doctype html><title>Welcome to nginx</title>", type="text/html")


@fault
async def empty(call):
    await call.send(b"")


@fault
async def other_json(call):
    await call.send({"hello": "world"})


@fault
async def not_http(call):
    call.writer.write(b"SSH-2.0-OpenSSH_9.6\r\n")
    await call.writer.drain()
    return "close"


@fault
async def bad_event(call):
    await call.open()
    await call.event({"content": "Paris"})
    await call.raw(b"data: {broken\n\n")
    await call.end()


@fault
async def bad_utf8(call):
    await call.open()
    await call.raw(b'data: {"choices": [{"delta": {"content": "\xff"}}]}\n\n')
    await call.end()


@fault
async def silent(call):
    return await call.until_left()


@fault
async def stuck(call):
    """Says one word, and nothing more."""
    await call.open()
    await call.event({"content": "Paris"})
    return await call.until_left()


@fault
async def endless(call):
    await call.open()
    reading = asyncio.create_task(call.until_left())
    try:
        while not reading.done():
            await call.event({"content": "word "})
            await asyncio.sleep(0.01)
    finally:
        await reading
    return "close"


@fault
async def drops_kept_alive(call):
    """Every request after the first one of a connection is answered by closing it."""
    return "close" if call.number > 1 else await good(call)


@fault
async def drops_all(call):
    return "close"


@fault
async def cut(call):
    await call.open()
    await call.event({"content": "Paris is "})
    await call.event({"content": "the cap"})
    await asyncio.sleep(0.05)
    call.writer.transport.abort()
    return "close"


@fault
async def cut_at_once(call):
    """The last words and the end come together, just after the first word was read."""
    await call.open()
    await call.event({"content": "Paris is "})
    await asyncio.sleep(0.005)
    call.writer.write(b"%x\r\n%s\r\n" % (len(LAST), LAST))
    call.writer.transport.abort()
    return "close"


@fault
async def ends_early(call):
    """Closes the stream properly, but before the answer ended."""
    await call.open()
    await call.event({"content": "Paris is "})
    await call.end()


@fault
async def error_event(call):
    await call.open()
    await call.event({"content": "Paris is "})
    await call.raw(event({"error": {"message": "engine died", "code": 500}}))
    await call.end()


@fault
async def error_line(call):
    """As old versions of llama.cpp say it."""
    await call.open()
    await call.event({"content": "Paris is "})
    await call.raw(b'error: {"code": 500, "message": "engine died"}\n\n')
    await call.end()


@fault
async def no_done(call):
    await call.open()
    await call.raw(events(done=False))
    await call.end()


@fault
async def no_newline(call):
    """The last event has no end."""
    await call.open()
    await call.raw(events(done=False).rstrip())
    await call.end()


@fault
async def stays_open(call):
    """Says `[DONE]`, and never ends the body."""
    await call.open()
    await call.raw(events())
    return await call.until_left()


@fault
async def not_streamed(call):
    await call.send(whole())


@fault
async def no_stream_options(call):
    if "stream_options" in call.body:
        await call.fail(400, "Unrecognized request argument supplied: stream_options")
    else:
        await good(call)


@fault
async def no_models(call):
    if call.path.endswith("/models"):
        await call.fail(404, "no such route")
    else:
        await good(call)


@fault
async def single_bytes(call):
    await call.open()
    for byte in events():
        await call.raw(bytes([byte]))
        await asyncio.sleep(0)
    await call.end()


@fault
async def decorated(call):
    """Everything that server-sent events may have besides data."""
    await call.open()
    data = events(end=b"\r\n\r\n").replace(
        b"data: {", b"event: message\r\nid: 1\r\n: ping\r\ndata:{", 3
    )
    await call.raw(b": welcome\r\n\r\nretry: 10\r\n\r\n" + data)
    await call.end()


@fault
async def embeds(call):
    texts = call.body["input"]
    texts = texts if isinstance(texts, list) else [texts]
    data = [{"index": i, "embedding": [float(len(text))]} for i, text in enumerate(texts)]
    await call.send({"data": data[::-1]})


@fault
async def ranks(call):
    scores = [(i, float(len(text))) for i, text in enumerate(call.body["documents"])]
    await call.send({"results": [{"index": i, "relevance_score": score} for i, score in scores]})


@fault
async def generate(call):
    """The `/generate` route of old versions of vLLM: prompt and text, again in each piece."""
    separator = b"\0" if call.body["prompt"] == "old" else b"\n"
    prompt = call.body["prompt"]
    if not call.body.get("stream"):
        await call.send({"text": [prompt + TEXT]})
        return
    await call.open()
    for end in range(0, len(TEXT) + 1, 4):
        await call.raw(json.dumps({"text": [prompt + TEXT[:end]]}).encode() + separator)
        await asyncio.sleep(0.01)  # what comes within 33 ms is read together
    await call.raw(json.dumps({"text": [prompt + TEXT]}).encode() + separator)
    await call.end()
