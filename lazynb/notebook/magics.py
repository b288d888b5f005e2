"""`%lazyllm` and `%%lazyllm`: parse the line, do it, return a result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_cell_magic, magics_class, no_var_expand

from lazynb.errors import LazynbError

if TYPE_CHECKING:
    from lazynb.module import TrainableModule
    from lazynb.streaming import Answer


@magics_class
class LazyMagics(Magics):
    """The magics, and what they keep for the kernel: modules, conversations and the last answer."""

    def __init__(self, shell: Any) -> None:
        super().__init__(shell)
        self.modules: dict[tuple[str, str], TrainableModule] = {}
        self.last: Answer | None = None
        self._shown: tuple[Answer, int] | None = (
            None  # the answer that a cell has streamed, and which cell
        )
        self._chats: Any = None

    @property
    def chats(self) -> Any:
        """The conversations."""
        if self._chats is None:
            from lazynb.notebook.chats import Chats

            self._chats = Chats()
        return self._chats

    @no_var_expand
    @line_cell_magic
    def lazyllm(self, line: str, cell: str | None = None) -> Any:
        """Deploy and ask models; `%lazyllm help` tells all of it."""
        try:
            if cell is not None:
                return self._ask(line, cell)
            from lazynb.notebook.commands import run

            return run(self, line)
        except LazynbError as error:
            raise UsageError(str(error)) from None
        except KeyboardInterrupt as error:
            error._render_traceback_ = lambda: ["Interrupted"]  # type: ignore[attr-defined]
            raise

    def _ask(self, line: str, cell: str) -> Answer | None:
        from lazynb.notebook.answerview import show_answer
        from lazynb.notebook.arguments import ask_parser, generation
        from lazynb.notebook.frontend import frontend
        from lazynb.notebook.template import substitute

        arguments = ask_parser().parse(line)
        module = self._module(arguments.model, arguments.engine)
        prompt: Any = substitute(cell.strip("\n"), self.shell.user_ns)
        history = self.chats.history(arguments.chat) if arguments.chat else []
        if arguments.system:
            system = {"role": "system", "content": arguments.system}
            prompt = [system, *history, {"role": "user", "content": prompt}]
            module, history = module.share(prompt=None), []
        answer = module.answer(prompt, llm_chat_history=history, **generation(arguments))
        self.last = answer
        if arguments.chat:
            self.chats.add(arguments.chat, answer)
        if arguments.output:
            self.shell.user_ns[arguments.output] = answer
        show_answer(answer, job=module.job, block=not arguments.bg, raw=arguments.raw)
        if frontend() == "terminal":  # which would print an empty `Out[n]:` for it
            self.shell.displayhook.update_user_ns(answer)
            return None
        self._shown = answer, self.shell.execution_count
        return answer

    def _module(self, name: str, engine: str) -> TrainableModule:
        """Return the module of a variable, or one of a model by name; the same one every time."""
        from lazynb.module import TrainableModule

        value = self.shell.user_ns.get(name)
        if isinstance(value, TrainableModule):
            return value
        key = (name, engine)
        if key not in self.modules:
            module = TrainableModule(name)
            self.modules[key] = module if engine == "auto" else module.deploy_method(engine)
        return self.modules[key]

    def display_answer(self, answer: Answer) -> None:
        """Show an answer that is displayed again; the one that its cell has just streamed is not."""
        shown, self._shown = self._shown, None
        if shown == (answer, self.shell.execution_count):
            return
        from lazynb.notebook.frontend import Display
        from lazynb.notebook.settle import settled

        Display(settled(answer))
