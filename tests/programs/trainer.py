"""A training program that learns nothing: it writes the log of one, a step every tenth of a second."""

import json
import sys
import time
from pathlib import Path

steps = int(sys.argv[1])
log = Path("output/trainer_log.jsonl")
log.parent.mkdir(exist_ok=True)
for step in range(1, steps + 1):
    entry = {
        "current_steps": step,
        "total_steps": steps,
        "loss": 2 / step + 0.1 * (step % 3),
        "lr": 1e-4,
    }
    with log.open("a") as file:
        file.write(
            json.dumps({**entry, "remaining_time": f"0:00:{(steps - step) // 10:02}"}) + "\n"
        )
        if step % 10 == 0:
            file.write(
                json.dumps({"current_steps": step, "total_steps": steps, "eval_loss": 2.2 / step})
                + "\n"
            )
    print(
        "\n@progress "
        + json.dumps({"text": f"step {step} of {steps}", "done": step, "total": steps}),
        flush=True,
    )
    time.sleep(0.1)
Path("version.json").write_text(
    json.dumps({"id": Path.cwd().name, "base": "demo", "method": "none"})
)
