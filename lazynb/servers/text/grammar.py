"""Answers that fit a JSON schema: llguidance says which tokens may come next."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import torch
from llguidance import LLMatcher, LLTokenizer
from serving import RequestError
from tokenizers import Tokenizer, decoders

SPACES = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""A small model that may write spaces anywhere may write nothing else."""


@cache
def vocabulary(tokenizer: Any, words: int) -> Any:
    """Return a tokenizer as llguidance knows it."""
    copy = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    copy.no_padding()
    copy.no_truncation()
    # That of a GGUF file has another model's decoder besides, by which llguidance would take the bytes of its tokens.
    if "ByteLevel" in str(copy.pre_tokenizer):
        copy.decoder = decoders.ByteLevel()
    return LLTokenizer(copy.to_str(), n_vocab=words, eos_token=tokenizer.eos_token_id)


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


def allowed(matcher: Any, words: int) -> torch.Tensor:
    """Return which tokens may come next: (words,) of bool."""
    bits = torch.zeros((words + 31) // 32, dtype=torch.int32)
    matcher.unsafe_compute_mask_ptr(bits.data_ptr(), 4 * len(bits))
    # llguidance brings its own kernel, which needs a compiler.
    return (bits[:, None] >> torch.arange(32) & 1).bool().flatten()[:words]
