"""Embedding and rerank models as services, with real weights and over the real protocol."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import subprocess
import time

import openai
import psutil
import pytest

import lazynb
from lazynb.client.endpoint import Endpoint
from lazynb.client.loop import run
from lazynb.client.requests import post
from lazynb.engines.environment import environment
from lazynb.errors import OptionError, ServiceError
from tests import small_models

pytestmark = pytest.mark.slow

TEXTS = ["A cat sat on the mat.", "A kitten rests on a rug.", "The stock market fell."]
QUERY = "What is the capital of France?"
DOCUMENTS = ["Cows eat grass and hay.", "Paris is the capital of France.", "Hamlet is a play."]


def python(program: str, *arguments: str) -> str:
    """Run a program in the engine's environment."""
    command = [environment("embedding").python, "-c", program, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def reranker_model(installed, model_cache) -> str:
    installed("rerank")
    return small_models.reranker_model(model_cache)


@pytest.fixture(scope="module")
def many_kinds_model(installed, model_cache) -> str:
    installed("embedding")
    return small_models.many_kinds_model(model_cache)


@pytest.fixture(scope="module")
def service(installed, submit, embedding_model):
    installed("embedding")
    job = submit(embedding_model, "embedding")
    job.wait(timeout=120)
    return job


@pytest.fixture(scope="module")
def ranking(submit, reranker_model):
    job = submit(reranker_model, "rerank")
    job.wait(timeout=120)
    return job


@pytest.fixture(scope="module")
def endpoint(ranking):
    return Endpoint(ranking.url, "demo", key=ranking.key, model="demo")


@pytest.fixture
def client(service):
    with openai.OpenAI(base_url=service.url, api_key=service.key, max_retries=0) as client:
        yield client


def vectors(client, texts, **options):
    return [
        item.embedding
        for item in client.embeddings.create(model="demo", input=texts, **options).data
    ]


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def test_near_texts_have_near_vectors(client):
    cat, kitten, market = vectors(client, TEXTS)
    assert cosine(cat, kitten) > 0.5 > cosine(cat, market)
    assert math.isclose(cosine(cat, cat), 1, abs_tol=1e-5)


def test_they_are_those_of_the_library(client, embedding_model):
    program = (
        "import sys, json; from sentence_transformers import SentenceTransformer as S;"
        "print(json.dumps(S(sys.argv[1]).encode(json.loads(sys.argv[2])).tolist()))"
    )
    theirs = json.loads(python(program, embedding_model, json.dumps(TEXTS)))
    for ours, wanted in zip(vectors(client, TEXTS), theirs, strict=True):
        assert ours == pytest.approx(wanted, abs=1e-5)


def test_base64_and_numbers_are_the_same(client):
    assert vectors(client, TEXTS, encoding_format="float")[0] == pytest.approx(
        vectors(client, TEXTS)[0], abs=1e-7
    )


def test_tokens_are_counted(client):
    usage = client.embeddings.create(model="demo", input="a cat").usage
    assert (usage.prompt_tokens, usage.total_tokens) == (4, 4)


def test_tokens_can_be_given_in_place_of_text(client):
    assert cosine(vectors(client, [[1037, 4937]])[0], vectors(client, "a cat")[0]) > 0.999


def test_fewer_dimensions_have_length_one_again(client):
    (short,) = vectors(client, "a cat", dimensions=64)
    assert len(short) == 64
    assert math.isclose(cosine(short, short), 1, abs_tol=1e-5)


def test_a_long_list_and_many_at_once_come_back_in_their_order(service):
    async def all_of_them():
        async with openai.AsyncOpenAI(base_url=service.url, api_key=service.key) as client:

            async def one(texts):
                answer = await client.embeddings.create(model="demo", input=texts)
                return [item.embedding for item in answer.data]

            many = [f"Text number {i}" for i in range(600)]
            return await asyncio.gather(one(many), *(one(many[i]) for i in range(16)))

    long, *short = asyncio.run(all_of_them())
    assert len(long) == 600
    for i, (vector,) in enumerate(short):
        assert cosine(vector, long[i]) > 0.9999


@pytest.mark.parametrize(
    "body",
    [
        "this is no JSON", {}, {"input": []}, {"input": 3}, {"input": ["a", 3]}, {"input": "a", "dimensions": 100_000},
        {"input": "a", "encoding_format": "hex"}, {"input": "a", "prompt_name": "none"},
    ],
    ids=str,
)  # fmt: skip
def test_wrong_input_is_refused_with_a_message_and_the_service_stays(api, body):
    status, answer = api.call("/v1/embeddings", body)
    assert status == 400
    assert answer["error"]["message"]
    assert api.call("/v1/embeddings", {"input": "hi"})[0] == 200


@pytest.mark.parametrize("key", ["", "wrong"])
@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/models"])
def test_without_the_key_nothing_is_answered(api, path, key):
    assert api.call(path, {"input": "hi"} if "embed" in path else None, key=key)[0] == 401


def test_it_serves_the_model_under_the_services_name(client):
    assert [model.id for model in client.models.list()] == ["demo"]


def test_it_listens_on_loopback_only_and_hides_its_key(service):
    process = psutil.Process(service.state.process.pid)
    listening = [
        c.laddr.ip for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN
    ]
    assert listening == ["127.0.0.1"]
    assert service.key not in " ".join(process.cmdline())
    assert service.key not in service.log_path.read_text()


def test_a_client_that_leaves_frees_the_engine(api):
    connection = api.connect("/v1/embeddings", {"input": ["some words to read " * 40] * 6000})
    time.sleep(1)
    connection.close()
    begun = time.monotonic()
    assert api.call("/v1/embeddings", {"input": "hi"})[0] == 200
    assert time.monotonic() - begun < 20  # the piece that is computed; all would take minutes


def test_a_module_returns_plain_lists(service, place, model_cache):
    module = lazynb.TrainableModule("all-minilm-l6-v2")
    try:
        one, several = module("hi"), module(["hi", "there"])
    finally:
        module.stop()
    assert len(one) == 384
    assert isinstance(one[0], float)
    assert [len(vector) for vector in several] == [384, 384]
    assert cosine(one, several[0]) > 0.9999


FLAG = """
import json, sys
from FlagEmbedding import BGEM3FlagModel
model = BGEM3FlagModel(sys.argv[1], use_fp16=False, devices="cpu")
found = model.encode(
    json.loads(sys.argv[2]), return_dense=True, return_sparse=True, return_colbert_vecs=True
)
print(json.dumps([
    [dense.tolist(), {name: float(weight) for name, weight in sparse.items()}, multi.tolist()]
    for dense, sparse, multi in zip(found["dense_vecs"], found["lexical_weights"], found["colbert_vecs"])
]))
"""


def test_sparse_and_multi_vector_embeddings_are_those_of_flagembedding(many_kinds_model, place):
    texts = [*TEXTS, "cat cat", "a long text is padded less than a short one " * 20]
    module = lazynb.TrainableModule(many_kinds_model)
    try:
        found = module(texts, kinds=("dense", "sparse", "multi"))
        alone = module(TEXTS[0], kinds="sparse")
        dense = module(TEXTS[0])
        with pytest.raises(
            OptionError, match="no embeddings of \\['colbert'\\]\nkinds: some of dense"
        ):
            module(TEXTS[0], kinds=["colbert"])
    finally:
        module.stop()
    theirs = json.loads(python(FLAG, many_kinds_model, json.dumps(texts)))
    for ours, (vector, weights, vectors) in zip(found, theirs, strict=True):
        assert list(ours) == ["dense", "sparse", "multi"]
        assert ours["dense"] == pytest.approx(vector, abs=1e-5)
        wanted = {int(name): weight for name, weight in weights.items()}
        assert ours["sparse"] == pytest.approx(wanted, abs=1e-5)
        assert len(ours["multi"]) == len(vectors)
        for one, other in zip(ours["multi"], vectors, strict=True):
            assert one == pytest.approx(other, abs=1e-5)
    assert alone == {"sparse": pytest.approx(found[0]["sparse"], abs=1e-5)}
    assert set(alone["sparse"].tokens.values()) <= {
        "a",
        "cat",
        "sat",
        "on",
        "the",
        "mat",
        ".",
        "[SEP]",
    }
    assert dense == pytest.approx(found[0]["dense"], abs=1e-5)


@pytest.mark.parametrize(
    ("kinds", "words"),
    [(["dense", "sparse"], "no sparse embeddings: it has no sparse_linear.pt. It gives dense"),
     (["sparse vector"], "not 'sparse vector'"), ([3], "not 3"), ([], "empty"), ("dense", "must be list")], ids=str,
)  # fmt: skip
def test_a_kind_that_the_model_does_not_give_is_refused_with_a_message(api, kinds, words):
    status, answer = api.call("/v1/embeddings", {"input": "hi", "kinds": kinds})
    assert status == 400
    assert words in answer["error"]["message"]


def test_a_small_request_does_not_wait_for_a_large_one(api):
    begun = time.monotonic()
    large = api.connect("/v1/embeddings", {"input": ["some words to read " * 20] * 600})
    time.sleep(0.2)
    assert api.call("/v1/embeddings", {"input": "hi"})[0] == 200
    small = time.monotonic() - begun
    assert len(json.load(large.getresponse())["data"]) == 600
    large.close()
    assert small < 0.6 * (time.monotonic() - begun)  # two turns of ten


def test_an_option_that_there_is_not_is_an_error_before_anything_starts(place, embedding_model):
    module = lazynb.TrainableModule(embedding_model).deploy_method(
        lazynb.deploy.embedding, batchsize=3
    )
    with pytest.raises(OptionError, match=r"no option 'batchsize'\nDid you mean batch_size"):
        module.start()


def test_the_best_document_comes_first(reranker_model, place):
    module = lazynb.TrainableModule(reranker_model)
    try:
        ranks = module(QUERY, documents=DOCUMENTS)
        best = module(QUERY, documents=DOCUMENTS, top_n=1)
    finally:
        module.stop()
    assert [type(item) for item in ranks] == [tuple] * 3
    assert sorted(index for index, _ in ranks) == [0, 1, 2]
    assert ranks == sorted(ranks, key=lambda item: -item[1])
    assert best == ranks[:1]
    assert best[0][0] == 1
    assert best[0][1] > 0.5


def test_scores_are_those_of_the_library(endpoint, reranker_model):
    body = {"query": QUERY, "documents": DOCUMENTS}
    ours = {
        r["index"]: r["relevance_score"] for r in run(post(endpoint, "/rerank", body))["results"]
    }
    program = (
        "import sys, json; from sentence_transformers import CrossEncoder as C;"
        "q, d = json.loads(sys.argv[2]); print(json.dumps(C(sys.argv[1]).predict([(q, x) for x in d]).tolist()))"
    )
    theirs = json.loads(python(program, reranker_model, json.dumps([QUERY, DOCUMENTS])))
    assert [ours[i] for i in range(3)] == pytest.approx(theirs, abs=1e-5)


def test_documents_come_back_where_they_are_asked_for(endpoint):
    body = {
        "query": QUERY,
        "documents": [{"text": text} for text in DOCUMENTS],
        "return_documents": True,
    }
    for result in run(post(endpoint, "/rerank", body))["results"]:
        assert result["document"]["text"] == DOCUMENTS[result["index"]]


@pytest.mark.parametrize("body", [{}, {"query": "q", "documents": []}, {"query": "q", "documents": [1]},
                                  {"query": "q", "documents": ["a"], "top_n": 0}], ids=str)  # fmt: skip
def test_a_wrong_ranking_is_refused(endpoint, body):
    with pytest.raises(ServiceError) as caught:
        run(post(endpoint, "/rerank", body))
    assert caught.value.status == 400


def test_killed_it_says_so_and_stopped_it_is_gone(submit, embedding_model, service):
    job = submit(embedding_model, "embedding")
    job.wait(timeout=120)
    os.kill(job.state.process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while job.live and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (job.state.phase, job.state.returncode) == ("failed", -signal.SIGKILL)
