"""What mining chooses from: the distinct texts of a set or of other files, and which of them a query may be given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lusifer.data import schema, tables
from lusifer.data.schema import Row, text_hash
from lusifer.errors import DataError
from lusifer.io import rows as row_files
from lusifer.io.files import write_file
from lusifer.io.rows import BadRows

if TYPE_CHECKING:
    from datasets import Dataset

QUERIES = 4096  # searched at once

Candidate = dict[str, str | None]
Candidates = Callable[[], Iterator[Candidate]]
"""Gives the candidates from the first to the last; called twice."""


@dataclass(frozen=True)
class CorpusFiles:
    """Files that candidates are read from, in place of the set itself.

    `column` has the texts. `bad` lists the rows that are left out, and says how many may be.
    """

    files: Sequence[Path]
    column: str = "text"
    bad: BadRows | None = None

    def __call__(self) -> Iterator[Candidate]:
        """Yield the candidates."""

        def check(row: Any, where: str) -> Candidate:
            if isinstance(row, dict) and self.column not in row:
                there = ", ".join(map(str, row)) or "none"
                raise DataError(f"{where}: no column {self.column!r} (found {there}): name it with --corpus-column")
            text = schema.check("passages", row, where, {"text": self.column})["text"]
            return {"text": text, "source": None, "label": None}

        found = BadRows(self.bad.limit if self.bad else 0)  # the files are read twice, but a bad row counts once
        for file in self.files:
            yield from row_files.read(file, check, found, [self.column])
        if self.bad is not None:
            self.bad.messages[:] = found.messages


@dataclass(frozen=True)
class Corpus:
    """Candidates, and the hash of each text, (candidates,) uint64, in the order of the table."""

    table: Dataset
    hashes: np.ndarray

    def __len__(self) -> int:
        """Number of candidates."""
        return len(self.table)

    def texts(self, rows: Sequence[int] | slice) -> list[str]:
        """Give the texts of some rows."""
        return tables.values(self.table, "text", rows)


def of_rows(rows: Dataset, by_source: bool) -> Candidates:
    """Give the candidates that a set of pairs itself holds: positives and negatives of all its rows.

    With `by_source` one text in two sources is two candidates.
    """

    def stream() -> Iterator[Candidate]:
        for row in rows:
            for text in (*row["positive"], *row["negative"]):
                source = row["source"] if by_source else None
                yield {"text": text, "source": source, "label": row["label"]}

    return stream


def of_labels(rows: Dataset, texts: Callable[[Row], list[str]]) -> Candidates:
    """Give the texts of a set with labels: each may be a negative of rows with another label of its source.

    Texts that have several labels in one source are left out: they are right under one label and wrong under another.
    `texts` gives those of a row that may become negatives.
    """
    labels: dict[tuple[str | None, int], str | None] = {}
    several: set[tuple[str | None, int]] = set()
    for row in rows:
        for name in ((row["source"], text_hash(text)) for text in texts(row)):
            if labels.setdefault(name, row["label"]) != row["label"]:
                several.add(name)

    def stream() -> Iterator[Candidate]:
        for row in rows:
            for text in texts(row):
                if (row["source"], text_hash(text)) not in several:
                    yield {"text": text, "source": row["source"], "label": row["label"]}

    return stream


def build(folder: Path, candidates: Candidates) -> Corpus:
    """Write the distinct candidates into a folder, or open the ones that are there.

    A text that occurs again in its source, by `same_text`, counts once. Eight bytes a text are in memory.
    """
    table, hashes = folder / "corpus.arrow", folder / "corpus.keys.npy"
    if not hashes.is_file():
        everything = np.fromiter(map(_hash, candidates()), dtype=np.uint64)
        first = np.zeros(len(everything), dtype=bool)
        first[np.unique(everything, return_index=True)[1]] = True
        del everything
        tables.write_table(table, (each for each, new in zip(candidates(), first) if new), "labelled")
        written = tables.open_table(table)
        texts = (text for part in tables.chunks(written) for text in tables.values(written, "text", part))
        with write_file(hashes) as temporary:
            np.save(temporary, np.fromiter(map(text_hash, texts), dtype=np.uint64))
    return Corpus(tables.open_table(table), np.load(hashes, mmap_mode="r"))


def search_groups(
    rows: Dataset, corpus: Corpus, *, labels: bool, by_source: bool, least: int = 0
) -> list[tuple[np.ndarray, np.ndarray | None]]:
    """Group the queries by the candidates that they are compared with.

    Args:
        rows: Checked pairs.
        corpus: The candidates.
        labels: Whether a query is compared with texts of another label of its own source only.
        by_source: Whether it is compared with texts of its own source only, unless that has fewer than `least`.
        least: As above; where labels decide, it does not count.

    Returns:
        (Numbers of at most 4,096 queries, numbers of the candidates or None for all); the same on every call.
    """
    groups: list[tuple[np.ndarray, np.ndarray | None]] = []
    small = [] if labels or by_source else [np.arange(len(rows))]
    if labels or by_source:
        sources = _codes(rows, "source", corpus.table)
        words = _codes(rows, "label", corpus.table) if labels else tuple(map(np.zeros_like, sources))
        for source, word in np.unique(np.stack([sources[0], words[0]]), axis=1).T:
            queries = np.flatnonzero((sources[0] == source) & (words[0] == word))
            texts = np.flatnonzero((sources[1] == source) & (words[1] != word if labels else True))
            if labels or len(texts) >= least:
                groups.append((queries, texts))
            else:
                small.append(queries)
    if small:
        groups.append((np.sort(np.concatenate(small)), None))
    return [
        (queries[start : start + QUERIES], texts)
        for queries, texts in groups
        for start in range(0, len(queries), QUERIES)
    ]


def _codes(rows: Dataset, column: str, corpus: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """A column of the rows and of the candidates as numbers, equal for equal words; a missing word counts as empty."""
    import pyarrow as pa

    chunks = [chunk.fill_null("") for table in (rows, corpus) for chunk in table.data.column(column).chunks]
    encoded = pa.chunked_array(chunks, pa.string()).dictionary_encode().unify_dictionaries()
    numbers = np.concatenate([chunk.indices.to_numpy() for chunk in encoded.chunks])
    return numbers[: len(rows)], numbers[len(rows) :]


def _hash(candidate: Candidate) -> int:
    """Equal for one text in one source; the source is empty where sources do not matter."""
    return text_hash(candidate["text"] or "") ^ (text_hash(candidate["source"]) if candidate["source"] else 0)
