"""Questions, the documents that are searched for them, and the rank of every needed document.

The search is exact: the score of a document is the highest cosine of the question with one of its passages. Cosines are
rounded to `DIGITS` decimals, so that equal texts get equal scores whatever the order of summation. Documents with equal
scores are in the order of the collection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

DIGITS = 6
"""Decimals of a cosine that are compared; float32 has about seven."""
CELLS = 16_000_000
"""Cosines in one block (64 MB)."""
UNKNOWN = "und"
"""Code of an unknown language in ISO 639."""


@dataclass(frozen=True)
class Question:
    """A question with the ids of its needed documents; a negative control, which nothing answers, has none."""

    id: str
    text: str
    language: str
    right: tuple[str, ...] = ()


@dataclass(frozen=True)
class SearchedDocument:
    """A document.

    Attributes:
        id: Its id.
        text: Its text; None only if vectors are given, as from an index without texts.
        language: The code of its language.
        passages: Texts that are embedded in place of the complete text.
    """

    id: str
    text: str | None
    language: str
    passages: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Searched:
    """Documents that are searched together.

    Attributes:
        documents: The documents, with distinct ids.
        vectors: Vectors of their passages, float, (p, d); None if the model still has to embed them.
        owners: Position in `documents` of the document of each vector, (p,), ascending.
        digests: Name of a source file -> its SHA-256.
        prompt: Function that chooses the prompt of questions from the saved prompts of a model (its result None: the
            default prompt). None for the prompt of the evaluation.
        notes: Messages for the user.
    """

    documents: tuple[SearchedDocument, ...]
    vectors: np.ndarray | None = None
    owners: np.ndarray | None = None
    digests: Mapping[str, str] = field(default_factory=dict)
    prompt: Callable[[Mapping[str, str]], str | None] | None = None
    notes: tuple[str, ...] = ()

    @cached_property
    def places(self) -> dict[str, int]:
        """Id -> position in `documents`."""
        return {each.id: place for place, each in enumerate(self.documents)}

    @cached_property
    def texts(self) -> tuple[list[str], np.ndarray]:
        """The texts to embed if no vectors are given, and the position in `documents` of each, int, (p,), ascending."""
        parts = [each.passages or (each.text or "",) for each in self.documents]
        owners = np.repeat(np.arange(len(parts)), [len(each) for each in parts])
        return [text for each in parts for text in each], owners

    def share(self, language: str, without: Iterable[str] = ()) -> float:
        """Compute the share of a language among the documents of known language.

        Args:
            language: The code of the language.
            without: Ids of documents that do not count.
        """
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
    """Questions and the documents that are searched for them."""

    questions: tuple[Question, ...]
    searched: Searched

    def of(self, language: str) -> QuestionSet:
        """Give the questions in a language, with the same documents."""
        return replace(self, questions=tuple(each for each in self.questions if each.language == language))


@dataclass(frozen=True)
class Ranked:
    """The result of a search for one question.

    Attributes:
        ranks: Rank of each needed document, from 1, in the order of `Question.right`.
        hits: Position in the collection and cosine of the first documents, best first.
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
        questions: Vectors of questions, float, (q, d).
        passages: Vectors of passages, float, (p, d).
        owners: Position of the document of each passage, int, (p,), ascending from 0 without a gap.
        needed: Positions of the needed documents of each question.
        depth: Number of hits to return for each question.
        cells: Maximum number of cosines in one block.

    Returns:
        One result for each question.
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
    """Rank the documents of one question by their scores."""
    ranks = tuple(
        1 + int((scores > scores[place]).sum()) + int((scores[:place] == scores[place]).sum()) for place in needed
    )
    depth = min(depth, len(scores))
    least = np.partition(scores, len(scores) - depth)[len(scores) - depth]
    near = np.flatnonzero(scores >= least)  # includes all ties for the last place; the order of documents decides
    top = near[np.lexsort((near, -scores[near]))][:depth]
    return Ranked(ranks, tuple((int(place), round(float(scores[place]), DIGITS)) for place in top))


def _units(vectors: np.ndarray) -> np.ndarray:
    """Normalize vectors to length 1; a zero vector stays."""
    vectors = np.asarray(vectors, dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1e-12)


def judged(ranks: Sequence[Sequence[int]], measures: Sequence[str]) -> dict[str, list[float]]:
    """Compute metrics of each question with pytrec_eval, which mteb uses too.

    Args:
        ranks: Ranks of the needed documents of each question, at least one.
        measures: Names of metrics in pytrec_eval, such as "ndcg_cut_10" and "success_1".

    Returns:
        Metric -> its value for each question.
    """
    import pytrec_eval

    # The name of a document is its rank, so that pytrec_eval does not break ties again. Documents after the last rank
    # that a metric reads can be left out.
    last = max(int(name.rpartition("_")[2]) for name in measures)
    listed = {str(place): -float(place) for place in range(1, last + 1)}
    wanted = {str(number): {str(place): 1 for place in each} for number, each in enumerate(ranks)}
    evaluator = pytrec_eval.RelevanceEvaluator(wanted, {".".join(name.rsplit("_", 1)) for name in measures})
    made = evaluator.evaluate(dict.fromkeys(wanted, listed))
    return {name: [made[str(number)][name] for number in range(len(ranks))] for name in measures}
