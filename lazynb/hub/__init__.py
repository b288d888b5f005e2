"""A model's name → weights on this machine."""

from lazynb.hub.model import Format, Model, ModelType
from lazynb.hub.resolve import fetch, known_names, resolve

__all__ = ["Format", "Model", "ModelType", "fetch", "known_names", "resolve"]
