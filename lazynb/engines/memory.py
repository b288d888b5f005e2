"""Whether a service fits before it starts, what makes room for it, and on which GPUs it runs.

What it takes is estimated from the weights on disk, the context and the engine; what is free is asked from the
machine. Services that are starting have not taken yet what they will: their share is set aside, and their GPUs are not
given away. One start at a time chooses (`turn`). Where it does not fit, idle services of the same kernel end, the one
that was not used for longest first; where even that is not enough, nothing is touched, and the error says what would.
"""

from __future__ import annotations

import json
import math
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from lazynb import hub
from lazynb.client import activity
from lazynb.config import config
from lazynb.engines import machine
from lazynb.engines.choose import plan
from lazynb.errors import LazynbError, NotEnoughMemoryError
from lazynb.hub import catalogue, gguf
from lazynb.jobs import load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from lazynb.engines.base import Engine
    from lazynb.engines.machine import Gpu
    from lazynb.hub import Model
    from lazynb.jobs import Job
    from lazynb.jobs.spec import Command, Owner

    Say = Callable[[str], object]

UNPACKED = 3
"""How much larger the weights of a GGUF file are for an engine that unpacks them."""
CUDA = 1 << 30
"""Bytes on each GPU for CUDA itself and for what is computed."""
CONTEXT = 8192
"""Tokens of context that decide about the number of GPUs where nobody asked for more."""
SHARE = 0.92
"""Part of a GPU that is planned with."""
STEP, SMALLEST = 256, 512  # tokens: contexts that are suggested
LOOK = 0.5  # seconds for services to say whether they are at work
PATIENCE = 3.0  # seconds that memory takes to be free after its process ended
STARTING = frozenset({"queued", "downloading", "loading"})


@dataclass(frozen=True)
class Need:
    """What a service takes, in bytes."""

    weights: int
    overhead: int
    token: int
    """For each token of context; 0 where that is not known."""
    tokens: int
    """Of context."""
    context: str = ""
    """The option that sets them; empty where none makes it take less."""

    @property
    def cache(self) -> int:
        """For all tokens of context."""
        return self.token * self.tokens

    @property
    def total(self) -> int:
        """All together."""
        return self.weights + self.overhead + self.cache

    def __str__(self) -> str:
        parts = [f"weights {_gb(self.weights)}"]
        parts += [f"{self.tokens} tokens of context {_gb(self.cache)}"] if self.cache else []
        return f"about {_gb(self.total)} ({', '.join(parts)}, the program {_gb(self.overhead)})"


@dataclass(frozen=True)
class Place:
    """Where a service runs: its GPUs, none for a CPU, and the options that this decided."""

    gpus: list[int] = field(default_factory=list)
    memory: int = 0
    """Bytes, on each GPU."""
    options: dict[str, Any] = field(default_factory=dict)


@contextmanager
def turn() -> Iterator[None]:
    """Let one start at a time choose its place, until it is written down; a process that dies lets go."""
    from filelock import FileLock

    lock = FileLock(config.home_dir / "placing.lock", mode=0o600)
    with suppress(OSError):  # where nothing can be written, nothing starts: `submit` says so
        config.home_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def launch(
    model: Model,
    engine: Engine,
    options: Mapping[str, Any],
    name: str,
    *,
    owner: Owner,
    say: Say,
) -> Command:
    """Return what to run, on the place that there is for it; the caller holds `turn` until that is written down.

    Parameters
    ----------
    model : Model
        One whose weights are here.
    engine : Engine
        What runs it.
    options : dict
        The engine's own.
    name : str
        The service's name.
    owner : Owner
        The kernel whose idle services may be stopped.
    say : callable
        Gets a line for each decision that a user should know of.

    Raises
    ------
    NotEnoughMemoryError
        It does not fit, and would not if all idle services were stopped.
    """
    checked = engine.check(options)
    need = estimate(model, engine, checked)
    place = Start(model, engine, checked, need, owner, say).place()
    command = plan(model, engine, {**checked, **place.options}, name)
    env = command.env
    if place.gpus and not str(checked.get("device", "")).startswith("cuda:"):
        visible = ",".join(map(str, place.gpus))
        env = {**env, "CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": visible}
    advice = f"It takes {need}."
    if need.context and need.cache:
        advice += f" A smaller {need.context} takes less."
    return msgspec.structs.replace(
        command, env=env, memory=place.memory, gpus=place.gpus, advice=advice
    )


def estimate(model: Model, engine: Engine, options: Mapping[str, Any]) -> Need:
    """Estimate what a service takes: good to a few tenths, since only the largest parts are known before."""
    takes = engine.footprint
    weights = weight_bytes(model.path)
    if model.format == "gguf" and engine.formats[0] != "gguf":
        full = config.cache_dir / f"{Path(model.path).stem}-full"
        weights = weight_bytes(full) or weights * UNPACKED
    token, trained, _ = shape(model)
    tokens = takes.cache(model, options) if takes.cache else 0
    context = "" if takes.gpu else takes.context
    if _on_gpu(engine, options):
        context = takes.context
        wanted = _tokens(options.get(takes.context)) if takes.context else 0
        tokens = wanted or min(trained, CONTEXT)
    if model.type in ("embed", "rerank"):
        tokens = 0  # nothing is kept from one text to the next
    overhead = CUDA if _on_gpu(engine, options) else takes.overhead
    return Need(weights, overhead, token, tokens, context)


def weight_bytes(path: str | Path) -> int:
    """Return the bytes of weights on disk; those that a folder holds in several forms count once."""
    path = Path(path)
    if path.is_file():
        split = path.stem.rpartition("-00001-of-")[0]  # a GGUF file in parts
        parts = path.parent.glob(f"{split}-*-of-*.gguf") if split else [path]
        return sum(part.stat().st_size for part in parts)
    for endings in ((".safetensors",), (".bin", ".pt", ".pth", ".ckpt", ".onnx")):
        size = sum(f.stat().st_size for f in path.rglob("*") if f.suffix in endings)
        if size:
            return size
    return 0


def shape(model: Model) -> tuple[int, int, int]:
    """Return the bytes of a token of context, the tokens that the model was trained with, and its attention heads."""
    if model.format == "gguf":
        facts = gguf.metadata(Path(model.path))
        heads, shared = (
            _most(facts, "attention.head_count"),
            _most(facts, "attention.head_count_kv"),
        )
        layers, trained = _most(facts, "block_count"), _most(facts, "context_length")
        width = _most(facts, "attention.key_length") or _most(facts, "embedding_length") // (
            heads or 1
        )
        return 4 * (shared or heads) * width * layers, trained, heads
    facts = {}
    with suppress(OSError, ValueError):
        facts = json.loads((Path(model.path) / "config.json").read_text(encoding="utf-8"))
    facts = {**facts, **(facts.get("text_config") or facts.get("llm_config") or {})}
    heads, layers = _most(facts, "num_attention_heads"), _most(facts, "num_hidden_layers")
    trained = _most(facts, "max_position_embeddings")
    if latent := _most(facts, "kv_lora_rank"):  # one compressed vector for all heads
        return 2 * (latent + _most(facts, "qk_rope_head_dim")) * layers, trained, heads
    width = _most(facts, "head_dim") or _most(facts, "hidden_size") // (heads or 1)
    return 4 * (_most(facts, "num_key_value_heads") or heads) * width * layers, trained, heads


@dataclass
class Start:
    """One service that is to be started, and the machine that it is started on."""

    model: Model
    engine: Engine
    options: Mapping[str, Any]
    need: Need
    owner: Owner
    say: Say
    jobs: list[Job] = field(default_factory=list)
    gpus: list[Gpu] = field(default_factory=list)

    def place(self) -> Place:
        """Find a place, making room where that is needed and enough."""
        from lazynb.jobs import manager

        self.jobs = [job for job in manager().jobs() if job.live]
        self.gpus = machine.gpus() if _on_gpu(self.engine, self.options) else []
        gpu = bool(self.gpus)  # those that are cut into instances are left to their user
        find = self._on_gpus if gpu else self._in_memory
        if found := find([]):
            return found
        if not config.memory_check:
            return self._anyway() if gpu else Place(memory=self.need.total)
        idle = sorted(self._idle(on_gpu=gpu), key=lambda job: job.last_used)
        if not idle or find(idle) is None:
            raise self._error(idle)
        for job in idle:
            unused = _span(time.time() - job.last_used)
            job.stop(why=f"to make room for {self.model.name}")
            self.say(
                f"{job.name} was stopped to make room for {self.model.name}: idle for {unused}."
            )
            self.jobs = [other for other in self.jobs if other.id != job.id]
            deadline = time.monotonic() + PATIENCE
            while time.monotonic() < deadline:
                self.gpus = machine.gpus() if gpu else []
                if found := find([]):
                    return found
                if find(idle[idle.index(job) + 1 :]):
                    break  # the next one is needed, too
                time.sleep(0.1)
        raise self._error([])

    # On the CPU.

    def _free(self) -> int:
        """Return the bytes that are free, less what services that are starting will take."""
        return machine.available_memory() - sum(
            max(0, command.memory - job.memory())
            for job in self.jobs
            if job.state.phase in STARTING and (command := job.command) and not command.gpus
        )

    def _in_memory(self, gone: list[Job]) -> Place | None:
        room = self._free() + sum(job.memory() for job in gone)
        return Place(memory=self.need.total) if self.need.total <= room else None

    # On GPUs.

    def _gpus(self, gone: list[Job]) -> tuple[list[Gpu], set[int]]:
        """Return the GPUs that no service is starting on, and which of them other services use."""
        freed: dict[int, int] = {}
        starting: set[int] = set()
        used: set[int] = set()
        left = {job.id for job in gone}
        for job in self.jobs:
            command = job.command
            for index in command.gpus if command else []:
                if job.id in left:
                    freed[index] = freed.get(index, 0) + (command.memory if command else 0)
                else:
                    (starting if job.state.phase in STARTING else used).add(index)
        found = [
            replace(gpu, free=min(gpu.total, gpu.free + freed.get(gpu.index, 0)))
            for gpu in self.gpus
            if gpu.index not in starting
        ]
        return found, used

    def _on_gpus(self, gone: list[Job]) -> Place | None:
        """Take as few GPUs as hold the model; one that nobody uses before one that is shared."""
        found, used = self._gpus(gone)
        device = str(self.options.get("device", ""))
        if device.startswith("cuda:"):
            found = [gpu for gpu in found if str(gpu.index) == device.removeprefix("cuda:")]
        found.sort(key=lambda gpu: -gpu.free)
        for count in self._counts(len(found)):
            unused = [gpu for gpu in found if gpu.index not in used]
            for among in (unused, found):
                chosen = among[:count]
                if len(chosen) == count and (place := self._on(chosen)):
                    return place
        return None

    def _counts(self, most: int) -> list[int]:
        """Return the numbers of GPUs that can share the model, or the one that the user set."""
        given = [self.options[name] for name in self._takes.parallel if self.options.get(name)]
        if given:
            return [math.prod(int(number) for number in given)]
        if not self._takes.parallel:
            return [1]
        heads = shape(self.model)[2]
        return [
            2**power
            for power in range(max(1, most).bit_length())
            if not heads or heads % 2**power == 0
        ]

    def _on(self, chosen: list[Gpu]) -> Place | None:
        """Say how the model runs on these GPUs; None when it does not fit."""
        count = len(chosen)
        rooms = [min(gpu.free - 0.02 * gpu.total, SHARE * gpu.total) for gpu in chosen]
        share = self.options.get(self._takes.share) if self._takes.share else None
        if share:
            rooms = [share * gpu.total if share * gpu.total <= gpu.free else 0 for gpu in chosen]
        room = int(min(rooms))
        each = (self.need.weights + self.need.cache) // count + CUDA
        if each > room:
            return None
        options: dict[str, Any] = {}
        takes = self._takes
        if count > 1 and not any(self.options.get(name) for name in takes.parallel):
            options[takes.parallel[0]] = count
        if takes.share and not share:
            part = min(room / gpu.total for gpu in chosen)
            if part < SHARE - 0.01:  # the engine would ask for more than is free
                options[takes.share] = math.floor(part * 100) / 100
        options |= self._context(count * (room - CUDA) - self.need.weights)
        return Place([gpu.index for gpu in chosen], room if takes.share else each, options)

    def _context(self, room: int) -> dict[str, Any]:
        """Limit the context where all of what the model was trained with would not fit, and nobody set it."""
        name, (token, trained, _) = self._takes.context, shape(self.model)
        if not name or name in self.options or not token or token * trained <= room:
            return {}
        tokens = room // token // STEP * STEP
        self.say(f"{self.model.name}: {name} = {tokens} of {trained} tokens, which is what fits.")
        return {name: tokens}

    def _anyway(self) -> Place:
        """Take the GPUs that are emptiest, whether or not it fits."""
        found, _ = self._gpus([])
        found.sort(key=lambda gpu: -gpu.free)
        count = self._counts(len(found))[-1]
        chosen = [gpu.index for gpu in found[:count]]
        takes = self._takes
        many = len(chosen) > 1 and not any(self.options.get(name) for name in takes.parallel)
        return Place(chosen, 0, {takes.parallel[0]: len(chosen)} if many else {})

    # Making room.

    def _idle(self, *, on_gpu: bool) -> list[Job]:
        """Return the services that may be stopped: this kernel's, not kept, ready, and at work on nothing."""
        mine = [
            job
            for job in self.jobs
            if job.spec.owner == self.owner
            and job.spec.kind == "service"
            and not job.spec.keep
            and job.state.phase == "ready"
            and activity.of(job.url).running == 0
            and (not on_gpu or (job.command and job.command.gpus))
        ]
        loads = load.loads(mine, LOOK)
        return [job for job in mine if _at_rest(job, loads.get(job.id))]

    # What there is to say when it does not fit.

    @property
    def _takes(self) -> Any:
        return self.engine.footprint

    def _error(self, idle: list[Job]) -> NotEnoughMemoryError:
        """Say what is missing; something smaller could take the room of the idle services as well."""
        if self.gpus:
            return self._gpu_error(idle)
        free, more = max(0, self._free()), sum(job.memory() for job in idle)
        room = free + more
        hints = [*self._smaller(room - self.need.weights - self.need.overhead), *self._others(room)]
        besides = f" and idle services hold {_gb(more)}" if more else ""
        return self._shortage(f"{_gb(free)} of memory are free{besides}", hints)

    def _gpu_error(self, idle: list[Job]) -> NotEnoughMemoryError:
        found, _ = self._gpus([])
        each = ", ".join(f"{_gb(gpu.free)} of GPU {gpu.index}" for gpu in found) or "no GPU"
        busy = len(self.gpus) - len(found)
        what = f"{each} are free" + (f"; {busy} more start another service now" if busy else "")
        found, _ = self._gpus(idle)
        room = sum(int(min(gpu.free, SHARE * gpu.total)) - CUDA for gpu in found)
        hints = [*self._smaller(room - self.need.weights), *self._others(room)]
        return self._shortage(what, hints)

    def _shortage(self, free: str, hints: list[str]) -> NotEnoughMemoryError:
        if running := [f"{job.name} ({_gb(job.memory())})" for job in self.jobs][:5]:
            hints.append(f"Running: {', '.join(running)}; %lazyllm stop ends one.")
        hints.append("LAZYLLM_MEMORY_CHECK=0 starts it all the same.")
        return NotEnoughMemoryError(
            f"{self.model.name} does not fit: it takes {self.need}, and {free}",
            hint=" ".join(hints),
        )

    def _smaller(self, room: int) -> Iterator[str]:
        """Yield a context that would fit."""
        name = self.need.context
        if not name or not self.need.token:
            return
        tokens = room // self.need.token // STEP * STEP
        if SMALLEST <= tokens < self.need.tokens:
            yield f"{name}={tokens} would fit."

    def _others(self, room: int) -> Iterator[str]:
        """Yield other weights that would fit: the same model quantised, another model that is here."""
        path, overhead = Path(self.model.path), self.need.overhead
        entry = catalogue.find(self.model.name)
        if self.model.format == "safetensors" and entry and (entry.gguf or entry.package):
            with suppress(LazynbError):
                small = hub.resolve(self.model.name, prefer="gguf")
                if small.format == "gguf" and (small.size or 0) < room:
                    yield "Its quantised weights may: deploy_method(deploy.llamacpp)."
        if self.model.format == "gguf":
            files = [f for f in path.parent.glob("*.gguf") if f != path and f.stat().st_size]
            fitting = [f for f in files if f.stat().st_size + overhead < room]
            if fitting:
                best = max(fitting, key=lambda f: f.stat().st_size)
                yield f"{best} ({_gb(best.stat().st_size)}) would fit."
        here = [
            model
            for model in _here()
            if model.type == self.model.type and model.path != self.model.path
        ]
        fits = {
            model.name: size
            for model in here
            if (size := weight_bytes(model.path)) + overhead < room
        }
        if fits:
            name = max(fits, key=lambda name: fits[name])
            yield f"{name} ({_gb(fits[name])}) is here and would fit."


def _here() -> Iterator[Model]:
    """Yield the models whose weights are on this machine."""
    for name in hub.known_names():
        with suppress(LazynbError, OSError):
            model = hub.resolve(name, download=False)
            if model.present:
                yield model


def _at_rest(job: Job, found: load.Load | None) -> bool:
    """Whether a service works on nothing; one that has counters and does not tell them may be at work."""
    command = job.command
    return found.running == 0 if found else bool(command and not command.load)


def _on_gpu(engine: Engine, options: Mapping[str, Any]) -> bool:
    device = str(options.get("device") or "cuda")
    return engine.footprint.gpu and device.startswith("cuda") and machine.nvidia() > 0


def _most(facts: Mapping[str, Any], key: str) -> int:
    number = facts.get(key)
    if isinstance(number, list):  # the layers differ
        number = max((item for item in number if isinstance(item, int)), default=0)
    return number if isinstance(number, int) and number > 0 else 0


def _tokens(value: Any) -> int:
    """Read a number of tokens as vLLM does: 32768, '32k'."""
    text = str(value or "").strip()
    for unit, size in (("k", 1000), ("K", 1024), ("m", 1000**2), ("M", 1024**2)):
        if text.endswith(unit):
            text, factor = text[:-1], size
            break
    else:
        factor = 1
    try:
        return max(0, int(float(text) * factor))
    except ValueError:
        return 0


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB"


def _span(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"  # noqa: PLR2004
