"""Which of the nearest texts become a row's negatives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lusifer.data.report import EXAMPLES, Report
from lusifer.errors import UsageError

SLACK = 64  # texts searched beyond those that are kept: a row's own answers stand among them
KNOWN = "candidates dropped: a text of the row, or one that shares its answer"
TOP = "candidates skipped: nearest to the query"
MARGIN = "candidates dropped: too near beside the positive (margin)"
SHARE = "candidates dropped: too near beside the positive (percentage)"
CROSS = "candidates dropped: the cross-encoder puts them beside the positive"
FULL, SHORT = "rows with all their negatives", "rows with fewer negatives than asked for"
NONE = "rows without any negative"

Rescore = Callable[[Sequence[tuple[str, str]]], np.ndarray]
"""(Query, text) pairs -> a score each, higher for texts that answer; a cross-encoder."""


@dataclass(frozen=True)
class MineSettings:
    """How negatives are chosen.

    `skip` and `keep`: the nearest texts that are passed over, being answers nobody has marked, and how many after them
    may become negatives (published: 30 and 128). `label_ranks` stands for both where labels decide (published: 20 to
    140). `margin`, `percentage`: a negative's similarity is at most the lowest of a positive minus the margin, or times
    the percentage (0.95: NV-Retriever). `cross_margin`: the same for a cross-encoder's scores. `by_source`: only texts
    of the row's own source, unless that has fewer than `skip` and `keep` together.
    """

    negatives: int = 7
    skip: int = 30
    keep: int = 128
    label_ranks: tuple[int, int] = (20, 140)
    margin: float | None = None
    percentage: float | None = None
    cross_margin: float = 0.0
    choose: Literal["random", "top"] = "random"
    replace: bool = False
    by_source: bool = True
    labels: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse ranks that leave nothing."""
        if self.label_ranks[0] >= self.label_ranks[1]:
            first, last = self.label_ranks
            raise UsageError(f"--label-ranks {first} {last}: leaves no rank: give the lower one first")

    @property
    def ranks(self) -> tuple[int, int]:
        """First and last rank that may become a negative, from 0, the last one not included."""
        return self.label_ranks if self.labels else (self.skip, self.skip + self.keep)

    @property
    def depth(self) -> int:
        """Texts to search for each query."""
        return self.ranks[1] + SLACK


@dataclass
class Pool:
    """What is left for one row, in the order in which it is taken: candidate numbers and their similarity."""

    query: str
    positives: list[str]
    numbers: np.ndarray
    scores: np.ndarray
    given: list[str]
    wanted: int


class Chooser:
    """Chooses the negatives of some rows and counts what it drops."""

    def __init__(
        self,
        settings: MineSettings,
        text: Callable[[Sequence[int]], list[str]],
        rescore: Rescore | None,
        report: Report,
    ) -> None:
        """Take the settings, candidate numbers -> what is written, a cross-encoder if there is one, and the report."""
        self.settings, self.text, self.rescore, self.report = settings, text, rescore, report

    def pool(
        self,
        row: int,
        query: str,
        positives: list[str],
        found: tuple[np.ndarray, np.ndarray],
        banned: np.ndarray,
        lowest: float,
        given: list[str],
    ) -> Pool:
        """Rank, cut and filter what was found for a row.

        Args:
            row: Its number, for what is drawn.
            query: Its text.
            positives: Its positives.
            found: Scores and candidate numbers, descending; -1 stands for none.
            banned: Of each, whether it belongs to the query's own answers.
            lowest: Similarity of the positive that is furthest from the query; only for margin and percentage.
            given: Negatives that the row has.
        """
        scores, numbers = found
        real = numbers >= 0
        wanted = max(0, self.settings.negatives - len(given))
        left = Pool(query, positives, numbers[real], scores[real], given, wanted)
        self._drop(left, KNOWN, banned[real])
        first, last = self.settings.ranks
        self._drop(left, TOP, np.arange(len(left.numbers)) < first)
        left.numbers, left.scores = left.numbers[: last - first], left.scores[: last - first]
        for reason, limit in _limits(lowest, self.settings):
            self._drop(left, reason, left.scores > limit)
        if self.settings.choose == "random":
            order = np.random.default_rng([self.settings.seed, row]).permutation(len(left.numbers))
            left.numbers, left.scores = left.numbers[order], left.scores[order]
        return left

    def take(self, pools: Sequence[Pool]) -> list[list[tuple[str, float]]]:
        """Take the first of each pool that stand the test, as many as the row lacks; gives text and similarity.

        The cross-encoder reads candidates only as long as negatives are missing.
        """
        chosen: list[list[tuple[str, float]]] = [[] for _ in pools]
        places = [0] * len(pools)
        lowest = self._lowest(pools)
        while True:
            asked = []
            for number, each in enumerate(pools):
                stop = min(places[number] + each.wanted - len(chosen[number]), len(each.numbers))
                asked += [(number, place) for place in range(places[number], stop)]
                places[number] = stop
            if not asked:
                return chosen
            texts = self.text([int(pools[number].numbers[place]) for number, place in asked])
            pairs = [(pools[number].query, words) for (number, _), words in zip(asked, texts)]
            scores = self.rescore(pairs) if self.rescore is not None else None
            for at, (number, place) in enumerate(asked):
                limit = lowest[number] - self.settings.cross_margin
                taken = {*pools[number].positives, *pools[number].given, *(text for text, _ in chosen[number])}
                if texts[at] in taken:
                    continue  # two texts may have one translation
                if scores is not None and not scores[at] <= limit:
                    self.report.count(CROSS, *pairs[at], f"{scores[at]:.3f}, positive {lowest[number]:.3f}")
                else:
                    chosen[number].append((texts[at], float(pools[number].scores[place])))

    def _lowest(self, pools: Sequence[Pool]) -> list[float]:
        """The cross-encoder's lowest score of a positive, by row."""
        if self.rescore is None:
            return [np.inf] * len(pools)
        pairs = [(each.query, text) for each in pools for text in each.positives]
        scores = iter(self.rescore(pairs) if pairs else ())
        return [min((float(next(scores)) for _ in each.positives), default=np.inf) for each in pools]

    def _drop(self, left: Pool, reason: str, which: np.ndarray) -> None:
        """Take candidates out of a pool, count them, and keep the nearest as an example."""
        if not (number := int(which.sum())):
            return
        example: tuple[str, ...] = ()
        if len(self.report.examples.get(reason, ())) < EXAMPLES:
            first = int(np.flatnonzero(which)[0])
            example = (left.query, *self.text([int(left.numbers[first])]), f"{left.scores[first]:.3f}")
        self.report.count(reason, *example, by=number)
        left.numbers, left.scores = left.numbers[~which], left.scores[~which]


def _limits(lowest: float, settings: MineSettings) -> list[tuple[str, float]]:
    limits = []
    if settings.margin is not None:
        limits.append((MARGIN, lowest - settings.margin))
    if settings.percentage is not None:
        limits.append((SHARE, lowest * settings.percentage if lowest > 0 else lowest))
    return limits
