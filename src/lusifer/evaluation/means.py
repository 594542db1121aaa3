"""Means over languages with their uncertainty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Hits = dict[Any, bool]
"""Id of a sentence or question -> whether the model was right."""


@dataclass(frozen=True)
class Measured:
    """One task: what was right by language, and why a language is missing."""

    hits: dict[str, Hits] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def means(hits: Mapping[str, Hits], codes: Sequence[str], seed: int, bootstrap: Mapping[str, Any]) -> dict[str, Any]:
    """Average accuracy over languages, with a percentile bootstrap interval.

    Sentences are drawn, with replacement, once for all languages: they are translations of each other, so their
    difficulty is shared and languages are not independent samples.

    Args:
        hits: Language -> what was right. A language that is not in it is left out and listed, never counted as 0.
        codes: The languages of this mean.
        seed: Of the draws.
        bootstrap: `resamples` and `interval` (0.95: from the 2.5th to the 97.5th percentile).

    Returns:
        `value`, `low`, `high` in percent (None if no language is there), `languages` averaged, `missing` codes.
    """
    present = [code for code in codes if hits.get(code)]
    result: dict[str, Any] = {"languages": len(present), "missing": [code for code in codes if code not in present]}
    if not present:
        return {"value": None, "low": None, "high": None, **result}
    ids = sorted({number for code in present for number in hits[code]})
    # (languages, sentences); NaN where a language lacks a sentence
    right = np.array([[hits[code].get(number, np.nan) for number in ids] for code in present], dtype=float)
    there = ~np.isnan(right)
    right = np.nan_to_num(right)
    generator = np.random.default_rng(seed)
    draws = generator.multinomial(len(ids), np.full(len(ids), 1 / len(ids)), size=int(bootstrap["resamples"]))
    counted = np.maximum(draws @ there.T, 1)  # (resamples, languages)
    averages = (draws @ right.T / counted).mean(axis=1)
    value = float((right.sum(axis=1) / there.sum(axis=1)).mean())
    tail = (1 - float(bootstrap["interval"])) / 2
    low, high = np.quantile(averages, [tail, 1 - tail])
    return {
        "value": round(100 * value, 4),
        "low": round(100 * float(low), 4),
        "high": round(100 * float(high), 4),
        **result,
    }
