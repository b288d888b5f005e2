"""A hub on this machine (`programs/hub.py`), and a machine that uses it and no other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

HUB = Path(__file__).parent / "programs" / "hub.py"
FETCH = "import sys; from lazynb.hub import fetch, resolve; print(fetch(resolve(sys.argv[1])).path)"
WEIGHTS = os.urandom(6_000_000)


class LocalHub:
    """The stand-in, and a machine that uses it."""

    def __init__(self, folder: Path, source: str, home: Path) -> None:
        self.folder, self.source, self.home = folder, source, home
        folder.mkdir()
        self.process = subprocess.Popen(
            [sys.executable, HUB, folder], stdout=subprocess.PIPE, text=True
        )
        self.port = self.process.stdout.readline().strip()
        self.env = {
            **{name: text for name, text in os.environ.items() if not name.endswith("_proxy")},
            "LAZYLLM_HOME": str(home),
            "LAZYLLM_MODEL_SOURCE": source,
            "LAZYLLM_MODEL_CACHE_DIR": "",
            "LAZYLLM_MODEL_PATH": "",
            "HF_HOME": str(home / "hf"),
            "HF_ENDPOINT": f"http://127.0.0.1:{self.port}",
            "MODELSCOPE_ENDPOINT": f"http://127.0.0.1:{self.port}",
            "MODELSCOPE_CACHE": str(home / "ms"),
            "MODELSCOPE_CREDENTIALS_PATH": str(home / "ms-login"),
        }

    def repository(self, name="someone/tiny", **files) -> Path:
        folder = self.folder / name
        facts = json.dumps({"architectures": ["LlamaForCausalLM"]}).encode()
        for path, data in ({"config.json": facts, "model.safetensors": WEIGHTS} | files).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
        return folder

    def faults(self, **faults) -> None:
        (self.folder / "faults.json").write_text(json.dumps(faults))

    def fetch(self, name="someone/tiny", timeout=60, **env):
        return subprocess.run(
            [sys.executable, "-c", FETCH, name],
            env={**self.env, **env},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def begin(self, name="someone/tiny"):
        return subprocess.Popen(
            [sys.executable, "-c", FETCH, name],
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def asked(self, name="model.safetensors") -> list[str]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/asked") as answer:
            return [range_ for file, range_ in json.loads(answer.read()) if file == name]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    @property
    def model(self) -> Path:
        return self.home / "models" / "someone" / "tiny"
