"""A server with the `/generate` route of old versions of vLLM and nothing else; prints its port.

As there, a piece of a stream is JSON with the prompt and the whole text so far, ended by a NUL, and a parameter that
`SamplingParams` does not have is an error. It answers `GENERATED`; `GET /seen` gives the requests so far.
"""

import asyncio
import json

from aiohttp import web

GENERATED = " 很高兴 认识 你。"
PARAMETERS = {"n", "temperature", "top_p", "top_k", "stop", "max_tokens", "seed", "ignore_eos"}

seen: list[dict] = []


async def generate(request):
    body = await request.json()
    seen.append(dict(body))
    prompt, stream = body.pop("prompt"), body.pop("stream", False)
    if unknown := body.keys() - PARAMETERS:
        return web.Response(status=500, text=f"unexpected keyword argument {unknown}")
    if not stream:
        return web.json_response({"text": [prompt + GENERATED]})
    response = web.StreamResponse()
    await response.prepare(request)
    for end in range(1, len(GENERATED) + 1):
        piece = json.dumps({"text": [prompt + GENERATED[:end]]})
        await response.write(piece.encode() + b"\0")
        await asyncio.sleep(0.01)
    return response


async def requests(_):
    return web.json_response(seen)


async def main():
    app = web.Application()
    app.add_routes([web.post("/generate", generate), web.get("/seen", requests)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
