"""Parallel rows for the small encoder: reading, setting rows aside, and drawing batches.

The data folder holds ``parallel/en-xx.jsonl.gz`` files, one JSON object per line with the keys
``en``, ``xx`` (the language code itself) and ``source``.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# Dictionaries and term lists: words without a context, drawn less often in the later phases.
DICTIONARIES = frozenset(
    {
        "tico19-terms",
        "cldr",
        "osm-tagging-schema",
        "freedict",
        "omw-bahasa",
        "omw-arabic",
        "omw-wikt",
        "wiktionary-dict",
        "indian-parallel-corpora-dict",
    }
)
# The licence of the translation's wording is in doubt.
LEFT_OUT = frozenset({"bible-nt"})
# Professional translations of general text: the rows set aside are taken from here.
HELD_OUT_SOURCES = ("ntrex", "tico19")


class CorpusError(Exception):
    """The data folder cannot be used; the message is one line that names what is missing."""


@dataclass(frozen=True)
class Row:
    """One translation pair; ``language`` is the code of the side that is not English."""

    english: str
    other: str
    language: str
    source: str


@dataclass(frozen=True)
class Split:
    """Training rows, and rows set aside: (language, source) -> rows of which none is trained on."""

    train: list[Row]
    held_out: dict[tuple[str, str], list[Row]]

    def counts(self) -> dict[str, dict[str, int]]:
        """Number of training rows of each language and source."""
        counter = Counter((row.language, row.source) for row in self.train)
        table: dict[str, dict[str, int]] = {}
        for (language, source), number in sorted(counter.items()):
            table.setdefault(language, {})[source] = number
        return table


def read_rows(data: Path, languages: Sequence[str]) -> list[Row]:
    """Read ``parallel/en-xx.jsonl.gz`` below ``data`` for each language.

    Raises CorpusError when the folder holds no such file or a line is not such a row.
    """
    files = [data / "parallel" / f"en-{code}.jsonl.gz" for code in languages]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise CorpusError(f"{missing[0]}: no such file (see --data and --languages in README.md)")
    rows: list[Row] = []
    for file in files:
        language = file.name.removeprefix("en-").removesuffix(".jsonl.gz")
        number = 0
        try:
            with gzip.open(file, "rt", encoding="utf-8") as lines:
                for line in lines:
                    number += 1
                    row = json.loads(line)
                    if row["source"] not in LEFT_OUT:
                        rows.append(Row(row["en"], row[language], language, row["source"]))
        except (OSError, EOFError, UnicodeDecodeError) as error:
            raise CorpusError(f"{file}: cannot be read ({error})") from error
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise CorpusError(f"{file} line {number}: not an object with en, {language}, source") from error
    return rows


def english_texts(data: Path) -> list[str]:
    """Read the English texts below ``data``: passages (long ones also from their middle on), pairs and labelled texts.

    Raises CorpusError when a file is missing or a line is not such a row.
    """
    texts: list[str] = []
    for name in ("passages", "pairs", "labelled"):
        file, number = data / "english" / f"{name}.jsonl.gz", 0
        try:
            with gzip.open(file, "rt", encoding="utf-8") as lines:
                for line in lines:
                    number += 1
                    row = json.loads(line)
                    found = [row["query"], *row["positive"], *row["negative"]] if name == "pairs" else [row["text"]]
                    if name == "passages" and len(found[0]) > 600:
                        found.append(found[0][len(found[0]) // 2 :].partition(" ")[2])
                    texts += found
        except (OSError, EOFError, UnicodeDecodeError) as error:
            raise CorpusError(f"{file}: cannot be read ({error})") from error
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise CorpusError(f"{file} line {number}: not a row of {name}") from error
    return texts


def split_rows(rows: list[Row], held_out_rows: int, seed: int) -> Split:
    """Set aside ``held_out_rows`` English sentences of each held-out source, in every language.

    The split is by the English sentence, since one sentence occurs in many languages and sources: a row
    whose English is set aside is trained on in no language.
    """
    generator = np.random.default_rng(seed)
    chosen: dict[str, frozenset[str]] = {}
    for source in HELD_OUT_SOURCES:
        languages: dict[str, set[str]] = {}
        for row in rows:
            if row.source == source:
                languages.setdefault(row.english, set()).add(row.language)
        most = max((len(found) for found in languages.values()), default=0)
        everywhere = sorted(text for text, found in languages.items() if len(found) == most)
        number = min(held_out_rows, len(everywhere) // 4)
        picked = generator.permutation(len(everywhere))[:number]
        chosen[source] = frozenset(everywhere[index] for index in picked)
    barred = {text.lower() for texts in chosen.values() for text in texts}
    train: list[Row] = []
    held_out: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.english.lower() not in barred:
            train.append(row)
        elif row.english in chosen.get(row.source, frozenset()):
            held_out.setdefault((row.language, row.source), []).append(row)
    return Split(train, held_out)


def row_weights(rows: list[Row], dictionary_share: float, temperature: float = 0.5) -> np.ndarray:
    """Probability of drawing each row, shape (rows,).

    A language is drawn in proportion to its number of rows to the power ``temperature``, then a dictionary
    (with probability ``dictionary_share``) or another source, in proportion to its size to the same power.
    """
    sizes = Counter((row.language, row.source) for row in rows)
    languages = Counter(row.language for row in rows)
    language_total = sum(number**temperature for number in languages.values())
    group_total: Counter[tuple[str, bool]] = Counter()
    for (language, source), number in sizes.items():
        group_total[language, source in DICTIONARIES] += number**temperature
    weight: dict[tuple[str, str], float] = {}
    for (language, source), number in sizes.items():
        group = source in DICTIONARIES
        share = dictionary_share if group else 1.0 - dictionary_share
        of_language = languages[language] ** temperature / language_total
        weight[language, source] = of_language * share * number ** (temperature - 1) / group_total[language, group]
    weights = np.array([weight[row.language, row.source] for row in rows])
    return weights / weights.sum()
