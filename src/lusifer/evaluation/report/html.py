"""Pieces of an HTML page: cells, tables that can be sorted, figures. Every word that comes in is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from lusifer.evaluation.figures.style import Estimate
from lusifer.evaluation.report import tables as cells


@dataclass(frozen=True)
class Cell:
    """One cell: its HTML, what its column is sorted by (None: behind all others), and its class."""

    html: str
    value: float | str | None = None
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """A table; the first column names the rows, `foot` rows stay below when it is sorted."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    foot: Sequence[Sequence[Cell]] = ()
    numbers: frozenset[int] = frozenset()


def said(words: object) -> str:
    """Escape words for HTML, for text and for attributes."""
    return escape(str(words))


def text(words: object, kind: str = "") -> Cell:
    """A cell of words."""
    return Cell(f"<bdi>{said(words)}</bdi>", str(words), kind)


def count(number: int | None) -> Cell:
    """A cell with a whole number, or a dash where it is unknown."""
    return Cell("–", None, "number") if number is None else Cell(f"{number:,}", number, "number")


def score(estimate: Estimate, reason: str | None = None, sign: str = "-") -> Cell:
    """A cell with a score and its interval; a missing one says so, and why when pointed at. Sign "+" is for changes."""
    if estimate.value is None:
        title = f' title="{said(reason)}"' if reason else ""
        return Cell(f"<span{title}>{cells.MISSING}</span>", None, "number missing")
    interval = ""
    if estimate.low is not None and estimate.high is not None:
        low, high = (cells.score_cell(end, sign) for end in (estimate.low, estimate.high))
        interval = f' <span class="interval">{low} to {high}</span>'
    return Cell(f"{cells.score_cell(estimate.value, sign)}{interval}", round(estimate.value, 4), "number")


def table(content: Table) -> str:
    """Lay a table out in a box of its own, which scrolls on a narrow screen and can be scrolled by keys."""
    head = "".join(
        f'<th scope="col"{_kind("number" if place in content.numbers else "")}>{said(column)}</th>'
        for place, column in enumerate(content.columns)
    )
    body = "".join(f"<tr>{_row(row)}</tr>" for row in content.rows)
    foot = "".join(f"<tr>{_row(row)}</tr>" for row in content.foot)
    return (
        f'<div class="box" role="region" tabindex="0" aria-label="{said(content.caption)}"><table class="sortable">'
        f"<caption>{said(content.caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
        f"{f'<tfoot>{foot}</tfoot>' if foot else ''}</table></div>"
    )


def _row(cells: Sequence[Cell]) -> str:
    first, *others = cells
    begin = f'<th scope="row"{_value(first)}>{first.html}</th>'
    return begin + "".join(f"<td{_kind(cell.kind)}{_value(cell)}>{cell.html}</td>" for cell in others)


def _kind(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def _value(cell: Cell) -> str:
    return "" if cell.value is None else f' data-value="{said(cell.value)}"'


def section(slug: str, title: str, parts: Iterable[str]) -> str:
    """A section with its heading; parts that are empty are left out."""
    return f'<section id="{slug}"><h2>{said(title)}</h2>\n' + "\n".join(part for part in parts if part) + "\n</section>"


def paragraph(words: str, kind: str = "") -> str:
    """A paragraph."""
    return f"<p{_kind(kind)}>{said(words)}</p>"


def fold(summary: str, content: str) -> str:
    """What is shown when asked for; in print it is shown."""
    return f"<details><summary>{said(summary)}</summary>{content}</details>"


def figure(svg: str, caption: str, wide: bool = False) -> str:
    """A picture with its caption, in a box that scrolls where the picture would become too small to read.

    Args:
        svg: As `lusifer.evaluation.figures.svg` gives it.
        caption: In words.
        wide: Whether it takes the whole width, also among `figures`.
    """
    return (
        f'<figure{_kind("wide" if wide else "")}><div class="box" role="region" tabindex="0" '
        f'aria-label="{said(caption)}">{svg}</div><figcaption>{said(caption)}</figcaption></figure>'
    )


def figures(found: Sequence[str]) -> str:
    """Several figures, beside each other where there is room."""
    return f'<div class="figures">{"".join(found)}</div>' if found else ""
