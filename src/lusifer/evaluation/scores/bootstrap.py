"""95 % confidence intervals of scores, by resampling the examples behind them (percentile bootstrap).

An interval covers the choice of examples: in about 95 of 100 samples of texts it contains the score on all texts of
this kind. The score of a new sample falls into a given interval less often, in about 83 of 100 cases, because both
samples vary. An interval does not cover the choice of tasks and languages, the seeds of training, the sampling of a
classifier's training texts, errors in the gold labels, or test texts that the model saw in training. Method: Efron and
Tibshirani 1993, An Introduction to the Bootstrap, chapter 13 (percentile interval).

If all examples have the same value, no resample differs. For a single score of 0 or 100 % `interval` gives the exact
interval of a proportion. In means and differences such a score counts as certain, so their interval is a little narrow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lusifer.errors import DataError
from lusifer.io.files import first_twice

KINDS = ("mean", "spearman", "draws")
RESAMPLES = 2000
LEVEL = 0.95
CELLS = 4_000_000
"""Numbers in one block of draws (32 MB), for any number of examples."""
MANY = 20_000
"""From this number on, examples are drawn one by one and counted, which is five times as fast as drawing counts."""
FLAT = 1e-6
"""A smaller sum of squared ranks is 0 with rounding error: two different ranks give at least 1/4."""

Key = tuple[str, str]
"""Language and task."""


@dataclass(frozen=True, eq=False)
class Examples:
    """The examples behind one score.

    Attributes:
        kind: "mean": the score is 100 * mean(values), one value for each example or query. "spearman": it is 100 * the
            rank correlation of values and gold, one value for each pair. "draws": it is 100 * mean(values) over the
            random draws of the task itself (clustering), not over examples.
        ids: One distinct id for each value. Languages of a task that share ids have translations of the same texts.
        values: float64, (n,).
        gold: float64, (n,), for "spearman" only.
        texts: Name of the texts that the ids refer to, if other tasks have the same texts; None for texts of one task.
    """

    kind: str
    ids: tuple[str, ...]
    values: np.ndarray
    gold: np.ndarray | None = None
    texts: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", tuple(self.ids))
        for name in ("values", "gold"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.float64))
        rows = [self.values] if self.gold is None else [self.values, self.gold]
        problem = None
        if self.kind not in KINDS:
            problem = f"kind {self.kind!r} is unknown: use one of {', '.join(KINDS)}"
        elif (self.kind == "spearman") != (self.gold is not None):
            problem = "kind spearman needs gold values, and no other kind has them"
        elif not self.ids or any(row.shape != (len(self.ids),) for row in rows):
            problem = f"{len(self.ids)} ids for {' and '.join(str(row.size) for row in rows)} values: one id a value"
        elif len(set(self.ids)) < len(self.ids):
            problem = f"duplicate id {first_twice(self.ids)!r}"
        elif not all(np.isfinite(row).all() for row in rows):
            problem = "a value is not a finite number"
        if problem:
            raise DataError(f"examples: {problem}")

    def ordered(self, ids: Sequence[str]) -> Examples:
        """Give the examples in the order of `ids`, which must be the same ids."""
        place = {name: i for i, name in enumerate(self.ids)}
        order = [place[name] for name in ids]
        gold = None if self.gold is None else self.gold[order]
        return Examples(self.kind, tuple(ids), self.values[order], gold, self.texts)


def score(examples: Examples) -> float:
    """Compute the score in percent.

    Raises:
        DataError: The rank correlation is undefined, because all values are the same.
    """
    value = float(_statistic(examples, np.ones((1, len(examples.ids))))[0])
    if np.isnan(value):
        which = "gold values" if examples.gold is not None and np.ptp(examples.gold) == 0 else "predictions"
        raise DataError(
            f"all {len(examples.ids)} {which} are the same, so the rank correlation is undefined: "
            "check the model with `lusifer doctor`"
        )
    return value


def spread(examples: Examples) -> float | None:
    """Compute the standard deviation of "draws" in percentage points; None for one draw.

    It shows the effect of the task's own sampling. It is no interval: the draws share texts.

    Raises:
        DataError: The examples are of another kind.
    """
    if examples.kind != "draws":
        raise DataError(f"examples of kind {examples.kind!r} have no spread: use interval()")
    return 100 * float(examples.values.std(ddof=1)) if len(examples.values) > 1 else None


def interval(examples: Examples, seed: int = 0) -> tuple[float, float] | None:
    """Compute the 95 % interval of one score from percentiles of resamples.

    If all examples are right, or all are wrong, no resample differs. The interval is then the exact one of a proportion
    (Clopper and Pearson 1934); for 99 right answers of 99 it is 96.3 to 100.

    Args:
        examples: The examples of the score.
        seed: Seed of the resampling.

    Returns:
        Both ends in percent. None for "draws", for a single example, if all examples have the same value other than 0
        or 1, and if more than 5 % of the resamples have no rank correlation.
    """
    if examples.kind == "draws" or len(examples.ids) == 1:
        return None
    values = np.unique(examples.values)
    if examples.kind == "mean" and len(values) == 1 and values[0] in (0, 1):
        far = ((1 - LEVEL) / 2) ** (1 / len(examples.ids))
        return (100 * far, 100.0) if values[0] else (0.0, 100 * (1 - far))
    ends = percentiles(resample({("", ""): examples}, seed)["", ""])
    # If all examples have the same value no resample differs, although the score is not certain.
    return None if ends is not None and ends[1] - ends[0] < FLAT else ends


def percentiles(samples: np.ndarray) -> tuple[float, float] | None:
    """Compute the 2.5th and the 97.5th percentile of resampled scores, or of their means or differences.

    Args:
        samples: float64, (RESAMPLES,); resamples without a value (NaN) are left out.

    Returns:
        Both percentiles; None if more than 5 % of the resamples have no value.
    """
    there = samples[~np.isnan(samples)]
    if len(there) < LEVEL * len(samples):
        return None
    low, high = np.quantile(there, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def resample(members: Mapping[Key, Examples], seed: int = 0) -> dict[Key, np.ndarray]:
    """Compute scores of resampled examples; the interval of any mean over the members follows from them.

    Members that share ids are resampled together, whether they are languages of one task or tasks on the same `texts`:
    an example is drawn in all of them or in none, because a text and its translations are not independent samples.
    Members without common ids, and tasks without `texts`, are resampled independently. The order of members and rows
    does not matter, and two models with the same ids get the same draws.

    Args:
        members: Language and task -> the examples of the score.
        seed: Seed of the resampling.

    Returns:
        Language and task -> scores in percent, float64, (RESAMPLES,). NaN where a resample has no value: it contains no
        example of the language, or its rank correlation is undefined. All NaN for a single example.

    Raises:
        DataError: A member is of the kind "draws".
    """
    generator = np.random.default_rng(seed)
    found = {}
    for pool in _pools(members):
        ids = sorted({name for key in pool for name in members[key].ids})
        place = {name: i for i, name in enumerate(ids)}
        inside = {key: members[key].ordered(sorted(members[key].ids)) for key in pool}
        columns = {key: np.array([place[name] for name in inside[key].ids]) for key in pool}
        scores: dict[Key, list[np.ndarray]] = {key: [] for key in pool}
        for size in blocks(RESAMPLES, len(ids)):
            drawn = _draws(generator, size, len(ids))
            for key in pool:
                weights = drawn if len(columns[key]) == len(ids) else drawn[:, columns[key]]
                scores[key].append(_statistic(inside[key], weights))
        for key in pool:
            single = len(inside[key].ids) == 1
            found[key] = np.full(RESAMPLES, np.nan) if single else np.concatenate(scores[key])
    return found


def _pools(members: Mapping[Key, Examples]) -> list[list[Key]]:
    """Group members that are resampled together: of one task or the same texts, with common ids, also via a third."""
    pools: list[tuple[tuple[str, str], set[str], list[Key]]] = []
    for key in sorted(members):
        if members[key].kind == "draws":
            raise DataError(f"{key[1]} in {key[0]}: no interval: its values are draws of the task, not examples")
        texts = members[key].texts
        source = ("texts", texts) if texts else ("task", key[1])
        ids, keys = set(members[key].ids), [key]
        apart = []
        for pool in pools:
            if pool[0] == source and not pool[1].isdisjoint(ids):
                ids, keys = ids | pool[1], pool[2] + keys
            else:
                apart.append(pool)
        pools = [*apart, (source, ids, keys)]
    return sorted(sorted(keys) for _, _, keys in pools)


def _draws(generator: np.random.Generator, size: int, examples: int) -> np.ndarray:
    """Draw how often each example is in each resample: float64, (size, examples)."""
    if examples < MANY:
        return generator.multinomial(examples, np.full(examples, 1 / examples), size=size).astype(np.float64)
    rows = (generator.integers(examples, size=examples, dtype=np.int32) for _ in range(size))
    return np.stack([np.bincount(row, minlength=examples) for row in rows]).astype(np.float64)


def blocks(total: int, columns: int) -> Iterator[int]:
    """Yield the sizes of blocks of random rows that fit into memory; the blocks do not change the random numbers.

    Args:
        total: Number of rows.
        columns: Numbers in a row.
    """
    size = max(CELLS // columns, 1)
    for start in range(0, total, size):
        yield min(size, total - start)


def _statistic(examples: Examples, weights: np.ndarray) -> np.ndarray:
    """Compute scores in percent, (r,), of samples with example i `weights[:, i]` times; NaN for an undefined score."""
    if examples.gold is not None:
        return 100 * _spearman(examples.values, examples.gold, weights)
    total = weights.sum(axis=1)
    return 100 * np.divide(weights @ examples.values, total, out=np.full(len(total), np.nan), where=total > 0)


def _spearman(values: np.ndarray, gold: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Compute the rank correlation of each weighted sample, (r,)."""
    total = np.maximum(weights.sum(axis=1, keepdims=True), 1)
    x, y = (_ranks(row, weights) for row in (values, gold))
    x -= (weights * x).sum(axis=1, keepdims=True) / total
    y -= (weights * y).sum(axis=1, keepdims=True) / total
    xx, yy, xy = ((weights * a * b).sum(axis=1) for a, b in ((x, x), (y, y), (x, y)))
    fit = (xx > FLAT) & (yy > FLAT)
    return np.clip(np.divide(xy, np.sqrt(xx * yy), out=np.full(len(xy), np.nan), where=fit), -1, 1)


def _ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Compute the ranks in each weighted sample, (r, n); equal values share the average of their ranks."""
    order = np.argsort(values, kind="stable")
    _, starts, inverse = np.unique(values[order], return_index=True, return_inverse=True)
    counts = np.add.reduceat(weights[:, order], starts, axis=1)
    ranks = np.cumsum(counts, axis=1) - counts + (counts + 1) / 2
    back = np.empty_like(inverse)
    back[order] = inverse
    return ranks[:, back]
