"""The heads of models in the manner of BGE-M3: a weight for each token, and a vector for each token.

They are linear layers over the last hidden states, in files of their own beside the weights. What they give is that of
FlagEmbedding's `BGEM3FlagModel`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

FILES = {"sparse": "sparse_linear.pt", "multi": "colbert_linear.pt"}
UNWEIGHTED = ("cls_token", "eos_token", "pad_token", "unk_token")


class Heads:
    """The heads that a checkpoint has.

    Parameters
    ----------
    folder : str
        The checkpoint.
    model : SentenceTransformer
        Its encoder.
    """

    def __init__(self, folder: str, model: Any) -> None:
        import torch

        self._tokenizer = model.tokenizer
        special = model.tokenizer.special_tokens_map
        names = [special[kind] for kind in UNWEIGHTED if kind in special]
        self._unweighted = set(model.tokenizer.convert_tokens_to_ids(names))
        like = next(model.parameters())
        self._layers = {}
        for kind, file in FILES.items():
            if (Path(folder) / file).exists():
                state = torch.load(Path(folder) / file, map_location="cpu", weights_only=True)
                self._layers[kind] = {name: part.to(like) for name, part in state.items()}

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of embeddings that the model gives."""
        return ("dense", *self._layers)

    def sparse(self, text: dict[str, Any], tokens: int) -> dict[str, list[Any]]:
        """Return the tokens of a text by their ids, each with its largest weight."""
        import torch

        logits = torch.nn.functional.linear(
            text["token_embeddings"][:tokens], **self._layers["sparse"]
        )
        largest: dict[int, float] = {}
        pairs = zip(text["input_ids"][:tokens].tolist(), logits[:, 0].float().tolist(), strict=True)
        for token, weight in pairs:
            if weight > largest.get(token, 0) and token not in self._unweighted:
                largest[token] = weight
        ids = list(largest)
        names = self._tokenizer.convert_ids_to_tokens(ids)
        return {"indices": ids, "values": list(largest.values()), "tokens": names}

    def multi(self, text: dict[str, Any], tokens: int) -> Any:
        """Return a vector of length 1 for each token but the first, which stands for the whole text."""
        import torch

        states = text["token_embeddings"][1:tokens]
        vectors = torch.nn.functional.linear(states, **self._layers["multi"])
        return torch.nn.functional.normalize(vectors, dim=-1).float().cpu().numpy()
