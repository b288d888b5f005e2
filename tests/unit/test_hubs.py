"""Models from the hubs: the real client libraries against a hub on this machine that speaks both protocols."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lazynb.errors import LazynbError, ModelNotFoundError
from lazynb.hub import store
from tests.local_hub import FETCH, WEIGHTS, LocalHub

pytestmark = pytest.mark.slow
HUBS = ("modelscope", "huggingface")


@pytest.fixture(params=HUBS)
def hub(request, tmp_path):
    hub = LocalHub(tmp_path / "hub", request.param, tmp_path / "home")
    yield hub
    hub.close()


def progress(ran) -> list[dict]:
    lines = [line for line in ran.stdout.splitlines() if line.startswith("@progress ")]
    return [json.loads(line.removeprefix("@progress ")) for line in lines]


def failure(ran) -> str:
    """The error in its own words: `lazynb.errors.…: message`, and the hint after it."""
    assert ran.returncode != 0, ran.stdout
    return ran.stderr[ran.stderr.rindex("lazynb.errors.") :]


def test_a_model_comes_whole_with_what_it_needs_and_nothing_else(hub):
    hub.repository(
        **{
            "tokenizer.json": b"{}",
            "README.md": b"# It",
            "photo.png": b"png",
            "pytorch_model.bin": WEIGHTS,
            "onnx/model.onnx": WEIGHTS,
            "1_Pooling/config.json": b"{}",
        }
    )
    ran = hub.fetch()
    assert ran.returncode == 0, ran.stderr
    there = {str(p.relative_to(hub.model)) for p in hub.model.rglob("*") if p.is_file()}
    assert there == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "1_Pooling/config.json",
        ".lazynb.json",
    }
    assert (hub.model / "model.safetensors").read_bytes() == WEIGHTS
    manifest = json.loads((hub.model / ".lazynb.json").read_text())
    assert (manifest["source"], manifest["repo"]) == (hub.source, "someone/tiny")
    assert [p.name for p in hub.model.parent.iterdir()] == ["tiny"]
    assert hub.fetch().stdout == f"{hub.model}\n"  # and is not asked for again
    assert len(hub.asked()) == 1


def test_progress_is_told_by_file_and_in_total(hub):
    hub.repository(**{"second.safetensors": WEIGHTS})
    hub.faults(rate=4_000_000)
    said = progress(hub.fetch())
    total = 2 * len(WEIGHTS) + len((hub.folder / "someone/tiny/config.json").read_bytes())
    assert {line["total"] for line in said if "total" in line} == {total}
    done = [line["done"] for line in said if "done" in line]
    assert done == sorted(done)
    assert len(set(done)) > 4
    assert done[-1] == total
    texts = "\n".join(line["text"] for line in said)
    assert re.search(r"1 of 3 files · \d of 12 MB.* · model.safetensors \d+% · second", texts)
    assert re.search(r"\d\.\d MB/s, \d s left", texts)
    assert "3 of 3 files · 12 of 12 MB" in texts


def test_a_line_that_is_cut_goes_on_where_it_was(hub):
    hub.repository()
    hub.faults(cut={"model.safetensors": 4_000_000})
    ran = hub.fetch()
    assert ran.returncode == 0, ran.stderr
    assert (hub.model / "model.safetensors").read_bytes() == WEIGHTS
    _, second = hub.asked()
    assert re.fullmatch(r"bytes=[1-9]\d{5,}-\d*", second)


def test_a_download_that_was_killed_goes_on_and_is_never_taken_for_the_model(hub):
    hub.repository()
    hub.faults(rate=2_000_000)
    process = hub.begin()
    partial = hub.model.with_name(".tiny.part") / "model.safetensors.incomplete"
    while not (partial.exists() and partial.stat().st_size > 2_000_000):
        time.sleep(0.05)
        assert process.poll() is None, process.stderr.read()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not hub.model.exists()
    kept = partial.stat().st_size
    hub.faults()
    ran = hub.fetch()
    assert ran.returncode == 0, ran.stderr
    assert (hub.model / "model.safetensors").read_bytes() == WEIGHTS
    begun = int(re.search(r"bytes=(\d+)-", hub.asked()[-1])[1])
    assert 2_000_000 < begun <= kept
    assert progress(ran)[1]["done"] >= begun


def test_a_damaged_file_is_brought_again_and_then_refused(hub):
    hub.repository()
    hub.faults(damaged=["model.safetensors"])
    ran = hub.fetch()
    assert "came damaged" in failure(ran)
    assert not hub.model.exists()
    assert not list(hub.home.rglob("model.safetensors"))
    assert len(hub.asked()) >= 2
    hub.faults()
    assert hub.fetch().returncode == 0
    assert (hub.model / "model.safetensors").read_bytes() == WEIGHTS


def test_two_who_ask_at_once_get_one_download(hub):
    hub.repository()
    hub.faults(rate=4_000_000)
    first = hub.begin()
    while not hub.asked():
        time.sleep(0.05)
    second = hub.begin()
    said = [process.communicate(timeout=60) for process in (first, second)]
    assert [out.splitlines()[-1] for out, _ in said] == [str(hub.model)] * 2, said
    assert "waiting for another process" in said[1][0]
    assert len(hub.asked()) == 1


def test_a_repository_that_is_not_there(hub):
    begin = time.monotonic()
    said = failure(hub.fetch())
    assert time.monotonic() - begin < 20
    assert "ModelNotFoundError" in said
    assert "has no model someone/tiny" in said
    assert f"127.0.0.1:{hub.port}" in said


def test_a_repository_with_terms_says_where_to_accept_them(hub):
    hub.repository()
    hub.faults(status={"someone/tiny": 403})
    said = failure(hub.fetch())
    assert "does not let you have someone/tiny" in said
    assert "_TOKEN" in said


def test_a_private_repository_opens_with_the_token(hub):
    hub.repository()
    hub.faults(token="secret-of-mine")
    assert "_TOKEN" in failure(hub.fetch())
    ran = hub.fetch(HF_TOKEN="secret-of-mine", MODELSCOPE_API_TOKEN="secret-of-mine")
    assert ran.returncode == 0, ran.stderr
    assert "secret-of-mine" not in ran.stdout + ran.stderr


def test_a_hub_that_fails_or_does_not_answer(hub):
    hub.repository()
    hub.faults(status={"someone/tiny": 500})
    assert "has a failure" in failure(hub.fetch())
    hub.process.kill()
    hub.process.wait()
    begin = time.monotonic()
    said = failure(hub.fetch())
    assert time.monotonic() - begin < 30
    assert "does not answer" in said
    assert "_ENDPOINT" in said


def test_the_other_hub_is_named_when_it_has_the_model(hub, tmp_path):
    other = LocalHub(tmp_path / "other", hub.source, tmp_path / "home")
    try:
        other.repository()
        name = next(name for name in HUBS if name != hub.source)
        variable = "HF_ENDPOINT" if name == "huggingface" else "MODELSCOPE_ENDPOINT"
        hub.faults(status={"someone/tiny": 403})
        said = failure(hub.fetch(**{variable: f"http://127.0.0.1:{other.port}"}))
        assert f"%lazyllm pull someone/tiny --source {name}" in said
    finally:
        other.close()


def test_a_model_that_cannot_fit_is_refused_before_it_comes(hub):
    folder = hub.repository()
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(200_000_000)
    limit = (
        "import collections, shutil\n"
        "shutil.disk_usage = lambda _: collections.namedtuple('Usage', 'free')(100_000_000)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", limit + FETCH, "someone/tiny"],
        env=hub.env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "0.25 GB are needed" in failure(ran)
    assert not hub.asked()


def test_a_disk_that_fills_up_on_the_way_says_so_and_keeps_what_came(hub):
    """A real full disk: a file system of 4 MB, in a mount namespace of this test's own."""
    hub.repository()
    models = hub.home / "models"
    models.mkdir(parents=True)
    script = f'mount -t tmpfs -o size=4m none "{models}" && "$0" "$@"; ls -AR "{models}" >&2'
    namespace = ["unshare", "--map-root-user", "--mount", "sh", "-c", script]
    if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespaces here")
    blind = (
        "import collections, shutil\n"
        "shutil.disk_usage = lambda _: collections.namedtuple('Usage', 'free')(1 << 40)\n"
    )
    ran = subprocess.run(
        [*namespace, sys.executable, "-c", blind + FETCH, "someone/tiny"],
        env=hub.env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "lazynb.errors.LazynbError: No space left on the disk" in ran.stderr
    assert "LAZYLLM_MODEL_CACHE_DIR" in ran.stderr
    assert "model.safetensors.incomplete" in ran.stderr


def test_the_quantisation_of_a_gguf_repository_is_the_one_asked_for(hub):
    gguf = b"GGUF" + b"\3\0\0\0" + bytes(16)
    files = {f"it-{kind}.gguf": gguf + kind.encode() for kind in ("Q8_0", "Q4_K_M", "F16")}
    folder = hub.repository("someone/it-GGUF", **files)
    (folder / "model.safetensors").unlink()
    home = hub.home / "models" / "someone"
    usual, exact = hub.fetch("someone/it-GGUF"), hub.fetch("someone/it-GGUF:Q8_0")
    assert usual.stdout.splitlines()[-1] == str(home / "it-GGUF" / "it-Q4_K_M.gguf"), usual.stderr
    assert exact.stdout.splitlines()[-1] == str(home / "it-GGUF:Q8_0" / "it-Q8_0.gguf")
    said = failure(hub.fetch("someone/it-GGUF:Q2_K"))
    assert "no gguf weights Q2_K" in said
    assert "it-F16.gguf" in said


def test_what_is_on_this_machine_is_listed_with_its_origin_and_removed(hub, monkeypatch):
    hub.repository()
    assert hub.fetch().returncode == 0
    rest = hub.model.with_name(".half.part")
    rest.mkdir()
    (rest / "model.safetensors.incomplete").write_bytes(bytes(1000))
    for name in ("LAZYLLM_HOME", "LAZYLLM_MODEL_CACHE_DIR", "LAZYLLM_MODEL_PATH"):
        monkeypatch.setenv(name, hub.env[name])
    half, tiny = store.stored()
    assert (half.name, half.type, half.bytes) == ("someone/half", None, 1000)
    assert (tiny.name, tiny.type, tiny.format) == ("someone/tiny", "chat", "safetensors")
    assert tiny.origin.startswith(f"{hub.source}: someone/tiny@")
    assert store.remove("someone/half") == 1000
    assert store.remove("Someone/Tiny") > len(WEIGHTS)
    assert list((hub.home / "models").glob("[!.]*")) == []
    with pytest.raises(ModelNotFoundError, match="not in the cache"):
        store.remove("someone/tiny")


def test_only_what_lazynb_downloaded_is_removed(hub, monkeypatch):
    hub.repository()
    monkeypatch.setenv("LAZYLLM_HOME", str(hub.home))
    monkeypatch.setenv("LAZYLLM_MODEL_CACHE_DIR", "")
    monkeypatch.setenv("LAZYLLM_MODEL_PATH", str(hub.folder))
    with pytest.raises(LazynbError, match="a folder of yours"):
        store.remove("someone/tiny")
    assert (hub.folder / "someone/tiny/model.safetensors").exists()


def test_what_another_program_has_downloaded_is_used_as_it_lies(hub, monkeypatch):
    """The clients' own caches: a snapshot that is whole counts, one that is not does not."""
    files = {"tokenizer.json": b"{}", "model-00001-of-00002.safetensors": WEIGHTS}
    files["model-00002-of-00002.safetensors"] = WEIGHTS
    parts = [name for name in files if name.startswith("model-")]
    files["model.safetensors.index.json"] = json.dumps(
        {"weight_map": {p: p for p in parts}}
    ).encode()
    folder = hub.repository(**files)
    (folder / "model.safetensors").unlink()
    download = {
        "huggingface": "from huggingface_hub import snapshot_download as d; print(d('someone/tiny'))",
        "modelscope": "from modelscope_hub import HubApi as H; print(H().download_repo('someone/tiny', 'model'))",
    }[hub.source]
    ran = subprocess.run(
        [sys.executable, "-c", download], env=hub.env, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    snapshot = Path(ran.stdout.splitlines()[-1])
    assert hub.fetch().stdout == f"{snapshot}\n"
    assert not hub.model.exists()
    (snapshot / parts[0]).unlink()
    ran = hub.fetch()
    assert ran.stdout.splitlines()[-1] == str(hub.model), ran.stderr
