"""Embeddings and rankings through a module, against the library alone that is called with the same lists."""

import json
import random
import subprocess
import time
from pathlib import Path

import pytest

import lazynb
from lazynb.engines.environment import environment
from tests import small_models
from tests.engines.conftest import ENVIRONMENTS

pytestmark = [pytest.mark.bench, pytest.mark.slow, pytest.mark.timeout(900)]

ROUNDS = 15
BATCH = 32
TEXTS = 384
QUERIES = 6
WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "while",
    "markets",
    "fell",
    "and",
    "bees",
    "made",
    "honey",
    "in",
    "Paris",
]
PROGRAM = Path(__file__).parents[1] / "programs" / "library.py"


@pytest.fixture
def place(tmp_path, model_cache, monkeypatch):
    monkeypatch.setenv("LAZYLLM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LAZYLLM_MODEL_CACHE_DIR", str(model_cache))
    monkeypatch.setenv("LAZYLLM_ENVS_DIR", str(ENVIRONMENTS))
    if not environment("embedding").usable:
        pytest.skip("the environment of embedding is not installed: make envs")
    return model_cache


@pytest.fixture
def library(place):
    """A function that starts the library on a task, and returns what times a list of items there."""
    programs = []

    def start(task, model):
        command = [environment("embedding").python, PROGRAM, task, model, str(BATCH)]
        program = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        programs.append(program)
        assert program.stdout.readline() == "ready\n"

        def seconds(items):
            program.stdin.write(json.dumps(items) + "\n")
            program.stdin.flush()
            return float(program.stdout.readline())

        return seconds

    yield start
    for program in programs:
        program.kill()
        program.communicate()


@pytest.fixture
def module(place):
    """A function that starts a module on a model."""
    modules = []

    def start(model):
        modules.append(lazynb.TrainableModule(model).start())
        return modules[-1]

    yield start
    for module in modules:
        module.stop()


def passages(count, seed=1):
    """Texts of 10 to 150 words."""
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(10, 150))) for _ in range(count)]


def timed(call):
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def turns(pairs, bound=0.95):
    """The best times of (library, module) for some tasks; other programs can only slow one down."""
    times = {task: ([], []) for task in pairs}
    for turn in range(ROUNDS):
        if turn >= 2 and all(min(alone) / min(ours) >= bound for alone, ours in times.values()):
            break
        for task, (alone, ours) in pairs.items():
            times[task][0].append(alone())
            times[task][1].append(timed(ours))
    return {task: (min(alone), min(ours)) for task, (alone, ours) in times.items()}


def test_embedding_reaches_the_throughput_of_the_library(place, library, module, measured):
    path = small_models.embedding_model(place)
    embed = module(path)
    texts = passages(TEXTS)
    lists = [texts[start : start + BATCH] for start in range(0, TEXTS, BATCH)]
    alone = library("embed", path)
    alone(texts[:BATCH])
    embed(texts[:BATCH])
    best = turns(
        {
            "one list": (lambda: alone(texts), lambda: embed(texts)),
            "lists through map": (
                lambda: sum(map(alone, lists)),
                lambda: embed.map(lists, progress=False).raise_errors(),
            ),
        }
    )
    whole, parts = best["one list"][0], best["lists through map"][1]
    single = timed(lambda: embed.map(texts, progress=False).raise_errors())
    measured("texts embedded a second, library", TEXTS / whole)
    measured("embedding texts one by one through map, to the library's one list", whole / single)
    measured("embedding lists through map, to the library's one list", whole / parts)
    for task, (theirs, ours) in best.items():
        measured(f"embedding {task}, to library", theirs / ours, at_least=0.95)


def test_ranking_reaches_the_throughput_of_the_library(place, library, module, measured):
    path = small_models.reranker_model(place)
    rank = module(path)
    queries, documents = [text[:60] for text in passages(QUERIES, seed=2)], passages(BATCH)
    many = passages(QUERIES * BATCH)
    lists = [[(query, document) for document in documents] for query in queries]
    alone = library("rerank", path)
    alone(lists[0])
    rank(queries[0], documents=documents)
    best = turns(
        {
            "one list": (
                lambda: alone([(queries[0], text) for text in many]),
                lambda: rank(queries[0], documents=many),
            ),
            "queries through map": (
                lambda: sum(map(alone, lists)),
                lambda: rank.map(queries, documents=documents, progress=False).raise_errors(),
            ),
        }
    )
    measured("pairs ranked a second, library", len(many) / best["one list"][0])
    for task, (theirs, ours) in best.items():
        measured(f"ranking {task}, to library", theirs / ours, at_least=0.95)
