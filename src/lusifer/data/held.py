"""Pairs that a stage is scored on and does not train on: drawn from its own rows, or read from files of their own."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from lusifer.data import pairs, tables
from lusifer.data.pairs import PairSettings
from lusifer.data.schema import text_hash
from lusifer.prompts import prompt

if TYPE_CHECKING:
    from datasets import Dataset

FEWEST = 10
"""Fewer rows than these are not drawn from a stage's own: their score would be chance, and the rows are missed."""


@dataclass
class HeldPairs:
    """Queries, the texts among which their answers are looked for, and which those are, each with its prompt.

    `corpus` has every positive and negative once; `relevant` has the numbers of a query's positives. `rows` counts the
    pairs, `left_out` those that were not taken because training reads their query or a positive.
    """

    queries: dict[str, str] = field(default_factory=dict)
    corpus: dict[str, str] = field(default_factory=dict)
    relevant: dict[str, set[str]] = field(default_factory=dict)
    rows: int = 0
    left_out: int = 0

    def counts(self) -> dict[str, int]:
        """Rows, queries, documents and rows left out, for logs."""
        sizes = {"queries": len(self.queries), "documents": len(self.corpus)}
        return {"rows": self.rows, **sizes, "left_out": self.left_out}


def draw(rows: Sequence[Dataset], share: float, seed: int) -> list[np.ndarray]:
    """Draw pairs so that no query and no positive of them stands in another row.

    Rows that share one, in one set or in two, are drawn together or not at all.

    Args:
        rows: Sets of checked pairs.
        share: Of all rows; what is drawn is no more than that.
        seed: Of the draw.

    Returns:
        For each set whether its rows are drawn; none is where `share` gives fewer than `FEWEST` rows.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    owners, hashes, count = array("q"), array("Q"), sum(map(len, rows))
    for number, texts in enumerate(_texts(rows)):
        owners.extend([number] * len(texts))
        hashes.extend(texts)
    nodes = np.unique(np.asarray(hashes, dtype=np.uint64), return_inverse=True)[1] + count
    size = int(nodes.max(initial=count)) + 1
    graph = coo_matrix((np.ones(len(nodes), dtype=bool), (owners, nodes)), shape=(size, size))
    groups = connected_components(graph, directed=False)[1][:count]
    sizes, wanted, drawn = np.bincount(groups), round(share * count), []
    for group in np.random.default_rng(seed).permutation(len(sizes)):
        if sizes[group] <= wanted:
            drawn.append(group)
            wanted -= sizes[group]
    held = np.isin(groups, drawn)
    if held.sum() < FEWEST:
        held[:] = False
    return np.split(held, np.cumsum([len(table) for table in rows])[:-1])


def collect(parts: Iterable[tuple[Dataset, PairSettings]], learned: Iterable[str] = ()) -> HeldPairs:
    """Make what a model is scored on.

    Args:
        parts: Checked pairs, and what the recipe says of their instruction.
        learned: Texts that training reads; rows with one of them as query or positive are left out.
    """
    parts = list(parts)
    known = {each for texts in _texts([rows for rows, _ in parts]) for each in texts}
    seen = {each for text in learned if (each := text_hash(text)) in known}
    made = HeldPairs()
    queries: dict[str, str] = {}
    documents: dict[str, str] = {}
    for rows, source in parts:
        hashes = list(_texts([rows]))
        for (_, instruction, symmetric), numbers in pairs.groups(rows, source, split=False).items():
            before = prompt(instruction, "query"), prompt(instruction, "document", symmetric=symmetric)
            for number in map(int, numbers):
                if not seen.isdisjoint(hashes[number]):
                    made.left_out += 1
                    continue
                made.rows += 1
                (query,), (positives,), (negatives,) = (
                    tables.values(rows, column, [number]) for column in ("query", "positive", "negative")
                )
                asked = queries.setdefault(before[0] + query, f"q{len(queries)}")
                found = [documents.setdefault(before[1] + each, f"d{len(documents)}") for each in positives + negatives]
                made.relevant.setdefault(asked, set()).update(found[: len(positives)])
    made.queries = {name: text for text, name in queries.items()}
    made.corpus = {name: text for text, name in documents.items()}
    return made


def _texts(rows: Sequence[Dataset]) -> Iterable[list[int]]:
    """The hashes of query and positives of each row of all sets, one after the other."""
    for table in rows:
        for part in tables.chunks(table):
            columns = (tables.values(table, column, part) for column in ("query", "positive"))
            for query, positives in zip(*columns, strict=True):
                yield [text_hash(query), *map(text_hash, positives)]
