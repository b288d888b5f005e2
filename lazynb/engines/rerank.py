"""Cross-encoders on sentence-transformers: the program of `embedding` on its other task."""

from __future__ import annotations

from dataclasses import replace

from lazynb.engines import embedding

engine = replace(embedding.engine, name="rerank", types=("rerank",))
