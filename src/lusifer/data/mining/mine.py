"""Mine hard negatives: texts that a retriever finds near a query and that are not its answer.

The work has four phases: rows and candidates, their vectors, the nearest candidates of every query, the rows with their
negatives. Each phase writes to a folder next to the output. If the work is interrupted, the same call continues it, and
the result is the same file. One block of each is in memory at a time.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lusifer.data import tables
from lusifer.data.answers import known_answers
from lusifer.data.mining import corpus as candidates
from lusifer.data.mining.corpus import Corpus, CorpusFiles
from lusifer.data.mining.negatives import FOUND, Chooser, MineSettings, Rescore, read_blocks, write_blocks
from lusifer.data.mining.vectors import Encode, Vectors, array_on_disk, blocks_done, embed, mark_done, nearest
from lusifer.data.schema import Row, text_hash
from lusifer.data.tables import RowCounts
from lusifer.errors import DataError, UsageError
from lusifer.io.files import locked, read_json, sha256, write_json

if TYPE_CHECKING:
    from datasets import Dataset

    from lusifer.io.rows import BadRows

PLAN = "plan.json"
FORMAT = 2  # the version of the files in the folder of unfinished work

Progress = Callable[[str, int, int | None], None]
"""Called with (phase, done, total)."""


@dataclass(frozen=True)
class Retriever:
    """The model that finds near texts.

    name: Its name, for logs.
    queries: Queries -> vectors (n, d).
    documents: Documents -> vectors (n, d).
    rescore: A cross-encoder, or None.
    """

    name: str
    queries: Encode
    documents: Encode
    rescore: Rescore | None = None

    def identity(self) -> str:
        """Return a digest of the models' outputs for fixed texts, by which retrievers are told apart."""
        probe = [self.queries(["Which way does the wind blow?"]), self.documents(["The wind blows from the west."])]
        if self.rescore is not None:
            probe.append(self.rescore([("Which way does the wind blow?", "From the west.")]))
        rounded = (np.asarray(each, dtype=np.float32).round(3).tobytes() for each in probe)
        return hashlib.sha256(b"".join(rounded)).hexdigest()


def mine(
    rows: Callable[[], Iterator[Row]],
    kind: str,
    inputs: Sequence[Path],
    output: Path,
    retriever: Retriever,
    settings: MineSettings,
    corpus: CorpusFiles | None = None,
    fields: Mapping[str, str] | None = None,
    bad: BadRows | None = None,
    progress: Progress = lambda phase, done, total: None,
) -> RowCounts:
    """Write a file of rows with hard negatives, and return the counts of negatives and dropped candidates.

    Args:
        rows: Returns an iterator over the checked rows; called once.
        kind: "pairs" or "labelled". A labelled text becomes a query, and another text with its label its positive.
        inputs: The files of the rows; their digests tell whether earlier work is of the same call.
        output: .jsonl, .jsonl.gz or .parquet, written at the end; until then work is in the folder `output.work`.
        retriever: The model.
        settings: How to choose.
        corpus: Files of candidates; None takes the positives and negatives of all rows.
        fields: Our column -> the column of the files; part of the call, like `inputs`.
        bad: Records the rows that `rows` skipped; a call that continues earlier work restores the record.
        progress: Called with (phase, done, total).

    Raises:
        UsageError: The folder has the work of another call, or the corpus is too small.
        DataError: A row is invalid, or no row got a negative.
    """
    if settings.labels and corpus is not None:
        raise UsageError("--corpus: with --labels the candidates are the rows themselves: leave it out")
    settings = replace(settings, by_source=settings.by_source and corpus is None)  # texts of files have no source
    plan = {
        "inputs": {str(file): sha256(file) for file in (*inputs, *(corpus.files if corpus else ()))},
        "columns": [corpus.column] if corpus else None,
        "settings": json.loads(json.dumps(asdict(settings))),  # tuples as lists
        "model": retriever.identity(),
        "kind": kind,
        "fields": dict(fields or {}),
        "format": FORMAT,
    }
    with _work_folder(output.with_name(output.name + ".work"), plan) as folder:
        table = _rows(folder, rows, kind, bad, progress)
        if settings.labels and (unknown := table["label"][:].count(None)):
            raise DataError(f"{unknown:,} rows have no label: fill the column, or mine without --labels")
        texts = candidates.build(folder, corpus or _own_texts(table, kind, settings))
        _restore(folder / "corpus.bad.json", corpus.bad if corpus else None)
        _refuse_small(len(texts), settings)
        search = _Search(folder, table, texts, retriever, settings, progress)
        found, lowest = search.nearest(one_kind=kind == "labelled"), search.lowest(own=corpus is None)
        answers = None if settings.labels else known_answers(table)
        chooser = Chooser(table, texts, answers, found, lowest, retriever.rescore, settings)
        counts = write_blocks(folder, chooser, lambda done, total: progress("rows", done, total))
        tables.write_rows(output, read_blocks(folder, len(table)), "pairs")
        shutil.rmtree(folder)
    return counts


@contextmanager
def _work_folder(folder: Path, plan: dict[str, Any]) -> Iterator[Path]:
    """Lock the folder of unfinished work, created if it is missing; refuse one that was begun with another plan."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    refusal = f"{folder}: another process works there: wait for it, or name another output"
    with locked(folder.with_name(folder.name + ".lock"), refusal, remove=True):
        file = folder / PLAN
        if file.is_file():
            old = read_json(file, "remove the folder to start again", kind=dict)
            changed = sorted(name for name in {*old, *plan} if old.get(name) != plan.get(name))
            if changed:
                raise UsageError(
                    f"{folder}: has the work of another call (other {', '.join(changed)}): repeat that call to "
                    "continue it, or remove the folder to start again"
                )
        elif folder.exists() and any(folder.iterdir()):
            raise UsageError(f"{folder}: has files but no {PLAN}: remove the folder, or name another output")
        else:
            write_json(file, plan)
        try:
            yield folder
        except BaseException:
            if not any(folder.glob("*.done")):  # no vectors are lost, and the corrected call may differ from this one
                shutil.rmtree(folder, ignore_errors=True)
            raise


def _rows(
    folder: Path, rows: Callable[[], Iterator[Row]], kind: str, bad: BadRows | None, progress: Progress
) -> Dataset:
    """The rows as pairs on disk; the record of skipped rows is written next to them."""
    file = folder / "rows.arrow"

    def pairs() -> Iterator[Row]:
        unknown = {"positive": [], "negative": [], "instruction": None, "task": None, "cluster": None}
        for number, row in enumerate(rows(), start=1):
            progress("rows read", number, None)
            if kind == "labelled":
                row = {"query": row["text"], "label": row["label"], "source": row["source"], **unknown}
            yield row
        if bad is not None:
            write_json(folder / "bad.json", bad.messages)

    if not file.is_file():
        tables.write_table(file, pairs(), "pairs")
    _restore(folder / "bad.json", bad)
    table = tables.open_table(file)
    if not len(table):
        raise DataError("no rows in the input: correct the path or the file")
    return table


def _restore(file: Path, bad: BadRows | None) -> None:
    """Store the record of skipped rows, or restore that of an earlier call, which has read the rows."""
    if bad is not None and file.is_file():
        bad.messages[:] = read_json(file, f"remove {file.parent}", kind=list)
    elif bad is not None:
        write_json(file, bad.messages)


def _own_texts(table: Dataset, kind: str, settings: MineSettings) -> candidates.Candidates:
    """The candidates from the rows themselves."""
    if not settings.labels:
        return candidates.of_rows(table, settings.by_source)
    return candidates.of_labels(table, lambda row: [row["query"]] if kind == "labelled" else row["positive"])


def _refuse_small(texts: int, settings: MineSettings) -> None:
    if texts > np.iinfo(np.int32).max:  # `FOUND` has four bytes for the number of a candidate
        raise UsageError(f"the corpus has {texts:,} texts, more than {np.iinfo(np.int32).max:,}: mine it in parts")
    first = settings.ranks[0]
    if texts <= first + settings.negatives:
        option = "--label-ranks" if settings.labels else "--skip"
        raise UsageError(
            f"the corpus has {texts:,} texts, and {option} {first} leaves fewer than {settings.negatives} to choose "
            f"from: lower {option}, or give more texts with --corpus"
        )


@dataclass(frozen=True)
class _Search:
    """The phases that need vectors: the nearest candidates of each row, and the similarity of its positives."""

    folder: Path
    table: Dataset
    texts: Corpus
    retriever: Retriever
    settings: MineSettings
    progress: Progress

    def nearest(self, one_kind: bool) -> np.ndarray:
        """Search the nearest candidates of each row.

        Args:
            one_kind: Whether queries are embedded like documents, because both are texts of one kind.

        Returns:
            (rows, depth) of `FOUND`.
        """
        known = self._embed("corpus", self.texts.texts, len(self.texts), self.retriever.documents)
        asked = self._queries(self.retriever.documents if one_kind else self.retriever.queries)
        file, depth = self.folder / "nearest.npy", self.settings.depth
        found = array_on_disk(file, FOUND, (len(self.table), depth))
        # A source with too few texts for the ranks is compared with the texts of all sources.
        groups = candidates.search_groups(
            self.table, self.texts, labels=self.settings.labels, by_source=self.settings.by_source,
            least=self.settings.ranks[1],
        )  # fmt: skip
        for number in range(blocks_done(file), len(groups)):
            rows, only = groups[number]
            found["score"][rows], found["number"][rows] = nearest(asked.take(rows), known, depth, only)
            asked.release()
            mark_done(file, number + 1, found)
            self.progress("searched", sum(len(group[0]) for group in groups[: number + 1]), len(self.table))
        return found

    def lowest(self, own: bool) -> Callable[[int, list[str]], float]:
        """Return a function: row number, its positives -> their lowest similarity to the query.

        Args:
            own: Whether the corpus is made of the rows themselves, so that it has the positives.

        Returns:
            The function; it returns infinity if no setting depends on it.
        """
        if self.settings.margin is None and self.settings.percentage is None:
            return lambda row, positives: np.inf
        texts, name = self.texts, "corpus"
        if not own:
            name, folder = "positives", self.folder / "positives"
            folder.mkdir(exist_ok=True)
            texts = candidates.build(folder, candidates.of_rows(self.table, by_source=False))
        known = self._embed(name, texts.texts, len(texts), self.retriever.documents)
        asked = self._queries(self.retriever.queries)
        order = np.argsort(texts.hashes, kind="stable")
        ordered = texts.hashes[order]

        def lowest(row: int, positives: list[str]) -> float:
            hashes = np.array([text_hash(text) for text in positives], dtype=np.uint64)
            places = order[np.searchsorted(ordered, hashes)]
            return float((known.take(places) @ asked.take(slice(row, row + 1))[0]).min())

        return lowest

    def _queries(self, encode: Encode) -> Vectors:
        return self._embed("queries", lambda part: tables.values(self.table, "query", part), len(self.table), encode)

    def _embed(self, name: str, texts: Callable[[slice], list[str]], count: int, encode: Encode) -> Vectors:
        def show(done: int, total: int | None) -> None:
            self.progress(f"{name} embedded", done, total)

        return embed(self.folder / f"{name}.npy", texts, count, encode, show)
