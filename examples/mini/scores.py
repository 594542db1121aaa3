"""Held-out scores: how often a sentence's nearest English sentence is its translation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from corpus import Row


def retrieval(left: torch.Tensor, right: torch.Tensor) -> float:
    """Share of rows of ``left`` whose nearest row of ``right`` by cosine is the row of the same number."""
    scores = functional.normalize(left, dim=-1) @ functional.normalize(right, dim=-1).T
    return (scores.argmax(dim=-1) == torch.arange(len(left))).float().mean().item()


def held_out_scores(
    held_out: dict[tuple[str, str], list[Row]], embed: Callable[[list[str]], torch.Tensor], source: str
) -> dict[str, float]:
    """Retrieval of the English sentence for every language of one held-out source, and ``mean``.

    ``embed`` turns n texts into an (n, width) tensor.
    """
    table: dict[str, float] = {}
    english: dict[str, torch.Tensor] = {}
    texts = sorted({row.english for (_, name), rows in held_out.items() if name == source for row in rows})
    if texts:
        english = dict(zip(texts, embed(texts), strict=True))
    for (language, name), rows in sorted(held_out.items()):
        if name == source:
            right = torch.stack([english[row.english] for row in rows])
            table[language] = round(retrieval(embed([row.other for row in rows]), right), 4)
    if table:
        table["mean"] = round(sum(table.values()) / len(table), 4)
    return table
