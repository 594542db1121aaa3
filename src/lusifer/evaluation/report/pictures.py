"""The figures of a report page, as SVG within it."""

from __future__ import annotations

from collections.abc import Mapping

from lusifer.evaluation.figures import languages, style
from lusifer.evaluation.figures import scores as figures_scores
from lusifer.evaluation.figures.style import Estimate
from lusifer.evaluation.report.facts import Facts, Part
from lusifer.evaluation.report.html import figure
from lusifer.evaluation.report.html_tables import estimate
from lusifer.evaluation.report.tables import name_of

HALF = 4  # columns of a heat map that fit into half of the page


def heat_maps(part: Part, slug: str) -> list[str]:
    """A heat map a model: languages by types, or by tasks where they are cross-lingual; all on one scale."""
    grids = {name: _grid(part, place) for place, name in enumerate(part.names)}
    limits = figures_scores.span([value for grid in grids.values() for row in grid.values() for value in row.values()])
    what = "task" if part.cross_lingual else "type of task"
    found = []
    for number, (name, grid) in enumerate(grids.items()):
        cells = [value for row in grid.values() for value in row.values()]
        gone = cells.count(None)
        words = f"{name}: mean score by language and {what}, of what this model has; {_gone(gone)}"
        drawn = figures_scores.heat_map(grid, f"{style.short(name, 40)}: languages by {what}", limits)
        picture = style.svg(drawn, f"{slug}-{number}", _alternative(words, grid))
        columns = {column for row in grid.values() for column in row}
        found.append(figure(picture, words, wide=len(columns) > HALF))
    return found


def _grid(part: Part, place: int) -> dict[str, dict[str, float | None]]:
    """Language -> type or task -> mean of one model's own results; None where it has none of those it should have."""
    board = part.boards[place]
    cells: dict[str, dict[str, list[float | None]]] = {}
    for key in part.keys:
        column = key[1] if part.cross_lingual else part.about(key).type
        cells.setdefault(key[0], {}).setdefault(column, []).append(board.entries[key].score)
    columns = list(dict.fromkeys(column for row in cells.values() for column in row))
    return {code: {name: _mean(row[name]) for name in columns if name in row} for code, row in cells.items()}


def _mean(scores: list[float | None]) -> float | None:
    """A mean over fewer than all would look like one over all: it is missing."""
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if len(known) == len(scores) else None


def _gone(count: int) -> str:
    return "hatched cells are missing, or lack a task" if count else "none is missing"


def _alternative(words: str, grid: Mapping[str, Mapping[str, float | None]]) -> str:
    """What those who do not see the figure need beside the tables: its range."""
    known = [(value, code, name) for code, row in grid.items() for name, value in row.items() if value is not None]
    if not known:
        return words
    ends = [f"{name} in {name_of(code)} {value:.1f}" for value, code, name in (min(known), max(known))]
    return f"{words}. Lowest: {ends[0]}; highest: {ends[1]}."


def radars(part: Part, slug: str) -> list[str]:
    """A radar a type of task, for those with three languages or more."""
    types = list(dict.fromkeys(part.about(key).type for key in part.keys))
    found = []
    for number, kind in enumerate(types):
        keys = [key for key in part.keys if part.about(key).type == kind]
        codes = list(dict.fromkeys(code for code, _ in keys))
        rows = {code: part.row(code, [key for key in keys if key[0] == code]) for code in codes}
        scores = {
            name: {code: row.means[place].value for code, row in rows.items()} for place, name in enumerate(part.names)
        }
        there = {code for row in scores.values() for code, value in row.items() if value is not None}
        if len(there) < figures_scores.FEWEST_SPOKES:
            continue
        which = ", over the results that the models share" if len(part.names) > 1 else ""
        words = f"{kind} by language{which}; a gap in a line is a missing score"
        drawn = figures_scores.radar(scores, kind)
        found.append(figure(style.svg(drawn, f"{slug}-{number}", words), words))
    return found


def bars(facts: Facts) -> str:
    """The overall means of all models; empty for a single one."""
    if len(facts.names) < 2:
        return ""
    scores: dict[str, dict[str, Estimate]] = {name: {} for name in facts.names}
    for part in facts.parts:
        title = "cross-lingual" if part.cross_lingual else "monolingual"
        for name, mean in zip(facts.names, part.row("", part.keys).means, strict=True):
            scores[name][title] = estimate(mean)
    words = "Mean over the results that all models share, with its 95 % interval; the dotted line is the first model"
    drawn = figures_scores.bars(scores, "Means")
    return figure(style.svg(drawn, "means", words), words)


def islands(facts: Facts) -> str:
    """The texts of each model in the plane, where its folder has vectors of the same texts as the first; else empty."""
    known = {name: each for name, each in zip(facts.names, facts.islands, strict=False) if each is not None}
    first = next(iter(known.values()), None)
    if first is None:
        return ""
    sizes = {code: len(rows) for code, rows in first.items()}
    same = {name: each for name, each in known.items() if {code: len(rows) for code, rows in each.items()} == sizes}
    words = (
        f"{sum(sizes.values())} texts in {len(sizes)} languages by t-SNE, the same seed for each model: where "
        "languages are islands, a model tells languages apart before meanings. The number is of the vectors and not of "
        "the picture"
    )
    return figure(style.svg(languages.islands(same, facts.seed), "islands", words), words)
