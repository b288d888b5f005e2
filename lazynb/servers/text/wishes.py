"""What a chat request asks for, read and checked: a field that is not served is refused, never left out silently."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import Any

from serving import RequestError, take

NUMBER = (int, float)
ALL = 0
"""A `top_k` of all words."""
TOP_LOGPROBS = 20
CHOICES = 128

UNUSED = (
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "cache_prompt",
)
"""What does not change the answer."""
NEUTRAL: dict[str, list[Any]] = {
    "tools": [[]],
    "tool_choice": ["none", "auto"],
    "parallel_tool_calls": [True, False],
    "skip_special_tokens": [True],
    "typical_p": [1, 0],
    "min_tokens": [0],
    "stop_token_ids": [[]],
    "modalities": [["text"]],
}
"""Values that ask for nothing, of fields that are not served."""


@dataclass
class Wishes:
    """How one answer is to be made."""

    temperature: float = 1.0
    top_k: int = ALL
    top_p: float = 1.0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: dict[int, float] = field(default_factory=dict)
    top_logprobs: int | None = None
    """None: no logprobs at all."""
    seed: int = 0
    limit: int | None = None
    stops: list[str] = field(default_factory=list)
    choices: int = 1
    stream: bool = False
    usage: bool = False
    """Whether a stream ends with its usage."""
    ignore_eos: bool = False
    schema: Any = None
    """The JSON schema that the answer must fit."""
    template: dict[str, Any] = field(default_factory=dict)
    """What the chat template is given beside the messages."""
    model: str = ""


SERVED = [
    "messages",
    "model",
    "stream",
    "stream_options",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "repeat_penalty",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "seed",
    "max_tokens",
    "max_completion_tokens",
    "stop",
    "n",
    "ignore_eos",
    "response_format",
    "chat_template_kwargs",
]


def read_wishes(body: dict[str, Any], words: int) -> Wishes:
    """Read a request.

    Parameters
    ----------
    body : dict
        As the OpenAI API has it.
    words : int
        The size of the vocabulary.

    Raises
    ------
    RequestError
        Something is wrong, or is not served.
    """
    for name, value in body.items():
        if name in SERVED or name in UNUSED or value is None or value in NEUTRAL.get(name, ()):
            continue
        raise RequestError(
            f"{name} is not served by transformers; deploy.vllm and deploy.llamacpp may"
        )
    options = take(body, "stream_options", dict, {})
    repetition = "repeat_penalty" if "repeat_penalty" in body else "repetition_penalty"
    wishes = Wishes(
        temperature=_number(body, "temperature", 1.0, 0, 100),
        top_k=max(ALL, take(body, "top_k", int, ALL)),
        top_p=_number(body, "top_p", 1.0, 1e-9, 1),
        min_p=_number(body, "min_p", 0.0, 0, 1),
        presence_penalty=_number(body, "presence_penalty", 0.0, -2, 2),
        frequency_penalty=_number(body, "frequency_penalty", 0.0, -2, 2),
        repetition_penalty=_number(body, repetition, 1.0, 0.01, 100),
        logit_bias=_bias(body, words),
        top_logprobs=_logprobs(body),
        seed=take(body, "seed", int, random.getrandbits(63)),
        limit=take(body, "max_completion_tokens", int, take(body, "max_tokens", int)),
        stops=_stops(body),
        choices=take(body, "n", int, 1),
        stream=take(body, "stream", bool, default=False),
        usage=take(options, "include_usage", bool, default=False),
        ignore_eos=take(body, "ignore_eos", bool, default=False),
        schema=_schema(body),
        template=take(body, "chat_template_kwargs", dict, {}),
        model=take(body, "model", str, ""),
    )
    if wishes.limit is not None and wishes.limit < 1:
        raise RequestError("max_tokens must be 1 or more")
    if not 1 <= wishes.choices <= CHOICES:
        raise RequestError(f"n must be between 1 and {CHOICES}")
    if wishes.ignore_eos and wishes.schema is not None:
        raise RequestError("ignore_eos and response_format do not go together")
    return wishes


def _number(body: dict[str, Any], name: str, default: float, low: float, high: float) -> float:
    value = float(take(body, name, NUMBER, default))
    if not low <= value <= high:
        raise RequestError(f"{name} must be between {low:g} and {high:g}")
    return value


def _bias(body: dict[str, Any], words: int) -> dict[int, float]:
    try:
        bias = {
            int(token): float(value) for token, value in take(body, "logit_bias", dict, {}).items()
        }
    except (TypeError, ValueError):
        raise RequestError("logit_bias must be an object of token ids and numbers") from None
    if not all(0 <= token < words for token in bias):
        raise RequestError(f"A token of logit_bias must be between 0 and {words - 1}")
    return bias


def _logprobs(body: dict[str, Any]) -> int | None:
    wanted, top = take(body, "logprobs", bool, default=False), take(body, "top_logprobs", int)
    if top is not None and not 0 <= top <= TOP_LOGPROBS:
        raise RequestError(f"top_logprobs must be between 0 and {TOP_LOGPROBS}")
    if top and not wanted:
        raise RequestError("top_logprobs needs logprobs = true")
    return (top or 0) if wanted else None


def _stops(body: dict[str, Any]) -> list[str]:
    stops = take(body, "stop", (str, list), [])
    stops = [stops] if isinstance(stops, str) else stops
    if not all(isinstance(stop, str) and stop for stop in stops):
        raise RequestError("stop must be a text or a list of texts")
    return stops


def _schema(body: dict[str, Any]) -> Any:
    given = take(body, "response_format", dict, {"type": "text"})
    kind = given.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return {"type": "object"}
    if kind == "json_schema":
        schema = take(take(given, "json_schema", dict, {}), "schema", (dict, bool))
        if schema is None:
            raise RequestError("response_format needs json_schema.schema")
        return schema
    raise RequestError(
        f"response_format has type {json.dumps(kind)}; there are text, json_object and json_schema"
    )
