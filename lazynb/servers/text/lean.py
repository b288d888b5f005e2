"""What transformers' continuous batching can do without: a tenth of a small model's step on a processor."""

from __future__ import annotations

from typing import Any

import torch


def without_tracing() -> None:
    """Open no span for each of the fifty functions of a step, which nobody collects; called before their import."""
    from transformers.utils import metrics

    metrics._has_opentelemetry = False


def without_copies() -> None:
    """Have attention on a processor read the cache as it lies there, not copied once for each group of heads."""
    from transformers import AttentionInterface

    AttentionInterface.register("paged|sdpa", attention)


def attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *_: Any,
    scaling: float | None = None,
    cache: Any = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend to the cache of all requests: what is whose, the mask says.

    Parameters
    ----------
    module : torch.nn.Module
        The layer.
    query : torch.Tensor
        (1, heads, tokens of the step, width).
    key, value : torch.Tensor
        (1, heads that groups share, tokens of the step, width).
    attention_mask : torch.Tensor
        (1, 1, tokens of the step, tokens of the cache that are read).
    scaling : float, optional
        Of the scores.
    cache : PagedAttentionCache, optional
        What was computed before. With it come `read_index` and `write_index`, a place per token and group of layers.

    Returns
    -------
    tuple
        (1, tokens of the step, heads, width), and no weights.
    """
    if cache is not None:
        places = {name: kwargs[name] for name in ("read_index", "write_index")}
        key, value = (
            states.transpose(0, 1)[None]
            for states in cache.update(
                key_states=key, value_states=value, layer_idx=module.layer_idx, **places
            )
        )
    found = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=attention_mask, scale=scaling, enable_gqa=True
    )
    return found.transpose(1, 2).contiguous(), None
