"""From a name to weights: ask the sources in order, and fetch what is not here yet.

The order: the path as given, the roots of `LAZYLLM_MODEL_PATH`, the cache, the caches of the
hubs' clients, the model package, the hubs.
Nothing is downloaded and nothing heavy imported to resolve a name; `fetch` downloads, once per
machine however many ask.
"""

from __future__ import annotations

from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from lazynb.config import config
from lazynb.errors import LazynbError, ModelNotFoundError
from lazynb.hub import catalogue, hubs
from lazynb.hub.caches import ClientCaches
from lazynb.hub.checkpoint import name_type, recognise
from lazynb.hub.folders import Folders, GivenPath, is_path, listing
from lazynb.hub.package import ModelPackage
from lazynb.hub.pip import disk_error
from lazynb.hub.source import ProgressLines, Report, Source, Wanted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lazynb.hub.model import Format, Model, ModelType

LOCAL: tuple[Source, ...] = (
    GivenPath(),
    Folders("root", lambda: config.model_roots),
    Folders("cache", lambda: [config.cache_dir]),
    ClientCaches(),
    ModelPackage(),
)


def resolve(
    name: str,
    *,
    prefer: Format | None = None,
    download: bool = True,
    type: ModelType | None = None,  # noqa: A002
    source: str = "",
) -> Model:
    """Find a model's weights, or where they could be fetched from. Asks no network.

    Parameters
    ----------
    name : str
        A short name of the catalogue, a hub's id or a path.
    prefer : {'gguf', 'safetensors', 'other'}, optional
        The format to take where there are several; weights on this machine come before a download.
    download : bool
        Whether weights that would have to be fetched count.
    type : str, optional
        The model's type; by default the catalogue's word, the checkpoint's own, or the name's.
    source : {'modelscope', 'huggingface'}, optional
        The hub that is asked first; by default `config.model_source`.

    Raises
    ------
    ModelNotFoundError
        Says where it was looked for and which names are near.
    """
    name = name.strip().rstrip("/") or name.strip()
    wanted = Wanted(name, catalogue.find(name), type)
    sources = LOCAL[:1] if is_path(name) else (*LOCAL, *hubs.ordered(source))
    found = [model for source in sources for model in source.find(wanted)] if name else []
    usable = [model for model in found if model.present or download]
    if not usable:
        raise _not_found(wanted, sources, found)
    return min(
        usable, key=lambda model: (not model.present, model.format != (prefer or model.format))
    )


def fetch(model: Model, report: Report | None = None) -> Model:
    """Bring a model's weights to this machine; returns the model with them.

    Parameters
    ----------
    model : Model
        What `resolve` returned.
    report : callable, optional
        Gets the progress (text, bytes done, bytes in total); by default it is printed as
        `@progress` lines.

    Raises
    ------
    LazynbError
        No network, no space, wrong checksum: with what to do.
    """
    if model.present:
        return model
    if config.offline:
        hint = "Unset it to download, or put the weights into a folder of LAZYLLM_MODEL_PATH."
        raise LazynbError(
            f"{model.name} is not on this machine, and LAZYLLM_OFFLINE is set", hint=hint
        )
    report = report or ProgressLines()
    source = next(s for s in (*LOCAL, *hubs.HUBS) if s.name == model.source)
    path = Path(model.path)
    with _locked(model, report):
        if not recognise(path):  # or another process brought it meanwhile
            try:
                source.fetch(model, report)
            except OSError as error:
                raise disk_error(error, path) from error
    found = recognise(path)
    if found is None:
        hint = "Its page says how it is used; `type=` and an engine of your choice may help."
        raise LazynbError(
            f"{model.name} was downloaded, and is no model that lazynb knows", hint=hint
        )
    guessed = model.type == name_type(model.name) and catalogue.find(model.name) is None
    return msgspec.structs.replace(
        model,
        present=True,
        path=str(found.path),
        format=found.format,
        type=found.type if guessed else model.type,
        size=found.size,
    )


def known_names() -> list[str]:
    """Return the names of the catalogue and of what lies in the roots and the cache, for completion."""
    names = [entry.name for entry in catalogue.entries().values()]
    known = {name.casefold() for name in names}
    for root in [*config.model_roots, config.cache_dir]:
        for path in listing(root).values():
            name = path.name.removesuffix(".gguf")
            if name.removesuffix("-gguf").casefold() in known:
                continue
            if recognise(path):
                names.append(name)
            elif path.is_dir():  # of an owner: `Qwen/Qwen3-0.6B`
                names += [f"{name}/{p.name}" for p in listing(path).values() if recognise(p)]
    return list(dict.fromkeys(names))


@contextmanager
def _locked(model: Model, report: Report) -> Iterator[None]:
    """Hold the machine's lock on a model's weights; a process that dies lets go of it."""
    from filelock import FileLock, Timeout

    path = config.cache_dir / f".{model.name.replace('/', '--')}.lock"
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            report(f"waiting for another process that downloads {model.name}")
            lock.acquire()
    except OSError as error:
        raise disk_error(error, path) from error
    try:
        yield
    finally:
        lock.release()


def _not_found(
    wanted: Wanted, sources: tuple[Source, ...], found: list[Model]
) -> ModelNotFoundError:
    """Say what is missing, where it was looked for, and what would help."""
    name, entry = wanted.text, wanted.entry
    looked = ", ".join(place for source in sources for place in source.looked(wanted))
    put = f"Put its folder under LAZYLLM_MODEL_PATH as {wanted.name}, or give its path."
    if not name:
        return ModelNotFoundError(
            "A model's name is missing", hint="For example smollm2-135m-instruct."
        )
    if is_path(name):
        path = Path(name).expanduser()
        if path.exists():
            hint = "A model is a GGUF file, or a folder with its config and its weights."
            return ModelNotFoundError(f"{path} is not a model", hint=hint)
        near = get_close_matches(path.name, [p.name for p in listing(path.parent).values()], n=3)
        hint = f"Did you mean {', '.join(near)}?" if near else "Check the path."
        return ModelNotFoundError(f"There is nothing at {path}", hint=hint)
    if found:
        hint = f"It would have to be downloaded, which was not wanted. {put}"
        return ModelNotFoundError(f"{wanted.name} is not on this machine", hint=hint)
    if entry:
        ids = " and ".join(f"{id_} on {hub}" for hub, id_ in entry.hub_ids.items())
        hint = f"It is {ids}. {put} Looked in: {looked}."
        return ModelNotFoundError(f"{wanted.name} is not on this machine", hint=hint)
    known = {known.casefold(): known for known in known_names()}
    near = [known[match] for match in get_close_matches(name.casefold(), known, n=3)]
    hint = f"Did you mean {', '.join(near)}? " if near else ""
    hint += "A model of a hub is written owner/name. "
    return ModelNotFoundError(f"There is no model {name!r}", hint=f"{hint}Looked in: {looked}.")
