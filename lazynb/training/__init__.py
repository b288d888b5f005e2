"""Fine-tuning: data that is checked before anything starts, trainers as values, runs as background jobs."""

from lazynb.training.data import Dataset, read
from lazynb.training.run import Run, find, preview, runs, start
from lazynb.training.target import Target, Version

__all__ = ["Dataset", "Run", "Target", "Version", "find", "preview", "read", "runs", "start"]
