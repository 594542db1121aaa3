"""Embedding: 256 texts by each way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import peers
from medium import LONGEST, adapted, flops, texts, tokenizer
from sentence_transformers import SentenceTransformer

from lusifer import load
from lusifer.model.bases.backbones import compile_layers
from lusifer.serving import encode

Work = Callable[..., np.ndarray]


def ways() -> tuple[str, ...]:
    """Ours first."""
    return ("ours", "ours compiled", "pipeline merged", "pipeline merged, sorted", "pipeline", "authors")


def warm_up(work: Work) -> None:
    """Embed every eighth text: weights are read from their file, and the libraries have started."""
    work(8)


def embed(embedder: SentenceTransformer, rows: list[str]) -> np.ndarray:
    """What `lusifer embed` does with the rows of a file."""
    report = encode.EmbedReport(limit=embedder.max_seq_length)
    return encode.embed_rows(embedder, [("", text) for text in rows], report)


def prepare(folder: Path, way: str) -> tuple[Work, dict[str, float]]:
    """A function that embeds every text, or every n-th; and what it does: texts, tokens, useful operations."""
    rows, own = texts(), tokenizer()
    lengths = [len(ids) for ids in own(rows)["input_ids"]]
    facts = {"texts": len(rows), "tokens": sum(lengths), "flops": sum(flops(lengths))}
    if way == "authors":
        published = peers.Published(folder, adapted).eval()
        return lambda every=1: published.encode(own, rows[::every]), facts
    if way.startswith("pipeline"):
        chain = peers.chain(folder, adapted, merged="merged" in way).eval()
        if way.endswith("sorted"):  # as the library sorts: all texts in one call
            return lambda every=1: chain.encode(rows[::every], batch_size=32, show_progress_bar=False), facts
        parts = [rows[start : start + 32] for start in range(0, len(rows), 32)]
        return lambda every=1: np.concatenate([chain.encode(part, batch_size=32) for part in parts[::every]]), facts
    embedder = load(folder / "model", device="cpu", dtype="bfloat16" if way.endswith("bfloat16") else None)
    if way.endswith("compiled"):
        compile_layers(embedder)
    assert embedder.max_seq_length == LONGEST
    return lambda every=1: embed(embedder, rows[::every]), facts
