"""Models beside each other over the rows that all of them have.

Public scores have gaps: 29 models share few rows, and ten share many. So a comparison says which models take part, over
which rows, and which stay out. What a model has not is never filled in, and no rank is over different rows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lusifer.evaluation.scores import averages, results
from lusifer.evaluation.scores.averages import LANGUAGE, TASK, Board, Mean
from lusifer.evaluation.scores.bootstrap import Key
from lusifer.evaluation.scores.results import Results

By = Literal["language", "type", "task"]
PLACES = 2
"""Decimals of a mean: what is equal when rounded, as the paper's tables are, shares a rank."""


@dataclass(frozen=True, eq=False)
class League:
    """Some models over the rows that they share.

    Attributes:
        boards: Of all models that were asked for, by name.
        models: Those that are compared.
        keys: Language and task of the rows that all of these have.
        asked: Those of all rows that were asked for.
        cross_lingual: Whether rows are pairs of languages; then a mean weighs tasks equally, else languages.
    """

    boards: Mapping[str, Board]
    models: tuple[str, ...]
    keys: tuple[Key, ...]
    asked: tuple[Key, ...]
    cross_lingual: bool

    @property
    def apart(self) -> dict[str, int]:
        """Models that are not compared -> how many of the rows asked for they have."""
        return {name: len(_there(self.boards[name])) for name in self.boards if name not in self.models}

    def group(self, by: By) -> dict[str, list[Key]]:
        """The rows by language, type or task, in the order of the paper's languages; only what is compared."""
        return grouped(next(iter(self.boards.values())), self.keys, by)

    def mean(self, name: str, keys: Iterable[Key]) -> Mean:
        """One model's mean over some rows, with its interval where it has the examples of all of them."""
        return self.boards[name].mean(keys, TASK if self.cross_lingual else LANGUAGE)

    def means(self, keys: Iterable[Key]) -> dict[str, float]:
        """Every compared model's mean over some of the shared rows, rounded, the best first.

        A mean over languages is over the means of their tasks, as in table 1 of the paper; cross-lingual it is over
        tasks, as in table 2.
        """
        keys = list(keys)
        found = {name: self.mean(name, keys).value for name in self.models}
        known = {name: round(value, PLACES) for name, value in found.items() if value is not None}
        return dict(sorted(known.items(), key=lambda pair: -pair[1]))


def league(
    models: Sequence[Results],
    *,
    keep_all: bool = False,
    first: bool = False,
    keys: Collection[Key] | None = None,
    seed: int = 0,
) -> League:
    """Lay models beside each other; a row by another metric, split or subsets than the first model's is missing.

    Without `keep_all` those are compared that give the most scores, models times rows that they share: they are taken
    in the order of how many rows they have.

    Args:
        models: Evaluations of the same rows, all of one language or all across languages.
        keep_all: Whether every model that has any row takes part, however few rows they then share.
        first: Whether the first model takes part in any case, and only its rows count.
        keys: Rows that count; None for all.
        seed: Of the resampling behind the intervals of models that have examples.

    Raises:
        UsageError: Cross-lingual and monolingual rows are mixed.
    """
    boards = dict(zip(results.names(models), averages.boards(models, seed), strict=True))
    return _among(boards, keep_all, first, keys)


def again(found: League, keys: Collection[Key], *, first: bool = False) -> League:
    """Choose anew for some of the rows: fewer rows may be shared by more models."""
    return _among(found.boards, False, first, keys)


def _among(boards: Mapping[str, Board], keep_all: bool, first: bool, keys: Collection[Key] | None) -> League:
    every = next(iter(boards.values())).entries
    asked = tuple(key for key in every if keys is None or key in keys)
    has = {name: _there(board) & set(asked) for name, board in boards.items()}
    fixed = list(has)[:1] if first else []
    counted = has[fixed[0]] if first else set(asked)
    others = sorted((name for name in has if name not in fixed), key=lambda name: -len(has[name] & counted))
    others = [name for name in others if has[name] & counted]
    order = [*fixed, *others]
    sets = [order[:size] for size in range(max(1, len(fixed)), len(order) + 1)]
    shared = {len(names): set.intersection(counted, *(has[name] for name in names)) for names in sets}
    if keep_all:
        sets = sets[-1:]
    # Of equally many scores those of more models; a comparison of a model with none is no comparison.
    best = max(sets, key=lambda names: (len(names) * len(shared[len(names)]), len(names)), default=[])
    rows = shared.get(len(best), set())
    chosen = tuple(name for name in boards if name in best)
    cross = any(entry.cross_lingual for entry in every.values())
    return League(boards, chosen, tuple(key for key in asked if key in rows), asked, cross)


def grouped(board: Board, keys: Iterable[Key], by: By) -> dict[str, list[Key]]:
    """Rows by their language, type or task; `keys` are some of the board's."""
    name: dict[By, Callable[[Key], str]] = {
        "language": lambda key: key[LANGUAGE],
        "task": lambda key: key[TASK],
        "type": lambda key: board.entries[key].type,
    }
    found: dict[str, list[Key]] = {}
    for key in keys:
        found.setdefault(name[by](key), []).append(key)
    return found


def ranks(means: Mapping[str, float]) -> dict[str, int]:
    """The place of each model, 1 for the best; equal means share the better place."""
    return {name: 1 + sum(other > value for other in means.values()) for name, value in means.items()}


def _there(board: Board) -> set[Key]:
    return {key for key, entry in board.entries.items() if entry.score is not None}
