"""The candidates of mining: the distinct texts of the dataset or of other files, and which of them a query may get."""

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

QUERIES = 4096  # queries that are searched at once

Candidate = dict[str, str | None]
Candidates = Callable[[], Iterator[Candidate]]
"""Returns an iterator over all candidates; called twice."""


@dataclass(frozen=True)
class CorpusFiles:
    """Files that candidates are read from, instead of from the dataset itself.

    column: The column with the texts.
    bad: Records skipped rows, and limits them.
    """

    files: Sequence[Path]
    column: str = "text"
    bad: BadRows | None = None

    def __call__(self) -> Iterator[Candidate]:
        """Yield the candidates."""

        def check(row: Any, where: str) -> Candidate:
            if isinstance(row, dict) and self.column not in row:
                there = row_files.columns(row)
                raise DataError(f"{where}: no column {self.column!r} (found {there}): name it with --corpus-column")
            text = schema.check("passages", row, where, {"text": self.column})["text"]
            return {"text": text, "source": None, "label": None}

        found = BadRows(self.bad.limit if self.bad else 0)  # a new record: the files are read twice
        for file in self.files:
            yield from row_files.read(file, check, found, [self.column])
        if self.bad is not None:
            self.bad.messages[:] = found.messages


@dataclass(frozen=True)
class Corpus:
    """The candidates: a table on disk, and the `text_hash` of each text, (n,) uint64."""

    table: Dataset
    hashes: np.ndarray

    def __len__(self) -> int:
        """The number of candidates."""
        return len(self.table)

    def texts(self, rows: Sequence[int] | slice) -> list[str]:
        """Read the texts of some rows."""
        return tables.values(self.table, "text", rows)


def of_rows(rows: Dataset, by_source: bool) -> Candidates:
    """Take the positives and negatives of all rows as candidates.

    Args:
        rows: Checked pairs.
        by_source: Whether candidates have their source: then a text in two sources is two candidates.
    """

    def stream() -> Iterator[Candidate]:
        for row in rows:
            for text in (*row["positive"], *row["negative"]):
                source = row["source"] if by_source else None
                yield {"text": text, "source": source, "label": row["label"]}

    return stream


def of_labels(rows: Dataset, texts: Callable[[Row], list[str]]) -> Candidates:
    """Take the texts of a labelled dataset as candidates, for rows with another label in the same source.

    Texts with several labels in one source are left out: they would be positives of one label and negatives of another.

    Args:
        rows: Pairs with labels.
        texts: Row -> its texts that may become negatives.
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
    """Write the distinct candidates into a folder, or open those that are there.

    Texts that are the same by `same_text` in one source count once. This takes eight bytes of memory per text.

    Args:
        folder: The folder of unfinished work.
        candidates: The candidates.
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
        labels: Whether a query is compared only with texts of its own source with another label.
        by_source: Whether it is compared only with texts of its own source, unless that has fewer than `least`.
        least: See `by_source`; not used with `labels`.

    Returns:
        For each group the numbers of at most 4,096 queries, and those of their candidates, or None for all candidates.
        The result is the same on every call.
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
    """A text column of rows and candidates as numbers, equal for equal texts; a missing text counts as empty."""
    import pyarrow as pa

    chunks = [chunk.fill_null("") for table in (rows, corpus) for chunk in table.data.column(column).chunks]
    encoded = pa.chunked_array(chunks, pa.string()).dictionary_encode().unify_dictionaries()
    numbers = np.concatenate([chunk.indices.to_numpy() for chunk in encoded.chunks])
    return numbers[: len(rows)], numbers[len(rows) :]


def _hash(candidate: Candidate) -> int:
    """A hash of text and source; without a source, of the text only."""
    return text_hash(candidate["text"] or "") ^ (text_hash(candidate["source"]) if candidate["source"] else 0)
