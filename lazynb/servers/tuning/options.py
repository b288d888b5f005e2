"""Print a trainer's options as JSON: `python options.py llamafactory > lazynb/training/llamafactory.json`."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Any, Literal, get_args, get_origin, get_type_hints

SIMPLE = (bool, int, float, str)


def groups(trainer: str) -> list[Any]:
    """Return the classes that hold the options of an installed trainer."""
    if trainer == "llamafactory":
        from llamafactory import hparams

        names = ("Model", "Data", "Training", "Finetuning", "Generating")
        return [getattr(hparams, f"{name}Arguments") for name in names]
    from retrieval import classes

    return [group for kind in ("embed", "rerank") for group in classes(kind)[1]]


def kind(hint: Any) -> str | list[str]:
    """Return 'bool', 'int', 'float' or 'str', the words of a choice, or 'any' for what is more than one of them."""
    parts = [part for part in (get_args(hint) or (hint,)) if part is not type(None)]
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    if len(parts) == 1 and get_origin(parts[0]) is Literal:
        return list(get_args(parts[0]))
    return parts[0].__name__ if len(parts) == 1 and parts[0] in SIMPLE else "any"


def main() -> None:
    """Print them."""
    options = {}
    for group in groups(sys.argv[1]):
        hints = get_type_hints(group)
        for field in dataclasses.fields(group):
            if field.init:
                text = " ".join(str(field.metadata.get("help", "")).split())
                options[field.name] = [kind(hints[field.name]), text.split(". ")[0][:160]]
    json.dump(dict(sorted(options.items())), sys.stdout, indent=0)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
