"""Paired tests of two models on the same examples, language by language.

The test depends on the values, after Dror et al. 2018 (The Hitchhiker's Guide to Testing Statistical Significance in
NLP, ACL):

- Values of 0 and 1 (accuracy): McNemar's exact test. It looks at the examples that only one model has right.
- Other values of examples or queries (nDCG, a mean over several classifiers): sign flips. If the models were equal,
  each difference could have the other sign as well (Fisher 1935; for retrieval Smucker et al. 2007, CIKM).
- Rank correlation: swaps. If the models were equal, their predictions for a pair could be exchanged. Ranks are
  exchanged, not cosines, because the cosines of two models have different scales (approximate randomization, Noreen
  1989).

The two random tests draw `FLIPS` times and count the observed outcome once more, so that no p is 0 (Phipson and Smyth
2010). All tests are two-sided. They compare these two models on texts of this kind; they do not cover other training
seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lusifer import extras
from lusifer.errors import DataError, UsageError
from lusifer.evaluation.scores.averages import ABSENT, order_of
from lusifer.evaluation.scores.bootstrap import Examples, Key, blocks, percentiles, resample, score
from lusifer.evaluation.scores.results import Entry, Results, difference, names

BETTER, WORSE, NOISE = "better", "worse", "not significant"
ALPHA = 0.05
FLIPS = 9999
ROUNDING = 1e-9
"""Sums that differ by less count as equal; they may have been added in another order."""


@dataclass(frozen=True)
class Difference:
    """The difference of two scores of the same examples.

    Attributes:
        value: Score of the first model minus score of the second one, in percentage points.
        low: Lower end of the 95 % interval by paired bootstrap (both models on the same resamples); None without one.
        high: Upper end of that interval.
        p: Two-sided p of the test that fits the values (see the top of this file).
    """

    value: float
    low: float | None
    high: float | None
    p: float


@dataclass(frozen=True)
class ComparedLanguage:
    """One language: the scores of both models and the result of the test.

    Attributes:
        language: The code of the language.
        scores: Scores of the first and the second model in percent; None if one is missing.
        difference: First minus second; None if the two are not comparable.
        p: The p of the test after Holm's correction over all rows of the table.
        verdict: On the first model: `BETTER` or `WORSE` if `p` is less than 0.05, otherwise `NOISE`. `NOISE` does not
            mean that the models are equal.
        reason: Why the two are not comparable; None if they are.
    """

    language: str
    scores: tuple[float | None, float | None]
    difference: Difference | None = None
    p: float | None = None
    verdict: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Comparison:
    """Two models on one task.

    A task with both cross-lingual and monolingual scores has two comparisons.

    Attributes:
        names: Names of the first and the second model.
        task: Name of the task.
        title: Title of the task.
        rows: One for each language, in the order of the paper.
        mean: Mean difference over the comparable languages; None if there are none.
        low: Lower end of its 95 % interval by paired bootstrap; examples that languages share are resampled together.
        high: Upper end of that interval.
        cross_lingual: Whether the scores are cross-lingual.
    """

    names: tuple[str, str]
    task: str
    title: str
    rows: tuple[ComparedLanguage, ...]
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    cross_lingual: bool = False

    def languages(self, verdict: str | None) -> list[str]:
        """List the languages with a verdict; with None those that are not comparable."""
        return [row.language for row in self.rows if row.verdict == verdict]


def compare_all(results: Sequence[Results], seed: int = 0) -> list[Comparison]:
    """Compare the first model with each of the others, on every task that any of them has.

    Args:
        results: Two evaluations or more.
        seed: Seed of the resampling and of the random tests.

    Returns:
        The monolingual comparisons, then the cross-lingual ones, by task and then by model. Holm's correction is over
        all languages and models of a task, which are one table.

    Raises:
        UsageError: There are fewer than two models.
    """
    if len(results) < 2:
        raise UsageError("a comparison needs two evaluation folders or more")
    called = names(results)
    found = []
    for cross in (False, True):
        first, *others = (result.part(cross) for result in results)
        for task in dict.fromkeys(entry.task for part in (first, *others) for entry in part.scores):
            pairs = [
                _differences(first, other, (called[0], name), task, seed)
                for name, other in zip(called[1:], others, strict=True)
                if any(entry.task == task for entry in (*first.scores, *other.scores))
            ]
            found += _judged(pairs)
    return found


def _differences(one: Results, other: Results, called: tuple[str, str], task: str, seed: int) -> Comparison:
    """Test each language of a task, without verdicts."""
    mine, theirs = ({entry.language: entry for entry in result.scores if entry.task == task} for result in (one, other))
    codes = order_of({*mine, *theirs})
    pairs = {code: (mine.get(code), theirs.get(code)) for code in codes}
    reasons = {code: _why_not(pair, called, one, other) for code, pair in pairs.items()}
    fit = [(code, task) for code in codes if reasons[code] is None]
    found, samples = differences(*({key: each.examples[key] for key in fit} for each in (one, other)), seed=seed)
    rows = tuple(
        ComparedLanguage(
            code, tuple(each and each.score for each in pair), found.get((code, task)), reason=reasons[code]
        )
        for code, pair in pairs.items()
    )
    entry = next(iter((mine or theirs).values()))
    comparison = Comparison(called, task, entry.title, rows, cross_lingual=entry.cross_lingual)
    if not fit:
        return comparison
    low, high = percentiles(np.mean([samples[key] for key in sorted(fit)], axis=0)) or (None, None)
    mean = float(np.mean([found[key].value for key in sorted(fit)]))
    return replace(comparison, mean=mean, low=low, high=high)


def _why_not(
    pair: tuple[Entry | None, Entry | None], called: tuple[str, str], one: Results, other: Results
) -> str | None:
    """Say why two entries are not comparable; None if they are."""
    gaps = [(name, entry.missing if entry else ABSENT) for name, entry in zip(called, pair, strict=True)]
    gaps = [(name, reason) for name, reason in gaps if reason]
    if len(gaps) == 2 and gaps[0][1] == gaps[1][1]:
        return f"neither has a score: {gaps[0][1]}"
    if gaps or pair[0] is None or pair[1] is None:
        return ", ".join(f"{name} has no score: {reason}" for name, reason in gaps)
    other_task = difference(pair[0], pair[1])
    if other_task:
        return other_task
    key = pair[0].key
    bare = [name for name, result in zip(called, (one, other), strict=True) if key not in result.examples]
    if bare:
        return f"no examples of {' and '.join(bare)}"
    return why_not(one.examples[key], other.examples[key])


def _judged(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Add the verdicts, with one correction over all rows."""
    corrected = iter(holm([row.difference.p for found in comparisons for row in found.rows if row.difference]))

    def judged(row: ComparedLanguage) -> ComparedLanguage:
        if row.difference is None:
            return row
        p, value = next(corrected), row.difference.value
        return replace(row, p=p, verdict=NOISE if p >= ALPHA or value == 0 else BETTER if value > 0 else WORSE)

    return [replace(found, rows=tuple(map(judged, found.rows))) for found in comparisons]


def why_not(one: Examples, other: Examples) -> str | None:
    """Say why two scores cannot be compared example by example; None if they can."""
    if one.kind != other.kind:
        return f"one score is of the kind {one.kind}, the other of {other.kind}"
    if one.kind == "draws":
        return "the values are random draws of the task, not examples"
    mine, theirs = set(one.ids), set(other.ids)
    if mine != theirs:
        return f"different examples: {len(mine - theirs)} only in the first, {len(theirs - mine)} only in the second"
    if one.gold is not None and not np.array_equal(one.gold, other.ordered(one.ids).gold):
        return "the same examples with other gold values"
    return None


def differences(
    one: Mapping[Key, Examples], other: Mapping[Key, Examples], seed: int = 0
) -> tuple[dict[Key, Difference], dict[Key, np.ndarray]]:
    """Compare two models on the same examples of several languages and tasks.

    Args:
        one: Language and task -> examples of the first model.
        other: The same keys -> examples of the second model.
        seed: Seed of the resampling and of the random tests.

    Returns:
        Language and task -> the difference; and language and task -> differences of the resamples in percentage
        points, float64, (RESAMPLES,). Intervals of mean differences follow from their means.

    Raises:
        DataError: Two scores are not comparable (`why_not` tells before), or a rank correlation is undefined.
        MissingExtraError: scipy, which comes with scikit-learn, is not installed.
    """
    for key in one:
        reason = why_not(one[key], other[key])
        if reason:
            raise DataError(f"not comparable: {reason}")
    # With the same ids and seed both models get the same resamples.
    drawn = [resample(members, seed) for members in (one, other)]
    samples = {key: drawn[0][key] - drawn[1][key] for key in one}
    found = {}
    for key in one:
        mine, theirs = (members[key].ordered(sorted(members[key].ids)) for members in (one, other))
        low, high = percentiles(samples[key]) or (None, None)
        p = _test(mine, theirs, np.random.default_rng(seed))
        found[key] = Difference(score(mine) - score(theirs), low, high, p)
    return found, samples


def holm(ps: Sequence[float]) -> list[float]:
    """Apply Holm's correction for several tests, so that at most 5 % of tables without differences show any.

    Source: Holm 1979, A simple sequentially rejective multiple test procedure. The tests may depend on each other, as
    those of languages with the same texts do.

    Args:
        ps: The p of each test.

    Returns:
        The corrected p of each test, in the same order.
    """
    corrected = [0.0] * len(ps)
    highest = 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[i]))
        corrected[i] = highest
    return corrected


def _test(one: Examples, other: Examples, generator: np.random.Generator) -> float:
    """Compute the p of the test that fits the values."""
    if one.gold is not None:
        return _swaps(one, other, generator)
    apart = one.values - other.values
    zeros_and_ones = np.isin(np.concatenate([one.values, other.values]), (0, 1)).all()
    return _mcnemar(apart) if zeros_and_ones else _flips(apart, generator)


def _mcnemar(differences: np.ndarray) -> float:
    wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
    stats = extras.need("eval", "scipy.stats")
    return float(stats.binomtest(wins, wins + losses, 0.5).pvalue) if wins + losses else 1.0


def _flips(differences: np.ndarray, generator: np.random.Generator) -> float:
    """Compute the share of sign flips with a sum at least as far from 0 as the observed one."""
    # Differences of equal size are flipped together, because the number of kept signs is binomial. This is faster: a
    # mean over ten classifiers has only eleven values for any number of examples.
    sizes, counts = np.unique(np.abs(differences[differences != 0]).round(12), return_counts=True)
    if not len(sizes):
        return 1.0
    far = 0
    for size in blocks(FLIPS, len(sizes)):
        kept = generator.binomial(counts, 0.5, size=(size, len(sizes)))
        far += int((np.abs((2 * kept - counts) @ sizes) >= abs(differences.sum()) - ROUNDING).sum())
    return (1 + far) / (1 + FLIPS)


def _swaps(one: Examples, other: Examples, generator: np.random.Generator) -> float:
    """Compute the share of swaps of predictions after which the correlations differ at least as much as observed."""
    stats = extras.need("eval", "scipy.stats")
    first, second, gold = (stats.rankdata(row) for row in (one.values, other.values, one.gold))
    observed = abs(_correlations(first[None], gold) - _correlations(second[None], gold))[0]
    far = 0
    for size in blocks(FLIPS, len(gold)):
        swap = generator.integers(0, 2, size=(size, len(gold)), dtype=np.int8).astype(bool)
        there, back = np.where(swap, second, first), np.where(swap, first, second)
        differences = np.abs(_correlations(there, gold) - _correlations(back, gold))
        # A swap with an undefined correlation counts as evidence against a difference.
        far += int((~(differences < observed - ROUNDING)).sum())
    return (1 + far) / (1 + FLIPS)


def _correlations(rows: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """Pearson's correlation of each row, (r, n), with `gold`, (n,); NaN for a row of equal numbers."""
    rows, gold = rows - rows.mean(axis=1, keepdims=True), gold - gold.mean()
    length = np.sqrt((rows**2).sum(axis=1) * (gold**2).sum())
    return np.divide(rows @ gold, length, out=np.full(len(rows), np.nan), where=length > ROUNDING)
