"""Means over tasks and languages, with their intervals and what is missing in them.

The mean of a language is over its tasks. The mean over languages gives every language the same weight, as in table 1 of
the LUSIFER paper (arXiv 2501.00874). Cross-lingual scores are averaged as in its table 2: over the language pairs of a
task, then over tasks. No mean contains both.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from lusifer import languages
from lusifer.errors import UsageError
from lusifer.evaluation.scores.bootstrap import Key, percentiles, resample
from lusifer.evaluation.scores.results import Entry, Results, difference

LANGUAGE, TASK = 0, 1
"""Position in a key of the part that gets equal weights in a mean."""
ENGLISH = "en"
ABSENT = "not evaluated"
FLAT = 1e-9  # percent
MANY = 30
"""With more languages they are grouped by published facts, because the paper has resource levels for only 14."""
FEW = 3  # a script with at least this number of languages is a group


@dataclass(frozen=True)
class Mean:
    """A mean of scores.

    Attributes:
        value: The mean in percent over the scores that exist; None if there are none.
        low: Lower end of the 95 % interval; None if a score has no examples to resample.
        high: Upper end of that interval.
        complete: Whether no score is missing. An incomplete mean is not comparable with a complete one.
    """

    value: float | None
    low: float | None
    high: float | None
    complete: bool


@dataclass(frozen=True, eq=False)
class Board:
    """The scores of one model by language and task, and resamples of the scores that have examples."""

    results: Results
    entries: dict[Key, Entry]
    samples: dict[Key, np.ndarray]

    def mean(self, keys: Iterable[Key], outer: int = LANGUAGE) -> Mean:
        """Average over some languages and tasks.

        Args:
            keys: Languages and tasks of the mean.
            outer: `LANGUAGE`: average over the tasks of each language, then over languages. `TASK`: average over the
                languages of each task, then over tasks; the weight of a language is its number of subsets (pairs), so
                that each pair counts once.
        """
        keys = sorted(set(keys))
        there = {key: score for key in keys if (score := self.entries[key].score) is not None}
        if not there:
            return Mean(None, None, None, not keys)
        pairs = {key: len(self.entries[key].subsets) if outer == TASK else 1 for key in there}
        value = _nested(there, outer, pairs)
        ends = None
        if there.keys() <= self.samples.keys():
            ends = percentiles(_nested({key: self.samples[key] for key in there}, outer, pairs))
        if ends is not None and ends[1] - ends[0] < FLAT:
            ends = None  # every score is 0 or 100 %: no resample differs, although the mean is not certain
        low, high = ends or (None, None)
        return Mean(float(value), low, high, len(there) == len(keys))


def boards(results: Sequence[Results], seed: int = 0) -> list[Board]:
    """Align the scores of models: each board has every language and task that any of the models has.

    A score is missing, with the reason, if a model does not have it, or has it with another metric, split or subsets
    than the first model that has it.

    Args:
        results: The monolingual parts of evaluations, or the cross-lingual ones.
        seed: Seed of the resampling.

    Returns:
        One board for each model.

    Raises:
        UsageError: Cross-lingual and monolingual scores are mixed.
    """
    if len({entry.cross_lingual for result in results for entry in result.scores}) > 1:
        raise UsageError(
            "cross-lingual and monolingual scores are never in one table or mean: separate them with Results.part"
        )
    own = [{entry.key: entry for entry in result.scores} for result in results]
    first: dict[Key, Entry] = {}
    for entries in own:
        for key, entry in entries.items():
            if key not in first or (first[key].score is None and entry.score is not None):
                first[key] = entry
    order = order_of({key[LANGUAGE] for key in first})
    keys = [key for code in order for key in first if key[LANGUAGE] == code]
    found = []
    for result, entries in zip(results, own, strict=True):
        same = {key: _like(entries.get(key), first[key]) for key in keys}
        fit = {key: rows for key, rows in result.examples.items() if key in same and same[key].score is not None}
        samples = resample({key: rows for key, rows in fit.items() if rows.kind != "draws"}, seed)
        # A single example has no interval, and a mean that contains it has none either.
        varied = {key: values for key, values in samples.items() if percentiles(values) is not None}
        found.append(Board(result, same, varied))
    return found


def order_of(codes: Collection[str]) -> list[str]:
    """Sort languages in the order of the paper, then of the table of languages, then by code."""
    known = list(languages.table())
    return sorted(codes, key=lambda code: (known.index(code) if code in known else len(known), code))


def groups(codes: Collection[str]) -> dict[str, list[str]]:
    """Group languages for means: all, all but English, and the paper's resource levels.

    More than `MANY` languages are grouped by resource class, by the training languages of XLM-R and by script instead
    of the levels. Empty groups and groups with the members of an earlier one are left out.

    Args:
        codes: The languages.

    Returns:
        Label of the group -> its languages.
    """
    order = order_of(codes)
    found = {"all languages": order, "all but English": [code for code in order if code != ENGLISH]}
    found |= _by_facts(order) if len(order) > MANY else _by_level(order)
    distinct: dict[str, list[str]] = {}
    for label, members in found.items():
        if members and members not in distinct.values():
            distinct[label] = members
    return distinct


def _by_level(order: Sequence[str]) -> dict[str, list[str]]:
    known = languages.table()
    found = {
        f"{level.replace('_', ' ')} resources": [code for code in order if code in known and known[code].level == level]
        for level in languages.LEVELS
    }
    return found | {"resource level unknown": [code for code in order if code not in known or not known[code].level]}


def _by_facts(order: Sequence[str]) -> dict[str, list[str]]:
    classes, found = languages.resource_classes(), {}
    paper = [row.code for row in languages.paper()]
    found["the paper's languages"] = [code for code in order if code in paper]
    for number in sorted(set(classes.values()), reverse=True):
        label = f"resource class {number}{' or none' * (not number)}"
        found[label] = [code for code in order if classes.get(code) == number]
    for seen, label in ((True, "seen by XLM-R"), (False, "not seen by XLM-R")):
        found[label] = [code for code in order if languages.seen_by_xlmr(code) is seen]
    scripts: dict[str, list[str]] = {}
    for code in order:
        scripts.setdefault(script_of(code), []).append(code)
    common = sorted((name for name in scripts if len(scripts[name]) >= FEW), key=lambda name: -len(scripts[name]))
    found |= {f"script {name}": scripts[name] for name in common}
    return found | {"other scripts": [code for code in order if script_of(code) not in common]}


def script_of(code: str) -> str:
    """Give the script of a language (ISO 15924); "unknown" for an unknown code."""
    with suppress(UsageError):
        return languages.language(code).script
    return "unknown"


def _like(entry: Entry | None, first: Entry) -> Entry:
    """Give the entry, or a missing one in its place if it does not exist or is not comparable with `first`."""
    reason = ABSENT
    if entry is not None:
        other = difference(entry, first) if entry.score is not None and first.score is not None else None
        if other is None:
            return entry
        reason = f"not comparable: {other}"
    gone = dict.fromkeys(("score", "low", "high", "n", "seconds", "seen"))
    return replace(entry or first, **gone, missing=reason)


def _nested(values: Mapping[Key, np.ndarray | float], outer: int, weights: Mapping[Key, int]) -> np.ndarray:
    """Take the weighted mean over the inner part of the keys, then the plain mean over the outer part."""
    inner: dict[str, list[Key]] = {}
    for key in sorted(values):
        inner.setdefault(key[outer], []).append(key)
    means = [
        np.average([values[key] for key in keys], axis=0, weights=[weights[key] for key in keys])
        for keys in inner.values()
    ]
    return np.mean(means, axis=0)
