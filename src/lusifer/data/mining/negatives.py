"""Choose the negatives of each row from the texts that are nearest to its query.

Rows are done in blocks. Each block is a file until all are there, so that work that was stopped goes on.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from lusifer.data import tables
from lusifer.data.answers import KnownAnswers
from lusifer.data.mining.corpus import Corpus
from lusifer.data.mining.vectors import release
from lusifer.data.schema import Row, text_hash
from lusifer.data.tables import EXAMPLES, RowCounts
from lusifer.errors import DataError, UsageError
from lusifer.io.files import read_json, write_file, write_json

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
class _Pool:
    """The candidates of one row that are left, in the order in which they are taken."""

    row: Row
    numbers: np.ndarray
    scores: np.ndarray
    wanted: int


@dataclass(frozen=True)
class Chooser:
    """Chooses the negatives of rows.

    Args:
        table: Checked pairs; those of a labelled set have no positive yet.
        corpus: The candidates.
        answers: Which texts are answers of a query; None where labels decide.
        found: (rows, depth) of `FOUND`, by descending score; number -1 stands for none.
        lowest: Row number, positives -> lowest similarity of a positive.
        rescore: A cross-encoder, or None.
        settings: How to choose.
    """

    table: Dataset
    corpus: Corpus
    answers: KnownAnswers | None
    found: np.ndarray
    lowest: Callable[[int, list[str]], float]
    rescore: Rescore | None
    settings: MineSettings

    def block(self, start: int, counts: RowCounts) -> list[Row]:
        """Give the `ROWS` rows from `start` on with their negatives, and count what was dropped and why."""
        kept: list[Row] = []
        pools: list[_Pool] = []
        for number, row in enumerate(self.table.data.slice(start, ROWS).to_pylist(), start=start):
            if not row["positive"] and not self._give_positive(number, row):
                counts.count(ALONE, row["query"], str(row["label"]))
                continue
            row["negative"] = [] if self.settings.replace else row["negative"]
            kept.append(row)
            pools.append(self._pool(number, row, counts))
        for row, chosen in zip(kept, self._choose(pools, counts)):
            counts.count(GIVEN, by=len(row["negative"]))
            counts.count(MINED, by=len(chosen))
            count = len(row["negative"]) + len(chosen)
            reason = FULL if count >= self.settings.negatives else SHORT if count else NONE
            words = (f"- {text} ({score:.3f})" for text, score in chosen)
            counts.count(reason, row["query"], f"+ {row['positive'][0]}", *words)
            row["negative"] = [*row["negative"], *(text for text, _ in chosen)]
        return kept

    def count_small_sources(self, counts: RowCounts) -> None:
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

    def _pool(self, number: int, row: Row, counts: RowCounts) -> _Pool:
        """Rank, cut and filter the candidates of a row."""
        found = self.found[number]
        own = {text_hash(text) for text in (row["query"], *row["positive"], *row["negative"])}
        if self.answers is not None:
            own |= self.answers.of(text_hash(row["query"]))
        hashes = self.corpus.hashes[np.maximum(found["number"], 0)]
        banned = np.isin(hashes, np.fromiter(own, dtype=np.uint64))
        # One text of two sources is two candidates: only the first of them counts.
        banned[np.setdiff1d(np.arange(len(hashes)), np.unique(hashes, return_index=True)[1])] = True
        real = found["number"] >= 0
        wanted = max(0, self.settings.negatives - len(row["negative"]))
        pool = _Pool(row, found["number"][real], found["score"][real], wanted)
        self._drop(pool, KNOWN, banned[real], counts)
        first, last = self.settings.ranks
        self._drop(pool, TOP, np.arange(len(pool.numbers)) < first, counts)
        pool.numbers, pool.scores = pool.numbers[: last - first], pool.scores[: last - first]
        for reason, limit in self.settings.limits(self.lowest(number, row["positive"])):
            self._drop(pool, reason, pool.scores > limit, counts)
        if self.settings.choose == "random":
            order = np.random.default_rng([self.settings.seed, number]).permutation(len(pool.numbers))
            pool.numbers, pool.scores = pool.numbers[order], pool.scores[order]
        return pool

    def _choose(self, pools: Sequence[_Pool], counts: RowCounts) -> list[list[tuple[str, float]]]:
        """The texts and similarities that each row lacks: the first of its pool that the cross-encoder lets pass.

        The cross-encoder reads candidates only as long as negatives are missing.
        """
        chosen: list[list[tuple[str, float]]] = [[] for _ in pools]
        places = [0] * len(pools)
        lowest = self._lowest_cross(pools)
        while True:
            asked = []
            for number, pool in enumerate(pools):
                stop = min(places[number] + pool.wanted - len(chosen[number]), len(pool.numbers))
                asked += [(number, place) for place in range(places[number], stop)]
                places[number] = stop
            if not asked:
                return chosen
            texts = self.corpus.texts([int(pools[number].numbers[place]) for number, place in asked])
            pairs = [(pools[number].row["query"], text) for (number, _), text in zip(asked, texts)]
            scores = self.rescore(pairs) if self.rescore is not None else None
            for at, (number, place) in enumerate(asked):
                limit = lowest[number] - self.settings.cross_margin
                if scores is not None and not scores[at] <= limit:
                    counts.count(CROSS, *pairs[at], f"{scores[at]:.3f}, positive {lowest[number]:.3f}")
                else:
                    chosen[number].append((texts[at], float(pools[number].scores[place])))

    def _lowest_cross(self, pools: Sequence[_Pool]) -> list[float]:
        """The cross-encoder's lowest score of a positive, by row."""
        if self.rescore is None:
            return [np.inf] * len(pools)
        pairs = [(pool.row["query"], text) for pool in pools for text in pool.row["positive"]]
        scores = iter(self.rescore(pairs) if pairs else ())
        return [min((float(next(scores)) for _ in pool.row["positive"]), default=np.inf) for pool in pools]

    def _drop(self, pool: _Pool, reason: str, which: np.ndarray, counts: RowCounts) -> None:
        """Take candidates out of a pool, count them, and keep the nearest as an example."""
        if not (number := int(which.sum())):
            return
        example: tuple[str, ...] = ()
        if len(counts.examples.get(reason, ())) < EXAMPLES:
            first = int(np.flatnonzero(which)[0])
            text = self.corpus.texts([int(pool.numbers[first])])
            example = (pool.row["query"], *text, f"{pool.scores[first]:.3f}")
        counts.count(reason, *example, by=number)
        pool.numbers, pool.scores = pool.numbers[~which], pool.scores[~which]

    @cached_property
    def _rows_by_label(self) -> dict[tuple[str | None, str | None], list[int]]:
        """(Source, label) -> the numbers of its rows."""
        groups: dict[tuple[str | None, str | None], list[int]] = {}
        columns = (tables.values(self.table, column, slice(None)) for column in ("source", "label"))
        for number, name in enumerate(zip(*columns)):
            groups.setdefault(name, []).append(number)
        return groups

    def _give_positive(self, number: int, row: Row) -> bool:
        """Draw another text of the row's label as its positive; False where there is none."""
        group = self._rows_by_label[row["source"], row["label"]]
        generator = random.Random(f"{self.settings.seed}/{number}")
        for other in generator.sample(group, len(group)):  # nearly always the first one or two
            text = tables.values(self.table, "query", [other])[0]
            if text_hash(text) != text_hash(row["query"]):
                row["positive"] = [text]
                return True
        return False


def write_blocks(folder: Path, chooser: Chooser, progress: Callable[[int, int], None]) -> RowCounts:
    """Write the blocks of rows with negatives that are missing in a folder; return the counts of all blocks.

    Raises:
        DataError: No row could be given a negative.
    """
    counts, total = RowCounts("Mined negatives"), len(chooser.table)
    counts.count("rows read", by=total)
    counts.count("candidates", by=len(chooser.corpus))
    chooser.count_small_sources(counts)
    for start in range(0, total, ROWS):
        file = _block_file(folder, start)
        counts_file = file.with_suffix(".json")
        if not counts_file.is_file():
            block = RowCounts("block")
            with write_file(file) as temporary, temporary.open("wb") as stream:
                stream.writelines(map(tables.json_line, chooser.block(start, block)))
            write_json(counts_file, [block.counts, block.examples])
        release(chooser.found)
        counts.merge(*read_json(counts_file, f"remove {folder}"))
        progress(min(start + ROWS, total), total)
    if not {FULL, SHORT} & set(counts.counts):
        raise DataError(
            "no row could be given a negative: texts of another label are missing, or margin, percentage and "
            "cross-encoder leave none; nothing is written"
        )
    return counts


def read_blocks(folder: Path, rows: int) -> Iterator[Row]:
    """Yield the rows that `write_blocks` wrote, in their order; `rows` is how many rows were read."""
    for start in range(0, rows, ROWS):
        with _block_file(folder, start).open("rb") as stream:
            yield from map(json.loads, stream)


def _block_file(folder: Path, start: int) -> Path:
    return folder / f"part-{start // ROWS:06d}.jsonl"
