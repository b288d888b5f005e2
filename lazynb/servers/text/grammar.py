"""Answers that fit a JSON schema: llguidance says which tokens may come next."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import llguidance.hf
from llguidance import LLMatcher
from serving import RequestError

SPACES = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""A small model that may write spaces anywhere may write nothing else."""


@cache
def vocabulary(tokenizer: Any, words: int) -> Any:
    """Return a tokenizer as llguidance knows it."""
    return llguidance.hf.from_tokenizer(tokenizer, n_vocab=words)


def matchers(tokenizer: Any, words: int, schema: Any, count: int) -> list[Any]:
    """Return what follows each of several answers to one schema.

    Raises
    ------
    RequestError
        The schema is wrong, or has what llguidance does not know.
    """
    known = vocabulary(tokenizer, words)
    rules = LLMatcher.grammar_from_json_schema(json.dumps(schema), defaults=SPACES)
    if wrong := LLMatcher.validate_grammar(rules, known):
        raise RequestError(f"response_format: {wrong}")
    return [LLMatcher(known, rules) for _ in range(count)]
