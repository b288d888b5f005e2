"""A service as small as can be: what a supervisor, a probe and a client see of an engine, with its ways to misbehave.

It asks for the key in the variable KEY, answers every POST with an empty object, and tells of each SIGINT.
"""

import argparse
import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("port", type=int)
parser.add_argument("--say", action="append", default=[], help="printed before it listens")
parser.add_argument("--load", type=float, default=0.0, help="seconds before it listens")
parser.add_argument("--crash", type=int, help="ends with this code instead of listening")
parser.add_argument("--status", type=int, default=200, help="the HTTP status of each answer")
parser.add_argument("--silent", action="store_true", help="accepts requests and never answers")
parser.add_argument(
    "--orphan", help="a file for the id of a daemon that it starts; the daemon ignores SIGTERM"
)
parser.add_argument("--running", help="a file that holds how many requests /metrics tells of")
parser.add_argument("--stubborn", action="store_true", help="ignores SIGTERM itself")
args = parser.parse_args()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        allowed = self.headers.get("Authorization") == f"Bearer {os.environ['KEY']}"
        self.send_response(200 if allowed and args.running else 404)
        self.end_headers()
        if allowed and args.running:
            running = Path(args.running).read_text()
            self.wfile.write(f"demo:requests_running {running}\ndemo:requests_total 7\n".encode())

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/die":
            print("engine error: the weights fell over", flush=True)
            os._exit(3)
        if self.path == "/v1/long":
            time.sleep(4)
        if args.silent:
            time.sleep(600)
        allowed = self.headers.get("Authorization") == f"Bearer {os.environ['KEY']}"
        self.send_response(args.status if allowed else 401)
        self.end_headers()
        self.wfile.write(b"{}")


def start_orphan(path):
    """Fork twice with a session of its own in between, as daemons do."""
    if os.fork():
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    fresh = Path(path + ".new")
    fresh.write_text(str(os.getpid()))
    fresh.rename(path)
    time.sleep(600)
    os._exit(0)


signal.signal(signal.SIGINT, lambda *_: print("was interrupted", flush=True))
if args.stubborn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if args.orphan:
    start_orphan(args.orphan)
for text in args.say:
    print(text, flush=True)
time.sleep(args.load)
if args.crash is not None:
    sys.exit(args.crash)
ThreadingHTTPServer(("127.0.0.1", args.port), Handler).serve_forever()
