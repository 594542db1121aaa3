"""Embedding with `mini` as it ships: 256 texts made of the package's own sentences in 14 languages."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
from embedding import embed
from embedding_int8 import exported

from lusifer import load
from lusifer.io import parallel_text
from lusifer.serving import encode

COUNT, BATCH = 256, 32


def ways() -> tuple[str, ...]:
    """Ours first."""
    return ("ours", "ours bfloat16", "ours int8", "sentence-transformers", "sentence-transformers, input order")


def texts(count: int = COUNT, seed: int = 0) -> list[str]:
    """1 to 12 sentences of one language each: log-normal, median 2."""
    chance, sentences = random.Random(seed), parallel_text.sample().texts
    found = []
    for _ in range(count):
        code, many = chance.choice(list(sentences)), min(max(round(chance.lognormvariate(0.7, 0.8)), 1), 12)
        found.append(" ".join(chance.choices(sentences[code], k=many)))
    return found


def prepare(folder: Path, way: str) -> tuple[Callable[[], np.ndarray], dict[str, float]]:
    """A function that embeds, and how much; the first process of int8 exports the model, from other texts."""
    rows, small = texts(), folder / "mini-int8"
    if way == "ours int8":
        exported("mini", small, texts(100, seed=9))
    dtype = "bfloat16" if way.endswith("bfloat16") else None
    embedder = load(small) if way == "ours int8" else load("mini", device="cpu", dtype=dtype)
    read = [min(tokens, embedder.max_seq_length) for tokens in encode.token_counts(embedder, rows)]
    facts = {"texts": len(rows), "tokens": sum(read)}
    if way == "sentence-transformers":  # sorts all texts by their characters
        return lambda: embedder.encode(rows, batch_size=BATCH, show_progress_bar=False), facts
    if way.startswith("sentence-transformers"):
        parts = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
        return lambda: np.concatenate([embedder.encode(part, batch_size=BATCH) for part in parts]), facts
    return lambda: embed(embedder, rows), facts
