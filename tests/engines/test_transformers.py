"""What the server of transformers does beyond the contract of all engines."""

from __future__ import annotations

import secrets
import time
from concurrent.futures import ThreadPoolExecutor

import msgspec
import openai
import pytest

from lazynb.engines import get, plan
from lazynb.hub import resolve
from lazynb.jobs import manager
from lazynb.jobs.spec import JobSpec
from tests.engines.conftest import PROGRAMS

pytestmark = pytest.mark.slow

STORY = [{"role": "user", "content": "Write a very long story about a river and a city."}]


def test_when_the_generation_fails_the_service_ends_and_says_why(place, installed, demo_model):
    installed("transformers")
    command = plan(resolve(str(demo_model)), get("transformers"), {}, "demo")
    python, *rest = command.argv
    argv = [python, str(PROGRAMS / "failing_chat.py"), *rest]
    command = msgspec.structs.replace(command, argv=argv)
    job = manager().submit(
        JobSpec(id=secrets.token_hex(4), name="demo", model="demo", engine="transformers", command=command)
    )  # fmt: skip
    try:
        job.wait(timeout=240)
        client = openai.OpenAI(base_url=job.url, api_key=job.key, max_retries=0, timeout=30)
        with client, pytest.raises(openai.APIError):
            client.chat.completions.create(model="demo", messages=STORY, max_tokens=50)
        deadline = time.monotonic() + 5
        while job.live and time.monotonic() < deadline:
            time.sleep(0.05)
        assert job.state.phase == "failed"
        assert "shapes cannot be multiplied" in job.state.cause
    finally:
        job.stop()


@pytest.fixture(scope="module")
def service(installed, submit, demo_model):
    installed("transformers")
    # In bfloat16 the size of the batch would decide between words that are about as likely.
    job = submit(str(demo_model), "transformers", dtype="float32")
    job.wait(timeout=240)
    return job


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", [{"type": "function", "function": {"name": "f"}}]), ("tool_choice", "required"),
        ("min_tokens", 5), ("typical_p", 0.5), ("reasoning_effort", "low"), ("stop_token_ids", [3]),
        ("logit_bias", {"x": 1}), ("logit_bias", {"99999999": 1}), ("top_logprobs", 50), ("n", 1000),
        ("no_such_field", 1), ("skip_special_tokens", False), ("grammar", "root ::= x"),
        ("response_format", {"type": "json_schema", "json_schema": {"schema": {"type": "fish"}}}),
        ("response_format", {"type": "json_schema"}),
    ],
    ids=str,
)  # fmt: skip
def test_what_it_does_not_serve_is_refused_by_name_and_never_left_out(api, field, value):
    status, answer = api.call(
        "/v1/chat/completions", {"messages": STORY, "max_tokens": 2, field: value}
    )
    assert status == 400, answer
    assert field in answer["error"]["message"]


@pytest.mark.parametrize(
    "neutral",
    [{"tools": [], "tool_choice": "none"}, {"user": "me"}, {"min_tokens": 0}, {"logprobs": False}, {"seed": None}],
    ids=str,
)  # fmt: skip
def test_what_asks_for_nothing_is_no_error(api, neutral):
    body = {"messages": STORY, "max_tokens": 2, **neutral}
    assert api.call("/v1/chat/completions", body)[0] == 200


def ask(api, **wishes):
    body = {"messages": STORY, "max_tokens": 12, "temperature": 0, **wishes}
    status, answer = api.call("/v1/chat/completions", body)
    assert status == 200, answer
    return answer["choices"][0]["message"]["content"]


def test_what_leaves_one_word_alone_is_as_no_temperature(api):
    plain = ask(api)
    assert ask(api, temperature=2, top_k=1) == plain
    assert ask(api, temperature=2, top_p=1e-6) == plain
    assert ask(api, temperature=2, min_p=1) == plain


def test_requests_of_one_batch_keep_their_own_wishes(api):
    wishes = [
        {},
        {"seed": 3, "temperature": 1},
        {"logit_bias": {"28": -100}},
        {"repetition_penalty": 1.5},
    ] * 3
    alone = [ask(api, **one) for one in wishes[:4]]
    assert len(set(alone)) > 2
    with ThreadPoolExecutor(12) as threads:
        assert list(threads.map(lambda one: ask(api, **one), wishes)) == alone * 3


def test_more_than_fits_into_the_cache_comes_to_its_full_length(
    installed, submit, demo_model, api_of
):
    job = submit(str(demo_model), "transformers", num_blocks=12)
    api = api_of(job)
    body = {"messages": STORY, "max_tokens": 200, "ignore_eos": True}
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: api.call("/v1/chat/completions", body), range(4)))
    assert [answer["usage"]["completion_tokens"] for _, answer in answers] == [200] * 4
    job.stop()
