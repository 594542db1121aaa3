"""What stands beneath a table: what is missing and why, which means have no interval, what was met in training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lusifer.evaluation.report.cells import FEWER, NO_SUCH
from lusifer.evaluation.scores.averages import Board
from lusifer.evaluation.scores.bootstrap import Key
from lusifer.evaluation.scores.results import names


def notes(held: Sequence[Board], keys: Iterable[Key], rows: Iterable[Sequence[str]]) -> str:
    """The lines beneath a table.

    Args:
        held: Its models.
        keys: Language and task of its scores.
        rows: Its cells.

    Returns:
        A Markdown list; empty if there is nothing to say.
    """
    keys = list(dict.fromkeys(keys))
    cells = [cell for row in rows for cell in row]
    called = names([board.results for board in held])
    lines = []
    if NO_SUCH in cells:
        lines.append(f"`{NO_SUCH}`: the task has no scores in this language")
    if any(FEWER in cell for cell in cells):
        lines.append("a mean over fewer is not comparable with one over all")
    for name, board in zip(called, held, strict=True):
        of = f"{name}: " if len(held) > 1 else ""
        mine = [key for key in keys if key in board.entries]
        lines += [f"{of}missing: {what}" for what in _missing(board, mine)]
        lines += [f"{of}no interval of {what}, and of means over them" for what in _bare(board, mine)]
        lines += [f"{of}{what}" for what in _met(board, mine)]
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


def _met(board: Board, keys: Sequence[Key]) -> list[str]:
    """Tasks whose texts the model met in training."""
    met = [(key, seen) for key in keys if (seen := board.entries[key].seen) is not None and seen.seen]
    found = ", ".join(f"{task} ({code}): {seen.seen} of {seen.of}" for (code, task), seen in met)
    return [f"texts met in training: {found}"] if found else []
