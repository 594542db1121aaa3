"""Choose the negatives of each row from the texts that are nearest to its query.

Rows are done in blocks. Each block is a file until all are there, so that work that was stopped goes on.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from lusifer.data import tables
from lusifer.data.counts import EXAMPLES, RowCounts
from lusifer.data.mining.corpus import Corpus, KnownAnswers
from lusifer.data.mining.vectors import release
from lusifer.data.schema import Row, text_hash
from lusifer.errors import DataError, UsageError
from lusifer.io.atomic import write_file
from lusifer.io.jsonfile import read_json, write_json

if TYPE_CHECKING:
    from datasets import Dataset

ROWS = 2048  # of a block
SLACK = 64  # texts searched beyond those that are kept: the row's own answers are among them
KNOWN = "candidates dropped: a text of the row, or one that shares its answer"
TOP = "candidates skipped: nearest to the query"
MARGIN = "candidates dropped: too near beside the positive (margin)"
SHARE = "candidates dropped: too near beside the positive (percentage)"
CROSS = "candidates dropped: the cross-encoder puts them beside the positive"
FULL, SHORT = "rows with all their negatives", "rows with fewer negatives than asked for"
NONE = "rows without any negative"
EVERY_SOURCE = "rows given texts of all sources: their own has too few"
ALONE = "rows left out: no other text has their label"
GIVEN = "negatives that the rows had and keep"
MINED = "negatives mined"

FOUND = np.dtype([("score", np.float32), ("number", np.int32)])
"""A text that a search found: its similarity to the query, and its number in the corpus."""
Rescore = Callable[[Sequence[tuple[str, str]]], np.ndarray]
"""(Query, text) pairs -> (n,) scores of a cross-encoder, higher for texts that answer the query."""


@dataclass(frozen=True)
class MineSettings:
    """How negatives are chosen.

    `skip` nearest texts are not taken, because many are answers that are not marked as such; the next `keep` may be
    (published: 30 and 128). Where labels decide, `label_ranks` are the first and last rank instead (published: 20 to
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
        """Number of texts to search for each query."""
        return self.ranks[1] + SLACK

    def limits(self, lowest: float) -> Iterator[tuple[str, float]]:
        """Yield (reason, highest similarity of a negative), given the lowest similarity of a positive."""
        if self.margin is not None:
            yield MARGIN, lowest - self.margin
        if self.percentage is not None:
            yield SHARE, lowest * self.percentage if lowest > 0 else lowest


@dataclass
class Pool:
    """The candidates of one row that are left, in the order in which they are taken, and their similarities."""

    query: str
    positives: list[str]
    numbers: np.ndarray
    scores: np.ndarray
    given: list[str]
    wanted: int


@dataclass(frozen=True)
class Chooser:
    """Chooses the negatives of some rows and counts the candidates that it drops.

    Args:
        settings: How to choose.
        text: Candidate numbers -> texts of negatives.
        rescore: A cross-encoder, or None.
        counts: Where to count.
    """

    settings: MineSettings
    text: Callable[[Sequence[int]], list[str]]
    rescore: Rescore | None
    counts: RowCounts

    def pool(self, number: int, row: Row, found: np.ndarray, banned: np.ndarray, lowest: float) -> Pool:
        """Rank, cut and filter the candidates of a row.

        Args:
            number: Number of the row, for random choices.
            row: The row; negatives that it has count.
            found: (depth,) of `FOUND`, by descending score; number -1 stands for none.
            banned: (depth,) bool, whether the candidate is one of the query's own answers.
            lowest: Lowest similarity of a positive; only for margin and percentage.
        """
        real = found["number"] >= 0
        numbers, scores = found["number"][real], found["score"][real]
        wanted = max(0, self.settings.negatives - len(row["negative"]))
        pool = Pool(row["query"], row["positive"], numbers, scores, row["negative"], wanted)
        self._drop(pool, KNOWN, banned[real])
        first, last = self.settings.ranks
        self._drop(pool, TOP, np.arange(len(pool.numbers)) < first)
        pool.numbers, pool.scores = pool.numbers[: last - first], pool.scores[: last - first]
        for reason, limit in self.settings.limits(lowest):
            self._drop(pool, reason, pool.scores > limit)
        if self.settings.choose == "random":
            order = np.random.default_rng([self.settings.seed, number]).permutation(len(pool.numbers))
            pool.numbers, pool.scores = pool.numbers[order], pool.scores[order]
        return pool

    def choose(self, pools: Sequence[Pool]) -> list[list[tuple[str, float]]]:
        """Take as many texts of each pool as its row lacks, the first that the cross-encoder lets pass.

        Args:
            pools: Of some rows. The cross-encoder reads candidates only as long as negatives are missing.

        Returns:
            For each row, the chosen texts and their similarities.
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
                    self.counts.count(CROSS, *pairs[at], f"{scores[at]:.3f}, positive {lowest[number]:.3f}")
                else:
                    chosen[number].append((texts[at], float(pools[number].scores[place])))

    def _lowest(self, pools: Sequence[Pool]) -> list[float]:
        """The cross-encoder's lowest score of a positive, by row."""
        if self.rescore is None:
            return [np.inf] * len(pools)
        pairs = [(each.query, text) for each in pools for text in each.positives]
        scores = iter(self.rescore(pairs) if pairs else ())
        return [min((float(next(scores)) for _ in each.positives), default=np.inf) for each in pools]

    def _drop(self, pool: Pool, reason: str, which: np.ndarray) -> None:
        """Take candidates out of a pool, count them, and keep the nearest as an example."""
        if not (number := int(which.sum())):
            return
        example: tuple[str, ...] = ()
        if len(self.counts.examples.get(reason, ())) < EXAMPLES:
            first = int(np.flatnonzero(which)[0])
            example = (pool.query, *self.text([int(pool.numbers[first])]), f"{pool.scores[first]:.3f}")
        self.counts.count(reason, *example, by=number)
        pool.numbers, pool.scores = pool.numbers[~which], pool.scores[~which]


@dataclass(frozen=True)
class RowBlocks:
    """All that the negatives of the rows depend on, and the files of the blocks that are done.

    Args:
        folder: Where the files are.
        table: Checked pairs; those of a labelled set have no positive yet.
        corpus: The candidates.
        answers: Which texts are answers of a query; None where labels decide.
        found: (rows, depth) of `FOUND`, the nearest candidates of each row.
        lowest: Row number, positives -> lowest similarity of a positive.
        rescore: A cross-encoder, or None.
        settings: How to choose.
    """

    folder: Path
    table: Dataset
    corpus: Corpus
    answers: KnownAnswers | None
    found: np.ndarray
    lowest: Callable[[int, list[str]], float]
    rescore: Rescore | None
    settings: MineSettings

    def write(self, progress: Callable[[int, int], None]) -> RowCounts:
        """Write the blocks that are missing.

        Returns:
            The counts of all blocks.

        Raises:
            DataError: No row could be given a negative.
        """
        counts = RowCounts("Mined negatives")
        counts.count("rows read", by=len(self.table))
        counts.count("candidates", by=len(self.corpus))
        self._count_small_sources(counts)
        labels = self._rows_by_label() if self.settings.labels else {}
        for start in range(0, len(self.table), ROWS):
            file, counts_file = self._file(start), self._file(start).with_suffix(".json")
            if not counts_file.is_file():
                block = RowCounts("block")
                with write_file(file) as temporary, temporary.open("wb") as stream:
                    stream.writelines(map(tables.json_line, self._block(start, labels, block)))
                write_json(counts_file, [block.counts, block.examples])
            release(self.found)
            counts.merge(*read_json(counts_file, f"remove {self.folder}"))
            progress(min(start + ROWS, len(self.table)), len(self.table))
        if not {FULL, SHORT} & set(counts.counts):
            raise DataError(
                "no row could be given a negative: texts of another label are missing, or margin, percentage and "
                "cross-encoder leave none; nothing is written"
            )
        return counts

    def read(self) -> Iterator[Row]:
        """Yield the rows of all blocks, in their order."""
        for start in range(0, len(self.table), ROWS):
            with self._file(start).open("rb") as stream:
                yield from map(json.loads, stream)

    def _file(self, start: int) -> Path:
        return self.folder / f"part-{start // ROWS:06d}.jsonl"

    def _block(
        self, start: int, labels: dict[tuple[str | None, str | None], list[int]], counts: RowCounts
    ) -> list[Row]:
        """The rows from `start` on, with their negatives."""
        chooser = Chooser(self.settings, self.corpus.negatives, self.rescore, counts)
        kept: list[Row] = []
        pools: list[Pool] = []
        for number, row in enumerate(self.table.data.slice(start, ROWS).to_pylist(), start=start):
            if not row["positive"] and not self._give_positive(number, row, labels):
                counts.count(ALONE, row["query"], str(row["label"]))
                continue
            row["negative"] = [] if self.settings.replace else row["negative"]
            kept.append(row)
            pools.append(self._pool(number, row, chooser))
        for row, chosen in zip(kept, chooser.choose(pools)):
            self._count_row(row, chosen, counts)
            row["negative"] = [*row["negative"], *(text for text, _ in chosen)]
        return kept

    def _pool(self, number: int, row: Row, chooser: Chooser) -> Pool:
        found = self.found[number]
        own = {text_hash(text) for text in (row["query"], *row["positive"], *row["negative"])}
        if self.answers is not None:
            own |= self.answers.of(text_hash(row["query"]))
        hashes = self.corpus.hashes[np.maximum(found["number"], 0)]
        banned = np.isin(hashes, np.fromiter(own, dtype=np.uint64))
        # One text of two sources is two candidates: only the first of them counts.
        banned[np.setdiff1d(np.arange(len(hashes)), np.unique(hashes, return_index=True)[1])] = True
        return chooser.pool(number, row, found, banned, self.lowest(number, row["positive"]))

    def _count_row(self, row: Row, chosen: list[tuple[str, float]], counts: RowCounts) -> None:
        counts.count(GIVEN, by=len(row["negative"]))
        counts.count(MINED, by=len(chosen))
        words = (f"- {text} ({score:.3f})" for text, score in chosen)
        count = len(row["negative"]) + len(chosen)
        reason = FULL if count >= self.settings.negatives else SHORT if count else NONE
        counts.count(reason, row["query"], f"+ {row['positive'][0]}", *words)

    def _count_small_sources(self, counts: RowCounts) -> None:
        """Count the rows whose own source has too few texts to choose from, and name those sources."""
        if self.settings.labels or not self.settings.by_source:
            return
        sources = (each.data.column("source").value_counts().to_pylist() for each in (self.table, self.corpus.table))
        rows, texts = ({each["values"]: each["counts"] for each in some} for some in sources)
        for source, count in rows.items():
            found = texts.get(source, 0)
            if found < min(self.settings.ranks[1], len(self.corpus)):
                example = f"{source or 'rows without a source'}: {count:,} rows, {found:,} texts"
                counts.count(EVERY_SOURCE, example, by=count)

    def _rows_by_label(self) -> dict[tuple[str | None, str | None], list[int]]:
        """(Source, label) -> the numbers of its rows."""
        groups: dict[tuple[str | None, str | None], list[int]] = {}
        columns = (tables.values(self.table, column, slice(None)) for column in ("source", "label"))
        for number, name in enumerate(zip(*columns)):
            groups.setdefault(name, []).append(number)
        return groups

    def _give_positive(self, number: int, row: Row, labels: dict[tuple[str | None, str | None], list[int]]) -> bool:
        """Draw another text of the row's label as its positive; False where there is none."""
        group = labels[row["source"], row["label"]]
        generator = random.Random(f"{self.settings.seed}/{number}")
        for other in generator.sample(group, len(group)):  # nearly always the first one or two
            text = tables.values(self.table, "query", [other])[0]
            if text_hash(text) != text_hash(row["query"]):
                row["positive"] = [text]
                return True
        return False
