"""The generation parameters that a call may have: the OpenAI names, and widely served extras."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from lazynb.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Mapping

GENERATION_PARAMETERS: dict[str, type] = {
    # The OpenAI API.
    "temperature": float,
    "top_p": float,
    "max_tokens": int,
    "max_completion_tokens": int,
    "stop": list,
    "seed": int,
    "presence_penalty": float,
    "frequency_penalty": float,
    "logit_bias": dict,
    "logprobs": bool,
    "top_logprobs": int,
    "response_format": dict,
    "tools": list,
    "tool_choice": object,
    "parallel_tool_calls": bool,
    "reasoning_effort": str,
    "user": str,
    "model": str,  # one of several that a server has, such as an adapter beside its base
    # What llama.cpp, vLLM, LMDeploy and others take as well.
    "top_k": int,
    "min_p": float,
    "typical_p": float,
    "repetition_penalty": float,
    "repeat_penalty": float,
    "min_tokens": int,
    "ignore_eos": bool,
    "stop_token_ids": list,
    "skip_special_tokens": bool,
    "chat_template_kwargs": dict,
    "grammar": str,
    "cache_prompt": bool,
    # Not sent: how long the server may say nothing, in seconds.
    "timeout": float,
}
"""Name → type; `object` is any JSON. A `list` may be given as a single string."""

_ACCEPTED: dict[type, tuple[type, ...]] = {float: (float, int), list: (list, tuple, str)}


def check_parameters(parameters: Mapping[str, Any]) -> None:
    """Check names and types of generation parameters; None stands for 'not set'.

    Raises
    ------
    OptionError
        There is no such parameter (the near ones are listed), or its value is of another type.
    """
    for name, value in parameters.items():
        if name not in GENERATION_PARAMETERS:
            near = get_close_matches(name, GENERATION_PARAMETERS, n=3, cutoff=0.5)
            raise OptionError(
                f"There is no generation parameter {name!r}",
                hint=f"Did you mean: {', '.join(near or GENERATION_PARAMETERS)}?",
            )
        wanted = GENERATION_PARAMETERS[name]
        flag = isinstance(value, bool) and wanted in (int, float)
        if value is not None and (flag or not isinstance(value, _ACCEPTED.get(wanted, (wanted,)))):
            raise OptionError(f"{name} is of type {wanted.__name__}, not {value!r}")
