"""Held-out pairs: a stage is scored on them and not trained on them; sampled from its rows or read from files."""

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
"""Fewer rows than these are not held out: their score would be random, and training would miss them."""


@dataclass
class HeldPairs:
    """A retrieval task of held-out pairs; all texts have their prompt.

    queries: Query id -> text.
    corpus: Document id -> text, with every positive and negative once.
    relevant: Query id -> the document ids of its positives.
    rows: The number of pairs.
    left_out: The number of pairs that are not in the task because training reads their query or a positive.
    """

    queries: dict[str, str] = field(default_factory=dict)
    corpus: dict[str, str] = field(default_factory=dict)
    relevant: dict[str, set[str]] = field(default_factory=dict)
    rows: int = 0
    left_out: int = 0

    def counts(self) -> dict[str, int]:
        """Return the counts of rows, queries, documents and rows left out, for logs."""
        sizes = {"queries": len(self.queries), "documents": len(self.corpus)}
        return {"rows": self.rows, **sizes, "left_out": self.left_out}


def draw(rows: Sequence[Dataset], share: float, seed: int) -> list[np.ndarray]:
    """Sample pairs whose queries and positives are in no other row.

    Rows that share a query or positive, in one dataset or in two, are sampled together or not at all.

    Args:
        rows: Datasets of checked pairs.
        share: The largest share of all rows to sample, from 0 to 1.
        seed: The seed.

    Returns:
        For each dataset a mask of the sampled rows, (n,) bool. All are False if fewer than `FEWEST` rows would be
        sampled.
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
    """Build the retrieval task that a model is scored on.

    Args:
        parts: Datasets of checked pairs, each with the settings of its source.
        learned: The texts of training. Rows with one of them as query or positive are left out.
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
    """The hashes of query and positives of each row, over all datasets in order."""
    for table in rows:
        for part in tables.chunks(table):
            columns = (tables.values(table, column, part) for column in ("query", "positive"))
            for query, positives in zip(*columns, strict=True):
                yield [text_hash(query), *map(text_hash, positives)]
