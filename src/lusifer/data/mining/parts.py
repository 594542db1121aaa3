"""The last phase of mining: rows with their negatives, some at a time; each part is a file until all are there."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lusifer.data import store, writers
from lusifer.data.mining.candidates import Corpus
from lusifer.data.mining.negatives import FULL, NONE, SHORT, Chooser, MineSettings, Pool, Rescore
from lusifer.data.mining.related import Related, key
from lusifer.data.mining.vectors import release
from lusifer.data.report import Report
from lusifer.data.schema import Row
from lusifer.io.atomic import write_file

if TYPE_CHECKING:
    from datasets import Dataset

ROWS = 2048  # of a part
EVERY_SOURCE = "rows given texts of all sources: their own has too few"
ALONE = "rows left out: no other text has their label"
GIVEN = "negatives that the rows had and keep"
MINED = "negatives mined"


class Parts:
    """Everything that a row's negatives depend on, and the files that hold those that are done."""

    def __init__(
        self,
        folder: Path,
        table: Dataset,
        corpus: Corpus,
        related: Related,
        found: tuple[np.ndarray, np.ndarray],
        lowest: Callable[[int, list[str]], float],
        rescore: Rescore | None,
        settings: MineSettings,
    ) -> None:
        """Take the rows, the candidates and what was found for each row (scores, numbers).

        Args:
            folder: Of the work.
            table: Checked pairs; those of a labelled set have no positive yet.
            corpus: The candidates.
            related: Which texts belong together.
            found: Scores and numbers, (rows, depth) each.
            lowest: Row, positives -> similarity of the furthest positive.
            rescore: A cross-encoder, or None.
            settings: How to choose.
        """
        self.folder, self.table, self.corpus, self.related = folder, table, corpus, related
        self.found, self.lowest, self.rescore, self.settings = found, lowest, rescore, settings
        self._groups = self._by_label() if settings.labels else {}

    def make(self, progress: Callable[[int, int], None]) -> Report:
        """Write the parts that are missing; gives the counts of all."""
        report = Report("Mined negatives")
        report.count("rows read", by=len(self.table))
        report.count("candidates", by=len(self.corpus))
        self._say_small(report)
        for start in range(0, len(self.table), ROWS):
            file, said = self._file(start), self._file(start).with_suffix(".json")
            if not said.is_file():
                part = Report("part")
                with write_file(file) as temporary, temporary.open("wb") as stream:
                    stream.writelines(map(writers.line, self._part(start, part)))
                with write_file(said) as temporary:
                    temporary.write_text(json.dumps([part.counts, part.examples]), encoding="utf-8")
            for array in self.found:
                release(array)
            report.merge(*json.loads(said.read_text("utf-8")))
            progress(min(start + ROWS, len(self.table)), len(self.table))
        return report

    def rows(self) -> Iterator[Row]:
        """Read the rows of all parts."""
        for start in range(0, len(self.table), ROWS):
            with self._file(start).open("rb") as stream:
                yield from map(json.loads, stream)

    def _file(self, start: int) -> Path:
        return self.folder / f"part-{start // ROWS:06d}.jsonl"

    def _part(self, start: int, report: Report) -> list[Row]:
        """The rows from `start` on, with their negatives."""
        rows = self.table.data.slice(start, ROWS).to_pylist()
        chooser = Chooser(self.settings, self.corpus.written, self.rescore, report)
        kept: list[Row] = []
        pools: list[Pool] = []
        for number, row in enumerate(rows, start=start):
            if not row["positive"] and not self._give_positive(number, row):
                report.count(ALONE, row["query"], str(row["label"]))
                continue
            row["negative"] = [] if self.settings.replace else row["negative"]
            kept.append(row)
            pools.append(self._pool(number, row, chooser))
        for row, chosen in zip(kept, chooser.take(pools)):
            self._say(row, chosen, report)
            row["negative"] = [*row["negative"], *(text for text, _ in chosen)]
        return kept

    def _pool(self, number: int, row: Row, chooser: Chooser) -> Pool:
        scores, numbers = self.found[0][number], self.found[1][number]
        own = {key(text) for text in (row["query"], *row["positive"], *row["negative"])}
        # By its label another text is right or wrong, whatever pairs it stands in.
        own |= set() if self.settings.labels else self.related.of(key(row["query"]))
        keys = self.corpus.keys[np.maximum(numbers, 0)]
        banned = np.isin(keys, np.fromiter(own, dtype=np.uint64))
        banned[np.setdiff1d(np.arange(len(keys)), np.unique(keys, return_index=True)[1])] = True  # of two sources
        lowest = self.lowest(number, row["positive"])
        return chooser.pool(number, row["query"], row["positive"], (scores, numbers), banned, lowest, row["negative"])

    def _say(self, row: Row, chosen: list[tuple[str, float]], report: Report) -> None:
        report.count(GIVEN, by=len(row["negative"]))
        report.count(MINED, by=len(chosen))
        words = (f"{text} ({score:.3f})" for text, score in chosen)
        count = len(row["negative"]) + len(chosen)
        reason = FULL if count >= self.settings.negatives else SHORT if count else NONE
        report.count(reason, row["query"], f"+ {row['positive'][0]}", *(f"- {text}" for text in words))

    def _say_small(self, report: Report) -> None:
        """Count the rows whose own source has too few texts to choose from, and name those sources."""
        if self.settings.labels or not self.settings.by_source:
            return
        counts = (each.data.column("source").value_counts().to_pylist() for each in (self.table, self.corpus.table))
        rows, texts = ({each["values"]: each["counts"] for each in some} for some in counts)
        for source, count in rows.items():
            found = texts.get(source, 0)
            if found < min(self.settings.ranks[1], len(self.corpus)):
                example = f"{source or 'rows without a source'}: {count:,} rows, {found:,} texts"
                report.count(EVERY_SOURCE, example, by=count)

    def _by_label(self) -> dict[tuple[str | None, str | None], list[int]]:
        """The rows of each label of each source, for positives of a labelled set."""
        groups: dict[tuple[str | None, str | None], list[int]] = {}
        columns = (store.texts(self.table, column, slice(None)) for column in ("source", "label"))
        for number, label in enumerate(zip(*columns)):
            groups.setdefault(label, []).append(number)
        return groups

    def _give_positive(self, number: int, row: Row) -> bool:
        """Draw another text of the row's label; False where there is none."""
        group = self._groups[row["source"], row["label"]]
        generator = random.Random(f"{self.settings.seed}/{number}")
        for other in generator.sample(group, len(group)):  # nearly always the first one or two
            text = store.texts(self.table, "query", [other])[0]
            if key(text) != key(row["query"]):
                row["positive"] = [text]
                return True
        return False
