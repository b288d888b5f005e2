"""The model hubs as sources: ModelScope and Hugging Face.

A model is asked for by its short name (the catalogue knows its ids) or by its id, `owner/name`, with a revision
and, for GGUF, a file or a quantisation where these matter: `owner/name@v1.0`, `owner/name-GGUF:Q8_0`. To find a
model asks no network; whether the hub has it is seen when it is fetched.
"""

from __future__ import annotations

import errno
import re
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from lazynb.config import config
from lazynb.errors import LazynbError, ModelNotFoundError
from lazynb.hub import catalogue, huggingface, modelscope, transfer
from lazynb.hub.checkpoint import name_type
from lazynb.hub.folders import folder
from lazynb.hub.model import Model
from lazynb.hub.pip import disk_error
from lazynb.hub.selection import select
from lazynb.hub.transfer import ChecksumError, Manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lazynb.hub.model import Format
    from lazynb.hub.source import Report, Wanted
    from lazynb.hub.transfer import Client, Failure, Listing

PATIENCE = 5.0  # seconds for the other hub to say whether it has a model
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w.-]+))?(:(?P<file>[\w.-]+))?")


@dataclass(frozen=True)
class Place:
    """What to ask a hub for."""

    repo: str
    revision: str = ""
    file: str = ""
    """GGUF: the file, or its quantisation."""


@dataclass(frozen=True)
class Hub:
    """One hub."""

    client: Client

    @property
    def name(self) -> str:
        """The value of `LAZYLLM_MODEL_SOURCE`."""
        return self.client.name

    def find(self, wanted: Wanted) -> Iterator[Model]:
        """Yield the forms in which the hub should have the model."""
        for format_ in ("gguf", "safetensors"):
            place = self.place(wanted.text, format_)
            if place is None:
                continue
            kind = wanted.type or (wanted.entry.type if wanted.entry else name_type(place.repo))
            where = folder(wanted.name, format_ if wanted.entry else "safetensors")
            known = bool(wanted.entry and place.file)
            yield Model(
                name=wanted.name,
                path=str(where / Path(place.file).name if known else where),
                type=kind,
                format="other" if kind in ("tts", "stt") else format_,
                source=self.name,
                present=False,
            )

    def place(self, name: str, format_: Format) -> Place | None:
        """Return what to ask the hub for; None where the model has no such form or no id here."""
        entry = catalogue.find(name)
        if entry is None:
            found = ID.fullmatch(name)
            is_gguf = found is not None and ("gguf" in found["repo"].lower() or bool(found["file"]))
            if found is None or is_gguf != (format_ == "gguf"):
                return None
            return Place(found["repo"], found["revision"] or "", found["file"] or "")
        if format_ == "gguf":
            repo = getattr(entry.gguf, self.name, "")
            return Place(repo, file=entry.gguf.file) if entry.gguf and repo else None
        repo = getattr(entry, self.name)
        return Place(repo) if repo else None

    def looked(self, wanted: Wanted) -> list[str]:
        """Say under which id it would be asked for."""
        places = [self.place(wanted.text, format_) for format_ in ("gguf", "safetensors")]
        return [f"{self.client.title}: {place.repo}" for place in places if place]

    def fetch(self, model: Model, report: Report) -> None:
        """Download what the model needs.

        Raises
        ------
        ModelNotFoundError
            The hub has no such repository, or not in this form.
        LazynbError
            A login that is needed, no network, no space, a wrong checksum: with what to do.
        """
        place = self.place(model.name, "gguf" if model.format == "gguf" else "safetensors")
        if place is None:
            raise ModelNotFoundError(f"{self.client.title} has no {model.name}")
        target = Path(model.path)
        target = target.parent if target.suffix == ".gguf" else target
        work = target.with_name(f".{target.name}.part")
        work.mkdir(parents=True, exist_ok=True)
        report(f"asking {self.client.title} for {place.repo}")
        try:
            listing = self.client.listing(place.repo, place.revision)
            files = select(listing.files, model.format, place.file)
            if not files:
                raise self._formless(place, model.format, listing)  # noqa: TRY301 - known to be clear
            transfer.check_space(files, work)
            transfer.Transfer(self.client, place.repo, listing.revision, files, work, report).run()
        except LazynbError:
            raise
        except Exception as error:
            if disk := _of_the_disk(error):
                raise disk from error
            failure = "checksum" if isinstance(error, ChecksumError) else self.client.explain(error)
            if failure is None:
                raise
            raise self._error(failure, place, model, error) from error
        manifest = Manifest(self.name, place.repo, listing.revision, files)
        transfer.publish(work, target, manifest)

    def _error(self, failure: Failure, place: Place, model: Model, error: Exception) -> LazynbError:
        """Say what happened, and what to do about it."""
        hub, repo = self.client.title, place.repo
        at = f" at revision {place.revision}" if place.revision else ""
        message, hint = {
            "missing": (
                f"{hub} has no model {repo}{at}, or only for who is logged in",
                f"Check the id at {self.client.url(repo)}. {self.client.token}",
            ),
            "denied": (
                f"{hub} does not let you have {repo}",
                f"Accept its terms at {self.client.url(repo)}, then log in. {self.client.token}",
            ),
            "network": (
                f"{hub} does not answer",
                (
                    f"Check the network and the proxy; {self.client.endpoint} names a mirror. "
                    "Another attempt goes on where this one ended."
                ),
            ),
            "busy": (f"{hub} takes no more requests for now", "Try again in a few minutes."),
            "server": (f"{hub} has a failure", "Try again in a few minutes."),
            "checksum": (
                f"A file of {repo} came damaged twice: {error}",
                f"A proxy or a mirror may alter it ({self.client.endpoint}). Nothing of it was kept.",
            ),
            "offline": (
                f"{repo} is not on this machine, and {hub}'s client is in offline mode",
                "Unset HF_HUB_OFFLINE, or put the weights into a folder of LAZYLLM_MODEL_PATH.",
            ),
        }[failure]
        kind = ModelNotFoundError if failure == "missing" else LazynbError
        if failure in ("network", "server", "busy"):
            hint = f"{hint}\n{str(error)[:300]}"
        if failure not in ("checksum", "offline"):
            hint = "\n".join(filter(None, [_other_has(model), hint]))
        return kind(message, hint=hint)

    def _formless(self, place: Place, form: Format, listing: Listing) -> ModelNotFoundError:
        ggufs = [file.path for file in listing.files if file.path.endswith(".gguf")]
        wanted = f" {place.file}" if place.file else ""
        hint = f"It has: {', '.join(ggufs[:8])}" if ggufs else "Its page says what it has"
        message = f"{self.client.title}'s {place.repo} has no {form} weights{wanted}"
        return ModelNotFoundError(message, hint=f"{hint}. {self.client.url(place.repo)}")


HUBS = (Hub(modelscope), Hub(huggingface))


def ordered(first: str = "") -> list[Hub]:
    """Return the hubs, the one that is asked first in front."""
    first = first or config.model_source
    return sorted(HUBS, key=lambda hub: hub.name != first)


def _other_has(model: Model) -> str:
    """Return the hint that the other hub has a model; empty where it has not, or does not answer soon."""
    hub = next(hub for hub in HUBS if hub.name != model.source)
    same: Format = "gguf" if model.format == "gguf" else "safetensors"
    other: Format = "safetensors" if same == "gguf" else "gguf"
    form, place = next(
        ((form, found) for form in (same, other) if (found := hub.place(model.name, form))),
        (same, None),
    )
    answer: SimpleQueue[bool] = SimpleQueue()

    def ask(place: Place) -> None:
        with suppress(Exception):
            answer.put(bool(hub.client.listing(place.repo, place.revision).files))

    if place:
        threading.Thread(target=ask, args=(place,), daemon=True).start()
        with suppress(Empty):
            if answer.get(timeout=PATIENCE):
                command = f"%lazyllm pull {model.name} --source {hub.name}"
                return f"{hub.client.title} has it: {command}" + f" --format {form}" * (
                    form != same
                )
    return ""


def _of_the_disk(error: BaseException | None) -> LazynbError | None:
    """Return what a client's error says of the disk, which the client may have taken for a bad line."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in DISK:
            return disk_error(error, config.cache_dir / "models")
        error = error.__cause__ or error.__context__
    return None
