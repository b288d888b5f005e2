"""Managed environments: one for the engines that share it, made once, never used half made."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from lazynb.engines import environment as envs
from lazynb.engines.doctor import doctor
from lazynb.engines.environment import RECIPES, Environment, environment, install
from lazynb.errors import LazynbError, OptionError


@pytest.fixture
def tiny(home, tmp_path, monkeypatch):
    """The environment of llama.cpp, with nothing in it: pip needs no network for that."""
    files = tmp_path / "requirements"
    files.mkdir()
    (files / "llamacpp.txt").write_text("# nothing\n")
    monkeypatch.setattr(envs, "REQUIREMENTS", files)
    return files / "llamacpp.txt"


def test_engines_whose_pins_agree_share_an_environment(home):
    assert environment("transformers") == environment("Embedding") == environment("llamafactory")
    assert environment("vllm") != environment("transformers")
    assert environment("torch").folder == home / "envs" / "torch"


def test_the_environments_can_lie_elsewhere(home, monkeypatch, tmp_path):
    monkeypatch.setenv("LAZYLLM_ENVS_DIR", str(tmp_path / "big"))
    assert environment("vllm").folder == tmp_path / "big" / "vllm"


def test_an_engine_that_has_none_lists_the_near_ones():
    with pytest.raises(OptionError, match="Did you mean vllm"):
        environment("vlm")


@pytest.mark.parametrize("name", RECIPES)
def test_every_requirement_is_pinned(name):
    files = list(envs.REQUIREMENTS.glob(f"{name}.txt")) + list(
        envs.REQUIREMENTS.glob(f"{name}-*.txt")
    )
    assert files
    for file in files:
        lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
        assert lines
        assert [line for line in lines if line.count("==") != 1 or "+" in line] == []


@pytest.mark.slow
def test_an_environment_is_made_once_for_two_who_ask_and_updated_when_its_pins_change(tiny):
    said: list[str] = []
    askers = [threading.Thread(target=install, args=("llamacpp", said.append)) for _ in range(2)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    place = environment("llamacpp")
    assert place.state == "installed"
    assert sum(line.startswith("making") for line in said) == 1
    assert any("waiting for another process" in line for line in said)
    assert subprocess.run([place.python, "-c", "import pip"]).returncode == 0
    tiny.write_text("# something else\n")
    assert place.state == "outdated"
    assert place.usable
    install("llamacpp", said.append)
    assert place.state == "installed"
    assert sum(line.startswith("making") for line in said) == 1, "it goes on with what is there"


@pytest.mark.slow
def test_one_that_cannot_be_completed_is_not_used_and_says_why(tiny, monkeypatch):
    tiny.write_text("llamacpp-that-nobody-made==1.0\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(LazynbError, match="is not in the package index"):
        install("llamacpp", lambda _: None)
    assert environment("llamacpp").state == "incomplete"
    assert any(
        "llamacpp: incomplete. Mend it: %lazyllm install llamacpp" in line for line in doctor()
    )


def test_no_space_is_said_before_anything_is_done(tiny, monkeypatch):
    monkeypatch.setattr(envs.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(LazynbError, match=r"0\.1 GB, and 0\.0 GB are free"):
        install("llamacpp", lambda _: None)
    assert not environment("llamacpp").folder.exists()


def test_an_engine_that_needs_a_gpu_says_so(home, monkeypatch):
    monkeypatch.setattr(envs, "nvidia", lambda: 0)
    with pytest.raises(LazynbError, match="lmdeploy needs an NVIDIA GPU"):
        install("lmdeploy")


@pytest.fixture
def neighbours(home):
    """An environment whose torchvision, torchaudio and torchcodec were built for another torch."""
    place = Environment("torch")
    subprocess.run([sys.executable, "-m", "venv", str(place.folder)], check=True)
    site = next(place.folder.glob("lib/python3*/site-packages"))
    for module, text in {
        "torch": "",
        "torchvision": "raise RuntimeError('operator torchvision::nms does not exist')",
        "torchaudio": "import pathlib\nif list(pathlib.Path(__file__).parent.glob('lib/*.so')): raise OSError('libcudart.so')",
        "torchcodec": "",
    }.items():
        (site / module).mkdir()
        (site / module / "__init__.py").write_text(text)
        info = site / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (info / "INSTALLER").write_text("pip")
        (info / "RECORD").write_text(
            f"{module}/__init__.py,,\n{module}-1.0.dist-info/METADATA,,\n"
            f"{module}-1.0.dist-info/RECORD,,\n{module}-1.0.dist-info/INSTALLER,,\n"
        )
    (site / "torchaudio" / "lib").mkdir()
    (site / "torchaudio" / "lib" / "_torchaudio.so").write_text("")
    return place, site


@pytest.mark.slow
def test_a_neighbour_that_cannot_be_imported_is_mended_and_the_others_stay(neighbours):
    place, site = neighbours
    assert envs.broken(place) == ["torchvision", "torchaudio"]
    done = envs.mend(place)
    assert len(done) == 2
    assert "uninstalled torchvision" in done[0]
    assert "removed torchaudio's compiled parts" in done[1]
    assert not (site / "torchvision").exists()
    assert (site / "torchcodec").exists()
    assert envs.broken(place) == []
    assert envs.mend(place) == []


def test_the_shells_commands_end_with_a_sentence_and_not_a_traceback(home):
    run = [sys.executable, "-m", "lazynb", "install", "vlm"]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "There is nothing to install for 'vlm'\nDid you mean vllm?\n"
    done = subprocess.run(
        [sys.executable, "-m", "lazynb", "doctor"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "vllm: not installed (vllm)" in done.stdout
