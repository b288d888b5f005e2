"""A server of the OpenAI API that says what it is told, at the rate it is told; prints its port.

The last message of a request is JSON: {"say": [chunks], "rate": chunks per second}. `GET /running` gives the number of
answers under way, `GET /sent` the time at which each chunk of the last answer left.
"""

import asyncio
import json
import time

from aiohttp import web

running: set[int] = set()
sent: list[float] = []


async def chat(request):
    body = await request.json()
    script = json.loads(body["messages"][-1]["content"])
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    running.add(id(request))
    sent.clear()
    try:
        begin = time.monotonic()
        for number, chunk in enumerate(script["say"]):
            delay = begin + number / script.get("rate", 100) - time.monotonic()
            await asyncio.sleep(max(0, delay))
            sent.append(time.time())
            await response.write(event({"choices": [{"index": 0, "delta": {"content": chunk}}]}))
        await response.write(
            event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        )
        count = len(script["say"])
        usage = {"prompt_tokens": 1, "completion_tokens": count, "total_tokens": count + 1}
        await response.write(event({"choices": [], "usage": usage}) + b"data: [DONE]\n\n")
    finally:
        running.discard(id(request))
    return response


def event(data):
    return b"data: " + json.dumps(data).encode() + b"\n\n"


async def count(_):
    return web.json_response(len(running))


async def times(_):
    return web.json_response(sent)


async def main():
    app = web.Application(client_max_size=1 << 24)
    app.add_routes(
        [
            web.post("/v1/chat/completions", chat),
            web.get("/running", count),
            web.get("/sent", times),
        ]
    )
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
