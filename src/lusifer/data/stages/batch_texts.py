"""Which rows may share a batch: none whose answer is another's text, since that would be a false negative."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from datasets import Dataset


class BatchTexts:
    """The texts of a batch as it grows; two rows may share a negative, which is harmless, but no more."""

    def __init__(self) -> None:
        self.answers: set[int] = set()
        self.negatives: set[int] = set()

    def add(self, row: Sequence[int]) -> bool:
        """Take a row in, unless it and another would be each other's false negatives.

        Args:
            row: Numbers that stand for its texts: query, positive, negatives.
        """
        answers, negatives = row[:2], row[2:]
        if not (self.answers.isdisjoint(answers) and self.negatives.isdisjoint(answers)):
            return False
        if not self.answers.isdisjoint(negatives):
            return False
        self.answers.update(answers)
        self.negatives.update(negatives)
        return True


def numbers(rows: Dataset) -> np.ndarray:
    """Equal numbers for equal texts, (rows, columns): comparing texts of a batch costs no reading of texts."""
    names = ["query", "positive", *(name for name in rows.column_names if name.startswith("negative"))]
    columns = [np.fromiter(map(hash, rows[name][:]), dtype=np.int64, count=len(rows)) for name in names]
    return np.stack(columns, axis=1)
