"""The server of transformers, with a model that breaks at its fifth step: `failing_chat.py CHAT.PY ARGUMENTS…`."""

import runpy
import sys
from itertools import count
from pathlib import Path

program = sys.argv[1]
sys.argv = sys.argv[1:]
sys.path.insert(0, str(Path(program).parent))
import sampling  # noqa: E402

steps, step = count(1), sampling.Sampler.step


def failing(self, *arguments):
    if next(steps) == 5:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    return step(self, *arguments)


sampling.Sampler.step = failing
runpy.run_path(program, run_name="__main__")
