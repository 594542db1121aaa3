"""The form in which vectors are stored: fewer dimensions, if a model was trained for it, and a lower precision."""

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
"""Precisions that need a range for each dimension."""
CALIBRATION_TEXTS = 4096
"""How many texts give the ranges, at regular distances in the input."""


@dataclass(frozen=True)
class VectorForm:
    """How vectors are written.

    dimensions: How many of the first dimensions are stored, scaled to length 1 again; None: all.
    precision: One of `PRECISIONS`.
    ranges: The smallest and largest value of each dimension, (2, d) float32; int8 and uint8 divide them into 256 steps.
    calibration: The texts that the ranges come from, in words.
    """

    dimensions: int | None = None
    precision: str = "float32"
    ranges: np.ndarray | None = None
    calibration: str = ""

    @property
    def needs_ranges(self) -> bool:
        """Whether ranges must be set before vectors can be written."""
        return self.precision in SCALED and self.ranges is None

    def calibrated(self, vectors: np.ndarray, words: str) -> VectorForm:
        """Return the same form with ranges.

        Args:
            vectors: The full vectors of some texts, (n, d) float32.
            words: Which texts they are, in words.

        Raises:
            DataError: All vectors are the same.
        """
        short = shorten(vectors, self.dimensions)
        ranges = np.stack([short.min(axis=0), short.max(axis=0)])
        if (ranges[0] == ranges[1]).all():
            words = f"the vectors of {words} are all the same"
            raise DataError(f"--precision {self.precision}: {words}: give the ranges of other texts with --calibration")
        return replace(self, ranges=ranges, calibration=words)

    def apply(self, vectors: np.ndarray) -> np.ndarray:
        """Convert vectors, (n, d) float32, to this form."""
        short = shorten(vectors, self.dimensions)
        if self.precision == "float32":
            return short
        from sentence_transformers.util import quantize_embeddings

        return quantize_embeddings(short, self.precision, ranges=self.ranges)

    def said(self) -> dict[str, Any]:
        """Return the form as a manifest has it; `read_calibration` reads the ranges back."""
        ranges = None if self.ranges is None else {"of": self.calibration, "ranges": self.ranges.tolist()}
        return {"dimensions": self.dimensions, "precision": self.precision, "calibration": ranges}


def read_calibration(file: Path, form: VectorForm) -> VectorForm:
    """Return the form with the ranges that an earlier call has recorded.

    Args:
        file: The `_manifest.json` or `OUTPUT.calibration.json` of that call.
        form: The form.

    Raises:
        UsageError: The precision needs no ranges.
        DataError: The file has no ranges, or those of other dimensions.
    """
    if form.precision not in SCALED:
        raise UsageError(f"--calibration: {form.precision} has no ranges: leave it out, or use --precision int8")
    said = read_json(file, "name the _manifest.json or OUTPUT.calibration.json of an earlier call", DataError, dict)
    known = said.get("calibration")
    try:
        ranges = np.asarray(known["ranges"], dtype=np.float32)
        if ranges.ndim != 2 or len(ranges) != 2 or not np.isfinite(ranges).all():
            raise ValueError
    except (TypeError, KeyError, ValueError):
        raise DataError(f"{file}: has no ranges of int8 vectors: name a file that `--precision int8` wrote") from None
    if said.get("dimensions") != form.dimensions:
        words = f"--dimensions {said['dimensions']}" if said.get("dimensions") else "vectors with all dimensions"
        raise DataError(f"{file}: its ranges are for {words}: embed with the same --dimensions")
    return replace(form, ranges=ranges, calibration=str(known.get("of", file)))


def check_dimensions(asked: int, allowed: Sequence[int], option: str = "--dimensions") -> None:
    """Refuse a number of dimensions that a model was not trained for.

    Args:
        asked: The number.
        allowed: The allowed ones, as `encode.dimensions` returns them.
        option: The option that gave it, for the message.

    Raises:
        UsageError: The message lists the allowed ones.
    """
    if asked in allowed:
        return
    if len(allowed) == 1:
        words = f"this model was trained for all {allowed[0]} dimensions only: leave it out"
    else:
        words = f"this model was trained for {', '.join(map(str, sorted(allowed)))}: use one of them"
    raise UsageError(f"{option} {asked}: {words}")
