"""Hard negatives: the texts that a retriever puts near a query without being its answer.

Work goes in phases, each on disk in a folder beside the output: rows and candidates, their vectors, the nearest
candidates of every query, the rows with their negatives. The same call again goes on where one was stopped, and ends
with the same file. In memory is a block of each at a time.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lusifer.data import store, writers
from lusifer.data.mining import candidates, vectors
from lusifer.data.mining.candidates import Corpus
from lusifer.data.mining.negatives import FULL, SHORT, MineSettings, Rescore
from lusifer.data.mining.parts import Parts
from lusifer.data.mining.related import Related, key
from lusifer.data.mining.search import nearest
from lusifer.data.mining.vectors import Encode, Vectors
from lusifer.data.mining.work import Work
from lusifer.data.report import Report
from lusifer.errors import DataError, UsageError

if TYPE_CHECKING:
    from datasets import Dataset

    from lusifer.io.rows import BadRows

Progress = Callable[[str, int, int | None], None]
"""Called with (phase, done, total)."""


@dataclass(frozen=True)
class Retriever:
    """What finds near texts: a model's encoding of queries and of documents, and a cross-encoder if wanted."""

    name: str
    queries: Encode
    documents: Encode
    rescore: Rescore | None = None

    def identity(self) -> str:
        """Tell this model from others by what it answers."""
        probe = [self.queries(["Which way does the wind blow?"]), self.documents(["The wind blows from the west."])]
        if self.rescore is not None:
            probe.append(self.rescore([("Which way does the wind blow?", "From the west.")]))
        return hashlib.sha256(
            b"".join(np.asarray(each, dtype=np.float32).round(3).tobytes() for each in probe)
        ).hexdigest()


@dataclass(frozen=True)
class Texts:
    """Where a corpus other than the set itself comes from: its files, and the columns searched and written.

    `bad` lists the rows that are left out, and says how many may be.
    """

    files: Sequence[Path]
    column: str = "text"
    translation: str | None = None
    bad: BadRows | None = None


def mine(
    rows: Callable[[], Iterator[Any]],
    kind: str,
    inputs: Sequence[Path],
    output: Path,
    retriever: Retriever,
    settings: MineSettings,
    corpus: Texts | None = None,
    fields: Mapping[str, str] | None = None,
    bad: BadRows | None = None,
    progress: Progress = lambda phase, done, total: None,
) -> Report:
    """Give each row of a set hard negatives.

    Args:
        rows: Gives the checked rows; read once.
        kind: "pairs" or "labelled". A labelled text becomes a query, and another text of its label its positive.
        inputs: The files that they come from, to know them again.
        output: .jsonl, .jsonl.gz or .parquet; written at the end. Until then the work lies in the folder `output.work`.
        retriever: The model.
        settings: How to choose.
        corpus: Where candidates come from; None takes positives and negatives of all rows.
        fields: The columns' other names that `rows` goes by: another call is other work.
        bad: Where `rows` lists rows that it left out; a call that goes on with earlier work finds its list there.
        progress: Is told how far the work is.

    Returns:
        Counts, what was dropped and why, examples.

    Raises:
        UsageError: The folder holds the work of another call, or the corpus is too small.
        DataError: A row is not what it should be.
    """
    if settings.labels and corpus is not None:
        raise UsageError("--corpus: where labels decide, a set is its own corpus: leave it out")
    if corpus is not None:
        settings = replace(settings, by_source=False)  # texts of a corpus have no source of the set
    plan = {
        "inputs": _digests((*inputs, *(corpus.files if corpus else ()))),
        "columns": [corpus.column, corpus.translation] if corpus else None,
        "settings": json.loads(json.dumps(asdict(settings))),
        "model": retriever.identity(),
        "kind": kind,
        "fields": dict(fields or {}),
    }
    with Work(output.with_name(output.name + ".work"), plan) as work:
        table = _rows(work, rows, kind, bad, progress)
        if settings.labels and (unknown := table["label"][:].count(None)):
            raise DataError(f"{unknown:,} rows have no label: fill the column, or mine without --labels")
        texts = candidates.build(work.folder, _stream(table, kind, settings, corpus))
        _list_again(work, "corpus.bad.json", corpus.bad if corpus else None)
        _refuse_small(len(texts), settings)
        found = _search(work, table, texts, kind, retriever, settings, progress)
        positives = _positives(work, table, texts, corpus is not None, retriever, settings, progress)
        parts = Parts(work.folder, table, texts, _related(table), found, positives, retriever.rescore, settings)
        report = _refuse_nothing(parts.make(lambda done, total: progress("rows", done, total)))
        writers.write(output, parts.rows(), "pairs")
        shutil.rmtree(work.folder)
    return report


def _rows(work: Work, rows: Callable[[], Iterator[Any]], kind: str, bad: BadRows | None, progress: Progress) -> Dataset:
    """The rows, as pairs, on disk, and beside them the list of those that were left out."""
    file = work.folder / "rows.arrow"
    if not file.is_file():

        def told() -> Iterator[Any]:
            for number, row in enumerate(rows(), start=1):
                progress("rows read", number, None)
                yield candidates.row_of(row) if kind == "labelled" else row

        with work.write(file) as temporary:
            store.write(temporary, told(), "pairs")
            _list_again(work, "bad.json", bad)
    else:
        _list_again(work, "bad.json", bad)
    table = store.read(file)
    if not len(table):
        raise DataError("no row in the input: correct the path or the file")
    return table


def _list_again(work: Work, name: str, bad: BadRows | None) -> None:
    """Keep the list of rows that were left out, or take it from a call before this one that has read them."""
    file = work.folder / name
    if bad is None:
        return
    if file.is_file():
        bad.messages[:] = json.loads(file.read_text("utf-8"))
        return
    with work.write(file) as temporary:
        temporary.write_text(json.dumps(bad.messages, ensure_ascii=False), encoding="utf-8")


def _stream(table: Dataset, kind: str, settings: MineSettings, corpus: Texts | None) -> Callable[[], Iterator[Any]]:
    if corpus is not None:
        return candidates.of_files(corpus.files, corpus.column, corpus.translation, bad=corpus.bad)
    if kind == "labelled":
        return candidates.of_labelled(table)
    return candidates.of_positives(table) if settings.labels else candidates.of_rows(table, settings.by_source)


def _refuse_small(texts: int, settings: MineSettings) -> None:
    if texts > np.iinfo(np.int32).max:  # numbers of candidates take four bytes each
        raise UsageError(f"the corpus has {texts:,} texts, more than {np.iinfo(np.int32).max:,}: mine it in parts")
    first = settings.ranks[0]
    if texts <= first + settings.negatives:
        option = "--label-ranks" if settings.labels else "--skip"
        raise UsageError(
            f"the corpus has {texts:,} texts, and {option} {first} leaves fewer than {settings.negatives} to choose "
            f"from: lower {option}, or give more texts with --corpus"
        )


def _refuse_nothing(report: Report) -> Report:
    if not {FULL, SHORT} & set(report.counts):
        raise DataError(
            "no row could be given a negative: texts of another label are missing, or margin, percentage and "
            "cross-encoder leave none; nothing is written"
        )
    return report


def _search(
    work: Work,
    table: Dataset,
    texts: Corpus,
    kind: str,
    retriever: Retriever,
    settings: MineSettings,
    progress: Progress,
) -> tuple[np.ndarray, np.ndarray]:
    """Scores and numbers of the nearest candidates of every row, (rows, depth) each."""
    # Texts of a labelled set are of one kind: both sides are embedded alike, and once.
    document = retriever.documents
    known = _embed(work, "corpus", texts.texts, len(texts), document, progress)
    encode = document if kind == "labelled" else retriever.queries
    asked = _embed(work, "queries", lambda part: store.texts(table, "query", part), len(table), encode, progress)
    scores = work.array("scores", np.float32, (len(table), settings.depth))
    numbers = work.array("numbers", np.int32, (len(table), settings.depth))
    # Of few texts those that are skipped and kept would be all, or more: all sources then stand in.
    pieces = candidates.tasks(
        table, texts, labels=settings.labels, by_source=settings.by_source, least=settings.ranks[1]
    )
    done = work.done("search")
    for place in range(done, len(pieces)):
        queries, only = pieces[place]
        scores[queries], numbers[queries] = nearest(asked.take(queries), known, settings.depth, only)
        for array in (scores, numbers):
            array.flush()
            vectors.release(array)
        asked.release()
        work.mark("search", place + 1)
        progress("searched", sum(len(piece[0]) for piece in pieces[: place + 1]), len(table))
    return scores, numbers


def _positives(
    work: Work,
    table: Dataset,
    texts: Corpus,
    apart: bool,
    retriever: Retriever,
    settings: MineSettings,
    progress: Progress,
) -> Callable[[int, list[str]], float]:
    """Row, its positives -> the lowest similarity of one of them; infinite where nothing depends on it."""
    if settings.margin is None and settings.percentage is None:
        return lambda row, positives: np.inf
    own = texts
    if apart:  # the corpus does not hold the positives
        folder = work.folder / "positives"
        folder.mkdir(exist_ok=True)
        own = candidates.build(folder, candidates.of_rows(table, by_source=False))
    name = "positives" if apart else "corpus"
    known = _embed(work, name, own.texts, len(own), retriever.documents, progress)
    asked = Vectors(work.vectors("queries", len(table)))
    order = np.argsort(own.keys, kind="stable")
    ordered = own.keys[order]

    def lowest(row: int, positives: list[str]) -> float:
        places = order[np.searchsorted(ordered, np.array([key(text) for text in positives], dtype=np.uint64))]
        return float((known.take(places) @ asked.take(slice(row, row + 1))[0]).min())

    return lowest


def _embed(
    work: Work, name: str, texts: Callable[[slice], list[str]], count: int, encode: Encode, progress: Progress
) -> Vectors:
    return vectors.embed(
        work.folder / f"{name}.f16", texts, count, encode, lambda done, total: progress(f"{name} embedded", done, total)
    )


def _related(table: Dataset) -> Related:
    def pairs() -> Iterator[tuple[int, int]]:
        for start in range(0, len(table), store.CHUNK):
            part = slice(start, start + store.CHUNK)
            for query, positives in zip(store.texts(table, "query", part), store.texts(table, "positive", part)):
                one = key(query)
                yield from ((one, key(text)) for text in positives)

    return Related(pairs())


def _digests(files: Sequence[Path]) -> dict[str, str]:
    """SHA-256 by file."""
    found = {}
    for file in files:
        with file.open("rb") as stream:
            found[str(file)] = hashlib.file_digest(stream, "sha256").hexdigest()
    return found
