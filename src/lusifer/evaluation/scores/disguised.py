"""What disguises cost a model: scores on texts in disguise beside those on the same texts as they were.

A change is the score in disguise minus that of the same examples as they were, in percent points: a loss is negative.
Its interval is by paired bootstrap; languages that share texts are drawn together. A disguise that changes fewer texts
of a language than the suite asks for has no score there: it does not apply, which is neither a 0 nor a gap.
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

BREAKS, COSTS, GAINS, NOTHING = "breaks", "loses", "gains", "costs nothing that this shows"
LITTLE = "has little to lose"
BREAKING = 20.0
"""Percent points of a mean loss from which on a disguise breaks a model."""
ALIKE = 6
"""Texts that all change alike, from which on that is no chance: of coins 2 in 64 do."""
FLAT = 1e-9
"""An interval narrower than this is none: no resample differs, and there is doubt all the same."""
FACTS = "disguises"
"""Where the settings in a summary say which tasks are in disguise."""


@dataclass(frozen=True)
class LanguageChange:
    """One language: scores in percent, None where one is missing (`reason` says why), and the change between them.

    `changed` of `of` texts differ from what they were; the others have the same score by necessity.
    """

    language: str
    clean: float | None
    disguised: float | None
    change: float | None = None
    low: float | None = None
    high: float | None = None
    changed: int | None = None
    of: int | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Change:
    """One disguise on the texts of one base task.

    Attributes:
        base: Title of the task on the texts as they were.
        task: Name of the task in disguise.
        disguise: In words, as in "romanised".
        languages: Those in which it applies, in the order of the paper.
        spared: Those in which it does not.
        clean: Mean score over the languages that have a change; None if there is none. So `disguised` and `change`.
        low: Lower end of the 95 % interval of the mean change; None where it has none. So `high`, its upper end.
    """

    base: str
    task: str
    disguise: str
    languages: tuple[LanguageChange, ...]
    spared: tuple[str, ...]
    clean: float | None = None
    disguised: float | None = None
    change: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def compared(self) -> list[LanguageChange]:
        """The languages under the mean."""
        return [row for row in self.languages if row.change is not None]

    @property
    def verdict(self) -> str | None:
        """One of `BREAKS`, `COSTS`, `GAINS` and `NOTHING`, by the mean and its interval; None without a mean.

        `LITTLE` in place of `NOTHING` where the score of the texts as they were is under `BREAKING`.
        """
        if self.change is None or self.clean is None:
            return None
        sure = self.low is not None and self.high is not None and not self.low <= 0 <= self.high
        # Where all texts change alike no resample differs; so many of them are no chance all the same.
        alike = self.low is None and abs(self.change) > FLAT and sum(row.of or 0 for row in self.compared) >= ALIKE
        if not sure and not alike:
            return NOTHING if self.clean >= BREAKING else LITTLE
        if self.change > 0:
            return GAINS
        return BREAKS if self.change <= -BREAKING else COSTS


@dataclass(frozen=True)
class _Task:
    clean: str
    disguise: str
    changed: dict[str, tuple[int, int]]


@dataclass(frozen=True)
class _Facts:
    least_share: float
    tasks: dict[str, _Task]


def changes(result: Results, seed: int = 0) -> list[Change]:
    """Compare each disguise with the same texts as they were, in the order of the suite; none for other suites.

    Raises:
        DataError: The settings do not say which texts are in disguise as the suite writes it, or two scores that
            belong together are of other examples.
        MissingExtraError: The tests need scipy, which comes with scikit-learn.
    """
    facts = _facts(result)
    if facts is None:
        return []
    entries = {entry.key: entry for entry in result.scores}
    return [_change(result, entries, task, about, seed) for task, about in facts.tasks.items()]


def least_share(result: Results) -> float | None:
    """Share of a language's texts that a disguise must change to apply; None for other suites."""
    facts = _facts(result)
    return facts and facts.least_share


def verdict(found: Sequence[Change]) -> list[str]:
    """Say what the disguises cost, a sentence a base: what breaks the model, what costs something, and what nothing."""
    lines = []
    for base in dict.fromkeys(each.base for each in found):
        mine = sorted((each for each in found if each.base == base and each.change is not None), key=lambda e: e.change)
        parts = []
        for kind in (BREAKS, COSTS, GAINS):
            named = [f"{each.disguise} {_points(each)}{_worst(each)}" for each in mine if each.verdict == kind]
            parts += [f"{kind}: {', '.join(named)}"] if named else []
        for kind in (NOTHING, LITTLE):
            rest = [each.disguise for each in mine if each.verdict == kind]
            parts += [f"{kind}: {', '.join(rest)}"] if rest else []
        lines += [f"{base}: {'; '.join(parts)}."] if parts else []
    return lines


def _points(each: Change) -> str:
    ends = "all texts alike" if each.low is None else f"{each.low:+.1f} to {each.high:+.1f}"
    return f"{each.change:+.1f} points from {each.clean:.1f} ({ends})"


def _worst(each: Change) -> str:
    """The language that loses most, where there are several and it breaks."""
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
    """One disguise in all languages."""
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
        names = ("clean", "disguised", "change")
        more = {name: float(np.mean([getattr(row, name) for row in there])) for name in names}
        if len(there) == len(pairs):
            ends = _ends(percentiles(np.mean([samples[code, task] for code in pairs], axis=0)) or (None, None))
            more |= dict(zip(("low", "high"), ends))
    spared = tuple(order_of({code for code in about.changed if code not in rows}))
    return Change(base, task, about.disguise, tuple(rows.values()), spared, **more)


def _pair(
    result: Results, worn: Entry, clean: Entry | None, about: _Task
) -> tuple[LanguageChange, tuple[Examples, Examples] | None]:
    """A language, and the examples in disguise and as they were: the same ones."""
    changed, of = about.changed.get(worn.language, (None, None))
    reason = worn.missing or (f"the texts as they were: {ABSENT}" if clean is None else clean.missing)
    scores = clean.score if clean else None, worn.score
    both = None
    if not reason:
        mine, theirs = (result.examples.get(entry.key) for entry in (worn, clean))
        if mine is None or theirs is None:
            reason = "no examples"
        elif not set(mine.ids) <= set(theirs.ids):
            reason = "other examples than as they were"
        else:
            theirs = theirs.ordered(mine.ids)
            scores, both = (score(theirs), worn.score), (mine, theirs)
    return LanguageChange(worn.language, *scores, changed=changed, of=of, reason=reason), both


def _ends(ends: tuple[float | None, float | None]) -> tuple[float | None, float | None]:
    low, high = ends
    return (None, None) if low is None or high is None or high - low < FLAT else (low, high)


def _with(row: LanguageChange, **more: float | None) -> LanguageChange:
    return LanguageChange(**{**vars(row), **more})
