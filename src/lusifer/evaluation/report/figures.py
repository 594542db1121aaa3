"""The figures of reports: heat maps, bars with intervals, and texts by t-SNE.

Figures need matplotlib from the extra `report`. Their labels are English names and codes, because matplotlib's font
(DejaVu Sans) has no Devanagari, Bengali, Telugu or Hangul and does not join Arabic letters. The HTML page shows texts
in their own script, with the fonts of the browser.
"""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lusifer import extras, language_gap, languages
from lusifer.errors import UsageError
from lusifer.evaluation.report import words
from lusifer.evaluation.scores.averages import order_of
from lusifer.io.files import write_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#b3a800")
"""Colors for any color vision (Okabe and Ito, jfly.uni-koeln.de/color); the yellow is darker, for contrast on white.
Figures never use color alone: a marker or a pattern has the same meaning."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "p", "h")
INK, SOFT, LINE, PAPER = "#1c2430", "#5d6877", "#d9dee5", "#fefefe"
"""On a page these colors become variables of its style, for light and dark mode."""
VARIABLES = {INK: "var(--ink)", SOFT: "var(--soft)", LINE: "var(--line)", PAPER: "var(--paper)"}
WIDE, NARROW = 1.3, 0.95  # pixels a point on a page: preferred and minimum
NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}  # the same figure gives the same bytes
HATCH = "////"
EQUAL_CONTRAST = 0.469  # position in cividis where black and white text have the same contrast (WCAG 2, 1.4.3)
STEPS = 24  # steps of the color bar: from 50 on matplotlib embeds an image, which a page may refuse
NEIGHBOURS = 10
LAYERS = 7
LONG_LABEL = 14  # letters; longer names of columns are rotated
CELL_FONT = 9.0
Box = tuple[float, float, float, float]
"""Left, top, width and height of a cell in the units of its axes; y grows downwards."""
Mark = dict[str, Any]
"""Color and marker of a group of points, as keyword arguments of matplotlib."""
Estimate = tuple[float | None, float | None, float | None]
"""A score in percent and both ends of its 95 % interval; None for a missing score or an unknown interval."""


@contextmanager
def style() -> Iterator[None]:
    """Draw and save in the style of Lusifer, independent of the user's matplotlibrc.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    with extras.need("report", "matplotlib.style").context(["default", f"{__package__}.lusifer"]):
        yield


def new(width: float, height: float) -> Figure:
    """Make an empty figure without pyplot; width and height are in inches."""
    return extras.need("report", "matplotlib.figure").Figure(figsize=(width, height), layout="constrained")


def language_marks(codes: Sequence[str]) -> dict[str, dict[str, Mark]]:
    """Choose a color for each script and a marker for each language in it, because 14 hues cannot be told apart.

    Returns:
        Name of the script -> code -> mark, in the order of the table of languages. Marks are distinct as long as there
        are markers.

    Raises:
        UsageError: A language is unknown.
    """
    asked = {row.code: row for row in map(languages.language, codes)}
    members: dict[str, list[str]] = {}
    for code in order_of(asked):
        members.setdefault(words.script_name(asked[code].script), []).append(code)
    free = {colour: list(MARKERS) for colour in COLOURS}
    groups = {}
    for name, those in members.items():
        # Each script gets its own color as long as there are any, then the color with the most markers left.
        colour = max(COLOURS, key=lambda colour: len(free[colour]))
        marks = [{"color": colour, "marker": free[colour].pop(0) if free[colour] else "o"} for _ in those]
        groups[name] = dict(zip(those, marks, strict=True))
    return groups


def grouped_legend(figure: Figure, groups: Mapping[str, Mapping[str, Mark]]) -> None:
    """Put a legend of languages on the right, group by group.

    Args:
        figure: The figure.
        groups: Marks of languages, from `language_marks`.
    """
    line = extras.need("report", "matplotlib.lines").Line2D
    handles = []
    for name, marks in groups.items():
        handles.append(line([], [], linestyle="none", label=name))
        for code, mark in marks.items():
            handles.append(line([], [], **mark, linestyle="none", markersize=6, label=words.language_name(code)))
    legend = figure.legend(handles=handles, loc="outside right center", fontsize=8.5, handlelength=1.2)
    for text in legend.get_texts():
        if text.get_text() in groups:
            text.set(weight="bold", color=SOFT)


def svg(figure: Figure, slug: str, title: str) -> str:
    """Convert a figure to an `<svg>` element for an HTML page, with the colors and the font of the page.

    Args:
        figure: A figure that was drawn within `style()`.
        slug: A distinct name on the page; all ids in the element begin with it.
        title: Description for readers who cannot see the figure.
    """
    buffer = io.StringIO()
    with style(), extras.need("report", "matplotlib").rc_context({"svg.hashsalt": slug}):
        figure.savefig(buffer, format="svg", metadata=NO_METADATA)
    found = re.search(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>(.*)</svg>', buffer.getvalue(), flags=re.DOTALL)
    box, content = found.groups()  # type: ignore[union-attr]
    # The <style> of the figure would apply to the complete page, which has the same rules for `svg *`.
    content = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", content, flags=re.DOTALL)
    content = re.sub(r" font-family: [^;\"]*;?", "", content)
    content = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{slug}-", content)
    for colour, variable in VARIABLES.items():
        content = content.replace(colour, variable)
    points = float(box.split()[2])
    size = f"width: {points * WIDE / 16:.1f}rem; min-width: {points * NARROW / 16:.1f}rem"
    return f'<svg role="img" aria-label="{escape(title)}" viewBox="{box}" style="{size}">{content}</svg>'


def write(figure: Figure, picture: Path) -> None:
    """Write a figure as PNG on white; the same figure gives the same bytes."""
    with style(), write_file(picture) as temporary:
        figure.savefig(temporary, format="png", dpi=160, facecolor="white", metadata={"Software": None})


def span(values: Sequence[float | None]) -> tuple[float, float]:
    """Choose limits of a scale that are multiples of 10; (0, 100) if there are no scores."""
    known = [value for value in values if value is not None]
    if not known:
        return 0.0, 100.0
    low, high = math.floor(min(known) / 10) * 10, math.ceil(max(known) / 10) * 10
    return float(low), float(max(high, low + 10))


def heat_map(
    scores: Mapping[str, Mapping[str, float | None]], title: str, limits: tuple[float, float] = (0, 100)
) -> Figure:
    """Draw the scores of one model, languages by types or tasks.

    Args:
        scores: Language code -> type or task -> percent. None is missing and is hatched. A type or task that a language
            does not have stays empty.
        title: The model, and what the columns are.
        limits: Limits of the color scale, in percent; use the same for models that are compared.

    Returns:
        The figure, in the color map cividis, which is readable for dichromats; each cell has its number.

    Raises:
        UsageError: There are no scores.
    """
    columns = list(dict.fromkeys(column for row in scores.values() for column in row))
    if not columns:
        raise UsageError(f"{title}: there is nothing to draw")
    with style():
        names = [textwrap.fill(words.short(column, 48), 24, break_long_words=False) for column in columns]
        turned = max(map(len, names)) > LONG_LABEL
        figure = new(3.0 + 1.1 * len(columns), 1.5 + 0.31 * max(len(scores), 3) + 0.9 * turned)
        axis = figure.subplots()
        colours = extras.need("report", "matplotlib").colormaps["cividis"]
        norm = extras.need("report", "matplotlib.colors").Normalize(*limits)
        for place, row in enumerate(scores.values()):
            for number, column in enumerate(columns):
                if column in row:
                    cell(axis, (number - 0.5, place - 0.5, 1.0, 1.0), row[column], norm, colours)
        axis.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(scores) - 0.5, -0.5))
        axis.set_xticks(range(len(columns)), names, rotation=35 if turned else 0, ha="left" if turned else "center")
        axis.set_yticks(range(len(scores)), [words.language_name(code) for code in scores])
        axis.tick_params(length=0, top=False, bottom=False, labeltop=True, labelbottom=False)
        axis.spines[:].set_visible(False)
        axis.set_title(title, pad=10, loc="left")
        mappable = extras.need("report", "matplotlib.cm").ScalarMappable(norm, colours.resampled(STEPS))
        bar = figure.colorbar(mappable, ax=axis, label="score (%)", fraction=0.05, aspect=25)
        bar.outline.set_visible(False)
    return figure


def cell(
    axis: Axes, box: Box, value: float | None, norm: Normalize, colours: Colormap, size: float = CELL_FONT
) -> None:
    """Draw a score as a colored cell with its number; a missing score is hatched, and labeled if there is room.

    Args:
        axis: The axes.
        box: Place and size of the cell.
        value: The score in percent; None if it is missing.
        norm: Scale of the colors.
        colours: Color map.
        size: Font size of the number.
    """
    rectangle = extras.need("report", "matplotlib.patches").Rectangle
    left, top, width, height = box
    centre = left + width / 2, top + height / 2
    # The edge has the color of the paper, as a gap between cells. A hatch has the edge's color, so a missing cell needs
    # another one.
    if value is None:
        hatched = {"fill": False, "hatch": HATCH, "edgecolor": LINE, "linewidth": 0}
        place = left + 0.04 * width, top + 0.06 * height
        axis.add_patch(rectangle(place, 0.92 * width, 0.88 * height, **hatched))
        behind = {"facecolor": PAPER, "edgecolor": "none", "boxstyle": "square,pad=0.15"}
        look = {"ha": "center", "va": "center", "style": "italic", "color": INK, "bbox": behind}
        if size >= CELL_FONT:
            axis.text(*centre, words.MISSING, fontsize=8.5, **look)
        return
    axis.add_patch(rectangle((left, top), width, height, facecolor=colours(norm(value)), edgecolor=PAPER, linewidth=1))
    ink = "#ffffff" if norm(value) < EQUAL_CONTRAST else "#000000"
    axis.text(*centre, f"{value:.1f}", ha="center", va="center", fontsize=size, color=ink)


def bars(scores: Mapping[str, Mapping[str, Estimate]], title: str) -> Figure:
    """Draw bars with 95 % intervals, one panel for each score and one bar for each model.

    Args:
        scores: Name of the model -> name of the score -> estimate. A missing score has the label "missing".
        title: Title of the figure.

    Returns:
        The figure. All panels share one scale from 0 (or lower for negative scores). A dotted line marks the first
        model, with which the others are compared.

    Raises:
        UsageError: There are no scores.
    """
    panels = list(dict.fromkeys(panel for row in scores.values() for panel in row))
    if not panels:
        raise UsageError(f"{title}: there is nothing to draw")
    low, high = span([*(number for row in scores.values() for cell in row.values() for number in cell), 0.0])
    with style():
        figure = new(2.6 + 2.9 * len(panels), 1.3 + 0.42 * len(scores))
        axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axis, panel in zip(axes, panels, strict=True):
            axis.grid(axis="x")
            for place, row in enumerate(scores.values()):
                _bar(axis, place, row.get(panel, (None, None, None)), first=place == 0, width=high - low)
            axis.set(xlim=(low, high + 0.16 * (high - low)), ylim=(len(scores) - 0.4, -0.6), xlabel="%")
            axis.set_title(words.short(panel, 34), fontsize=10)
            axis.set_yticks(range(len(scores)), [words.short(name, 34) for name in scores])
            axis.tick_params(axis="y", length=0)
        figure.suptitle(title, fontsize=11)
    return figure


def _bar(axis: Axes, place: int, estimate: Estimate, first: bool, width: float) -> None:
    value, low, high = estimate
    if value is None:
        axis.text(0.01 * width, place, words.MISSING, va="center", fontsize=8.5, style="italic", color=SOFT)
        return
    colour = COLOURS[0 if first else 5]
    axis.barh(place, value, height=0.62, color=colour)
    if first:
        axis.axvline(value, color=colour, linewidth=1, linestyle=":")
    if low is not None and high is not None:
        sides = [[max(value - low, 0)], [max(high - value, 0)]]  # rounding may turn one negative
        axis.errorbar(value, place, xerr=sides, color=INK, capsize=3, linewidth=1.3)
    axis.text(max(value, high or 0, 0) + 0.015 * width, place, f"{value:.1f}", va="center", fontsize=8.5)


def language_told(vectors: Mapping[str, np.ndarray], neighbours: int = NEIGHBOURS) -> tuple[float, int]:
    """Predict the language of each text from its nearest neighbors, as `predicted` in the language gap.

    Args:
        vectors: Language code -> vectors, float, (n, d), compared by cosine. Row i is the same text in every language;
            English is one of them.
        neighbours: Number of neighbors; at most n - 1 are used.

    Returns:
        Percentage of texts with a correct prediction, and the number of neighbors used.

    Raises:
        DataError: There are fewer than two languages or texts, no English, or different numbers of texts.
    """
    asked = max(1, min([neighbours, *(len(rows) - 1 for rows in vectors.values())]))
    return language_gap.measure(np.asarray, vectors, k=asked).mean("predicted") or 0.0, asked


def islands(models: Mapping[str, Mapping[str, np.ndarray]], seed: int = 0) -> Figure:
    """Draw the texts of each model by t-SNE (as in the paper's figure 6), with models side by side.

    The label under each panel is `language_told`, which is computed from the vectors, not from the figure.

    Args:
        models: Name -> language code -> vectors of the same texts, float, (n, d).
        seed: Seed of t-SNE, the same for all models.

    Returns:
        The figure; the color is the script, the marker the language.

    Raises:
        UsageError: There is no model, or the models have different languages.
        DataError: There are too few texts or languages.
    """
    codes = [list(vectors) for vectors in models.values()]
    if not models or any(set(each) != set(codes[0]) for each in codes):
        raise UsageError("the models have different languages: give vectors of the same texts for each model")
    groups = language_marks(codes[0])
    columns = min(len(models), 3)
    rows = -(-len(models) // columns)
    with style():
        figure = new(4.4 * columns + 1.8, 4.6 * rows)
        axes = figure.subplots(rows, columns, squeeze=False).flatten()
        for axis, (name, vectors) in zip(axes, models.items(), strict=False):
            accuracy, asked = language_told(vectors)
            places = _places(vectors, seed)
            _scatter(axis, places, {code: mark for group in groups.values() for code, mark in group.items()})
            axis.set(title=words.short(name), xticks=[], yticks=[])
            right = f"{accuracy:.0f} % right (by chance {100 / len(vectors):.0f} %)"
            axis.set_xlabel(f"language predicted from the {asked} nearest:\n{right}", fontsize=9.5)
            axis.spines[:].set(visible=True, color=LINE)
        for axis in axes[len(models) :]:
            axis.set_visible(False)
        grouped_legend(figure, groups)
    return figure


def _scatter(axis: Axes, places: Mapping[str, np.ndarray], marks: Mapping[str, Mark]) -> None:
    """Draw languages in alternating layers; otherwise the last language would cover the first one."""
    for number, (code, mark) in enumerate(marks.items()):
        layers = min(LAYERS, len(places[code]))
        for layer in range(layers):
            depth = (number + layer * len(marks) // layers) % len(marks) / len(marks)
            points = places[code][layer::layers].T
            axis.scatter(*points, **mark, s=30, edgecolors=PAPER, linewidths=0.5, zorder=2 + depth / 2)


def _places(vectors: Mapping[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """Compute the t-SNE: language code -> float, (n, 2)."""
    everything = np.concatenate(list(vectors.values()))
    # Cosine, because only directions have meaning; the perplexity is about the size of a group of translations.
    perplexity = min(len(vectors), len(everything) - 1)
    tsne = extras.need("eval", "sklearn.manifold").TSNE
    places = tsne(metric="cosine", init="random", perplexity=perplexity, random_state=seed).fit_transform(everything)
    ends = np.cumsum([len(part) for part in vectors.values()])
    return dict(zip(vectors, np.split(places, ends[:-1]), strict=True))
