"""The form that vectors are kept in: fewer numbers where a model was trained for it, and smaller ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from lusifer.errors import DataError, UsageError
from lusifer.io.files import read_json
from lusifer.serving.encode import shorten

Precision = Literal["float32", "int8", "uint8", "binary", "ubinary"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
SCALED = ("int8", "uint8")
"""What needs a range for each number of a vector."""
CALIBRATION_TEXTS = 4096
"""Texts whose vectors give the ranges, spread evenly over the input."""


@dataclass(frozen=True)
class VectorForm:
    """How vectors are written: their first `dimensions` numbers, brought to length 1 again, in a `precision`.

    `ranges` (2, d) are the smallest and the largest number in each place, which int8 and uint8 spread over 256 steps;
    `calibration` says where they come from.
    """

    dimensions: int | None = None
    precision: str = "float32"
    ranges: np.ndarray | None = None
    calibration: str = ""

    @property
    def needs_ranges(self) -> bool:
        """Whether ranges must be set before anything can be written."""
        return self.precision in SCALED and self.ranges is None

    def calibrated(self, vectors: np.ndarray, words: str) -> VectorForm:
        """The same form with the ranges of vectors (n, d) as the model makes them; `words` say of which texts.

        Raises:
            DataError: They do not differ.
        """
        short = shorten(vectors, self.dimensions)
        ranges = np.stack([short.min(axis=0), short.max(axis=0)])
        if (ranges[0] == ranges[1]).all():
            raise DataError(f"--precision {self.precision}: {words} give one vector: add --calibration with others")
        return replace(self, ranges=ranges, calibration=words)

    def apply(self, vectors: np.ndarray) -> np.ndarray:
        """Bring vectors (n, d), float32, into this form."""
        short = shorten(vectors, self.dimensions)
        if self.precision == "float32":
            return short
        from sentence_transformers.util import quantize_embeddings

        return quantize_embeddings(short, self.precision, ranges=self.ranges)

    def said(self) -> dict[str, Any]:
        """What a manifest says of the form; `read_calibration` reads its ranges."""
        ranges = None if self.ranges is None else {"of": self.calibration, "ranges": self.ranges.tolist()}
        return {"dimensions": self.dimensions, "precision": self.precision, "calibration": ranges}


def read_calibration(file: Path, form: VectorForm) -> VectorForm:
    """The form with the ranges that an earlier call has recorded.

    Raises:
        UsageError: The form takes no ranges.
        DataError: The file holds none, or of vectors of another length.
    """
    if form.precision not in SCALED:
        raise UsageError(f"--calibration: {form.precision} has no ranges: leave it out, or take --precision int8")
    said = read_json(file, "name the _manifest.json or OUTPUT.calibration.json of an earlier call", DataError, dict)
    known = said.get("calibration")
    try:
        ranges = np.asarray(known["ranges"], dtype=np.float32)
        if ranges.ndim != 2 or len(ranges) != 2 or not np.isfinite(ranges).all():
            raise ValueError
    except (TypeError, KeyError, ValueError):
        raise DataError(f"{file}: holds no ranges of int8 vectors: name a file that `--precision int8` made") from None
    if said.get("dimensions") != form.dimensions:
        words = f"--dimensions {said['dimensions']}" if said.get("dimensions") else "all numbers of a vector"
        raise DataError(f"{file}: its ranges are of {words}: embed with the same --dimensions")
    return replace(form, ranges=ranges, calibration=str(known.get("of", file)))


def check_dimensions(asked: int, allowed: Sequence[int], option: str = "--dimensions") -> None:
    """Refuse a number of dimensions that is none of a model's (`encode.dimensions`).

    Raises:
        UsageError: Names the allowed ones.
    """
    if asked in allowed:
        return
    if len(allowed) == 1:
        words = f"this model was trained for all {allowed[0]} numbers of its vectors only: leave it out"
    else:
        words = f"this model was trained for {', '.join(map(str, sorted(allowed)))}: use one of them"
    raise UsageError(f"{option} {asked}: {words}")
