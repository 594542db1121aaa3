"""Semantic textual similarity from files: two sentences and a score a line.

The file of a language is `sts-xx.jsonl` or `sts-xx.jsonl.gz`, one object `{"sentence1", "sentence2", "score"}` a line.
The scores may have any scale, because the metric compares ranks.
"""

from __future__ import annotations

import math
import reprlib
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict
from mteb.abstasks import AbsTaskSTS

from lusifer.errors import DataError
from lusifer.evaluation.tasks.local import LocalTask, named
from lusifer.io import rows
from lusifer.prompts import check_text


def file_of(folder: Path, code: str) -> Path:
    """Give the path of the file of a language; the name without .gz if neither file exists."""
    return named(folder, "sts-{}.jsonl", code)


def read(file: Path) -> list[dict[str, Any]]:
    """Read the pairs of one language, as `{"sentence1", "sentence2", "score"}`.

    Raises:
        DataError: The file is missing or damaged, a row has another form, or there are no two different scores.
    """
    pairs = list(rows.read(file, _pair))
    if len(pairs) < 2:
        raise DataError(
            f"{file}: {'one pair' if pairs else 'no pair'} in it, and a rank correlation needs two: add pairs"
        )
    if len({pair["score"] for pair in pairs}) < 2:
        raise DataError(f"{file}: all scores are equal, so there is no rank correlation: add pairs with other scores")
    return pairs


def _pair(row: Any, where: str) -> dict[str, Any]:
    if not isinstance(row, dict) or not {"sentence1", "sentence2", "score"} <= row.keys():
        raise DataError(f"{where}: expected an object with sentence1, sentence2 and score")
    score = row["score"]
    try:
        number = math.nan if isinstance(score, bool) or not isinstance(score, int | float) else float(score)
    except OverflowError:
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{where}: score is {reprlib.repr(score)}, not a finite number: correct it or remove the line")
    return {"score": number, **{name: check_text(row[name], where) for name in ("sentence1", "sentence2")}}


class STSFile(LocalTask, AbsTaskSTS):
    """Spearman rank correlation of the cosines with the scores."""

    title, type, metric = "similarity of sentences, from sts-xx.jsonl", "STS", "cosine_spearman"
    instruction = "Find a sentence with the same meaning."
    optional = True
    parse = staticmethod(read)

    @classmethod
    def indexed(cls, code: str) -> bool:
        """The other embedder reads the second sentence of each pair."""
        return True

    @classmethod
    def files(cls, folder: Path, subset: str) -> list[Path]:
        """List the file of the language."""
        return [file_of(folder, subset)]

    @classmethod
    def build(cls, subset: str, pairs: list[dict[str, Any]]) -> DatasetDict:
        """Make the only split, "all"."""
        return DatasetDict(all=Dataset.from_list(pairs))


TASKS = (STSFile,)
