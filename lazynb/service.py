"""From a model's name to a running service.

Asking for the same model, engine and options twice gives the one service that runs; it ends when the last
module that started it is stopped. A service that was kept belongs to no kernel, and every kernel finds it.
"""

from __future__ import annotations

import secrets
import sys
import threading
import time
import weakref
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import msgspec

from lazynb.errors import JobError, LazynbError, ModelNotFoundError, OptionError
from lazynb.hub import Model, catalogue, resolve

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazynb.client.endpoint import Endpoint
    from lazynb.hub import ModelType
    from lazynb.jobs import Job
    from lazynb.training import Run
    from lazynb.training.target import Target

LAST_WORDS = 3.0
"""Seconds for a supervisor to write down that its program ended."""

POLL = 0.03

_lock = threading.Lock()
_holders: dict[str, weakref.WeakSet[Deployment]] = {}


def wait_until_ready(job: Job) -> None:
    """Wait for a starting service. The notebook replaces this by a live view of the same."""
    job.wait()


def wait_until_trained(run: Run) -> None:
    """Wait for a fine-tuning run. The notebook replaces this by the live curve of its loss."""
    run.wait()


on_start: Callable[[Job], None] = wait_until_ready
on_run: Callable[[Run], None] = wait_until_trained


def service(
    name: str,
    *,
    engine: str = "auto",
    options: dict[str, Any] | None = None,
    keep: bool = False,
    shared: bool = True,
    port: int | None = None,
    label: str = "",
    type: ModelType | None = None,  # noqa: A002
    download: bool = True,
    remote_code: bool = False,
    idle: float | None = None,
) -> Job:
    """Find the running service of a model, or start one. Returns at once.

    Where it would not fit into memory, services of this kernel that are idle are stopped, the one that was not used for
    longest first; what that decided is printed in a line.

    Parameters
    ----------
    name : str
        A model's name or path.
    engine : str
        An engine's name; 'auto' chooses one.
    options : dict
        The engine's own options.
    keep : bool
        Whether the service outlives this kernel.
    shared : bool
        False starts a service of its own even where one runs.
    port : int, optional
        A fixed port; by default a free one.
    label : str
        What to call it; by default the model's name.
    type : str, optional
        The model's type, where neither catalogue nor checkpoint tells it.
    download : bool
        Whether weights that are not on this machine are fetched.

    remote_code : bool
        Whether code that comes with the checkpoint may run, where the engine runs such code.
    idle : float, optional
        Seconds after which it stops when it is not used; 0: never. By default `config.idle_timeout`.

    Raises
    ------
    ModelNotFoundError, EngineNotInstalledError, OptionError, NotEnoughMemoryError
        Before anything is started.
    """
    from lazynb import engines
    from lazynb.engines import memory
    from lazynb.jobs import manager, process
    from lazynb.jobs.spec import JobSpec

    options = dict(options or {})
    prefer = engines.get(engine).formats[0] if engine != "auto" else engines.form()
    model = resolve(name, prefer=prefer, type=type, download=download)
    chosen, why = (engines.get(engine), "") if engine != "auto" else engines.choose(model)
    options = chosen.check(options)
    if remote_code and "trust_remote_code" in chosen.options:
        options.setdefault("trust_remote_code", True)
    engines.interpreter(chosen)
    wanted: dict[str, Any] = {
        "model": model.path if model.source == "path" else model.name,
        "engine": chosen.name,
        "options": options,
        "type": type or "",
    }
    with _lock:
        jobs, alike = [], set()
        for job in manager().jobs():
            if not (job.owned or job.spec.keep):
                continue
            if {key: getattr(job.spec, key) for key in wanted} == wanted:
                alike.add(job.id)
                job.mark_used()  # before its state is read: it may be about to end for want of use
            if _live(job):
                jobs.append(job)
        for job in jobs if shared else []:
            if job.id in alike and port in (None, job.state.port):
                if keep:
                    job.keep()
                return job
        label = _free_name(label or model.name, {job.name for job in jobs})
        spec = JobSpec(
            id=secrets.token_hex(4),
            name=label,
            keep=keep,
            port=port,
            created=time.time(),
            idle=idle,
            why=why,
            **wanted,
            prepare=None if model.present else [sys.executable, "-m", "lazynb.engines.prepare"],
        )
        if not model.present:
            return manager().submit(spec)
        with memory.turn():
            command = memory.launch(model, chosen, options, label, owner=process.myself(), say=_say)
            return manager().submit(msgspec.structs.replace(spec, command=command))


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


def _live(job: Job) -> bool:
    """Whether a service runs or is on its way; one that no longer listens is given time to say that it ended."""
    from lazynb.jobs import ports

    while (state := job.state).phase == "stopping":
        time.sleep(POLL)
    if state.phase == "ready" and state.port and not ports.taken(state.port):
        with suppress(JobError):
            job.wait(timeout=LAST_WORDS, ended=True)
    return job.live


def _free_name(name: str, taken: set[str]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free


def _at(port: int | None) -> Job | None:
    """Return this user's service at a port of this machine."""
    from lazynb.jobs import manager

    for job in manager().jobs():
        state = job.state
        if state.phase == "ready" and state.port == port:
            return job
    return None


@dataclass(eq=False)
class Deployment:
    """What modules that share one service have in common: what is served, how, and where it runs."""

    model: str = ""
    target_path: str = ""
    type: ModelType | None = None
    download: bool = True
    remote_code: bool = False
    engine: str = "auto"
    options: dict[str, Any] = field(default_factory=dict)
    url: str = ""
    api_key: str = ""
    port: int | None = None
    job: Job | None = None
    _remote: Endpoint | None = None

    def configure(self, engine: str, options: dict[str, Any]) -> None:
        """Take a deployment method and its options, lazynb's own (`url`, `port`, …) among them."""
        options = dict(options)
        self.engine = engine
        self.url = options.pop("url", "") or ""
        self.api_key = options.pop("api_key", "") or ""
        self.port = options.pop("port", None)
        options.pop("openai_api", None)  # every service of lazynb speaks the OpenAI API
        self.options = options
        self._remote = None

    @property
    def label(self) -> str:
        """What to call it."""
        return self.job.name if self.job else self.model or self.url

    @property
    def target(self) -> Target | None:
        """Where fine-tuned weights are saved and looked for."""
        if not self.target_path:
            return None
        from lazynb.training.target import Target

        return Target(self.target_path)

    def of_base(self) -> Deployment:
        """Return a deployment of the model as it is, without the tuned weights."""
        return replace(self, target_path="", job=None, port=None)

    @property
    def weights(self) -> str:
        """What is served: the tuned weights where there are any, else the model."""
        if self.target is None:
            return self.model
        from lazynb import engines

        form = engines.get(self.engine).formats[0] if self.engine != "auto" else ""
        tuned = self.target.weights(form)
        return str(tuned) if tuned else self.model

    @property
    def running(self) -> bool:
        """Whether there is a service to send requests to, or one on its way."""
        if self.url or self.job is None:
            return bool(self.url)
        self.job.mark_used()  # before its state is read: it may be about to end for want of use
        return _live(self.job)

    def start(self, *, keep: bool = False, shared: bool = True) -> Job | None:
        """Find or start the service; None for a server that lazynb did not start."""
        if self.url:
            return None
        if not self.model:
            raise OptionError(
                "This module has no model to start",
                hint="Name one: TrainableModule('smollm2-135m-instruct'), or give deploy_method a url.",
            )
        target, weights = self.target, self.weights
        tuned = weights != self.model
        before = self.job if self.job and _live(self.job) else None
        if before is None or not shared or (tuned and before.spec.model != weights):
            if target and not tuned:
                print(f"No weights in {target.path} yet: {self.model} as it is.")  # noqa: T201
            self.job = service(
                weights,
                label=target.name if target and tuned else "",
                engine=self.engine,
                options=self.options,
                keep=keep,
                shared=shared,
                port=self.port,
                type=self.type,
                download=self.download,
                remote_code=self.remote_code,
            )
        elif keep:
            before.keep()
        job = cast("Job", self.job)
        _holders.setdefault(job.id, weakref.WeakSet()).add(self)
        if before is not None and before.id != job.id:
            self._let_go(before)
        return job

    def stop(self) -> None:
        """Let go of the service; the last one to do so ends it."""
        job, self.job = self.job, None
        if job is not None:
            self._let_go(job)

    def _let_go(self, job: Job) -> None:
        holders = _holders.get(job.id, weakref.WeakSet())
        holders.discard(self)
        if not holders:
            _holders.pop(job.id, None)
            job.stop()

    def connect(self) -> None:
        """Find out who answers at the url: a service of lazynb has a key, which nobody need give."""
        from lazynb.client.endpoint import Endpoint

        remote = Endpoint.from_url(self.url, key=self.api_key, model=self.model)
        job = _at(remote.port) if remote.local else None
        if job is not None:
            job.mark_used()
            remote = msgspec.structs.replace(
                remote, key=remote.key or job.key, used=str(job.used_path)
            )
        self._remote = remote

    def endpoint(self) -> Endpoint:
        """Where requests go. The service must be ready."""
        from lazynb.client.endpoint import Endpoint

        if self.url:
            if self._remote is None:
                self.connect()
            return cast("Endpoint", self._remote)
        if self.job is None:
            raise LazynbError(f"{self.model} is not running", hint="Call start() first.")
        return Endpoint(
            url=self.job.url,
            name=self.job.name,
            key=self.job.key,
            model=self.job.name,
            used=str(self.job.used_path),
        )

    def resolve(self) -> Model:
        """Find the model without starting it."""
        return resolve(self.weights, type=self.type, download=self.download)

    @property
    def served_type(self) -> ModelType:
        """What the model is for: 'chat', 'embed', 'rerank', …"""
        if self.type or not self.model:
            return self.type or "chat"
        if known := catalogue.find(self.model):
            return known.type
        try:
            return self.resolve().type
        except ModelNotFoundError:
            if self.url:
                return "chat"
            raise
