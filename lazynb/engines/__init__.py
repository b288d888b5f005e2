"""External engines as values: what to run for a model, and in which environment."""

from lazynb.engines.base import Engine, Option
from lazynb.engines.choose import choose, form, plan
from lazynb.engines.interpreter import interpreter
from lazynb.engines.registry import get, names

__all__ = ["Engine", "Option", "choose", "form", "get", "interpreter", "names", "plan"]
