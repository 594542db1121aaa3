"""Embedding with int8 weights and products (`lusifer export`), beside float32."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path

import embedding
import numpy as np
from medium import flops, texts, tokenizer

from lusifer import load
from lusifer.embedder import int8


def ways() -> tuple[str, ...]:
    """Ours first."""
    return ("ours int8", "ours")


warm_up = embedding.warm_up


def prepare(folder: Path, way: str) -> tuple[Callable[..., np.ndarray], dict[str, float]]:
    """A function that embeds, and what it does; the first process exports the model, from other texts."""
    if way == "ours":
        return embedding.prepare(folder, way)
    rows, small = texts(), folder / "int8"
    exported(str(folder / "model"), small, texts(100, seed=9))
    lengths = [len(ids) for ids in tokenizer()(rows)["input_ids"]]
    embedder = load(small)
    facts = {"texts": len(rows), "tokens": sum(lengths), "flops": sum(flops(lengths))}
    return lambda every=1: embedding.embed(embedder, rows[::every]), facts


def exported(place: str, target: Path, rows: list[str]) -> None:
    """Export a model where that has not been done, in a process of its own: its memory is not that of embedding."""
    if not target.exists():
        process = multiprocessing.get_context("spawn").Process(target=_export, args=(place, target, rows))
        process.start()
        process.join()
        if process.exitcode:
            raise RuntimeError(f"export of {place} ended with {process.exitcode}")


def _export(place: str, target: Path, rows: list[str]) -> None:
    int8.export(load(place, device="cpu"), target, rows)
