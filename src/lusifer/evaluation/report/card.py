"""The scores of one model for its card: a table a task, with the interval of each language."""

from __future__ import annotations

from collections.abc import Sequence

from lusifer.errors import UsageError
from lusifer.evaluation.report.tables import mean_cell, name_of, notes, score_cell, title_of
from lusifer.evaluation.scores.averages import TASK, Board, boards
from lusifer.evaluation.scores.bootstrap import Key, interval, spread
from lusifer.evaluation.scores.results import Results
from lusifer.io import markdown as md


def model_card(results: Sequence[Results], seed: int = 0) -> str:
    """Lay out the scores of one model, for the section of its card that tells them.

    Args:
        results: Evaluation folders of the model, such as those of several suites.
        seed: Of the resampling.

    Returns:
        Markdown with headings of the third level, without a line break at the end. It holds no path and no date.

    Raises:
        UsageError: There is no folder, or they are of different models.
    """
    if not results:
        raise UsageError("a model card needs an evaluation folder")
    first = results[0]
    for result in results[1:]:
        if result.model.identity != first.model.identity or (
            first.model.identity is None and result.model.name != first.model.name
        ):
            raise UsageError(
                f"{result.folder or result.model.name} is of another model than {first.folder or first.model.name}: "
                "a card has the scores of one model"
            )
    blocks = []
    for result in results:
        for cross in (False, True):
            part = result.part(cross)
            if part.scores:
                kind = "from one language to another" if cross else "within each language"
                blocks.append(f"### Suite {result.suite}, {kind}")
                blocks += _tasks(boards([part], seed)[0], seed)
    return "\n\n".join(blocks)


def _tasks(board: Board, seed: int) -> list[str]:
    tasks: dict[str, list[Key]] = {}
    for key in board.entries:
        tasks.setdefault(key[1], []).append(key)
    return [block for keys in tasks.values() for block in _task(board, keys, seed)]


def _task(board: Board, keys: Sequence[Key], seed: int) -> list[str]:
    """Title, table and notes."""
    header = ["language", "score", "95 % interval", "examples", "met in training"]
    rows = [_row(board, key, seed) for key in keys]
    if len(keys) > 1:
        rows.append(["mean", mean_cell(board.mean(keys, TASK)), "", "", ""])
    if not any(row[-1] for row in rows):
        header, rows = header[:-1], [row[:-1] for row in rows]
    blocks = [f"**{title_of(board.entries[keys[0]])}**", md.table(header, rows), notes([board], keys, rows)]
    return [block for block in blocks if block]


def _row(board: Board, key: Key, seed: int) -> list[str]:
    entry = board.entries[key]
    return [
        name_of(entry.language),
        score_cell(entry.score),
        _sure(board, key, seed),
        "" if entry.n is None else f"{entry.n:,}",
        f"{entry.seen.seen} of {entry.seen.of}" if entry.seen else "",
    ]


def _sure(board: Board, key: Key, seed: int) -> str:
    """The interval of a score as it was written, else as its examples give it; of draws their spread."""
    entry, rows = board.entries[key], board.results.examples.get(key)
    if rows is not None and rows.kind == "draws":
        deviation = spread(rows)
        return "" if deviation is None else f"none; standard deviation of {len(rows.ids)} draws {deviation:.1f}"
    ends = (entry.low, entry.high) if entry.low is not None else interval(rows, seed) if rows is not None else None
    return f"{score_cell(ends[0])} to {score_cell(ends[1])}" if ends else ""
