"""Rank documents: compare all vectors in memory, fuse the lists of two searches, merge passages to documents."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from lusifer.calibration.statistics import unit
from lusifer.errors import UsageError
from lusifer.index.documents import RESERVED

POOL = 100
"""How many documents each of the two searches of a hybrid search returns."""
RRF = 60
"""The constant of reciprocal rank fusion: a document at place r of a list gets 1 / (RRF + r)."""


@dataclass(frozen=True)
class Found:
    """A document that was found, with its best passage.

    id: The id of the document.
    score: The cosine of question and passage; None in keyword search.
    text: The passage; None in an index of vectors only.
    start, end: The place of the passage in the document, in characters.
    fields: The fields of the document.
    calibrated: The score that can be compared between languages, if it was requested.
    language: With `calibrated`, the language of the document. None if it is unknown or not in the statistics; then the
        score is by all languages together.
    """

    id: str
    score: float | None
    text: str | None
    start: int
    end: int
    fields: dict[str, Any]
    calibrated: float | None = None
    language: str | None = None


@dataclass(frozen=True)
class Snapshot:
    """The vectors of one version of a table in memory.

    matrix: (n, d) float32, each of length 1.
    rows: The row number of each vector, (n,) uint64.
    documents: The number of its document, (n,); `ids` has the ids of the documents.
    """

    matrix: np.ndarray
    rows: np.ndarray
    documents: np.ndarray
    ids: Any

    @cached_property
    def _order(self) -> np.ndarray:
        """The order that sorts `rows`, so that a few rows are found in microseconds."""
        return np.argsort(self.rows, kind="stable")

    def places(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the places of rows in `matrix`, ascending; rows of another version are left out."""
        wanted = np.asarray(rows, dtype=np.uint64)
        found = np.searchsorted(self.rows, wanted, sorter=self._order)
        found, wanted = found[found < len(self.rows)], wanted[found < len(self.rows)]
        places = self._order[found]
        return np.sort(places[self.rows[places] == wanted])

    def scores(self, rows: Sequence[int], vector: np.ndarray) -> dict[int, float]:
        """Return row -> its cosine with a vector of length 1, (d,)."""
        places = self.places(rows)
        return dict(zip(self.rows[places].tolist(), (self.matrix[places] @ vector).tolist(), strict=True))

    def best(self, vector: np.ndarray, depth: int, allowed: np.ndarray | None = None) -> list[tuple[str, int]]:
        """Find the nearest documents, each by its nearest passage.

        Args:
            vector: The question, (d,), of length 1.
            depth: How many documents.
            allowed: The row numbers to search; None: all.

        Returns:
            (id, row), best first.
        """
        scores = self.matrix @ vector
        chosen = slice(None) if allowed is None else self.places(allowed)
        scores, rows, documents = scores[chosen], self.rows[chosen], self.documents[chosen]
        take = depth
        while len(scores):
            take = min(take, len(scores))
            top = np.argpartition(scores, len(scores) - take)[len(scores) - take :]
            top = top[np.lexsort((rows[top], -scores[top]))]
            _, first = np.unique(documents[top], return_index=True)
            if len(first) >= depth or take == len(scores):
                best = top[np.sort(first)[:depth]]
                return [(self.ids[int(documents[row])].as_py(), int(rows[row])) for row in best]
            take *= 4
        return []


def fuse(lists: Sequence[Sequence[str]]) -> list[str]:
    """Fuse ranked lists of ids by reciprocal rank fusion; a single list is unchanged."""
    scores: dict[str, float] = {}
    for each in lists:
        for place, id in enumerate(each, start=1):
            scores[id] = scores.get(id, 0.0) + 1 / (RRF + place)
    return sorted(scores, key=lambda id: -scores[id])


def merged(find: Callable[[int], list[tuple[str, int]]], depth: int) -> list[tuple[str, int]]:
    """Collect documents from a search for passages, each with its best passage.

    Args:
        find: Number of passages -> (id, row), best first.
        depth: How many documents.
    """
    limit = 2 * depth
    while True:
        found = find(limit)
        best = dict(reversed(found))
        if len(best) >= depth or len(found) < limit:
            return [(id, best[id]) for id in dict.fromkeys(id for id, _ in found)][:depth]
        limit *= 4


def expected(vectors: Any, count: int, dimensions: int) -> np.ndarray:
    """Check given vectors of questions.

    Args:
        vectors: The vectors.
        count: The number of questions.
        dimensions: The number of dimensions of the index.

    Returns:
        (count, dimensions) float32.

    Raises:
        UsageError: They have another shape, or are not finite.
    """
    words = f"give an array of shape ({count}, {dimensions}), one row per question"
    try:
        made = np.asarray(vectors, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise UsageError(f"vectors: not an array of numbers: {words}") from error
    if made.shape != (count, dimensions):
        raise UsageError(f"vectors of shape {made.shape}: {words}")
    if not np.isfinite(made).all():
        raise UsageError("vectors: one is not finite (NaN): embed that question again")
    return made


def hit(row: dict[str, Any], score: float | None) -> Found:
    """Make a hit of a row of the table and its cosine."""
    fields = {name: value for name, value in row.items() if name not in RESERVED and value is not None}
    return Found(row["id"], score, row["text"], row["chunk_start"], row["chunk_end"], fields)


def one(
    table: Any,
    text: str,
    vector: np.ndarray | None,
    top_k: int,
    where: str | None,
    allowed: np.ndarray | None,
    mode: str,
    approximate: bool,
) -> list[Found]:
    """Find the hits of one question.

    Args:
        table: The `PassageTable`; it must not be refreshed meanwhile.
        text: The question.
        vector: Its vector, (d,), of length 1; None in keyword search.
        top_k: The most documents.
        where: A filter.
        allowed: The rows that pass the filter, if all vectors are compared.
        mode: As for `Index.search`.
        approximate: Whether candidates come from an approximate index.
    """
    depth = max(top_k, POOL) if mode == "hybrid" else top_k
    lists: list[list[tuple[str, int]]] = []
    if mode != "words" and approximate:
        lists.append(merged(lambda limit: table.by_vector(vector, where, limit), depth))
    elif mode != "words":
        lists.append(table.snapshot().best(vector, depth, allowed))
    if mode != "vector":
        lists.append(merged(lambda limit: table.by_words(text, where, limit), depth))
    rows: dict[str, int] = {}
    for each in lists:
        rows = dict(each) | rows  # the passage of the vector search has priority over that of the keyword search
    best = fuse([[id for id, _ in each] for each in lists])[:top_k]
    wanted = [rows[id] for id in best]
    found = table.take(wanted, approximate and vector is not None)
    if vector is None:
        scores = {}
    elif approximate:
        scores = {row: float(unit(found[row]["vector"][None], np.float32)[0] @ vector) for row in wanted}
    else:
        scores = table.snapshot().scores(wanted, vector)
    return [hit(found[row], scores.get(row)) for row in wanted]


def judged(
    found: Sequence[Found],
    calibrate: Callable[[Found], tuple[float, str | None]] | None = None,
    least: float | None = None,
) -> list[Found]:
    """Add calibrated scores to the hits of one question, and leave out hits below a score.

    Args:
        found: The hits.
        calibrate: Hit -> (calibrated score, language of the document), as `asking.scale` returns it; None: no
            calibrated scores.
        least: The lowest score of a hit: of the calibrated score if there is one, else of the cosine.

    Raises:
        UsageError: `least` is NaN.
    """
    if least is not None and math.isnan(least):
        raise UsageError("min_score: not a number (NaN): give the lowest score, or leave it out")
    if calibrate is not None:
        judgements = [calibrate(each) for each in found]
        found = [replace(each, calibrated=s, language=code) for each, (s, code) in zip(found, judgements, strict=True)]
    scores = [each.score if calibrate is None else each.calibrated for each in found]
    return [each for each, score in zip(found, scores, strict=True) if least is None or score >= least]
