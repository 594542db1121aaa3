"""Compare models over the rows that all of them have.

Public scores have gaps: 29 models share few rows, and ten models share many. So a comparison names its models and rows,
and the models that are left out. Missing scores are never filled in, and no ranking mixes different rows.
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
"""Decimals of a mean, as in the paper's tables; models with equal rounded means share a rank."""


@dataclass(frozen=True, eq=False)
class League:
    """Some models, compared over the rows that they share.

    Attributes:
        boards: Name -> board of each requested model.
        models: Names of the compared models.
        keys: Language and task of the rows that all compared models have.
        asked: Language and task of all requested rows.
        cross_lingual: Whether rows are language pairs. A mean then gives tasks equal weights, otherwise languages.
    """

    boards: Mapping[str, Board]
    models: tuple[str, ...]
    keys: tuple[Key, ...]
    asked: tuple[Key, ...]
    cross_lingual: bool

    @property
    def apart(self) -> dict[str, int]:
        """Models that are not compared -> how many of the requested rows they have."""
        return {name: len(_there(self.boards[name])) for name in self.boards if name not in self.models}

    def group(self, by: By) -> dict[str, list[Key]]:
        """Group the compared rows by language, type or task, in the order of the paper's languages."""
        return grouped(next(iter(self.boards.values())), self.keys, by)

    def mean(self, name: str, keys: Iterable[Key]) -> Mean:
        """Compute the mean of a model over some rows, with its interval if it has examples for all of them.

        Args:
            name: Name of the model.
            keys: Language and task of the rows.
        """
        return self.boards[name].mean(keys, TASK if self.cross_lingual else LANGUAGE)

    def means(self, keys: Iterable[Key]) -> dict[str, float]:
        """Compute the rounded mean of each compared model over some shared rows.

        Monolingual rows are averaged over the tasks of a language, then over languages, as in table 1 of the paper;
        cross-lingual rows over tasks, as in table 2.

        Args:
            keys: Language and task of the rows.

        Returns:
            Name -> mean in percent, best first.
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
    """Compare models; a row with another metric, split or subsets than the first model's is missing.

    Models are added in the order of how many rows they have. Without `keep_all` the comparison keeps the number of
    models that maximizes models times shared rows.

    Args:
        models: Evaluations of the same rows, all monolingual or all cross-lingual.
        keep_all: Whether to compare every model with any row, even if they share few rows.
        first: Whether the first model always takes part, and only its rows count.
        keys: Language and task of the rows that count; None for all.
        seed: Seed of the resampling, for models with examples.

    Raises:
        UsageError: Cross-lingual and monolingual rows are mixed.
    """
    boards = dict(zip(results.names(models), averages.boards(models, seed), strict=True))
    return _among(boards, keep_all, first, keys)


def again(found: League, keys: Collection[Key], *, first: bool = False) -> League:
    """Choose the models again for some of the rows; more models may share fewer rows.

    Args:
        found: A comparison.
        keys: Language and task of the rows that count.
        first: Whether the first model always takes part, and only its rows count.
    """
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
    # For equal numbers of scores, more models win: a model alone is no comparison.
    best = max(sets, key=lambda names: (len(names) * len(shared[len(names)]), len(names)), default=[])
    rows = shared.get(len(best), set())
    chosen = tuple(name for name in boards if name in best)
    cross = any(entry.cross_lingual for entry in every.values())
    return League(boards, chosen, tuple(key for key in asked if key in rows), asked, cross)


def grouped(board: Board, keys: Iterable[Key], by: By) -> dict[str, list[Key]]:
    """Group rows by language, type or task.

    Args:
        board: A board that has the rows.
        keys: Language and task of the rows.
        by: What to group by.
    """
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
    """Give the rank of each model, 1 for the best; equal means share the better rank."""
    return {name: 1 + sum(other > value for other in means.values()) for name, value in means.items()}


def _there(board: Board) -> set[Key]:
    return {key for key, entry in board.entries.items() if entry.score is not None}
