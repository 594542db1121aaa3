"""A figure of many languages: one line a language, grouped by published facts, one cell for each metric and model."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lusifer import extras, languages
from lusifer.errors import UsageError
from lusifer.evaluation.report import figures, words
from lusifer.evaluation.scores.averages import script_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME, CELL, GAP = 2.15, 0.44, 0.25  # widths in inches: name with script, cell, gap between two columns of languages
LINE = 0.168  # inches
HEAD = 9.0  # lines above the first language, for the names of the metrics
LONGEST = 24  # letters of a name
SEEN = {True: "●", False: "○", None: ""}
Row = Mapping[str, float | None]
Line = tuple[str, str | None]
"""A heading and None, or a name and the code of its language."""


def lines(codes: Sequence[str]) -> list[Line]:
    """Sort languages by resource class, languages seen by XLM-R first, then by script and name; with headings."""
    classes = languages.resource_classes()

    def place(code: str) -> tuple[int, bool, str, str]:
        return -classes.get(code, -1), not languages.seen_by_xlmr(code), script_of(code), words.language_name(code)

    found: list[Line] = []
    before = None
    for code in sorted(codes, key=place):
        number = classes.get(code)
        if not found or number != before:
            before = number
            name = "class not known" if number is None else f"class {number}{' or in none' * (not number)}"
            found.append((name, None))
        known = words.language(code)
        found.append((words.short(known.name if known else code, LONGEST), code))
    return found


def atlas(scores: Mapping[str, Row], title: str, limits: tuple[float, float] = (0, 100)) -> Figure:
    """Draw the scores of many languages.

    Args:
        scores: Language code -> metric -> percent. None is missing and is hatched. A metric that a language does not
            have stays empty.
        title: Title of the figure.
        limits: Limits of the color scale, in percent.

    Raises:
        UsageError: There are no scores.
    """
    measures = list(dict.fromkeys(measure for row in scores.values() for measure in row))
    if not measures:
        raise UsageError(f"{title}: there is nothing to draw")
    found = lines(list(scores))
    width = NAME + CELL * len(measures) + GAP
    columns = max(1, min(4, round(11 / width), math.ceil(len(found) / 12)))
    height = math.ceil((len(found) + columns - 1) / columns)
    found = _continued(found, height)
    with figures.style():
        figure = figures.new(columns * width + 0.2, (height + HEAD + 3) * LINE)
        axis = figure.subplots()
        axis.set(xlim=(0, columns * width), ylim=(height + 0.5, -HEAD))
        axis.set_axis_off()
        axis.set_title(title, loc="left", pad=4)
        colours = extras.need("report", "matplotlib").colormaps["cividis"]
        norm = extras.need("report", "matplotlib.colors").Normalize(*limits)
        for column in range(columns):
            left = column * width + NAME
            for number, measure in enumerate(measures):
                label = textwrap.fill(words.short(measure, 60), 30)
                at = left + CELL * (number + 0.35)
                axis.text(at, -0.8, label, rotation=55, ha="left", va="bottom", fontsize=7, rotation_mode="anchor")
        for place, (name, code) in enumerate(found):
            left, y = place // height * width, place % height
            if code is None:
                axis.text(left, y, name, va="center", fontsize=8, weight="bold", color=figures.SOFT)
                continue
            _language(axis, left, y, name, code)
            for number, measure in enumerate(measures):
                if measure in scores[code]:
                    box = (left + NAME + CELL * number, y - 0.5, CELL, 1.0)
                    figures.cell(axis, box, scores[code][measure], norm, colours, 7.5)
        mappable = extras.need("report", "matplotlib.cm").ScalarMappable(norm, colours.resampled(figures.STEPS))
        bar = figure.colorbar(
            mappable, ax=axis, label="score (%)", orientation="horizontal", fraction=0.02, aspect=40, pad=0.01
        )
        bar.outline.set_visible(False)
    return figure


def _continued(found: Sequence[Line], height: int) -> list[Line]:
    """Repeat the heading of a group if it continues in the next column."""
    placed: list[Line] = []
    group = ""
    for name, code in found:
        group = name if code is None else group
        if placed and len(placed) % height == 0 and code is not None:
            placed.append((f"{group}, continued", None))
        placed.append((name, code))
    return placed


def _language(axis: Axes, left: float, y: float, name: str, code: str) -> None:
    """Draw the name of a language, a mark for XLM-R and the script."""
    axis.text(left, y, SEEN[languages.seen_by_xlmr(code)], va="center", fontsize=6, color=figures.SOFT)
    axis.text(left + 0.12, y, name, va="center", fontsize=7.5, color=figures.INK)
    axis.text(left + NAME - 0.05, y, script_of(code), va="center", ha="right", fontsize=6.5, color=figures.SOFT)
