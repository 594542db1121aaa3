"""The best model for each use and language."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lusifer.evaluation.report.facts import Facts, ScoreSet
from lusifer.evaluation.report.words import count_of, language_name, mean_cell, score_cell
from lusifer.evaluation.scores import compare
from lusifer.evaluation.scores.averages import ENGLISH, Board, Mean
from lusifer.evaluation.scores.bootstrap import Key, interval, percentiles
from lusifer.evaluation.scores.results import Entry

GOOD, POOR = 80.0, 50.0
"""A model is good for a use if the complete interval is at `GOOD` percent or more, and poor if it is below `POOR`."""
NAMED = 6
"""A sentence names at most this number of languages and counts the others."""
OTHERS = "mean of the measured languages without English"
UNMEASURED, UNDECIDED = "not measured", "no significant difference"


def _to(code: str) -> Callable[[Entry], bool]:
    return lambda entry: entry.cross_lingual and all(each.endswith(f"-{code}") for each in entry.subsets)


def _from(code: str) -> Callable[[Entry], bool]:
    return lambda entry: entry.cross_lingual and all(each.startswith(f"{code}-") for each in entry.subsets)


def _within(entry: Entry) -> bool:
    return not entry.cross_lingual


SEARCH = ("Retrieval", "Reranking")
USES: dict[str, tuple[tuple[str, ...], Callable[[Entry], bool]]] = {
    "questions in the language over English documents": (SEARCH, _to(ENGLISH)),
    "English questions over documents in the language": (SEARCH, _from(ENGLISH)),
    "questions and documents in the language": (SEARCH, _within),
    "finding the English translation of a sentence": (("BitextMining",), _to(ENGLISH)),
    "classifying texts, trained on English": (("Classification",), lambda entry: entry.cross_lingual),
    "classifying texts, trained in the language": (("Classification",), _within),
}
"""Use -> mteb's types of tasks that measure it, and a filter for their entries."""


@dataclass(frozen=True)
class Choice:
    """The models for one language and use.

    Attributes:
        language: The code of the language, or `OTHERS`.
        use: One of `USES`.
        means: One mean for each model, over the tasks that all models have; None if there are no such tasks.
        best: The model with the highest mean, then those that do not differ significantly from it (paired bootstrap).
    """

    language: str
    use: str
    means: tuple[Mean, ...] | None
    best: tuple[str, ...] = ()

    def words(self, names: Sequence[str]) -> str:
        """Give the text of a cell: the best model or models, `UNDECIDED` or `UNMEASURED`."""
        if self.means is None:
            return UNMEASURED
        return UNDECIDED if 1 < len(self.best) == len(names) else " or ".join(self.best)


def choices(facts: Facts) -> dict[str, dict[str, Choice]]:
    """Find the best model for each language and use.

    The last row, `OTHERS`, is the mean over the languages other than English in which the use was measured. It is a
    guess for languages that were not measured. Models are compared over the tasks of the use in a language, by paired
    bootstrap at 95 %, without correction for multiple comparisons.

    Returns:
        Language -> use -> choice. Uses that were measured in no language are left out.
    """
    found: dict[str, dict[str, Choice]] = {}
    codes = list(dict.fromkeys(code for scores in facts.sets for code, _ in scores.keys))
    uses = [use for use in USES if _keys(facts, use, codes)[1]]
    for code in codes:
        row = {use: _choice(facts, use, code, [code]) for use in uses}
        if any(each.means for each in row.values()):
            found[code] = row
    others = [code for code in codes if code != ENGLISH]
    if len([code for code in found if code != ENGLISH]) > 1:
        found[OTHERS] = {use: _choice(facts, use, OTHERS, others) for use in uses}
    return found


def _keys(facts: Facts, use: str, codes: Collection[str]) -> tuple[ScoreSet | None, list[Key]]:
    """Find the scores of a use in some languages that all models have."""
    types, fits = USES[use]
    for scores in facts.sets:
        keys = [key for key in scores.keys if key[0] in codes and scores.about(key).type in types]
        shared = scores.shared(key for key in keys if fits(scores.about(key)))
        if shared and all(board.entries[shared[0]].score is not None for board in scores.boards):
            return scores, shared
    return None, []


def _choice(facts: Facts, use: str, label: str, codes: Collection[str]) -> Choice:
    scores, keys = _keys(facts, use, codes)
    if scores is None:
        return Choice(label, use, None)
    means = tuple(_mean(board, keys, facts.seed) for board in scores.boards)
    order = sorted(range(len(means)), key=lambda place: -(means[place].value or 0))
    best = [place for place in order if place == order[0] or not _better(facts, scores, keys, order[0], place)]
    return Choice(label, use, means, tuple(scores.names[place] for place in best))


def _mean(board: Board, keys: Sequence[Key], seed: int) -> Mean:
    """Compute the mean of a use; a single score has the same interval as elsewhere on the page."""
    found = board.mean(keys)
    if len(keys) > 1:
        return found
    entry, examples = board.entries[keys[0]], board.results.examples.get(keys[0])
    if entry.low is not None:
        return replace(found, low=entry.low, high=entry.high)
    ends = interval(examples, seed) if examples is not None else None
    return replace(found, low=ends[0], high=ends[1]) if ends else found


def _better(facts: Facts, scores: ScoreSet, keys: Sequence[Key], one: int, other: int) -> bool:
    """Whether the complete interval of the mean difference of two models is above 0."""
    mine, theirs = (scores.boards[place].results.examples for place in (one, other))
    fit = [key for key in keys if key in mine and key in theirs and not compare.why_not(mine[key], theirs[key])]
    if len(fit) < len(keys):
        return False
    _, samples = compare.differences({key: mine[key] for key in fit}, {key: theirs[key] for key in fit}, facts.seed)
    ends = percentiles(np.mean([samples[key] for key in fit], axis=0))
    return ends is not None and ends[0] > 0


def sentences(facts: Facts) -> list[str]:
    """Write one sentence for each use: which model is ahead, where models are good or poor, what was not measured."""
    rows = choices(facts)
    means = rows.pop(OTHERS, {})
    found = []
    for use in next(iter(rows.values()), {}):
        cells = {code: row[use] for code, row in rows.items()}
        there = {code: cell for code, cell in cells.items() if cell.means}
        words = [*_ahead(there, means.get(use), facts.names), *_bounds(there, facts.names)]
        gone = [language_name(code) for code, cell in cells.items() if not cell.means and _may_have(use, code)]
        if gone:
            words.append(f"not measured in {_some(gone)}, so its quality there is unknown")
        found.append(f"{use[0].upper()}{use[1:]}: {'; '.join(words)}.")
    return found


def _ahead(there: Mapping[str, Choice], mean: Choice | None, names: Sequence[str]) -> list[str]:
    """Say which model is ahead in how many languages, with the means over them."""
    of = count_of(len(there), "language")
    if len(names) == 1:
        return [f"{names[0]} has a mean of {mean_cell(mean.means[0])} without English"] if _known(mean) else []
    alone = {name: sum(cell.best == (name,) for cell in there.values()) for name in names}
    parts = [f"{name} is ahead in {number} of {of}" for name, number in alone.items() if number]
    words = [", ".join(parts) or f"no significant difference in any of {of}"]
    if _known(mean):
        each = (f"{name} {mean_cell(value)}" for name, value in zip(names, mean.means, strict=True))
        words.append(f"means without English: {', '.join(each)}")
    return words


def _known(mean: Choice | None) -> bool:
    return mean is not None and mean.means is not None


def _bounds(there: Mapping[str, Choice], names: Sequence[str]) -> list[str]:
    """Say in which languages each model is good or poor."""
    words = []
    for place, name in enumerate(names):
        means = {code: cell.means[place] for code, cell in there.items()}
        good = [code for code, mean in means.items() if mean.low is not None and mean.low >= GOOD]
        poor = [code for code, mean in means.items() if mean.high is not None and mean.high < POOR]
        if good:
            words.append(f"{name} is good in {_named(good, means)}")
        if poor:
            words.append(f"{name} is poor in {_named(poor, means)}")
        if not good and not poor and len(names) == 1:
            words.append("neither clearly good nor clearly poor in any language")
    return words


def _may_have(use: str, code: str) -> bool:
    """Whether a use exists in a language; uses that translate to or from English do not exist in English."""
    return code != ENGLISH or "English" not in use


def _named(codes: Sequence[str], of: Mapping[str, Mean]) -> str:
    """Name languages with their means, or all measured ones."""
    if len(codes) == len(of) > 1:
        return f"all {len(of)} measured languages"
    return f"{_some([f'{language_name(code)} {score_cell(of[code].value)}' for code in codes])}"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}"
