"""Questions, the documents that are searched for them, and where every needed document stands.

The search is exact: the cosine of a question with every passage, the best passage of a document counts. Cosines are
compared to `DIGITS` decimals, so that texts that are the same stand beside each other whatever the order of a sum;
documents with equal ones come in the order of the collection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

DIGITS = 6
"""Decimals of a cosine that count: float32 has about seven."""
CELLS = 16_000_000
"""Cosines of one block: 64 MB."""
UNKNOWN = "und"
"""In place of a language that is not known; ISO 639 has this code for it."""


@dataclass(frozen=True)
class Question:
    """A question and the ids of the documents that it needs; none of a negative control, which nothing answers."""

    id: str
    text: str
    language: str
    right: tuple[str, ...] = ()


@dataclass(frozen=True)
class SearchedDocument:
    """A document: its passages are embedded, each as a whole; without any its text is.

    `text` is None only where vectors are given, as in an index of vectors alone.
    """

    id: str
    text: str | None
    language: str
    passages: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Searched:
    """Documents, all searched together.

    Attributes:
        documents: The documents, none twice.
        vectors: Of passages that are embedded already, (p, d); None where the model embeds them.
        owners: The place in `documents` of each of these vectors, (p,), ascending.
        digests: SHA-256 by name of what they were read from.
        prompt: From a model's saved prompts what stands before a question (None: the model's default); where it is
            not given, what the evaluation has for it.
        notes: What to say of them.
    """

    documents: tuple[SearchedDocument, ...]
    vectors: np.ndarray | None = None
    owners: np.ndarray | None = None
    digests: Mapping[str, str] = field(default_factory=dict)
    prompt: Callable[[Mapping[str, str]], str | None] | None = None
    notes: tuple[str, ...] = ()

    @cached_property
    def places(self) -> dict[str, int]:
        """Id -> place in `documents`."""
        return {each.id: place for place, each in enumerate(self.documents)}

    @cached_property
    def texts(self) -> tuple[list[str], np.ndarray]:
        """What is embedded where no vectors are given, and the place in `documents` of each, ascending."""
        parts = [each.passages or (each.text or "",) for each in self.documents]
        owners = np.repeat(np.arange(len(parts)), [len(each) for each in parts])
        return [text for each in parts for text in each], owners

    def share(self, language: str, without: Iterable[str] = ()) -> float:
        """Which share of the documents of known language is in this one, but for those with the ids `without`."""
        gone = [self.documents[self.places[id]].language for id in set(without)]
        left = len(self.documents) - self._counts.get(UNKNOWN, 0) - sum(code != UNKNOWN for code in gone)
        return (self._counts.get(language, 0) - gone.count(language)) / left if left else 0.0

    @cached_property
    def _counts(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for each in self.documents:
            found[each.language] = found.get(each.language, 0) + 1
        return found


@dataclass(frozen=True, eq=False)
class QuestionSet:
    """Questions and what is searched for them."""

    questions: tuple[Question, ...]
    searched: Searched

    def of(self, language: str) -> QuestionSet:
        """The questions in a language, over the same documents."""
        return replace(self, questions=tuple(each for each in self.questions if each.language == language))


@dataclass(frozen=True)
class Ranked:
    """What a search gave for one question.

    Attributes:
        ranks: The place of each needed document, from 1, in the order of `Question.right`.
        hits: The first documents, best first: place in the collection and cosine.
    """

    ranks: tuple[int, ...]
    hits: tuple[tuple[int, float], ...]


def rank(
    questions: np.ndarray,
    passages: np.ndarray,
    owners: np.ndarray,
    needed: Sequence[Sequence[int]],
    depth: int,
    cells: int = CELLS,
) -> list[Ranked]:
    """Search all documents for each question.

    Args:
        questions: Vectors (q, d).
        passages: Vectors (p, d).
        owners: The document of each passage, (p,), ascending from 0 without a gap.
        needed: Of each question the documents that it needs.
        depth: How many hits are kept.
        cells: The most cosines of one block.

    Returns:
        One for each question.
    """
    found: list[Ranked] = []
    units, starts = _units(passages), np.flatnonzero(np.diff(owners, prepend=-1))
    step = max(1, cells // max(1, len(passages)))
    for start in range(0, len(questions), step):
        cosines = _units(questions[start : start + step]) @ units.T
        best = np.maximum.reduceat(cosines, starts, axis=1).round(DIGITS)
        found += [_ranked(row, right, depth) for row, right in zip(best, needed[start : start + step], strict=True)]
    return found


def _ranked(scores: np.ndarray, needed: Sequence[int], depth: int) -> Ranked:
    """One question: the scores of all documents."""
    ranks = tuple(
        1 + int((scores > scores[place]).sum()) + int((scores[:place] == scores[place]).sum()) for place in needed
    )
    depth = min(depth, len(scores))
    least = np.partition(scores, len(scores) - depth)[len(scores) - depth]
    near = np.flatnonzero(scores >= least)  # all that share the last place, so that their order decides
    top = near[np.lexsort((near, -scores[near]))][:depth]
    return Ranked(ranks, tuple((int(place), round(float(scores[place]), DIGITS)) for place in top))


def _units(vectors: np.ndarray) -> np.ndarray:
    """The same vectors, each of length 1; one without a direction stays."""
    vectors = np.asarray(vectors, dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1e-12)


def judged(ranks: Sequence[Sequence[int]], measures: Sequence[str]) -> dict[str, list[float]]:
    """Measures of each question, by the library that mteb uses as well.

    Args:
        ranks: Of each question the places of the documents that it needs, at least one.
        measures: As pytrec_eval has them: "ndcg_cut_10", "success_1".

    Returns:
        Measure -> a value for each question.
    """
    import pytrec_eval

    # A document is named by its place, so that no tie is broken anew; what stands behind the last place that a measure
    # looks at need not be in the list.
    last = max(int(name.rpartition("_")[2]) for name in measures)
    listed = {str(place): -float(place) for place in range(1, last + 1)}
    wanted = {str(number): {str(place): 1 for place in each} for number, each in enumerate(ranks)}
    evaluator = pytrec_eval.RelevanceEvaluator(wanted, {".".join(name.rsplit("_", 1)) for name in measures})
    made = evaluator.evaluate(dict.fromkeys(wanted, listed))
    return {name: [made[str(number)][name] for number in range(len(ranks))] for name in measures}
