"""What stands beneath a table: what is missing and why, which means have no interval, what was met in training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lusifer.evaluation.averages import Board
from lusifer.evaluation.results import names
from lusifer.evaluation.statistics import Key

FEWER = "A mean over fewer is not comparable with one over all."


def notes(held: Sequence[Board], keys: Iterable[Key], *, dashes: bool) -> str:
    """The lines beneath a table.

    Args:
        held: Its models.
        keys: Language and task of its scores.
        dashes: Whether a cell of it says that a task has no such language.

    Returns:
        A Markdown list; empty if there is nothing to say.
    """
    keys = list(dict.fromkeys(keys))
    called = names([board.results for board in held])
    lines = []
    if dashes:
        lines.append("`-`: the task has no scores in this language.")
    if any(board.entries[key].score is None for board in held for key in keys):
        lines.append(FEWER)
    for name, board in zip(called, held, strict=True):
        mine = [key for key in keys if key in board.entries]
        lines += [f"{name}: missing: {what}" for what in _missing(board, mine)]
        lines += [f"{name}: no interval where a mean holds {what}" for what in _bare(board, mine)]
        lines += _met(name, board, mine)
    return "\n".join(f"- {' '.join(line.split())}" for line in lines)


def listed(keys: Iterable[Key]) -> str:
    """Tasks with their languages: A (es, fr), B (fr)."""
    tasks: dict[str, list[str]] = {}
    for code, task in keys:
        tasks.setdefault(task, []).append(code)
    return ", ".join(f"{task} ({', '.join(codes)})" for task, codes in tasks.items())


def _missing(board: Board, keys: Sequence[Key]) -> list[str]:
    reasons: dict[str, list[Key]] = {}
    for key in keys:
        reason = board.entries[key].missing
        if reason:
            reasons.setdefault(reason, []).append(key)
    return [f"{listed(found)}: {reason}" for reason, found in reasons.items()]


def _bare(board: Board, keys: Sequence[Key]) -> list[str]:
    """Scores that cannot be resampled, by the reason."""
    reasons: dict[str, list[Key]] = {}
    for key in keys:
        if board.entries[key].score is None or key in board.samples:
            continue
        rows = board.results.examples.get(key)
        why = "without examples" if rows is None else "with too few examples"
        if rows is not None and rows.kind == "draws":
            why = "whose values are the task's own resamplings"
        reasons.setdefault(why, []).append(key)
    return [f"scores {why}: {listed(found)}" for why, found in reasons.items()]


def _met(name: str, board: Board, keys: Sequence[Key]) -> list[str]:
    """Tasks whose texts the model met in training."""
    found = [
        f"{key[1]} ({key[0]}): {seen.seen} of {seen.of}"
        for key in keys
        if (seen := board.entries[key].seen) and seen.seen
    ]
    return [f"{name}: texts met in training: {', '.join(found)}"] if found else []
