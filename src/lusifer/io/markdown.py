"""Markdown tables: every table of a report, a card or a terminal is made here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def cell(value: object) -> str:
    """Give a value as one cell of a table: on one line, with `|` escaped."""
    return " ".join(str(value).split()).replace("|", "\\|")


def table(header: Sequence[object], rows: Iterable[Sequence[object]], left: int = 1) -> str:
    """Lay out a Markdown table.

    Args:
        header: Names of the columns.
        rows: As many cells each as there are columns.
        left: How many columns are aligned to the left, from the first on; the others hold numbers.

    Returns:
        The lines, without a line break at the end.
    """
    lines = [[cell(value) for value in row] for row in (header, *rows)]
    lines.insert(1, ["---" if place < left else "---:" for place in range(len(header))])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def bullets(lines: Iterable[str]) -> str:
    """Lay out a Markdown list, a line an item."""
    return "\n".join(f"- {line}" for line in lines)
