"""What a background job is, as plain data that every process can read.

A job is one folder: `spec.json` (what was asked for), `command.json` (what is run), `state.json`
(how it stands), `log`, `events.jsonl` and `key`. The manager in a kernel, the supervisor of the job,
a second kernel and a JupyterLab extension all read the same folder; nothing is known only in memory.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Phase = Literal["queued", "downloading", "loading", "ready", "stopping", "stopped", "failed"]
LIVE_PHASES: frozenset[str] = frozenset({"queued", "downloading", "loading", "ready", "stopping"})
ENDED_PHASES: frozenset[str] = frozenset({"stopped", "failed"})


class Probe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The request whose answer means that a service is ready.

    A real one: one token for a chat model, one item for the others.
    """

    path: str
    body: dict[str, Any]


class ProgressRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    r"""How a line of a foreign program's log becomes progress.

    `pattern` is a regular expression; its groups `done` and `total`, where it has them, become the
    fraction, and `text` is what the user reads, with the groups in braces ("weights {done} of {total}").
    """

    pattern: str
    text: str


class CauseRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a line of a log explains a failure: the first rule that matches names cause and hint.

    Groups of `pattern` can be used in braces in `cause` and `hint`.
    """

    pattern: str
    cause: str
    hint: str = ""
    memory: bool = False
    """Whether the failure means that memory ran out: what the program takes and what is free is said, too."""


class Command(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A program to run under a supervisor.

    `{port}` in `argv` and in the values of `env` is replaced by the port of the service, and `{key}`
    in `env` alone (never in `argv`, which every user of the machine can read) by its key.
    A program can also report progress itself: a line `@progress {"text": …, "done": …, "total": …}` on
    its standard output (`done` and `total` are optional numbers) is shown and does not go to the log, and a
    line `@failed {"cause": …, "hint": …}` says why it is about to end with an error.
    """

    argv: list[str]
    env: dict[str, str] = {}
    cwd: str | None = None
    ready: Probe | None = None
    """None: a run that is over when the program ends (training), ready as soon as it runs."""
    port: int | None = None
    """A fixed port, or None: a free one."""
    serves: bool = True
    """Whether the program listens on a port."""
    progress: list[ProgressRule] = []
    causes: list[CauseRule] = []
    engine: str = ""
    """The engine's name, where `prepare` chose it."""
    load: str = ""
    """The path of its counters: llama.cpp's `/slots`, or `/metrics` as Prometheus reads them; empty: it has none."""
    memory: int = 0
    """Bytes that it takes, as estimated; on each of its GPUs where it has some. 0: not known."""
    gpus: list[int] = []
    """The GPUs that it was given, by the numbers of `nvidia-smi`."""
    advice: str = ""
    """What is said when it ran out of memory: what it takes, and what would take less."""


class Owner(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A process, named so that a recycled process id is not taken for it."""

    pid: int
    ticks: int
    """When the process started, in clock ticks since the machine booted: unmoved when the clock is set."""


class JobSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What was asked for.

    Either `command` is known, or `prepare` is a program (an argument list, run with the job's folder as
    its last argument) that finds it out, downloading the weights on the way: it writes `command.json`. A download
    is over with that.
    """

    id: str
    name: str
    """What the user calls it; also the service's model name on the wire."""
    kind: Literal["service", "training", "download"] = "service"
    model: str = ""
    engine: str = ""
    """The engine's name; empty: to be chosen by `prepare`."""
    options: dict[str, Any] = {}
    type: str = ""
    """The model's type where the user gave it; empty: known from the model."""
    port: int | None = None
    """A fixed port, or None: a free one."""
    prepare: list[str] | None = None
    command: Command | None = None
    keep: bool = False
    """Whether the job outlives the kernel that started it."""
    idle: float | None = None
    """Seconds after which it stops when it is not used; 0: never, None: as `config.idle_timeout` says."""
    why: str = ""
    """Why this engine, where nobody named one."""
    owner: Owner | None = None
    """The kernel that started it. Filled in by the manager, as are `host` and `created`."""
    host: str = ""
    """The machine it runs on: a home folder can be shared, process ids cannot."""
    created: float = 0.0
    """Seconds since the epoch."""


class JobState(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """How a job stands. Written by its supervisor alone, by atomic replacement, mode 0600."""

    phase: Phase = "queued"
    since: float = 0.0
    """When this phase began, in seconds since the epoch."""
    text: str = ""
    """What is being done, in words."""
    done: float | None = None
    total: float | None = None
    """Progress, in any unit; None where it is not known."""
    supervisor: Owner | None = None
    process: Owner | None = None
    """The running program."""
    engine: str = ""
    """The engine that runs, which `prepare` may have chosen."""
    port: int | None = None
    returncode: int | None = None
    cause: str = ""
    hint: str = ""
    log_tail: list[str] = []
    """The last lines of the log, of a job that failed."""
