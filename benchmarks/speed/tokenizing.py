"""Tokenisation of 256 texts, ten times over: what `lusifer embed` does beside what the authors' code does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from medium import texts, tokenizer

from lusifer import load
from lusifer.batching import cut
from lusifer.serving import encode

TIMES, BATCH = 10, 32


def ways() -> tuple[str, ...]:
    """Ours first."""
    return ("ours", "authors")


def prepare(folder: Path, way: str) -> tuple[Callable[[], int], dict[str, float]]:
    """A function that turns texts into padded batches of ids, and how many there are."""
    rows, own = texts(), tokenizer()
    tokens = sum(len(ids) for ids in own(rows)["input_ids"])
    facts = {"texts": TIMES * len(rows), "tokens": TIMES * tokens}
    if way == "authors":  # each text alone and twice, batches in their order, padded to a multiple of 8

        def once() -> int:
            ids, made = [own(text, truncation=True)["input_ids"] for text in rows for _ in range(2)][::2], 0
            for start in range(0, len(ids), BATCH):
                part = {"input_ids": ids[start : start + BATCH]}
                made += int(own.pad(part, pad_to_multiple_of=8, return_tensors="pt")["attention_mask"].sum())
            return made
    else:
        embedder = load(folder / "model", device="cpu")

        def once() -> int:  # counted first, so that batches can be cut, then each batch again by the library
            made = 0
            for batch in cut(encode.token_counts(embedder, rows), encode.BATCH_TOKENS["cpu"]):
                made += int(embedder.preprocess([rows[row] for row in batch])["attention_mask"].sum())
            return made

    return lambda: sum(once() for _ in range(TIMES)), facts
