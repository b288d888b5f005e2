"""`TrainableModule`: a model as a function.

A module is a light object: a deployment that it shares with its siblings (`share`), and a prompt, a formatter
and a stream setting of its own. Building one costs nothing; weights are looked for when the service starts.
"""

from __future__ import annotations

import asyncio
from copy import copy
from typing import TYPE_CHECKING, Any, Self

from lazynb import service
from lazynb.card import card, shorten
from lazynb.config import config
from lazynb.errors import LazynbError, OptionError
from lazynb.flow import Chainable
from lazynb.jobs.spec import ENDED_PHASES
from lazynb.methods import Method
from lazynb.prompt import Prompt
from lazynb.push import check_looks, pushing
from lazynb.session import cancelling
from lazynb.streaming import Answer, check_parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from lazynb.batch import Results
    from lazynb.client.endpoint import Endpoint
    from lazynb.comparison import Comparison
    from lazynb.hub import ModelType
    from lazynb.jobs import Job
    from lazynb.jobs.spec import JobState
    from lazynb.training import Run, Version
    from lazynb.training.previews import Preview

CHAT_TYPES = ("chat", "vlm")


class TrainableModule(Chainable):
    """A model that can be deployed, called and fine-tuned.

    Parameters
    ----------
    base_model : str
        A model's name, or a path to its weights.
    target_path : str
        Where fine-tuned weights are saved and looked for, under `config.train_target_root` unless absolute.
    stream : bool or dict
        Whether a `StreamCallHelper` around this module, or around a flow that holds it, gets its text while it
        is made. A dict sets the looks: `color`, `prefix`, `prefix_color`, `suffix`, `suffix_color`.
    trust_remote_code : bool, optional
        False: no automatic download, and no code from the checkpoint. True: such code may run. The default
        downloads, and runs no such code.
    type : str, optional
        'chat', 'embed', 'rerank', …, for a model that neither catalogue nor checkpoint tells the type of.

    Examples
    --------
    >>> m = TrainableModule('smollm2-135m-instruct').start()   # doctest: +SKIP
    >>> m('hello')                                             # doctest: +SKIP
    'Hello! How can I help you today?'
    """

    def __init__(
        self,
        base_model: str | Path = "",
        target_path: str | Path = "",
        *,
        stream: bool | Mapping[str, str] = False,
        trust_remote_code: bool | None = None,
        type: ModelType | None = None,  # noqa: A002
    ) -> None:
        self._deployment = service.Deployment(
            model=str(base_model),
            target_path=str(target_path),
            type=type,
            download=trust_remote_code is not False,
            remote_code=trust_remote_code is True,
        )
        self._prompt = Prompt()
        self._formatter: Callable[[Any], Any] | None = None
        self._stream = check_looks(stream)
        self._finetune: tuple[Method, dict[str, Any]] | None = None
        self._trainset: Any = None
        self._mode: str = ""
        self._evalset: list[Any] = []
        self.eval_result: Results | None = None

    # What is configured.

    @property
    def base_model(self) -> str:
        """The model's name or path."""
        return self._deployment.model

    @property
    def type(self) -> ModelType:
        """What the model is for: 'chat', 'vlm', 'embed', 'rerank', 'image', 'tts' or 'stt'."""
        return self._deployment.served_type

    @property
    def stream(self) -> bool | Mapping[str, str]:
        """Whether, and how, this module streams."""
        return self._stream

    def prompt(self, prompt: Any = None, history: list[Any] | None = None) -> Self:
        """Set the prompt; None sends the input as it is.

        Parameters
        ----------
        prompt : str, dict or None
            The system message, or a dict with `system` and `user`; `{name}` slots are filled from a dict input.
        history : list, optional
            Earlier turns, sent before every input: `[role, text]` items, `[user, assistant]` pairs or messages.
        """
        self._prompt = Prompt(prompt, history)
        return self

    def formatter(self, formatter: Callable[[Any], Any] | None = None) -> Self:
        """Set what is done with the model's text before it is returned."""
        self._formatter = formatter
        return self

    def deploy_method(self, method: Method | str, **options: Any) -> Self:
        """Set how the model is served, with the engine's own options.

        `url` connects to a server that runs already, with `api_key` unless it is one of lazynb's own on this machine;
        `port` fixes the port.
        """
        self._deployment.configure(_method_name(method, "deploy"), options)
        return self

    def finetune_method(self, method: Method | str, **options: Any) -> Self:
        """Set how the model is fine-tuned, with the trainer's own options."""
        self._finetune = (Method("finetune", _method_name(method, "finetune")), options)
        return self

    def trainset(self, data: Any) -> Self:
        """Set what the model is fine-tuned on: a path or rows."""
        self._trainset = data
        return self

    def mode(self, mode: str) -> Self:
        """Set what `update` does: 'finetune', or 'train' for the same."""
        if mode not in ("finetune", "train"):
            raise OptionError(f"There is no mode {mode!r}", hint="Use 'finetune'.")
        self._mode = mode
        return self

    def evalset(self, data: Iterable[Any]) -> Self:
        """Set the inputs that `eval` runs."""
        self._evalset = list(data)
        return self

    def share(
        self,
        prompt: Any = ...,
        format: Any = ...,  # noqa: A002
        stream: Any = ...,
        history: list[Any] | None = None,
    ) -> Self:
        """Return a module on the same service with a prompt, a formatter and a stream setting of its own."""
        shared = copy(self)
        if prompt is not ... or history is not None:
            shared._prompt = Prompt(None if prompt is ... else prompt, history)
        if format is not ...:
            shared._formatter = format
        if stream is not ...:
            shared._stream = check_looks(stream)
        return shared

    # Life cycle.

    @property
    def job(self) -> Job | None:
        """The background job of the service, once it was started."""
        return self._deployment.job

    @property
    def url(self) -> str:
        """The address of the service: an OpenAI-compatible `…/v1`."""
        return self._deployment.url or self._deployment.endpoint().url

    def start(self, *, wait: bool = True, keep: bool = False, shared: bool = True) -> Self:
        """Start the service, or find the one that runs.

        Parameters
        ----------
        wait : bool
            Return once the service answered a real request; False returns at once.
        keep : bool
            The service outlives this kernel, and other kernels find it.
        shared : bool
            False starts a service of its own even where the same one runs.

        Raises
        ------
        JobError
            The service failed: the cause taken from its log, the last lines and a hint.
        """
        job = self._deployment.start(keep=keep, shared=shared)
        if job is not None and wait:
            service.on_start(job)
        return self

    def stop(self) -> Self:
        """Stop the service, unless another module that started it still uses it."""
        self._deployment.stop()
        return self

    def restart(self, *, wait: bool = True) -> Self:
        """Stop the service and start it again, as it is configured now."""
        if self.job is not None:
            self.job.stop()
        self._deployment.stop()
        return self.start(wait=wait)

    def status(self) -> str:
        """Return 'ready', 'loading', …, 'failed'; 'remote' for a url, and 'not started'."""
        if self._deployment.url:
            return "remote"
        return self.job.state.phase if self.job else "not started"

    def wait(self) -> Self:
        """Wait until the service is ready."""
        if self.job is not None:
            service.on_start(self.job)
        return self

    def log_path(self) -> str:
        """Return the path of the log of the service."""
        if self.job is None:
            raise LazynbError(f"{self.base_model} was not started", hint="Call start() first.")
        return str(self.job.log_path)

    # Calls.

    def messages(self, query: Any = "", llm_chat_history: list[Any] | None = None) -> list[Any]:
        """Return the messages that a call with this input would send."""
        return self._prompt.messages(query, history=llm_chat_history)

    def answer(
        self, query: Any = "", *, llm_chat_history: list[Any] | None = None, **parameters: Any
    ) -> Answer:
        """Ask, and return the answer while it is made.

        The service is started first where it does not run. Iterate over the answer for its chunks, or call `wait`.
        """
        check_parameters(parameters)
        messages = self.messages(query, llm_chat_history)
        job = self._started()
        answer = Answer.pending(job.name if job else self.base_model, messages, **parameters)
        if job is None or job.state.phase == "ready":
            answer.begin(self._deployment.endpoint())
        else:
            _begin_when_ready(answer, job, self._deployment.endpoint)
        return answer

    def __call__(
        self, query: Any = "", *, llm_chat_history: list[Any] | None = None, **parameters: Any
    ) -> Any:
        """Call the model.

        Parameters
        ----------
        query : str, dict or list
            A chat model's input; a text or a list of texts for an embedding model; the query of a reranker.
        llm_chat_history : list, optional
            Earlier turns, after those of the prompt.
        **parameters
            Generation parameters under their OpenAI names; `documents` and `top_n` for a reranker; `kinds` for an
            embedding model that gives more than one: some of 'dense', 'sparse' and 'multi'.

        Returns
        -------
        str, or what the formatter makes of it
            `list[float]` or `list[list[float]]` for an embedding model, with `kinds` a dict by kind for each text;
            `[(index, score), …]`, best first, for a reranker.
        """
        self._ready()
        if self.type not in CHAT_TYPES:
            from lazynb.client.loop import run

            return self._formatted(run(self._request(query, llm_chat_history, parameters)))
        answer = self.answer(query, llm_chat_history=llm_chat_history, **parameters)
        try:
            with cancelling(answer.cancel), pushing(self._stream, self._deployment.label) as push:
                if push is None:
                    answer.wait()
                else:
                    for kind, chunk in answer.parts():
                        push(kind, chunk)
        except KeyboardInterrupt:
            answer.cancel()
            raise
        return self._formatted(answer.text)

    async def acall(
        self, query: Any = "", *, llm_chat_history: list[Any] | None = None, **parameters: Any
    ) -> Any:
        """Call the model without blocking the event loop; as `__call__` otherwise."""
        await asyncio.to_thread(self._ready)
        if self.type not in CHAT_TYPES:
            from lazynb.client.loop import spawn

            request = self._request(query, llm_chat_history, parameters)
            return self._formatted(await asyncio.wrap_future(spawn(request)))
        answer = self.answer(query, llm_chat_history=llm_chat_history, **parameters)
        with cancelling(answer.cancel), pushing(self._stream, self._deployment.label) as push:
            async for kind, chunk in answer.aparts():
                if push is not None:
                    push(kind, chunk)
        return self._formatted(answer.text)

    def map(
        self,
        inputs: Iterable[Any],
        *,
        concurrency: int = 16,
        progress: bool = True,
        **parameters: Any,
    ) -> Results:
        """Call the model for many inputs at once.

        Parameters
        ----------
        inputs : iterable
            What a single call takes.
        concurrency : int
            How many requests are under way at once.
        progress : bool
            Whether a progress bar is drawn.

        Returns
        -------
        Results
            A list in the order of the inputs. A failed item is None there, and its error in `.errors`; after an
            interrupt it holds what is done, and `.undone` the rest.
        """
        from lazynb.batch import run_all

        if self.type in CHAT_TYPES:
            check_parameters(parameters)
        self._ready()

        return run_all(
            lambda query: self._request(query, None, parameters),
            self._formatted,
            list(inputs),
            concurrency=concurrency,
            label=self._deployment.label,
            progress=progress,
        )

    def eval(self, *, concurrency: int = 16, **parameters: Any) -> Results:
        """Run the inputs of `evalset`; the results are kept in `eval_result`."""
        self.eval_result = self.map(self._evalset, concurrency=concurrency, **parameters)
        return self.eval_result

    def finetune(self) -> Run:
        """Start fine-tuning the model on its trainset in the background; returns at once.

        Raises
        ------
        LazynbError
            Before anything is started: no trainset, wrong rows (with their lines), unknown options, no trainer.
        """
        from lazynb import training

        if self._trainset is None:
            raise OptionError("There is no trainset", hint="Give one: .trainset('data.json').")
        method, options = self._finetune or (Method("finetune", "auto"), {})
        deployment = self._deployment
        run = training.start(
            self.base_model,
            self._trainset,
            target=deployment.target_path,
            method=method.name,
            options=options,
            type=deployment.type,
            download=deployment.download,
        )
        deployment.target_path = deployment.target_path or run.name
        return run

    def preview(self, n: int = 3) -> Preview:
        """Show what the model will see of its trainset: text with its template, what is learned, tokens.

        Parameters
        ----------
        n : int
            Rows that are shown; the tokens of all rows are counted, and those that will be cut are named.

        Raises
        ------
        LazynbError
            What `finetune` would complain of, or a model that is not on this machine.
        """
        from lazynb import training

        if self._trainset is None:
            raise OptionError("There is no trainset", hint="Give one: .trainset('data.json').")
        method, options = self._finetune or (Method("finetune", "auto"), {})
        return training.preview(
            self.base_model,
            self._trainset,
            method=method.name,
            options=options,
            type=self._deployment.type,
            count=n,
        )

    def update(self, *, wait: bool = True) -> Self | Run:
        """Fine-tune the model on its trainset in the background, then serve the tuned weights.

        While it trains, the cell shows the loss. Modules that share this one's service move on with it. Where an
        `evalset` is given, it is run on the tuned weights.

        Parameters
        ----------
        wait : bool
            False returns the run at once; `start` serves its weights when it is finished.

        Raises
        ------
        JobError
            The run failed or was stopped. The service that was there before goes on.
        """
        run = self.finetune()
        if not wait:
            return run
        service.on_run(run)
        self.start()
        if self._evalset:
            self.eval()
        return self

    @property
    def versions(self) -> list[Version]:
        """The finished fine-tuning runs of `target_path`, the latest last."""
        return self._deployment.target.versions() if self._deployment.target else []

    def select(self, version: str | None) -> Self:
        """Serve a certain version of the tuned weights from the next `start` on; None serves the latest."""
        if self._deployment.target is None:
            raise OptionError("This module has no target_path, so it has no versions")
        self._deployment.target.select(version)
        return self

    def compare(self, inputs: Iterable[Any], **parameters: Any) -> Comparison:
        """Answer some inputs with the base model and with the tuned one.

        Returns
        -------
        Comparison
            A list of `(input, base answer, tuned answer)` that shows as a table.
        """
        from lazynb.comparison import Comparison

        inputs = list(inputs)
        base = copy(self)
        base._deployment = self._deployment.of_base()
        try:
            before = base.map(inputs, progress=False, **parameters)
            after = self.map(inputs, progress=False, **parameters)
        finally:
            base.stop()
        return Comparison(zip(inputs, before, after, strict=True))

    # How it looks.

    def __repr__(self) -> str:
        model = repr(self.base_model) if self.base_model else f"url={self._deployment.url!r}"
        return f"TrainableModule({model}, status={self.status()!r})"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        deployment, job = self._deployment, self.job
        engine = job.state.engine if job else deployment.engine
        rows = {
            "engine": "" if deployment.url else engine,
            "address": deployment.url or (job.url if job and job.state.phase == "ready" else ""),
            "prompt": shorten(self._prompt.value or ""),
            "formatter": shorten(repr(self._formatter)) if self._formatter else "",
            "stream": self._stream,
            "log": job.log_path if job else "",
        }
        title = self.base_model or deployment.url or "no model"
        return {"text/plain": repr(self), "text/html": card(title, self.status(), rows)}

    # Inside.

    def _ready(self) -> Job | None:
        """Start the service where a call may, and wait for it; None for a server that is not ours."""
        job = self._started()
        if job is not None and job.state.phase != "ready":
            service.on_start(job)
        return job

    def _started(self) -> Job | None:
        if not self._deployment.running:
            if not config.autostart:
                raise LazynbError(
                    f"{self.base_model or 'This module'} is not running",
                    hint="Call start() first (LAZYLLM_AUTOSTART is off).",
                )
            return self._deployment.start()
        if self._deployment.url:
            self._deployment.connect()  # who answers there may have changed since the last call
        return self._deployment.job

    def _formatted(self, value: Any) -> Any:
        return self._formatter(value) if self._formatter is not None else value

    async def _request(
        self, query: Any, history: list[Any] | None, parameters: dict[str, Any]
    ) -> Any:
        """Ask once without streaming."""
        from lazynb.client import tasks

        endpoint = self._deployment.endpoint()
        if self.type == "embed":
            return await tasks.embed(endpoint, query, **parameters)
        if self.type == "rerank":
            return await tasks.rerank(endpoint, query, **parameters)
        if self.type in CHAT_TYPES:
            return await tasks.chat(endpoint, self.messages(query, history), **parameters)
        raise LazynbError(
            f"{self.base_model} is a model of type {self.type!r}, which cannot be called in this version",
            hint="Chat, embedding and rerank models can.",
        )


def _method_name(method: Method | str, kind: str) -> str:
    if isinstance(method, str):
        return method.lower()
    if method.kind == kind:
        return method.name
    raise OptionError(f"{method!r} is no {kind} method", hint=f"For example: lazynb.{kind}.auto.")


def _begin_when_ready(answer: Answer, job: Job, endpoint: Callable[[], Endpoint]) -> None:
    """Send the request as soon as the service is ready; its failure is the answer's."""
    endings: list[Callable[[], None]] = []

    def follow(state: JobState) -> None:
        if state.phase == "ready":
            answer.begin(endpoint())
        elif state.phase in ENDED_PHASES:
            answer.fail(job.error(state))
        else:
            return
        for end in endings:
            end()

    endings.append(job.subscribe(follow))
