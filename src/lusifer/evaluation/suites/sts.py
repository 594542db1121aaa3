"""Similarity from files: two sentences and a score a line.

A language's file is `sts-xx.jsonl` or `sts-xx.jsonl.gz`, one object `{"sentence1", "sentence2", "score"}` a line; the
scores may have any scale, since ranks are compared.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

from lusifer.errors import DataError
from lusifer.prompts import check_text


@dataclass(frozen=True)
class Pair:
    """Two sentences and how like they are, higher for more."""

    sentence1: str
    sentence2: str
    score: float


def file_of(folder: Path, code: str) -> Path:
    """Where a language lies; the name without .gz where there is neither."""
    packed = folder / f"sts-{code}.jsonl.gz"
    return packed if packed.is_file() else folder / f"sts-{code}.jsonl"


def read(file: Path) -> list[Pair]:
    """Read one language.

    Raises:
        DataError: The file is missing, damaged, has a row of another form or no two different scores.
    """
    if not file.is_file():
        raise DataError(f"{file.name}: no such file")
    pairs: list[Pair] = []
    where = file.name
    try:
        with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                where = f"{file.name} line {number}"
                row = json.loads(line)
                score = row["score"]
                if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
                    raise DataError(f"{where}: score is {score!r}, no number")
                pairs.append(Pair(check_text(row["sentence1"], where), check_text(row["sentence2"], where), score))
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{file.name}: damaged ({error}): fetch it again") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON ({error.msg})") from error
    except (KeyError, TypeError) as error:
        raise DataError(f"{where}: expected an object with sentence1, sentence2 and score") from error
    if len({pair.score for pair in pairs}) < 2:
        raise DataError(f"{file.name}: fewer than two different scores: a rank correlation needs them")
    return pairs
