"""Read one stream and print the CPU seconds that it took: `python read_stream.py CLIENT PORT STREAMS`.

CLIENT is lazynb or openai. STREAMS answers are read one after the other, after a first one that pays for imports
and connections.
"""

import sys
import time

CLIENT, PORT, STREAMS = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
URL = f"http://127.0.0.1:{PORT}/v1"
MESSAGES = [{"role": "user", "content": "go"}]

if CLIENT == "lazynb":
    from lazynb.client.endpoint import Endpoint
    from lazynb.streaming import ask

    endpoint = Endpoint(URL, "demo", "key", "demo")

    def read():
        return sum(len(chunk) for chunk in ask(endpoint, MESSAGES))
else:
    from openai import OpenAI

    client = OpenAI(base_url=URL, api_key="key")

    def read():
        with client.chat.completions.create(model="demo", messages=MESSAGES, stream=True) as stream:
            return sum(len(chunk.choices[0].delta.content or "") for chunk in stream)


size = read()
wall, cpu = time.perf_counter(), time.process_time()
for _ in range(STREAMS):
    assert read() == size
print(time.process_time() - cpu, time.perf_counter() - wall, size)
