"""Conversations that go on over several cells: `%%lazyllm MODEL --chat NAME`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lazynb.streaming import Answer


class Chats:
    """The conversations of a kernel, by name.

    A turn is kept when its answer is complete: one that was stopped or failed can simply be asked again.
    """

    def __init__(self) -> None:
        self._turns: dict[str, list[Answer]] = {}

    def history(self, name: str) -> list[dict[str, Any]]:
        """Return the messages so far."""
        return [
            message
            for answer in self._turns.get(name, [])
            if answer.status == "done"
            for message in (answer.messages[-1], {"role": "assistant", "content": answer.text})
        ]

    def add(self, name: str, answer: Answer) -> None:
        """Add a turn, whose answer may still be on its way."""
        self._turns.setdefault(name, []).append(answer)

    def clear(self, name: str) -> bool:
        """Forget a conversation; return whether there was one."""
        return self._turns.pop(name, None) is not None

    def names(self) -> dict[str, int]:
        """Return the names, and how many turns each has."""
        return {name: len(self.history(name)) // 2 for name in self._turns}
