"""The files of SIB-200: one sentence a row, one of seven topics, the same sentences in every language.

SIB-200: Adelani et al., "SIB-200: A Simple, Inclusive, and Big Evaluation Dataset for Topic Classification in 200+
Languages and Dialects" (arXiv 2309.07445).
"""

from __future__ import annotations

import gzip
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lusifer.errors import DataError
from lusifer.prompts import check_text

ENGLISH = "en"
LARGE = 204  # sentences of the larger pool, the first of the train split: as many as the test split of SIB-200 has
# C is the default of the library, and mteb's as well; the vectors have length 1, so nothing is scaled.
CLASSIFIER: dict[str, Any] = {"C": 1.0, "solver": "lbfgs", "max_iter": 1000}


@dataclass(frozen=True)
class Split:
    """One language's part, ordered by `ids`; rows of two languages with one id are translations of each other."""

    ids: tuple[int, ...]
    texts: tuple[str, ...]
    labels: tuple[str, ...]


def file_of(folder: Path, code: str, split: str) -> Path:
    """Where a split lies: `split` is "train" or "dev"."""
    return folder / f"sib200-{code}-{split}.jsonl.gz"


def read(file: Path) -> Split:
    """Read one split.

    Raises:
        DataError: The file is missing, damaged, or a row is not `{"text", "label", "index_id"}`.
    """
    if not file.is_file():
        raise DataError(f"{file.name}: no such file")
    rows: dict[int, tuple[str, str]] = {}
    try:
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                where = f"{file.name} line {number}"
                row = json.loads(line)
                text = check_text(row["text"], where)
                if not isinstance(row["index_id"], int):
                    raise DataError(f"{where}: index_id is {row['index_id']!r}, no number")
                if row["index_id"] in rows:
                    raise DataError(f"{where}: index_id {row['index_id']} stands there twice")
                rows[row["index_id"]] = (text, check_text(row["label"], where))
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{file.name}: damaged ({error}): fetch it again") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON ({error.msg})") from error
    except (KeyError, TypeError) as error:
        raise DataError(f"{where}: expected an object with text, label and index_id") from error
    if not rows:
        raise DataError(f"{file.name}: no rows in it")
    ids = tuple(sorted(rows))
    return Split(ids, tuple(rows[i][0] for i in ids), tuple(rows[i][1] for i in ids))


def first(split: Split, count: int) -> Split:
    """The sentences of the lowest ids."""
    return Split(split.ids[:count], split.texts[:count], split.labels[:count])
