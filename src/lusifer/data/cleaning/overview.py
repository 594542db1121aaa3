"""What is in a file of rows, read once from its first row to its last: counts, lengths, repeats, what looks odd."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from lusifer.data.schema import Row, text_hash
from lusifer.io.seen import SeenTexts

CHARACTERS_PER_TOKEN = 4  # English prose under a subword tokenizer, roughly
_LETTERS = 12  # a shorter text tells nothing about what was seen
_BATCHES = (32, 64, 128, 256)  # sizes of a step at which clusters are looked at
_PLACEHOLDERS = {"nan", "none", "null", "n/a", "na"}  # what tools write where nothing is
_QUANTILES = {"median": 0.5, "95 %": 0.95, "99 %": 0.99, "longest": 1.0}


@dataclass
class Overview:
    """Counts of one set. `lengths` are characters by column; `seen` texts that a filter of training texts has."""

    kind: str
    rows: int = 0
    sources: Counter[str] = field(default_factory=Counter)
    tasks: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    clusters: Counter[tuple[str | None, int]] = field(default_factory=Counter)
    positives: Counter[int] = field(default_factory=Counter)
    negatives: Counter[int] = field(default_factory=Counter)
    lengths: dict[str, dict[str, float]] = field(default_factory=dict)
    long: dict[str, int] = field(default_factory=dict)
    repeats: int = 0
    other_script: int = 0
    placeholders: Counter[str] = field(default_factory=Counter)
    seen: int | None = None
    texts: int = 0


def overview(
    rows: Iterable[Row],
    kind: str,
    *,
    max_length: int = 512,
    seen: SeenTexts | None = None,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> Overview:
    """Read rows and count.

    Args:
        rows: Checked rows.
        kind: "pairs", "passages" or "labelled".
        max_length: Tokens that a model will read; `long` counts texts of more than four times as many characters.
        seen: Texts of a training run, to count those of these rows that are among them.
        progress: Called with (rows done, None).
    """
    made = Overview(kind, seen=None if seen is None else 0)
    lengths: dict[str, list[int]] = {}
    known: set[int] = set()
    for number, row in enumerate(rows, start=1):
        progress(number, None)
        made.rows = number
        _columns(made, row)
        texts = _texts(row)
        for column, column_texts in texts.items():
            lengths.setdefault(column, []).extend(map(len, column_texts))
        main = next(iter(texts.values()))[0]
        made.other_script += _other_script(main)
        key = text_hash(main, *texts.get("positive", ()))
        made.repeats += key in known
        known.add(key)
        every = [text for some in texts.values() for text in some]
        made.placeholders.update(text for text in every if text.strip().casefold() in _PLACEHOLDERS)
        for text in (text for text in every if len(text) >= _LETTERS):
            made.texts += 1
            if seen is not None and text in seen:
                made.seen = (made.seen or 0) + 1
    limit = max_length * CHARACTERS_PER_TOKEN
    for column, values in lengths.items():
        if values:
            made.lengths[column] = {name: float(np.quantile(values, at)) for name, at in _QUANTILES.items()}
            made.long[column] = sum(value > limit for value in values)
    return made


def lines(made: Overview, max_length: int) -> list[str]:
    """Say what was found, a line each; counters of many values by their most frequent ones."""
    found = [f"{made.rows:,} rows of {made.kind}"]
    for name, counter in (("sources", made.sources), ("tasks", made.tasks), ("labels", made.labels)):
        if counter:
            found.append(f"{name}: {len(counter):,}: {_most(counter)}")
    if made.clusters:
        sizes = sorted(made.clusters.values())
        found.append(f"clusters: {len(sizes):,} of {sizes[0]:,} to {sizes[-1]:,} rows")
        shares = ((size, sum(rows - rows % size for rows in sizes) / made.rows) for size in _BATCHES)
        words = ", ".join(f"{share:.0%} at batch_size {size}" for size, share in shares)
        found.append(f"rows that batches of one cluster can hold: {words}")
    if made.kind == "pairs":
        found += [f"{name} a row: {_spread(values)}" for name, values in _lists(made).items()]
    for column, numbers in made.lengths.items():
        words = ", ".join(f"{name} {value:,.0f}" for name, value in numbers.items())
        found.append(f"{column}: characters: {words}; {made.long[column]:,} may be over {max_length} tokens and be cut")
    found.append(f"repeated rows: {made.repeats:,} (by letters and digits; `lusifer data dedup` drops them)")
    if made.placeholders:
        found.append(f"texts that may stand for a missing value: {_most(made.placeholders)}")
    if made.other_script:
        found.append(f"rows mostly in another script than the Latin one: {made.other_script:,}")
    if made.seen is not None:
        found.append(f"texts that the training run has seen: {made.seen:,} of {made.texts:,}")
    return found


def _columns(made: Overview, row: Row) -> None:
    for column, counter in (("source", made.sources), ("task", made.tasks), ("label", made.labels)):
        if row.get(column) is not None:
            counter[row[column]] += 1
    if row.get("cluster") is not None:
        made.clusters[row["source"], row["cluster"]] += 1
    if made.kind == "pairs":
        made.positives[len(row["positive"])] += 1
        made.negatives[len(row["negative"])] += 1


def _texts(row: Row) -> dict[str, list[str]]:
    if "query" not in row:
        return {"text": [row["text"]]}
    return {"query": [row["query"]], "positive": row["positive"], "negative": row["negative"]}


def _other_script(text: str) -> bool:
    """Whether most letters of a text are not Latin: a row of another language in English data."""
    letters = [character for character in text[:200] if character.isalpha()]
    foreign = sum(
        character > "\x7f" and not unicodedata.name(character, "").startswith("LATIN") for character in letters
    )
    return foreign * 2 > len(letters)


def _lists(made: Overview) -> Mapping[str, Counter[int]]:
    return {"positives": made.positives, "negatives": made.negatives}


def _most(counter: Counter[str], count: int = 8) -> str:
    words = ", ".join(f"{name} {number:,}" for name, number in counter.most_common(count))
    return words + (", ..." if len(counter) > count else "")


def _spread(values: Counter[int]) -> str:
    return ", ".join(f"{number} in {rows:,} rows" for number, rows in sorted(values.items()))
