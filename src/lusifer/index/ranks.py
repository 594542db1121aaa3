"""Ranks: all vectors compared in memory, lists of two searches fused, passages merged to their documents."""

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
"""Documents that each of the two searches of a hybrid one hands in."""
RRF = 60
"""Of reciprocal rank fusion: a document at place r of a list gets 1 / (RRF + r)."""


@dataclass(frozen=True)
class Found:
    """A document that was found, by its best passage.

    `score` is the cosine of question and passage, None where only words were compared; `start` and `end` say where the
    passage `text` lies in the document, in characters. An index of vectors alone has no text. `calibrated` is the score
    that can be compared between languages, where it was asked for, and `language` then what its document was taken for;
    None: all languages count together in it, as the one of the document could not be told or is not in the statistics.
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
    """The vectors of one version in memory: `matrix` (n, d), each of length 1, the row and document of each."""

    matrix: np.ndarray
    rows: np.ndarray
    documents: np.ndarray
    ids: Any

    @cached_property
    def _order(self) -> np.ndarray:
        """Sorts `rows`: looked up in order, a few rows take microseconds."""
        return np.argsort(self.rows, kind="stable")

    def places(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Where some rows stand, ascending; those of another version are left out."""
        wanted = np.asarray(rows, dtype=np.uint64)
        found = np.searchsorted(self.rows, wanted, sorter=self._order)
        found, wanted = found[found < len(self.rows)], wanted[found < len(self.rows)]
        places = self._order[found]
        return np.sort(places[self.rows[places] == wanted])

    def scores(self, rows: Sequence[int], vector: np.ndarray) -> dict[int, float]:
        """The cosines of rows and a vector of length 1."""
        places = self.places(rows)
        return dict(zip(self.rows[places].tolist(), (self.matrix[places] @ vector).tolist(), strict=True))

    def best(self, vector: np.ndarray, depth: int, allowed: np.ndarray | None = None) -> list[tuple[str, int]]:
        """The `depth` nearest documents of a vector of length 1, and of each its nearest passage: (id, row)."""
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
    """Reciprocal rank fusion of ranked lists; one list stays as it is."""
    scores: dict[str, float] = {}
    for each in lists:
        for place, id in enumerate(each, start=1):
            scores[id] = scores.get(id, 0.0) + 1 / (RRF + place)
    return sorted(scores, key=lambda id: -scores[id])


def merged(find: Callable[[int], list[tuple[str, int]]], depth: int) -> list[tuple[str, int]]:
    """The first `depth` documents of a search for passages, each with its best one."""
    limit = 2 * depth
    while True:
        found = find(limit)
        best = dict(reversed(found))
        if len(best) >= depth or len(found) < limit:
            return [(id, best[id]) for id in dict.fromkeys(id for id, _ in found)][:depth]
        limit *= 4


def expected(vectors: Any, count: int, dimensions: int) -> np.ndarray:
    """Vectors of questions as an array (n, d).

    Raises:
        UsageError: They are of another shape than (count, dimensions), or not finite numbers.
    """
    words = f"give an array of shape ({count}, {dimensions}), a row for each question"
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
    """A row of the table as what a question found."""
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
    """The hits of one question.

    Args:
        table: The `PassageTable`, which nobody refreshes meanwhile.
        text: The question.
        vector: Of length 1; None where only words are compared.
        top_k: Documents, at most.
        where: A filter.
        allowed: The rows that it lets through, where all vectors are compared.
        mode: As for `Index.search`.
        approximate: Whether an approximate index names the candidates.
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
        rows = dict(each) | rows  # the passage that is nearest comes before the one with the words
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
    """The hits of one question that have `least` at least, with calibrated scores where `calibrate` gives them.

    `least` is of the calibrated score where there is one, else of the cosine.

    Raises:
        UsageError: It is no number.
    """
    if least is not None and math.isnan(least):
        raise UsageError("min_score: is not a number (NaN): give the least score, or leave it out")
    if calibrate is not None:
        judgements = [calibrate(each) for each in found]
        found = [replace(each, calibrated=s, language=code) for each, (s, code) in zip(found, judgements, strict=True)]
    scores = [each.score if calibrate is None else each.calibrated for each in found]
    return [each for each, score in zip(found, scores, strict=True) if least is None or score >= least]
