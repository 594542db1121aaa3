"""Rows that teach nothing or give a test away: repeats, near repeats, and what stands in evaluation files."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lusifer.data import store
from lusifer.data.cleaning import minhash
from lusifer.data.cleaning.held_out import LETTERS, evaluation_texts
from lusifer.data.report import Report
from lusifer.data.schema import Row
from lusifer.io.seen import text_key

if TYPE_CHECKING:
    from datasets import Dataset

SAME, NEAR = "dropped: repeats an earlier row", "dropped: nearly an earlier row"
BLANK = "dropped: nothing is left of a text after normalisation"
EMPTY = "dropped: query and positive are the same text"
LABELS = "dropped: the text of an earlier row under another label"
NEAR_LABELS = "dropped: nearly the text of an earlier row under another label"
FILES, TEXTS = "evaluation files compared with", "texts in them, each once"
SHORT = f"strings in them not compared: fewer than {LETTERS} letters and digits"
TEST, NEAR_TEST = "dropped: a text of it is in an evaluation file", "dropped: a text of it is nearly in one"
ITSELF = "positives taken out: the same text as the query"
NEGATIVE = "negatives taken out: the same text as a positive or another negative of the row"
CHANGED = "changed by normalisation"
KEPT, READ = "rows kept", "rows read"
_SPACES = re.compile(r"[^\S\n]+")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\ufffe]")

Progress = Callable[[int, int | None], None]


def normalise(text: str) -> str:
    """Give a text in Unicode NFC, runs of spaces as one, without control characters and space around it.

    Joiners of Persian and of Indic scripts stay, and so do line breaks.
    """
    return _SPACES.sub(" ", _CONTROL.sub("", unicodedata.normalize("NFC", text.replace("\r\n", "\n")))).strip()


def dedup(
    rows: Iterable[Row],
    kind: str,
    *,
    threshold: float = minhash.THRESHOLD,
    against: Sequence[Path] = (),
    progress: Progress = lambda done, total: None,
) -> tuple[Iterator[Row], Report]:
    """Clean a set.

    Two pairs are the same if query and positives are, two passages if the text is, by letters and digits alone. They
    are nearly the same if both the queries and the first positives are alike: a passage may answer many questions.

    Args:
        rows: Checked rows.
        kind: "pairs", "passages" or "labelled".
        threshold: Least Jaccard likeness of 5-grams for nearly the same; above 1 none is.
        against: Files whose texts must not occur (of any kind we read, or .json), or folders of such.
        progress: Called with (rows done, rows or None).

    Returns:
        The rows that stay, normalised, in their order, to be read once; and the report.

    Raises:
        DataError: A row or an evaluation file cannot be read.
    """
    report = Report("Cleaned rows")
    tests = _held_out(against, report) if against else []
    table = store.collect(_tidy(rows, kind, report, progress), kind)
    dropped = np.zeros(len(table), dtype=bool)
    _drop_same(table, kind, dropped, report)
    if tests:
        _drop_tests(table, kind, tests, dropped, report, threshold)
    if threshold <= 1:
        _drop_near(table, kind, dropped, report, threshold)
    report.counts[KEPT] = int((~dropped).sum())
    return (table[int(number)] for number in np.flatnonzero(~dropped)), report


def _tidy(rows: Iterable[Row], kind: str, report: Report, progress: Progress) -> Iterator[Row]:
    """Normalised rows; those of which nothing is left to learn are counted and left out."""
    for number, row in enumerate(rows, start=1):
        report.count(READ)
        progress(number, None)
        if kind != "pairs":
            tidy = row | {"text": normalise(row["text"])}
        else:
            tidy = row | {
                "query": normalise(row["query"]),
                "positive": list(dict.fromkeys(map(normalise, row["positive"]))),
                "negative": list(map(normalise, row["negative"])),
            }
        if tidy != row:
            report.count(CHANGED)
        if kind == "pairs":
            tidy["positive"] = list(filter(None, tidy["positive"]))
            tidy["negative"] = list(filter(None, tidy["negative"]))
        if not (tidy["query"] and tidy["positive"] if kind == "pairs" else tidy["text"]):
            report.count(BLANK, repr(row["query"] if kind == "pairs" else row["text"]))
            continue
        if kind == "pairs":
            positives = [text for text in tidy["positive"] if _same(text) != _same(tidy["query"])]
            if positives and len(positives) < len(tidy["positive"]):
                report.count(ITSELF, row["query"])
            tidy["positive"] = positives
            if not positives:
                report.count(EMPTY, row["query"], row["positive"][0])
                continue
            tidy["negative"] = _distinct(tidy, report)
        yield tidy


def _distinct(row: Row, report: Report) -> list[str]:
    """The negatives of a row that are neither one of its positives nor there twice."""
    seen = set(map(_same, row["positive"]))
    kept = []
    for text in row["negative"]:
        key = _same(text)
        if key in seen:
            report.count(NEGATIVE, row["query"], text)
        else:
            kept.append(text)
        seen.add(key)
    return kept


def _drop_same(table: Dataset, kind: str, dropped: np.ndarray, report: Report) -> None:
    """Mark rows that repeat an earlier one."""
    seen: dict[int, int] = {}
    for number, row in enumerate(table):
        parts = [row["query"], *sorted(row["positive"])] if kind == "pairs" else [row["text"]]
        source = row["source"] if kind == "labelled" else None  # labels mean something within one source only
        earlier = seen.setdefault(_hash([source or "", *parts]), number)
        if earlier == number:
            continue
        dropped[number] = True
        if kind == "labelled" and table[earlier]["label"] != row["label"]:
            report.count(LABELS, row["text"], row["label"], table[earlier]["label"])
        else:
            report.count(SAME, *parts)


def _drop_near(table: Dataset, kind: str, dropped: np.ndarray, report: Report, threshold: float) -> None:
    """Mark rows that are nearly an earlier one that stays."""
    column = "query" if kind == "pairs" else "text"
    kept = np.flatnonzero(~dropped)

    def read(place: int) -> str:
        return table[int(kept[place])][column]

    chunks = (store.texts(table, column, kept[start:][: store.CHUNK]) for start in range(0, len(kept), store.CHUNK))
    texts = (text for chunk in chunks for text in chunk)
    # Pairs come in the order of the later one: whether the earlier one stays is known by then.
    for later, earlier, _ in minhash.alike(minhash.bands(texts), read, threshold):
        if dropped[kept[later]] or dropped[kept[earlier]]:
            continue
        one, other = table[int(kept[later])], table[int(kept[earlier])]
        if kind == "labelled" and one["source"] != other["source"]:
            continue
        if kind != "pairs" or _alike(one["positive"][0], other["positive"][0], threshold):
            dropped[kept[later]] = True
            contradicts = kind == "labelled" and one["label"] != other["label"]
            report.count(NEAR_LABELS if contradicts else NEAR, one[column], other[column])


def _alike(one: str, other: str, threshold: float) -> bool:
    return one == other or minhash.jaccard(minhash.shingles(one), minhash.shingles(other)) >= threshold


def _held_out(against: Sequence[Path], report: Report) -> list[str]:
    """The texts that must not occur; the report says where they are from, and what is too short to be compared."""
    held = evaluation_texts(against)
    for file, texts in held.files.items():
        report.count(FILES, f"{file}: {texts:,} texts")
    report.count(TEXTS, by=len(held.texts))
    report.count(SHORT, by=held.short)
    return held.texts


def _drop_tests(
    table: Dataset, kind: str, tests: list[str], dropped: np.ndarray, report: Report, threshold: float
) -> None:
    """Mark rows with a text that is, or nearly is, one of an evaluation file; some rows at a time."""
    keys, known = {text_key(text) for text in tests}, minhash.bands(tests)
    for start in range(0, len(table), store.CHUNK):
        owners: list[int] = []
        texts: list[str] = []
        for number, row in enumerate(table.data.slice(start, store.CHUNK).to_pylist(), start=start):
            found = [row["query"], *row["positive"], *row["negative"]] if kind == "pairs" else [row["text"]]
            exact = next((text for text in found if text_key(text) in keys), None)
            if exact is not None and not dropped[number]:
                dropped[number] = True
                report.count(TEST, exact)
            if not dropped[number]:
                owners += [number] * len(found)
                texts += found
        if threshold > 1 or not texts:
            continue
        for place, test in minhash.across(known, minhash.bands(texts), texts.__getitem__, tests.__getitem__, threshold):
            if not dropped[owners[place]]:
                dropped[owners[place]] = True
                report.count(NEAR_TEST, texts[place], tests[test])


def _same(text: str) -> str:
    """What makes two texts the same one; a text of signs alone is compared as it is."""
    return text_key(text) or text


def _hash(parts: Sequence[str]) -> int:
    """64 bits of some texts as they are compared."""
    joined = "\x00".join(map(_same, parts))
    return int.from_bytes(hashlib.blake2b(joined.encode(), digest_size=8).digest(), "little")
