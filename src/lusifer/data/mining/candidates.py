"""What mining chooses from: the distinct texts of a set or of a corpus, and which of them each query may be given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lusifer.data import store
from lusifer.data.mining.related import key
from lusifer.data.schema import Row, check_passage, text_column
from lusifer.io import rows as readers
from lusifer.io.atomic import write_file
from lusifer.io.rows import BadRows

if TYPE_CHECKING:
    from datasets import Dataset

QUERIES = 4096  # searched at once

Candidate = dict[str, str | None]


@dataclass(frozen=True)
class Corpus:
    """Candidates and 64 bits of each text, in the order of the table."""

    table: Dataset
    keys: np.ndarray

    def __len__(self) -> int:
        """How many there are."""
        return len(self.table)

    def texts(self, part: slice) -> list[str]:
        """Give the texts that are embedded."""
        return store.texts(self.table, "text", part)

    def written(self, numbers: Sequence[int]) -> list[str]:
        """Give what stands in the negatives: the text, or its translation."""
        columns = (store.texts(self.table, column, numbers) for column in ("text", "written"))
        return [written or text for text, written in zip(*columns)]


def of_rows(rows: Dataset, by_source: bool) -> Callable[[], Iterator[Candidate]]:
    """Give the candidates that a set itself holds: positives and negatives of all its rows.

    Args:
        rows: Checked pairs.
        by_source: Whether a text of two sources is two candidates.
    """

    def stream() -> Iterator[Candidate]:
        for row in rows:
            for text in (*row["positive"], *row["negative"]):
                source = row["source"] if by_source else None
                yield {"text": text, "written": None, "source": source, "label": row["label"]}

    return stream


def of_positives(rows: Dataset) -> Callable[[], Iterator[Candidate]]:
    """Give the positives of a set of pairs with labels: those of a row with another label may be a row's negatives."""
    return _of_one_label(rows, lambda row: row["positive"])


def of_labelled(rows: Dataset) -> Callable[[], Iterator[Candidate]]:
    """Give the texts of a labelled set: each may be a negative of those with another label of its source."""
    return _of_one_label(rows, lambda row: [row["query"]])


def _of_one_label(rows: Dataset, texts: Callable[[Row], list[str]]) -> Callable[[], Iterator[Candidate]]:
    """The texts that have one label only in their source: others are right under the one and wrong under the other."""
    labels: dict[tuple[str | None, int], str | None] = {}
    several: set[tuple[str | None, int]] = set()
    for row in rows:
        for name in ((row["source"], key(text)) for text in texts(row)):
            if labels.setdefault(name, row["label"]) != row["label"]:
                several.add(name)

    def stream() -> Iterator[Candidate]:
        for row in rows:
            for text in texts(row):
                if (row["source"], key(text)) not in several:
                    yield {"text": text, "written": None, "source": row["source"], "label": row["label"]}

    return stream


def of_files(
    files: Sequence[Path],
    column: str,
    translation: str | None,
    fields: Mapping[str, str] | None = None,
    bad: BadRows | None = None,
) -> Callable[[], Iterator[Candidate]]:
    """Give the texts of files of passages, or of parallel text.

    Args:
        files: Of a kind that we read.
        column: Where the text stands that is searched.
        translation: Where the text stands that is written as negative; None writes the text itself.
        fields: Our column -> the file's, beside `column`.
        bad: Where rows are listed that are left out, and how many may be.
    """

    def check(row: Any, where: str) -> Candidate:
        passage = check_passage(row, where, {**(fields or {}), "text": column})
        other = text_column(row, where, translation) if translation else None
        return {"text": passage["text"], "written": other, "source": None, "label": None}

    def stream() -> Iterator[Candidate]:
        found = BadRows(bad.limit if bad else 0)  # the files are read twice: the rows count once
        for file in files:
            yield from readers.read(file, check, found)
        if bad is not None:
            bad.messages[:] = found.messages

    return stream


def build(folder: Path, stream: Callable[[], Iterator[Candidate]]) -> Corpus:
    """Write the distinct candidates into `folder`, or open those that are there.

    A text that occurs again, by its letters and digits, counts once in a source. Eight bytes a text are in memory.
    """
    table, keys = folder / "corpus.arrow", folder / "corpus.keys.npy"
    if not keys.is_file():
        everything = np.fromiter((_key(each) for each in stream()), dtype=np.uint64)
        first = np.zeros(len(everything), dtype=bool)
        first[np.unique(everything, return_index=True)[1]] = True
        del everything
        with write_file(table) as temporary:
            store.write(temporary, (each for each, new in zip(stream(), first) if new), "candidates")
        texts = (text for row in _batches(store.read(table)) for text in row)
        with write_file(keys) as temporary:
            np.save(temporary, np.fromiter(map(key, texts), dtype=np.uint64))
    return Corpus(store.read(table), np.load(keys, mmap_mode="r"))


def tasks(
    rows: Dataset, corpus: Corpus, *, labels: bool, by_source: bool, least: int = 0
) -> list[tuple[np.ndarray, np.ndarray | None]]:
    """Cut the search into pieces.

    Args:
        rows: Checked pairs.
        corpus: The candidates.
        labels: Whether a query is given texts of another label of its own source only.
        by_source: Whether a query is given texts of its own source only.
        least: Rows of a source with fewer texts than this are given those of all sources, unless labels decide.

    Returns:
        (Numbers of the queries, numbers of the candidates that they are compared with or None for all), at most 4,096
        queries each; the same on every call.
    """
    groups: list[tuple[np.ndarray, np.ndarray | None]] = []
    if not labels and not by_source:
        groups.append((np.arange(len(rows)), None))
    elif labels:
        sources, words = (_codes(rows, column, corpus.table) for column in ("source", "label"))
        for source, word in np.unique(np.stack([sources[0], words[0]]), axis=1).T:
            queries = np.flatnonzero((sources[0] == source) & (words[0] == word))
            groups.append((queries, np.flatnonzero((sources[1] == source) & (words[1] != word))))
    else:
        sources = _codes(rows, "source", corpus.table)
        small = []
        for source in np.unique(sources[0]):
            queries, texts = (np.flatnonzero(part == source) for part in sources)
            if len(texts) < least:
                small.append(queries)
            else:
                groups.append((queries, texts))
        if small:
            groups.append((np.sort(np.concatenate(small)), None))
    return [
        (queries[start : start + QUERIES], texts)
        for queries, texts in groups
        for start in range(0, len(queries), QUERIES)
    ]


def _codes(rows: Dataset, column: str, corpus: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """A column of the rows and of the candidates as numbers, equal for equal words; nothing is a word of its own."""
    import pyarrow as pa

    parts = [table.data.column(column).combine_chunks().fill_null("") for table in (rows, corpus)]
    chunks = [chunk for part in parts for chunk in (part.chunks if isinstance(part, pa.ChunkedArray) else [part])]
    codes = pa.chunked_array(chunks).dictionary_encode().combine_chunks()
    codes = codes.indices if isinstance(codes, pa.DictionaryArray) else codes.chunk(0).indices
    numbers = codes.to_numpy()
    return numbers[: len(rows)], numbers[len(rows) :]


def _batches(table: Dataset) -> Iterator[list[str]]:
    for start in range(0, len(table), store.CHUNK):
        yield store.texts(table, "text", slice(start, start + store.CHUNK))


def _key(candidate: Candidate) -> int:
    """A text is another one in another source, where sources are kept apart (else the column is empty)."""
    return key(candidate["text"] or "") ^ (key(candidate["source"]) if candidate["source"] else 0)


def row_of(row: Row) -> Row:
    """Make a row of a labelled set a pair without a positive, for which one is drawn later."""
    unknown = {"negative": [], "instruction": None, "task": None, "cluster": None}
    return {"query": row["text"], "positive": [], "label": row["label"], "source": row["source"], **unknown}
