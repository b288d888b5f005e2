"""From the model's scores to the next token of each request: its own sampling, grammar and adapter, in one batch.

It takes the place of the sampling of transformers' continuous batching, which has one random generator for all,
computes the scores of every token of a prompt, and sorts the whole vocabulary twice for each.
"""

from __future__ import annotations

import inspect
import random
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from wishes import Wishes

if TYPE_CHECKING:
    from adapters import Adapters

HEAD = 1024
"""Words among which the likely ones are looked for first; all of them are sorted where these do not do."""


class Logprob(NamedTuple):
    """How likely a token was, and the likeliest ones."""

    token: int
    value: float
    top: list[tuple[int, float]]


class Draw:
    """What one request draws its tokens by.

    Parameters
    ----------
    wishes : Wishes
        Its parameters.
    prompt : list of int
        Its tokens, for the penalty of repetitions.
    limit : int
        Tokens that it may have.
    matcher : LLMatcher, optional
        Follows its grammar.
    seed : int
        Of its own random numbers.
    """

    def __init__(
        self, wishes: Wishes, prompt: list[int], limit: int, matcher: Any, seed: int
    ) -> None:
        self.wishes, self.left, self.matcher = wishes, limit, matcher
        self.logprobs: list[Logprob] = []
        self._random = random.Random(seed)  # noqa: S311  no secret
        self._prompt = prompt if wishes.repetition_penalty != 1 else []
        self._counts: Counter[int] = Counter()

    def shape(self, scores: torch.Tensor) -> None:
        """Change the scores of the next token in place: biases, penalties, and what the grammar allows."""
        wishes, device = self.wishes, scores.device
        if wishes.repetition_penalty != 1:
            seen = torch.tensor([*{*self._prompt, *self._counts}], device=device)
            values = scores[seen]
            factor = wishes.repetition_penalty
            scores[seen] = torch.where(values > 0, values / factor, values * factor)
        if self._counts and (wishes.presence_penalty or wishes.frequency_penalty):
            seen = torch.tensor([*self._counts], device=device)
            counts = torch.tensor([*self._counts.values()], device=device)
            scores[seen] -= wishes.presence_penalty + wishes.frequency_penalty * counts
        for token, bias in wishes.logit_bias.items():
            scores[token] += bias
        if self.matcher is not None:
            from grammar import allowed

            mask = allowed(self.matcher, len(scores)).to(device)
            scores.masked_fill_(~mask, -torch.inf)

    def cut(self, shares: torch.Tensor) -> torch.Tensor:
        """Return the probabilities without the words that are too unlikely."""
        wishes = self.wishes
        if wishes.min_p:
            shares = shares.masked_fill(shares < wishes.min_p * shares.max(), 0)
        if not wishes.top_k and wishes.top_p == 1:
            return shares
        values, words = shares.topk(min(wishes.top_k or HEAD, len(shares)))
        whole = values.sum() if wishes.top_k else shares.sum()
        if values.sum() < wishes.top_p * whole:
            values, words = shares.sort(descending=True)
        before = values.cumsum(0) - values
        kept = values.masked_fill(before >= wishes.top_p * whole, 0)
        return torch.zeros_like(shares).scatter_(0, words, kept)

    def number(self) -> float:
        """Return the next random number."""
        return self._random.random()

    def take(self, token: int) -> None:
        """Note the token that was drawn."""
        self.left -= 1
        self._counts[token] += 1
        if self.matcher is not None:
            self.matcher.consume_token(token)


class Sampler:
    """Computes a step of the batch and draws each request's token.

    Parameters
    ----------
    model : PreTrainedModel
        Computes the scores.
    processor : ContinuousBatchProcessor
        Whose sampling this replaces.
    adapters : Adapters
        Told which tokens are whose before each step.
    """

    def __init__(self, model: Any, processor: Any, adapters: Adapters) -> None:
        self.draws: dict[str, Draw] = {}
        self._io = processor.inputs_and_outputs
        self._adapters = adapters
        self._gone = Draw(
            Wishes(temperature=0), [], 1, None, 0
        )  # whose client left during the step
        self._cuts = "logits_to_keep" in inspect.signature(model.forward).parameters
        processor._forward_process_and_sample = self.step

    def step(
        self, model: Any, batch: dict[str, Any], _: Any, __: Any, tokens: torch.Tensor
    ) -> None:
        """Compute one step, and write the new tokens where the scheduler looks for them."""
        requests = self._io.requests_in_batch
        states = [request.state for request in requests if request.has_new_token]
        places = batch["logits_indices"][: len(states)].long()
        draws = [self.draws.get(request.state.request_id, self._gone) for request in requests]
        self._adapters.assign(
            [
                (draw.wishes.model, request.query_length)
                for draw, request in zip(draws, requests, strict=True)
            ]
        )
        if self._cuts:
            scores = model(**batch, logits_to_keep=places).logits[0]
        else:
            scores = model(**batch).logits[0, places]
        if states:
            drawn = self.draw(states, scores.float())
            tokens[0, : len(states)] = torch.tensor(drawn, dtype=tokens.dtype)

    def draw(self, states: list[Any], scores: torch.Tensor) -> list[int]:
        """Return the next token of each request.

        Parameters
        ----------
        states : list of RequestState
            The requests.
        scores : torch.Tensor
            (requests, words); changed in place.
        """
        draws = [self.draws.get(state.request_id, self._gone) for state in states]
        wanted = [i for i, draw in enumerate(draws) if draw.wishes.top_logprobs is not None]
        plain = scores[wanted].log_softmax(-1)
        for row, draw in zip(scores, draws, strict=True):
            draw.shape(row)
        tokens: list[int] = scores.argmax(-1).tolist()
        warm = [(i, draw) for i, draw in enumerate(draws) if draw.wishes.temperature > 0]
        if warm:
            rows = scores[[i for i, _ in warm]]
            heat = torch.tensor([draw.wishes.temperature for _, draw in warm], device=rows.device)
            shares = (rows / heat[:, None]).softmax(-1)
            for row, (_, draw) in zip(shares, warm, strict=True):
                kept = draw.cut(row)
                if kept is not row:
                    row.copy_(kept)
            heap = shares.cumsum(-1)
            aims = torch.tensor([[draw.number()] for _, draw in warm], device=rows.device)
            found = torch.searchsorted(heap, aims * heap[:, -1:], right=True).squeeze(-1)
            for (i, _), token in zip(warm, found.tolist(), strict=True):
                tokens[i] = min(token, scores.shape[-1] - 1)
        for i, values in zip(wanted, plain, strict=True):
            best = values.topk(draws[i].wishes.top_logprobs or 0)
            top = list(zip(best.indices.tolist(), best.values.tolist(), strict=True))
            draws[i].logprobs.append(Logprob(tokens[i], float(values[tokens[i]]), top))
        for state, draw, token in zip(states, draws, tokens, strict=True):
            # The scheduler forgets what it had made when it makes room for others.
            state._new_tokens_limit = len(state.generated_tokens) + draw.left
            draw.take(token)
        return tokens
