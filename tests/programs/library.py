"""Embed or rank with the library alone: python library.py embed|rerank MODEL BATCH_SIZE.

Each line on standard input is a JSON list of texts, or of pairs; the seconds that they took are printed.
"""

import json
import sys
import time

from sentence_transformers import CrossEncoder, SentenceTransformer

task, path, size = sys.argv[1:]
if task == "embed":
    compute = SentenceTransformer(path, device="cpu", local_files_only=True).encode
else:
    compute = CrossEncoder(path, device="cpu", local_files_only=True).predict
print("ready", flush=True)
for line in sys.stdin:
    items = json.loads(line)
    begun = time.perf_counter()
    compute(items, batch_size=int(size), show_progress_bar=False)
    print(time.perf_counter() - begun, flush=True)
