"""Is one model better than another, language by language? Only where both were measured on the same examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lusifer.errors import UsageError
from lusifer.evaluation.scores.averages import ABSENT, order_of
from lusifer.evaluation.scores.bootstrap import percentiles
from lusifer.evaluation.scores.results import Entry, Results, difference, names
from lusifer.evaluation.scores.significance import Difference, differences, holm, why_not

BETTER, WORSE, NOISE = "better", "worse", "within noise"
ALPHA = 0.05


@dataclass(frozen=True)
class Row:
    """One language.

    Attributes:
        language: Its code.
        scores: Of the first model and of the second one, in percent; None where one is missing.
        difference: First minus second; None where the two are not comparable.
        p: That of the difference, after Holm's correction over all rows of the table.
        verdict: On the first model: `BETTER` or `WORSE` where `p` is below 0.05, else `NOISE`; None where the two are
            not comparable. "Within noise" does not say that they are equal.
        reason: Why the two are not comparable.
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

    Attributes:
        names: Of the first model and of the second one.
        task: Its name.
        title: For readers.
        rows: A language each, in the order of the paper.
        mean: Mean of the differences over the languages that are comparable; None if there is none.
        low: Of its 95 % interval by paired bootstrap, with examples that languages share drawn once for all.
        high: Likewise.
        cross_lingual: Whether the task pairs languages; one that also has monolingual scores has two comparisons.
    """

    names: tuple[str, str]
    task: str
    title: str
    rows: tuple[Row, ...]
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    cross_lingual: bool = False

    def languages(self, verdict: str | None) -> list[str]:
        """The languages with this verdict; None gives those that are not comparable."""
        return [row.language for row in self.rows if row.verdict == verdict]


def compare_all(results: Sequence[Results], seed: int = 0) -> list[Comparison]:
    """Compare the first model with each of the others, on every task that any of them has.

    Args:
        results: Two or more.
        seed: Of the draws.

    Returns:
        The monolingual ones, then the cross-lingual ones, by task and then by model. The correction is over all
        languages and models of a task, which are one table.

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
    """What the tests say, one by one, without verdicts."""
    mine, theirs = ({entry.language: entry for entry in result.scores if entry.task == task} for result in (one, other))
    codes = order_of({*mine, *theirs})
    pairs = {code: (mine.get(code), theirs.get(code)) for code in codes}
    reasons = {code: _why_not(pair, called, one, other) for code, pair in pairs.items()}
    fit = [(code, task) for code in codes if reasons[code] is None]
    found, samples = differences(*({key: each.examples[key] for key in fit} for each in (one, other)), seed=seed)
    rows = tuple(
        Row(code, (_score(pair[0]), _score(pair[1])), found.get((code, task)), reason=reasons[code])
        for code, pair in pairs.items()
    )
    entry = next(iter((mine or theirs).values()))
    comparison = Comparison(called, task, entry.title, rows, cross_lingual=entry.cross_lingual)
    if not fit:
        return comparison
    low, high = percentiles(np.mean([samples[key] for key in sorted(fit)], axis=0)) or (None, None)
    mean = float(np.mean([found[key].value for key in sorted(fit)]))
    return replace(comparison, mean=mean, low=low, high=high)


def _score(entry: Entry | None) -> float | None:
    return entry.score if entry else None


def _why_not(
    pair: tuple[Entry | None, Entry | None], called: tuple[str, str], one: Results, other: Results
) -> str | None:
    """Why two entries are not comparable; None if they are."""
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
    """The verdicts, with one correction over all rows."""
    corrected = iter(holm([row.difference.p for found in comparisons for row in found.rows if row.difference]))
    return [
        replace(found, rows=tuple(_verdict(row, next(corrected)) if row.difference else row for row in found.rows))
        for found in comparisons
    ]


def _verdict(row: Row, p: float) -> Row:
    value = row.difference.value if row.difference else 0.0
    return replace(row, p=p, verdict=NOISE if p >= ALPHA or value == 0 else BETTER if value > 0 else WORSE)
