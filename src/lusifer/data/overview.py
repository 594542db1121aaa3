"""Summarize a file of rows: counts, lengths, duplicates, texts that look wrong."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from lusifer.data.schema import Row, text_hash
from lusifer.io.seen import SeenTexts

CHARACTERS_PER_TOKEN = 4  # English prose under a subword tokenizer, roughly
_LETTERS = 12  # shorter texts are not looked up: they may be in any training data
_BATCHES = (32, 64, 128, 256)  # batch sizes for which the share of rows in batches of one cluster is shown
_PLACEHOLDERS = {"nan", "none", "null", "n/a", "na"}  # what tools write for a missing value
_QUANTILES = {"median": 0.5, "95 %": 0.95, "99 %": 0.99, "longest": 1.0}


@dataclass
class Overview:
    """Counts of one dataset.

    values: Column -> its values, counted.
    lists: Column -> the numbers of texts in its lists, counted.
    clusters: (source, cluster) -> number of rows.
    lengths: Column -> the number of characters of each text.
    placeholders: Texts that may stand for a missing value, counted.
    repeats: Duplicate rows.
    other_script: Rows whose main text is mostly not in the Latin script.
    seen: Texts that a training run has seen, of `texts` that are long enough to tell; None if no run is given.
    """

    kind: str
    rows: int = 0
    values: dict[str, Counter[str]] = field(default_factory=dict)
    lists: dict[str, Counter[int]] = field(default_factory=dict)
    clusters: Counter[tuple[str | None, int]] = field(default_factory=Counter)
    lengths: dict[str, list[int]] = field(default_factory=dict)
    placeholders: Counter[str] = field(default_factory=Counter)
    repeats: int = 0
    other_script: int = 0
    seen: int | None = None
    texts: int = 0


def overview(
    rows: Iterable[Row],
    kind: str,
    *,
    seen: SeenTexts | None = None,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> Overview:
    """Count the content of checked rows.

    Args:
        rows: The rows.
        kind: "pairs", "passages" or "labelled".
        seen: The texts of a training run, to count those that it has seen.
        progress: Called with (rows done, None).
    """
    made = Overview(kind, seen=None if seen is None else 0)
    known: set[int] = set()
    for number, row in enumerate(rows, start=1):
        progress(number, None)
        made.rows = number
        for column in ("source", "task", "label"):
            if row.get(column) is not None:
                made.values.setdefault(column, Counter())[row[column]] += 1
        if row.get("cluster") is not None:
            made.clusters[row["source"], row["cluster"]] += 1
        for column in ("positive", "negative") if kind == "pairs" else ():
            made.lists.setdefault(column, Counter())[len(row[column])] += 1
        columns = {column: row[column] for column in ("query", "text", "positive", "negative") if column in row}
        texts = {column: [value] if isinstance(value, str) else value for column, value in columns.items()}
        for column, column_texts in texts.items():
            made.lengths.setdefault(column, []).extend(map(len, column_texts))
        main = next(iter(texts.values()))[0]
        made.other_script += _other_script(main)
        key = text_hash(main, *texts.get("positive", ()))
        made.repeats += key in known
        known.add(key)
        every = [text for some in texts.values() for text in some]
        made.placeholders.update(text for text in every if text.strip().casefold() in _PLACEHOLDERS)
        long = [text for text in every if len(text) >= _LETTERS]
        made.texts += len(long)
        if seen is not None:
            made.seen = (made.seen or 0) + sum(text in seen for text in long)
    return made


def lines(made: Overview, max_length: int) -> list[str]:
    """Format the counts as lines for a terminal.

    Args:
        made: The counts.
        max_length: The maximum length of the model in tokens. Texts with more than four characters per such token are
            counted as possibly truncated.
    """
    found = [f"{made.rows:,} rows of {made.kind}"]
    for column in (column for column in ("source", "task", "label") if column in made.values):
        found.append(f"{column}s: {len(made.values[column]):,}: {_most(made.values[column])}")
    if made.clusters:
        sizes = sorted(made.clusters.values())
        found.append(f"clusters: {len(sizes):,} of {sizes[0]:,} to {sizes[-1]:,} rows")
        shares = ((size, sum(rows - rows % size for rows in sizes) / made.rows) for size in _BATCHES)
        words = ", ".join(f"{share:.0%} at batch_size {size}" for size, share in shares)
        found.append(f"rows that fit into batches of one cluster: {words}")
    for column, numbers in made.lists.items():
        words = ", ".join(f"{number} in {rows:,} rows" for number, rows in sorted(numbers.items()))
        found.append(f"{column}s per row: {words}")
    limit = max_length * CHARACTERS_PER_TOKEN
    for column, lengths in ((column, lengths) for column, lengths in made.lengths.items() if lengths):
        words = ", ".join(f"{name} {np.quantile(lengths, at):,.0f}" for name, at in _QUANTILES.items())
        long = sum(length > limit for length in lengths)
        found.append(f"{column}: characters: {words}; {long:,} may be over {max_length} tokens and be truncated")
    by = "ignoring case, spaces and punctuation at the end; `lusifer data dedup` drops them"
    found.append(f"duplicate rows: {made.repeats:,} ({by})")
    if made.placeholders:
        found.append(f"texts that may stand for a missing value: {_most(made.placeholders)}")
    if made.other_script:
        found.append(f"rows mostly in another script than Latin: {made.other_script:,}")
    if made.seen is not None:
        found.append(f"texts that the training run has seen: {made.seen:,} of {made.texts:,}")
    return found


def _other_script(text: str) -> bool:
    """Whether most letters of a text are not Latin, which means another language in English data."""
    letters = [character for character in text[:200] if character.isalpha()]
    foreign = sum(
        character > "\x7f" and not unicodedata.name(character, "").startswith("LATIN") for character in letters
    )
    return foreign * 2 > len(letters)


def _most(counter: Counter[str], count: int = 8) -> str:
    words = ", ".join(f"{name} {number:,}" for name, number in counter.most_common(count))
    return words + (", ..." if len(counter) > count else "")
