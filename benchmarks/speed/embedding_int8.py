"""Embedding with int8 weights and products (`lusifer export`), beside float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import embedding
import numpy as np
from medium import flops, texts, tokenizer

from lusifer import load
from lusifer.serving import encode, export


def ways() -> tuple[str, ...]:
    """Ours first."""
    return ("ours int8", "ours")


def prepare(folder: Path, way: str) -> tuple[Callable[[], np.ndarray], dict[str, float]]:
    """A function that embeds, and what it does; the first process exports the model, from other texts."""
    if way == "ours":
        return embedding.prepare(folder, way)
    rows, small = texts(), folder / "int8"
    if not small.exists():
        export.export(load(folder / "model", device="cpu"), small, texts(100, seed=9))
    lengths = [len(ids) for ids in tokenizer()(rows)["input_ids"]]
    embedder = load(small)
    facts = {"texts": len(rows), "tokens": sum(lengths), "flops": sum(flops(lengths))}
    return lambda: encode.encode(embedder, rows), facts
