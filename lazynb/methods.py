"""The names of methods, as a user writes them: `deploy.vllm`, `finetune.llamafactory`.

A method is a name and nothing else, so that configuring a module imports no engine. What runs under the
name is looked up when the module starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches


@dataclass(frozen=True)
class Method:
    """One way to deploy or to fine-tune a model."""

    kind: str
    name: str

    def __repr__(self) -> str:
        return f"{self.kind}.{self.name}"


class Methods:
    """The methods of one kind as attributes; upper and lower case are the same.

    Parameters
    ----------
    kind : str
        'deploy' or 'finetune'.
    names : dict of str to str
        The spelling to show for each name, and one line of help.
    """

    def __init__(self, kind: str, names: dict[str, str]) -> None:
        self._kind = kind
        self._names = names
        self._spelling = {name.lower(): name for name in names}

    def __getattr__(self, name: str) -> Method:
        if name.lower() in self._spelling:
            return Method(self._kind, self._spelling[name.lower()].lower())
        near = get_close_matches(name.lower(), self._spelling, n=3) or list(self._names)
        raise AttributeError(f"There is no {self._kind}.{name}. Did you mean: {', '.join(near)}?")

    def __dir__(self) -> list[str]:
        return list(self._names)

    def __repr__(self) -> str:
        return "\n".join(f"{self._kind}.{name}  {text}" for name, text in self._names.items())


deploy = Methods(
    "deploy",
    {
        "auto": "what fits the machine and the model",
        "llamacpp": "llama.cpp: GGUF models, no GPU needed",
        "vllm": "vLLM",
        "LMDeploy": "LMDeploy",
        "transformers": "transformers",
        "embedding": "embedding models",
        "rerank": "rerank models",
        "diffusers": "images",
        "chattts": "text to speech",
        "funasr": "speech to text",
    },
)

finetune = Methods(
    "finetune",
    {
        "auto": "what fits the model",
        "llamafactory": "LLaMA-Factory: chat and vision-language models",
        "flagembedding": "FlagEmbedding: embedding and rerank models",
        "collie": "Collie (deprecated)",
    },
)
