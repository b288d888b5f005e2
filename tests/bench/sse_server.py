"""A server of the OpenAI API that does nothing but send: `python sse_server.py CHUNKS PAUSE`.

CHUNKS events per answer, each in a write of its own, PAUSE seconds after the one before (0: as fast as they are
taken). It costs so little that what is measured is the client. Prints its port.
"""

import asyncio
import json
import sys

CHUNKS, PAUSE = int(sys.argv[1]), float(sys.argv[2])
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def event(delta, reason=None):
    data = {
        "id": "chatcmpl-XkJ2m5mUoQ7kS0bB2vBq",
        "object": "chat.completion.chunk",
        "created": 1760000000,
        "model": "demo",
        "system_fingerprint": "b6000-abcdef12",
        "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
    }
    return framed(b"data: " + json.dumps(data).encode() + b"\n\n")


def framed(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


async def answer(reader, writer):
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        size = next(
            int(line[15:])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length:")
        )
        await reader.readexactly(size)
        writer.write(HEAD)
        for number in range(CHUNKS):
            writer.write(event({"content": f" w{number}"}))
            await asyncio.sleep(PAUSE)
            await writer.drain()
        writer.write(event({}, "stop") + framed(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
