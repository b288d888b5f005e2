"""`bind`: which arguments a step gets.

    with pipeline() as p:
        p.search = search
        p.answer = answer | bind(_0, question=p.input)

The placeholders `_0`, `_1`, … stand for what the step is called with; `p.input`, `p.kwargs` and
`p.output('search')` (or `p.search` itself) for what the pipeline knows when the step runs, with
`[…]` and `.name` on top. Where positional arguments are bound, only those are passed on.
"""

from __future__ import annotations

from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any, Self

from lazynb.errors import FlowError
from lazynb.flow.chain import Chainable
from lazynb.flow.frame import Frame, Runnable, Step, current, label

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

_MISSING = object()


class Placeholder:
    """The n-th argument that a step is called with."""

    def __init__(self, index: int) -> None:
        self._index = index

    def __repr__(self) -> str:
        return f"_{self._index}"

    def pick(self, args: tuple[Any, ...]) -> Any:
        """Return the argument it stands for."""
        if self._index < len(args):
            return args[self._index]
        raise FlowError(
            f"There is no {self!r}: the step is called with {len(args)} positional arguments",
            hint="Placeholders count from _0.",
        )


_0, _1, _2, _3, _4, _5, _6, _7, _8, _9 = map(Placeholder, range(10))


class Reference:
    """What a running flow knows: its input, its keyword arguments, or the output of a step."""

    def __init__(
        self,
        key: object,
        text: str,
        read: Callable[[Frame], Any],
        *,
        step: Step | None = None,
        unpack: bool = False,
    ) -> None:
        self._key = key
        self._text = text
        self._read = read
        self._step = step
        self._unpack = unpack

    def __getitem__(self, key: Any) -> Reference:
        return self._deeper(f"[{key!r}]", itemgetter(key))

    def __getattr__(self, name: str) -> Reference:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._deeper(f".{name}", attrgetter(name))

    def __iter__(self) -> Any:  # `[]` alone would make it an endless sequence
        raise FlowError(f"{self!r} is not known yet", hint="Pass it to bind().")

    def __repr__(self) -> str:
        return self._text

    def _deeper(self, text: str, get: Callable[[Any], Any]) -> Reference:
        read = self._read
        return Reference(
            self._key, self._text + text, lambda frame: get(read(frame)), unpack=self._unpack
        )

    def _resolve(self) -> Any:
        frame = current.get()
        while frame is not None and frame.key is not self._key:
            frame = frame.parent
        if frame is None:
            raise FlowError(
                f"{self!r} is only known while that flow runs",
                hint="Use it in the bind() of a step inside that flow.",
            )
        return self._read(frame)


class bind(Chainable):  # noqa: N801 - named as its users write it
    """A callable with some of its arguments fixed: `bind(f, …)` or `f | bind(…)`.

    Parameters
    ----------
    *args
        The positional arguments: values, placeholders (`_0`) and references (`p.input`). With none, those of
        the call are passed on.
    **kwargs
        Keyword arguments, likewise; those of the call are added.

    Examples
    --------
    >>> (pow | bind(_0, 2))(5)
    25
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._function: Any = _MISSING
        self._args = args
        self._kwargs = kwargs

    @classmethod
    def of(cls, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Self:
        """Bind arguments of a function."""
        bound = cls(*args, **kwargs)
        bound._function = function
        return bound

    @property
    def complete(self) -> bool:
        """Whether the function is known to be none of the arguments."""
        return self._function is not _MISSING

    def to(self, function: Any) -> bind:
        """Return these arguments bound to a function."""
        return self.of(function, self._args, self._kwargs)

    def prepared(self, make: Callable[[Any], Any], refer: Callable[[Any], Any]) -> bind:
        """Return it as a step: its function made callable, steps among its arguments made references."""
        function, args = self._split()
        return self.of(
            make(function),
            tuple(map(refer, args)),
            {name: refer(value) for name, value in self._kwargs.items()},
        )

    def apply(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
        """Return the function and the arguments that a call of it comes down to."""
        function, bound = self._split()
        named = {name: _value(value, args) for name, value in self._kwargs.items()}
        if twice := named.keys() & kwargs.keys():
            raise FlowError(f"{label(function)}: {', '.join(sorted(twice))} is bound already")
        positional = args
        if bound:
            positional = ()
            for item in bound:
                value = _value(item, args)
                spreads = isinstance(item, Reference) and item._unpack and isinstance(value, tuple)
                positional += tuple(value) if spreads else (value,)
        return function, positional, {**named, **kwargs}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function with what is bound."""
        function, args, kwargs = self.apply(args, kwargs)
        return function(*args, **kwargs)

    def __or__(self, other: Any) -> Any:
        return super().__or__(other)

    def __ror__(self, other: Any) -> Any:
        return super().__ror__(other) if self.complete or not callable(other) else self.to(other)

    def _split(self) -> tuple[Any, tuple[Any, ...]]:
        if self.complete:
            return self._function, self._args
        if not self._args or not callable(self._args[0]):
            raise FlowError("bind() has no function", hint="Write bind(f, …) or f | bind(…).")
        return self._args[0], self._args[1:]

    # `with pipeline().bind(x=p.input) as p.inner` builds the flow inside.

    def __enter__(self) -> Self:
        import sys

        self._flow.enter_block(sys._getframe(1))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._flow.__exit__(kind, error, trace)

    @property
    def _flow(self) -> Any:
        if isinstance(self._function, Runnable):
            return self._function
        raise FlowError("Only a bound flow can be built in a `with` block")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._split()[0], name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            object.__setattr__(self, name, value)
        else:
            setattr(self._split()[0], name, value)

    def __repr__(self) -> str:
        function, args = self._split() if self.complete or self._args else ("", ())
        name = repr(function) if isinstance(function, Runnable) else label(function)
        texts = [*map(repr, args), *(f"{key}={value!r}" for key, value in self._kwargs.items())]
        return f"{name} | bind({', '.join(texts)})" if function else f"bind({', '.join(texts)})"


def _value(item: Any, args: tuple[Any, ...]) -> Any:
    if isinstance(item, Placeholder):
        return item.pick(args)
    return item._resolve() if isinstance(item, Reference) else item
