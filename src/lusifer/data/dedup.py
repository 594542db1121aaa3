"""Drop duplicates and near-duplicates of earlier rows, and rows with a text of an evaluation file.

Near-duplicates are found by MinHash over 5-grams of characters: texts that share a band are candidates, and the Jaccard
similarity of their 5-grams decides (published: an estimate from 1,000 permutations, threshold 0.8). The signatures are
those of datasketch, but not the index: it has a set per bucket, which takes gigabytes for a million texts. Here a band
is one number per text, and sorting finds the texts that share it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lusifer.data import tables
from lusifer.data.answers import KnownAnswers, known_answers
from lusifer.data.schema import Row, normalise, same_text, text_hash
from lusifer.data.tables import RowCounts
from lusifer.errors import UsageError
from lusifer.extras import need
from lusifer.io import rows as row_files
from lusifer.io.files import read_json, refuse_no_file
from lusifer.io.seen import text_key

if TYPE_CHECKING:
    from datasets import Dataset

_KINDS = (*row_files.SUFFIXES, ".json")
LETTERS = 12  # shorter texts of an evaluation file are not compared: labels and names may occur anywhere
SAME, NEAR = "dropped: duplicate of an earlier row", "dropped: near-duplicate of an earlier row"
BLANK = "dropped: a text is empty after normalisation"
EMPTY = "dropped: query and positive are the same text"
LABELS = "dropped: duplicate of an earlier text with another label"
NEAR_LABELS = "dropped: near-duplicate of an earlier text with another label"
FILES, TEXTS = "evaluation files compared with", "distinct texts in them"
SHORT = f"strings in them not compared: fewer than {LETTERS} letters and digits"
BINARY = "columns in them not fully compared: binary values that are not UTF-8"
TEST, NEAR_TEST = "dropped: has a text of an evaluation file", "dropped: has a near-duplicate of such a text"
ITSELF = "positives removed: the same text as the query"
NEGATIVE = "negatives removed: the query, one of its answers in any row, or a duplicate"
CHANGED = "changed by normalisation"
KEPT, READ = "rows kept", "rows read"
NGRAM = 5  # characters, as published
THRESHOLD = 0.8  # as published
_BANDS, _ROWS = 32, 8  # 99.7 % of the pairs with similarity 0.8 share a band, and one in eight of those with 0.5
_MEMBERS = 32  # how many texts in a bucket of another set a text is compared with
_SEED = 1
_RADIX = np.uint64(1_000_003)
_NO_WORD = re.compile(r"[\W_]+")
_DASH = r"[-\u2010-\u2015\u2212]"
_SIGNS = re.compile(
    rf"""
      [:;=] [-']? [()\[\]]                                            # :) and :(
    | (?<![^\s("\[{{\u00ab\u201c]) (?: {_DASH}+ | [.!?:,]+ ) (?=[^\s.!?:,])  # before a word: -5, --force, .NET, :smile
    | \d+ (?: [.,:/-] \d+ )*                                          # a number, a time, a date
    | (?<=\b\w\ ) {_DASH} (?=\ \w) | (?<=\d\ ) {_DASH} (?=\ \d)       # x - y, 10 - 5; a dash between words is none
    | (?<=\w) {_DASH} (?!\w)                                          # after a word: A-
    | (?<=\d) ["'!]+ | \b\w! | '+ (?=\() | ''+                        # feet, inches, factorials, derivatives
    | [(\[] (?= -? [\d.]+ , [^()\[\]]* [)\]] ) | (?<=\d) [)\]]        # [0, 1) and (0, 1]
    | [%#&@*/\\_\u00a7\u00b6\u066a-\u066d\u2016\u2020-\u2023\u2030-\u2038\u203b\u203d\u2047-\u2049]
    | [\U000e0020-\U000e007f]+                                        # tags of flags
    """,
    re.VERBOSE,
)

Progress = Callable[[int, int | None], None]


def dedup(
    rows: Iterable[Row],
    kind: str,
    *,
    threshold: float = THRESHOLD,
    against: Sequence[Path] = (),
    progress: Progress = lambda done, total: None,
) -> tuple[Iterator[Row], RowCounts]:
    """Clean a dataset: normalise texts, drop duplicates, near-duplicates and texts of evaluation files.

    - Duplicates are pairs with the same query and positives, or passages with the same text, by `same_text`.
    - Near-duplicates are pairs whose queries and first positives are both similar (a passage may answer many
      questions), or similar passages. The numbers, signs and symbols must be the same, in the same order.
    - Negatives that answer their query in any row are removed.

    Args:
        rows: Checked rows.
        kind: "pairs", "passages" or "labelled".
        threshold: The least Jaccard similarity of the 5-grams of near-duplicates; above 1 none are dropped.
        against: Evaluation files whose texts must not occur (any file of rows, or .json), or folders of them.
        progress: Called with (rows done, rows or None).

    Returns:
        An iterator over the remaining rows, normalised and in their order, and the counts. The counts of negatives are
        complete when the iterator is read to its end.

    Raises:
        DataError: A row or an evaluation file cannot be read.
    """
    report = RowCounts("Cleaned rows")
    tests = evaluation_texts(against, report) if against else []
    table = tables.collect(_tidy(rows, kind, report, progress), kind)
    dropped = np.zeros(len(table), dtype=bool)
    _drop_same(table, kind, dropped, report)
    if tests:
        _drop_tests(table, kind, tests, dropped, report, threshold)
    if threshold <= 1:
        _drop_near(table, kind, dropped, report, threshold)
    report.counts[KEPT] = int((~dropped).sum())
    kept = (table[int(number)] for number in np.flatnonzero(~dropped))
    return (_without_answers(kept, known_answers(table), report) if kind == "pairs" else kept), report


def _tidy(rows: Iterable[Row], kind: str, report: RowCounts, progress: Progress) -> Iterator[Row]:
    """Yield normalised rows; rows that have become empty are counted and left out."""
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
            positives = [text for text in tidy["positive"] if same_text(text) != same_text(tidy["query"])]
            if positives and len(positives) < len(tidy["positive"]):
                report.count(ITSELF, row["query"])
            tidy["positive"] = positives
            if not positives:
                report.count(EMPTY, row["query"], row["positive"][0])
                continue
        yield tidy


def _without_answers(rows: Iterable[Row], answers: KnownAnswers, report: RowCounts) -> Iterator[Row]:
    """Yield the rows without duplicate negatives and without those that answer their query in any row."""
    for row in rows:
        seen = answers.of(text_hash(row["query"])) | set(map(text_hash, row["positive"]))
        kept = []
        for text in row["negative"]:
            if text_hash(text) in seen:
                report.count(NEGATIVE, row["query"], text)
            else:
                kept.append(text)
            seen.add(text_hash(text))
        yield row | {"negative": kept}


def _drop_same(table: Dataset, kind: str, dropped: np.ndarray, report: RowCounts) -> None:
    """Mark duplicates of earlier rows."""
    seen: dict[int, int] = {}
    for number, row in enumerate(table):
        parts = [row["query"], *sorted(row["positive"])] if kind == "pairs" else [row["text"]]
        source = row["source"] if kind == "labelled" else None  # labels are comparable within one source only
        earlier = seen.setdefault(text_hash(source or "", *parts), number)
        if earlier == number:
            continue
        dropped[number] = True
        if kind == "labelled" and table[earlier]["label"] != row["label"]:
            report.count(LABELS, row["text"], row["label"], table[earlier]["label"])
        else:
            report.count(SAME, *parts)


def _drop_near(table: Dataset, kind: str, dropped: np.ndarray, report: RowCounts, threshold: float) -> None:
    """Mark near-duplicates of earlier rows that stay."""
    column = "query" if kind == "pairs" else "text"
    kept = np.flatnonzero(~dropped)

    def read(place: int) -> str:
        return table[int(kept[place])][column]

    chunks = (kept[start:][: tables.CHUNK] for start in range(0, len(kept), tables.CHUNK))
    texts = (text for chunk in chunks for text in tables.values(table, column, chunk))
    # Pairs are in the order of the later row, so it is already known whether the earlier one stays.
    for later, earlier in near_pairs(bands(texts), read, threshold):
        if signs(read(later)) != signs(read(earlier)):
            continue
        if dropped[kept[later]] or dropped[kept[earlier]]:
            continue
        one, other = table[int(kept[later])], table[int(kept[earlier])]
        if kind == "labelled" and one["source"] != other["source"]:
            continue
        firsts = [row["positive"][0] for row in (one, other)] if kind == "pairs" else ["", ""]
        if signs(firsts[0]) == signs(firsts[1]) and _similar(*firsts) >= threshold:
            dropped[kept[later]] = True
            contradicts = kind == "labelled" and one["label"] != other["label"]
            report.count(NEAR_LABELS if contradicts else NEAR, one[column], other[column])


def evaluation_texts(paths: Iterable[Path], report: RowCounts) -> list[str]:
    """Read the texts of evaluation files: every distinct string of at least twelve letters and digits, in any field.

    Args:
        paths: Files (.jsonl, .csv, both also .gz, .parquet, .json), or folders of them.
        report: Gets the counts of texts, of strings that are too short, and of columns with binary values.

    Raises:
        UsageError: A file is missing, or a folder has no file that can be read.
        DataError: A file is damaged.
    """
    found: dict[str, None] = {}
    short: set[str] = set()
    for file in dict.fromkeys(file for path in paths for file in _files(path)):
        binary: dict[str, None] = {}
        texts = dict.fromkeys(_texts(file, binary))
        for column in binary:
            report.count(BINARY, f"{file}: {column}")
        long = [text for text in texts if len(text_key(text)) >= LETTERS]
        short |= texts.keys() - set(long)
        found |= dict.fromkeys(long)
        report.count(FILES, f"{file}: {len(long):,} texts")
    report.count(TEXTS, by=len(found))
    report.count(SHORT, by=len(short))
    return list(found)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        refuse_no_file(path, raises=UsageError)
    files = [file for file in sorted(path.rglob("*")) or [path] if row_files.ending(file) in _KINDS and file.is_file()]
    if not files:
        raise UsageError(f"{path}: no evaluation file there: give a file ({', '.join(_KINDS)}) or a folder of them")
    return files


def _texts(file: Path, binary: dict[str, None]) -> Iterator[str]:
    """All texts of a file; `binary` gets the columns with bytes that are not UTF-8."""
    if row_files.ending(file) == ".json":
        yield from row_files.strings(read_json(file, "copy it again"))
        return
    for row in row_files.read(file, lambda row, _: row):
        for column, value in row.items() if isinstance(row, dict) else [("", row)]:
            for text in row_files.strings(value):
                try:
                    yield text if isinstance(text, str) else text.decode()
                except UnicodeDecodeError:
                    binary[column] = None


def _drop_tests(
    table: Dataset, kind: str, tests: list[str], dropped: np.ndarray, report: RowCounts, threshold: float
) -> None:
    """Mark rows with a duplicate or near-duplicate of a text of an evaluation file; `CHUNK` rows at a time."""
    keys, known = {text_key(text) for text in tests}, bands(tests)
    for start in range(0, len(table), tables.CHUNK):
        owners: list[int] = []
        texts: list[str] = []
        for number, row in enumerate(table.data.slice(start, tables.CHUNK).to_pylist(), start=start):
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
        for place, test in near_pairs_across(known, bands(texts), texts.__getitem__, tests.__getitem__, threshold):
            if not dropped[owners[place]]:
                dropped[owners[place]] = True
                report.count(NEAR_TEST, texts[place], tests[test])


def shingles(text: str) -> np.ndarray:
    """Hash the distinct 5-grams of a text, without regard to case, punctuation and width of spaces.

    A text of fewer than five characters is padded to one 5-gram.

    Returns:
        (n,) uint64 below 2**32, sorted.
    """
    plain = _NO_WORD.sub(" ", text.casefold()).strip()
    codes = np.frombuffer(plain.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    if len(codes) < NGRAM:
        codes = np.concatenate([codes, np.zeros(NGRAM - len(codes), dtype=np.uint64)])
    windows = np.lib.stride_tricks.sliding_window_view(codes, NGRAM)
    hashed = np.zeros(len(windows), dtype=np.uint64)
    for column in range(NGRAM):  # modulo 2**64, as uint64 does
        hashed = hashed * _RADIX + windows[:, column]
    hashed ^= hashed >> np.uint64(29)
    hashed *= np.uint64(0xBF58476D1CE4E5B9)
    return np.unique(hashed >> np.uint64(32))


def signs(text: str) -> list[str]:
    """Return the numbers with their signs, symbols and emoji of a text, in order: texts that differ in them differ."""
    plain = unicodedata.normalize("NFKC", text)
    symbols = {character for character in plain if unicodedata.category(character)[0] == "S"}
    pattern = "|".join([_SIGNS.pattern, *map(re.escape, symbols)])
    return re.findall(pattern, plain, re.VERBOSE)


def jaccard(one: np.ndarray, other: np.ndarray) -> float:
    """Return the Jaccard similarity of two sets of `shingles`, (n,) and (m,): intersection divided by union."""
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / (len(one) + len(other) - shared)


def bands(texts: Iterable[str]) -> np.ndarray:
    """Hash each of n texts into bands, (n, 32) uint64; texts that share a band are candidates for near-duplicates."""
    start = need("data", "datasketch").MinHash(num_perm=_BANDS * _ROWS, seed=_SEED, hashfunc=int)
    found = []
    for text in texts:
        signature = start.copy()
        signature.update_batch(shingles(text).tolist())
        rows = signature.hashvalues.astype(np.uint64).reshape(_BANDS, _ROWS)
        hashed = np.zeros(_BANDS, dtype=np.uint64)
        for column in range(_ROWS):
            hashed = (hashed ^ rows[:, column]) * np.uint64(0x9E3779B97F4A7C15)
            hashed ^= hashed >> np.uint64(32)
        found.append(hashed)
    return np.array(found, dtype=np.uint64).reshape(-1, _BANDS)


def near_pairs(
    table: np.ndarray, read: Callable[[int], str], threshold: float = THRESHOLD
) -> Iterator[tuple[int, int]]:
    """Yield the pairs (later, earlier) of near-duplicates within one dataset, in ascending order, each once.

    In a bucket of many texts each is compared with the first one and with its neighbors, not with all.

    Args:
        table: The `bands` of all texts.
        read: Number -> text; called for candidates only.
        threshold: The least Jaccard similarity.
    """
    for later, earlier in _candidates(table):
        if _similar(read(later), read(earlier)) >= threshold:
            yield later, earlier


def near_pairs_across(
    known: np.ndarray,
    table: np.ndarray,
    read: Callable[[int], str],
    read_known: Callable[[int], str],
    threshold: float = THRESHOLD,
) -> Iterator[tuple[int, int]]:
    """Yield (number in `table`, number in `known`), ascending, of near-duplicates between two datasets.

    In a bucket of many known texts each text is compared with the first 32 of them.

    Args:
        known: The `bands` of the other dataset.
        table: The `bands` of this dataset.
        read: Number -> text of this dataset; called for candidates only.
        read_known: The same for the other dataset.
        threshold: The least Jaccard similarity.
    """
    found = np.zeros((0, 2), dtype=np.int64)
    for column in range(table.shape[1]):
        order = np.argsort(known[:, column], kind="stable")
        values = known[order, column]
        first, last = (np.searchsorted(values, table[:, column], side=side) for side in ("left", "right"))
        counts = np.minimum(last - first, _MEMBERS)
        ones = np.repeat(np.arange(len(table)), counts)
        places = np.arange(counts.sum()) + np.repeat(first - np.cumsum(counts) + counts, counts)
        # Similar texts share most bands: without `unique` memory would grow with the number of bands.
        found = np.unique(np.concatenate([found, np.stack([ones, order[places]], axis=1)]), axis=0)
    for one, pairs in groupby(found.tolist(), key=itemgetter(0)):
        own = shingles(read(one))
        for _, other in pairs:
            if jaccard(own, shingles(read_known(other))) >= threshold:
                yield one, other


def _similar(one: str, other: str) -> float:
    return 1.0 if one == other else jaccard(shingles(one), shingles(other))


def _candidates(table: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs that share a band."""
    pairs = [np.zeros((0, 2), dtype=np.int64)]
    for column in range(table.shape[1] if len(table) else 0):
        order = np.argsort(table[:, column], kind="stable")
        values = table[order, column]
        new = np.concatenate([[True], values[1:] != values[:-1]])
        heads = order[np.flatnonzero(new)][np.cumsum(new) - 1]  # of each text, the first one of its bucket
        pairs.append(np.stack([order[~new], heads[~new]], axis=1))
        for step in (1, 2, 3):
            same = values[step:] == values[:-step]
            pairs.append(np.stack([order[step:][same], order[:-step][same]], axis=1))
    yield from ((int(later), int(earlier)) for later, earlier in np.unique(np.concatenate(pairs), axis=0))
