"""Choose the negatives of each row from the texts that are nearest to its query.

Rows are processed in blocks. Each block is a file until all are done, so that interrupted work can continue.
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

ROWS = 2048  # rows of a block
SLACK = 64  # texts that are searched in addition, because the row's own answers are among the nearest
KNOWN = "candidates dropped: a text of the row, or a known answer"
TOP = "candidates skipped: nearest to the query"
MARGIN = "candidates dropped: too similar compared with the positive (margin)"
SHARE = "candidates dropped: too similar compared with the positive (percentage)"
CROSS = "candidates dropped: the cross-encoder scores them close to the positive"
FULL, SHORT = "rows with all negatives", "rows with fewer negatives than requested"
NONE = "rows without any negative"
EVERY_SOURCE = "rows with candidates of all sources: their own has too few"
ALONE = "rows left out: no other text has their label"
GIVEN = "negatives that the rows already had"
MINED = "negatives mined"

FOUND = np.dtype([("score", np.float32), ("number", np.int32)])
"""A text that a search found: its similarity to the query, and its number in the corpus."""
Rescore = Callable[[Sequence[tuple[str, str]]], np.ndarray]
"""(Query, text) pairs -> (n,) scores of a cross-encoder, higher for texts that answer the query."""


@dataclass(frozen=True)
class MineSettings:
    """How negatives are chosen.

    negatives: How many a row gets in total.
    skip: How many of the nearest texts are skipped: many of them are answers that are not marked (published: 30).
    keep: How many texts after these are candidates (published: 128).
    label_ranks: With `labels`, the first and last rank of candidates, instead of `skip` and `keep` (published: 20 to
        140).
    margin: A negative's similarity is at most the lowest similarity of a positive minus this.
    percentage: A negative's similarity is at most the lowest similarity of a positive times this (0.95: NV-Retriever).
    cross_margin: As `margin`, for the scores of a cross-encoder.
    choose: Whether candidates are sampled, or taken from the nearest on.
    replace: Whether negatives that a row already has are removed first.
    by_source: Whether candidates are from the row's own source only, unless it has fewer than `skip` and `keep`
        together.
    labels: Whether texts with another label are the negatives.
    seed: The seed of all samples.
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
        """Refuse ranks without a candidate."""
        if self.label_ranks[0] >= self.label_ranks[1]:
            first, last = self.label_ranks
            raise UsageError(f"--label-ranks {first} {last}: no ranks between them: give the lower one first")

    @property
    def ranks(self) -> tuple[int, int]:
        """The first rank of candidates, from 0, and the rank after the last one."""
        return self.label_ranks if self.labels else (self.skip, self.skip + self.keep)

    @property
    def depth(self) -> int:
        """The number of texts to search for each query."""
        return self.ranks[1] + SLACK

    def limits(self, lowest: float) -> Iterator[tuple[str, float]]:
        """Yield (reason, highest allowed similarity of a negative) for a lowest similarity of a positive."""
        if self.margin is not None:
            yield MARGIN, lowest - self.margin
        if self.percentage is not None:
            yield SHARE, lowest * self.percentage if lowest > 0 else lowest


@dataclass
class _Pool:
    """The remaining candidates of one row, in the order in which they are taken."""

    row: Row
    numbers: np.ndarray
    scores: np.ndarray
    wanted: int


@dataclass(frozen=True)
class Chooser:
    """Chooses the negatives of rows.

    Args:
        table: Checked pairs; those of a labelled dataset have no positive yet.
        corpus: The candidates.
        answers: The known answers; None with labels.
        found: The nearest texts of each row, (rows, depth) of `FOUND`, by descending score; number -1 means none.
        lowest: Row number, positives -> the lowest similarity of a positive.
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
        """Return the `ROWS` rows from `start` on with their negatives, and count dropped candidates by reason.

        Args:
            start: The number of the first row.
            counts: Gets the counts.
        """
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
        """Count the rows whose own source has too few candidates, and list those sources."""
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
        """Select the candidates of a row by rank, known answers and similarity."""
        found = self.found[number]
        own = {text_hash(text) for text in (row["query"], *row["positive"], *row["negative"])}
        if self.answers is not None:
            own |= self.answers.of(text_hash(row["query"]))
        hashes = self.corpus.hashes[np.maximum(found["number"], 0)]
        banned = np.isin(hashes, np.fromiter(own, dtype=np.uint64))
        # A text that is in two sources is two candidates: only the first one counts.
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
        """The new negatives of each row with their similarities: the first of its pool that pass the cross-encoder.

        The cross-encoder scores candidates only as long as negatives are missing.
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
        """The lowest cross-encoder score of a positive, per row."""
        if self.rescore is None:
            return [np.inf] * len(pools)
        pairs = [(pool.row["query"], text) for pool in pools for text in pool.row["positive"]]
        scores = iter(self.rescore(pairs) if pairs else ())
        return [min((float(next(scores)) for _ in pool.row["positive"]), default=np.inf) for pool in pools]

    def _drop(self, pool: _Pool, reason: str, which: np.ndarray, counts: RowCounts) -> None:
        """Remove candidates from a pool, count them, and record the nearest as an example."""
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
        """Sample another text with the row's label as its positive; False if there is none."""
        group = self._rows_by_label[row["source"], row["label"]]
        generator = random.Random(f"{self.settings.seed}/{number}")
        for other in generator.sample(group, len(group)):  # usually the first or second one is another text
            text = tables.values(self.table, "query", [other])[0]
            if text_hash(text) != text_hash(row["query"]):
                row["positive"] = [text]
                return True
        return False


def write_blocks(folder: Path, chooser: Chooser, progress: Callable[[int, int], None]) -> RowCounts:
    """Write the blocks of rows with negatives that a folder does not have yet.

    Args:
        folder: The folder of unfinished work.
        chooser: Chooses the negatives.
        progress: Called with (rows done, rows).

    Returns:
        The counts of all blocks, also of those that were there.

    Raises:
        DataError: No row got a negative.
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
            "no row got a negative, nothing is written: add texts with another label, or relax --margin, --percentage "
            "and the cross-encoder"
        )
    return counts


def read_blocks(folder: Path, rows: int) -> Iterator[Row]:
    """Yield the rows that `write_blocks` wrote, in their order.

    Args:
        folder: The folder of unfinished work.
        rows: The number of rows of the input.
    """
    for start in range(0, rows, ROWS):
        with _block_file(folder, start).open("rb") as stream:
            yield from map(json.loads, stream)


def _block_file(folder: Path, start: int) -> Path:
    return folder / f"part-{start // ROWS:06d}.jsonl"
