"""What perturbations cost a model: scores on perturbed texts compared with scores on the same texts unchanged.

A change is the score on perturbed texts minus the score on the same examples unchanged, in percentage points; a loss is
negative. Its interval is by paired bootstrap; texts that languages share are resampled together. A perturbation that
changes too few texts of a language does not apply there: it has no score, which is neither 0 nor missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import TypeAdapter, ValidationError

from lusifer.errors import DataError
from lusifer.evaluation.scores import compare
from lusifer.evaluation.scores.averages import ABSENT, order_of
from lusifer.evaluation.scores.bootstrap import Examples, Key, percentiles, score
from lusifer.evaluation.scores.results import AGAIN, SUMMARY, Entry, Results

BREAKING = 20.0
"""A mean loss of this many percentage points or more is `BREAKS`."""
BREAKS, COSTS, GAINS, NOTHING = f"loses {BREAKING:.0f} points or more", "loses", "gains", "no significant change"
LITTLE = "unchanged score too low to show a loss"
ALIKE = 6
"""If at least this many texts all change alike, that is not chance: six coins fall alike in 2 of 64 throws."""
FLAT = 1e-9
"""A narrower interval counts as none: no resample differs, although the result is not certain."""
FACTS = "disguises"
"""Key of the perturbed tasks in the settings of a summary; old result files have it, so it does not change."""


@dataclass(frozen=True)
class LanguageChange:
    """One language: two scores and the change between them.

    Attributes:
        language: The code of the language.
        clean: Score on the unchanged texts in percent; None if it is missing.
        perturbed: Score on the perturbed texts in percent; None if it is missing.
        change: `perturbed` minus `clean`; None if one of the two is missing.
        low: Lower end of the 95 % interval of the change; None without an interval.
        high: Upper end of that interval.
        changed: Number of texts that the perturbation changes; the others have the same score by construction.
        of: Number of all texts.
        reason: Why there is no change.
    """

    language: str
    clean: float | None
    perturbed: float | None
    change: float | None = None
    low: float | None = None
    high: float | None = None
    changed: int | None = None
    of: int | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Change:
    """One perturbation on the texts of one base task.

    Attributes:
        base: Title of the task with unchanged texts.
        task: Name of the task with perturbed texts.
        perturbation: Title of the perturbation, such as "romanised".
        languages: The languages to which it applies, in the order of the paper.
        spared: The languages to which it does not apply.
        clean: Mean score on unchanged texts over the languages with a change; None if there are none.
        perturbed: Mean score on perturbed texts over the same languages.
        change: Mean change over the same languages.
        low: Lower end of the 95 % interval of the mean change; None without an interval.
        high: Upper end of that interval.
    """

    base: str
    task: str
    perturbation: str
    languages: tuple[LanguageChange, ...]
    spared: tuple[str, ...]
    clean: float | None = None
    perturbed: float | None = None
    change: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def compared(self) -> list[LanguageChange]:
        """The languages that are in the mean."""
        return [row for row in self.languages if row.change is not None]

    @property
    def verdict(self) -> str | None:
        """One of `BREAKS`, `COSTS`, `GAINS` and `NOTHING`, by the mean and its interval; None without a mean.

        It is `LITTLE` in place of `NOTHING` where the score on unchanged texts is less than `BREAKING`.
        """
        if self.change is None or self.clean is None:
            return None
        sure = self.low is not None and self.high is not None and not self.low <= 0 <= self.high
        # If all texts change alike, no resample differs and there is no interval; with enough texts it is no chance.
        alike = self.low is None and abs(self.change) > FLAT and sum(row.of or 0 for row in self.compared) >= ALIKE
        if not sure and not alike:
            return NOTHING if self.clean >= BREAKING else LITTLE
        if self.change > 0:
            return GAINS
        return BREAKS if self.change <= -BREAKING else COSTS


@dataclass(frozen=True)
class _Task:  # the names of the fields are the keys in summary.json
    clean: str
    disguise: str
    changed: dict[str, tuple[int, int]]


@dataclass(frozen=True)
class _Facts:
    least_share: float
    tasks: dict[str, _Task]


def changes(result: Results, seed: int = 0) -> list[Change]:
    """Compare the scores on perturbed texts with those on the same texts unchanged.

    Args:
        result: The evaluation.
        seed: Seed of the resampling.

    Returns:
        One change for each perturbation and base task, in the order of the suite; none for other suites.

    Raises:
        DataError: The settings in the summary are damaged, or two scores to compare have different examples.
        MissingExtraError: scipy, which comes with scikit-learn, is not installed.
    """
    facts = _facts(result)
    if facts is None:
        return []
    entries = {entry.key: entry for entry in result.scores}
    return [_change(result, entries, task, about, seed) for task, about in facts.tasks.items()]


def least_share(result: Results) -> float | None:
    """Give the share of a language's texts that a perturbation must change to apply; None for other suites."""
    facts = _facts(result)
    return facts and facts.least_share


def verdict(found: Sequence[Change]) -> list[str]:
    """Summarize changes in one sentence for each base task, grouped by verdict."""
    lines = []
    for base in dict.fromkeys(each.base for each in found):
        mine = sorted((each for each in found if each.base == base and each.change is not None), key=lambda e: e.change)
        parts = []
        for kind in (BREAKS, COSTS, GAINS):
            named = [f"{each.perturbation} {_points(each)}{_worst(each)}" for each in mine if each.verdict == kind]
            parts += [f"{kind}: {', '.join(named)}"] if named else []
        for kind in (NOTHING, LITTLE):
            rest = [each.perturbation for each in mine if each.verdict == kind]
            parts += [f"{kind}: {', '.join(rest)}"] if rest else []
        lines += [f"{base}: {'; '.join(parts)}."] if parts else []
    return lines


def _points(each: Change) -> str:
    ends = "all texts change alike" if each.low is None else f"{each.low:+.1f} to {each.high:+.1f}"
    return f"{each.change:+.1f} points from {each.clean:.1f} ({ends})"


def _worst(each: Change) -> str:
    """Name the language with the largest loss, for a verdict of `BREAKS` over several languages."""
    rows = each.compared
    if each.verdict != BREAKS or len(rows) < 2:
        return ""
    worst = min(rows, key=lambda row: row.change)
    return f", most in {worst.language} ({worst.change:+.1f})"


def _facts(result: Results) -> _Facts | None:
    found = result.settings.get(FACTS)
    if found is None:
        return None
    try:
        return TypeAdapter(_Facts).validate_python(found)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in ("settings", FACTS, *first["loc"]))
        where = result.folder / SUMMARY if result.folder else SUMMARY
        raise DataError(f"{where}: {place}: {first['msg']}; {AGAIN}") from None


def _change(result: Results, entries: Mapping[Key, Entry], task: str, about: _Task, seed: int) -> Change:
    """Compare one perturbation in all languages."""
    codes = order_of({code for code, name in entries if name == task})
    pairs: dict[str, tuple[Examples, Examples]] = {}
    rows: dict[str, LanguageChange] = {}
    for code in codes:
        worn, clean = entries[code, task], entries.get((code, about.clean))
        rows[code], both = _pair(result, worn, clean, about)
        if both is not None:
            pairs[code] = both
    sides = [{(code, task): both[side] for code, both in pairs.items()} for side in (0, 1)]
    found, samples = compare.differences(*sides, seed)
    for code in pairs:
        each = found[code, task]
        low, high = _ends((each.low, each.high))
        rows[code] = _with(rows[code], change=each.value, low=low, high=high)
    base = next((entries[key].title for key in entries if key[1] == about.clean), about.clean)
    there = [row for row in rows.values() if row.change is not None]
    more = {}
    if there:
        names = ("clean", "perturbed", "change")
        more = {name: float(np.mean([getattr(row, name) for row in there])) for name in names}
        if len(there) == len(pairs):
            ends = _ends(percentiles(np.mean([samples[code, task] for code in pairs], axis=0)) or (None, None))
            more |= dict(zip(("low", "high"), ends))
    spared = tuple(order_of({code for code in about.changed if code not in rows}))
    return Change(base, task, about.disguise, tuple(rows.values()), spared, **more)


def _pair(
    result: Results, worn: Entry, clean: Entry | None, about: _Task
) -> tuple[LanguageChange, tuple[Examples, Examples] | None]:
    """Give the scores of a language, and the same examples perturbed and unchanged; None if they are not comparable."""
    changed, of = about.changed.get(worn.language, (None, None))
    reason = worn.missing or (f"unchanged texts: {ABSENT}" if clean is None else clean.missing)
    scores = clean.score if clean else None, worn.score
    both = None
    if not reason:
        mine, theirs = (result.examples.get(entry.key) for entry in (worn, clean))
        if mine is None or theirs is None:
            reason = "no examples"
        elif not set(mine.ids) <= set(theirs.ids):
            reason = "perturbed and unchanged texts have different examples"
        else:
            theirs = theirs.ordered(mine.ids)
            scores, both = (score(theirs), worn.score), (mine, theirs)
    return LanguageChange(worn.language, *scores, changed=changed, of=of, reason=reason), both


def _ends(ends: tuple[float | None, float | None]) -> tuple[float | None, float | None]:
    low, high = ends
    return (None, None) if low is None or high is None or high - low < FLAT else (low, high)


def _with(row: LanguageChange, **more: float | None) -> LanguageChange:
    return LanguageChange(**{**vars(row), **more})
