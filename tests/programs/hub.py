"""A model hub on this machine, at the far side of both protocols: ModelScope's and Hugging Face's. Prints its port.

    python hub.py FOLDER

A repository is a folder `FOLDER/owner/name`. `FOLDER/faults.json` says what goes wrong, and is read at each request:

    cut       {path: bytes}     the connection ends after so many bytes of a file, once
    rate      bytes a second    how slow the line is
    damaged   [path, …]         one byte of the file is another one
    status    {repo: status}    what is answered for a repository: 401, 403, 404, 429, 500
    token     text              who does not say it gets 401

`GET /asked` lists the files that were asked for, each with its `Range`.
"""

import asyncio
import hashlib
import json
import sys
from pathlib import Path

from aiohttp import web

ROOT = Path(sys.argv[1])
COMMIT = "0123456789abcdef0123456789abcdef01234567"
asked = []
cut_already = set()


def faults():
    try:
        return json.loads((ROOT / "faults.json").read_text())
    except OSError:
        return {}


def files(repo):
    folder = ROOT / repo
    return sorted(path for path in folder.rglob("*") if path.is_file())


def refused(request, repo):
    """Return the status with which a request is refused."""
    wanted = faults().get("token")
    said = request.headers.get("Authorization", "") + request.headers.get("Cookie", "")
    if wanted and wanted not in said:
        return 401
    if status := faults().get("status", {}).get(repo):
        return status
    return 0 if (ROOT / repo).is_dir() else 404


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


# Hugging Face.


async def huggingface_info(request):
    repo = f"{request.match_info['owner']}/{request.match_info['name']}"
    if status := refused(request, repo):
        return huggingface_refusal(status)
    siblings = []
    for path in files(repo):
        row = {"rfilename": str(path.relative_to(ROOT / repo)), "size": path.stat().st_size}
        if path.stat().st_size > 1000:
            row["lfs"] = {"sha256": sha256(path), "size": row["size"], "pointerSize": 134}
        siblings.append(row)
    return web.json_response({"id": repo, "sha": COMMIT, "siblings": siblings, "private": False})


async def huggingface_tree(request):
    repo = f"{request.match_info['owner']}/{request.match_info['name']}"
    if status := refused(request, repo):
        return huggingface_refusal(status)
    rows = []
    for path in files(repo):
        size, sum_ = path.stat().st_size, sha256(path)
        row = {
            "type": "file",
            "path": str(path.relative_to(ROOT / repo)),
            "size": size,
            "oid": sum_,
        }
        rows.append(
            row | ({"lfs": {"oid": sum_, "size": size, "pointerSize": 134}} if size > 1000 else {})
        )
    return web.json_response(rows)


def huggingface_refusal(status):
    codes = {401: "RepoNotFound", 404: "RepoNotFound", 403: "GatedRepo"}
    headers = {"X-Error-Code": codes[status]} if status in codes else {}
    return web.json_response({"error": f"status {status}"}, status=status, headers=headers)


async def huggingface_file(request):
    repo = f"{request.match_info['owner']}/{request.match_info['name']}"
    if status := refused(request, repo):
        return huggingface_refusal(status)
    return await send(request, ROOT / repo / request.match_info["path"])


# ModelScope.


async def modelscope_files(request):
    repo = f"{request.match_info['owner']}/{request.match_info['name']}"
    if status := refused(request, repo):
        return modelscope_refusal(status)
    rows = [
        {
            "Path": str(path.relative_to(ROOT / repo)),
            "Name": path.name,
            "Type": "blob",
            "Size": path.stat().st_size,
            "Sha256": sha256(path),
            "Revision": COMMIT,
        }
        for path in files(repo)
    ]
    return web.json_response({"Code": 200, "Data": {"Files": rows}, "Success": True})


def modelscope_refusal(status):
    body = {"Code": 10010205001, "Message": f"status {status}", "Success": False}
    return web.json_response(body, status=status)


async def modelscope_file(request):
    repo = f"{request.match_info['owner']}/{request.match_info['name']}"
    if status := refused(request, repo):
        return modelscope_refusal(status)
    return await send(request, ROOT / repo / request.query["FilePath"])


# Both.


async def send(request, path):
    if not path.is_file():
        return web.json_response({"error": "no such file"}, status=404)
    data = bytearray(path.read_bytes())
    name = path.name
    if name in faults().get("damaged", []):
        data[len(data) // 2] ^= 1
    if request.method == "GET":
        asked.append([name, request.headers.get("Range", "")])
    start = request.http_range.start or 0
    stop = request.http_range.stop or len(data)
    part = bytes(data[start:stop])
    headers = {
        "Content-Length": str(len(part)),
        "Accept-Ranges": "bytes",
        "ETag": f'"{sha256(path)}"',
        "X-Repo-Commit": COMMIT,
    }
    if "Range" in request.headers:
        headers["Content-Range"] = f"bytes {start}-{start + len(part) - 1}/{len(data)}"
    response = web.StreamResponse(
        status=206 if "Range" in request.headers else 200, headers=headers
    )
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    cut = faults().get("cut", {}).get(name)
    rate = faults().get("rate")
    step = max(1, int(rate / 20)) if rate else 1 << 16
    sent = 0
    while sent < len(part):
        if cut is not None and name not in cut_already and sent >= cut:
            cut_already.add(name)
            request.transport.abort()
            return response
        await response.write(part[sent : sent + step])
        sent += step
        if rate:
            await asyncio.sleep(0.05)
    return response


async def what_was_asked(_):
    return web.json_response(asked)


async def main():
    app = web.Application()
    app.add_routes(
        [
            web.get("/asked", what_was_asked),
            web.get("/api/models/{owner}/{name}", huggingface_info),
            web.get("/api/models/{owner}/{name}/revision/{revision}", huggingface_info),
            web.get("/api/models/{owner}/{name}/tree/{revision}", huggingface_tree),
            web.get("/{owner}/{name}/resolve/{revision}/{path:.+}", huggingface_file),
            web.get("/api/v1/models/{owner}/{name}/repo/files", modelscope_files),
            web.get("/api/v1/models/{owner}/{name}/repo", modelscope_file),
        ]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
