"""lazynb: deploy, call and fine-tune models from a Jupyter notebook."""

from lazynb.config import config

__version__ = "0.1.0"
__all__ = ["config"]
