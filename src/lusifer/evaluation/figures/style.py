"""What all figures share: colours, marks and type, and how they become files or parts of a page.

Figures need matplotlib, of the extra `report`. Their labels are English names and codes: the font that matplotlib
brings (DejaVu Sans) has no Devanagari, Bengali, Telugu or Hangul and does not join Arabic letters. Texts in their own
script belong on the HTML page, where the browser's fonts and shaping do the work.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lusifer import extras, languages
from lusifer.io.files import write_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#b3a800")
"""Told apart with any colour vision (Okabe and Ito, jfly.uni-koeln.de/color); the yellow is darkened, to be seen on
white. Colour never stands alone: a marker or a pattern says the same."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "p", "h")
INK, SOFT, LINE, PAPER = "#1c2430", "#5d6877", "#d9dee5", "#fefefe"
"""On a page these become the variables of its style, so that a figure follows light and dark."""
VARIABLES = {INK: "var(--ink)", SOFT: "var(--soft)", LINE: "var(--line)", PAPER: "var(--paper)"}
SCRIPTS = {
    "Arab": "Arabic", "Beng": "Bengali", "Cyrl": "Cyrillic", "Deva": "Devanagari", "Grek": "Greek", "Hang": "Hangul",
    "Hans": "Chinese", "Jpan": "Japanese", "Latn": "Latin", "Telu": "Telugu", "Thai": "Thai",
}  # fmt: skip
WIDE, NARROW = 1.3, 0.95  # pixels a point on a page: as much where there is room, no less where there is not
NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}  # the same figure gives the same bytes
Mark = dict[str, Any]
"""How a group of points looks, in matplotlib's words: color and marker."""
Estimate = tuple[float | None, float | None, float | None]
"""A score in percent and its 95 % interval; a first value of None is missing, the others of None are unknown."""


@contextmanager
def style() -> Iterator[None]:
    """Draw and save in this project's style, whatever the user's matplotlibrc says.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    with extras.need("report", "matplotlib.style").context(["default", f"{__package__}.lusifer"]):
        yield


def new(width: float, height: float) -> Figure:
    """Make an empty figure, without pyplot and its list of open windows; sizes in inches."""
    return extras.need("report", "matplotlib.figure").Figure(figsize=(width, height), layout="constrained")


def language_marks(codes: Sequence[str]) -> dict[str, dict[str, Mark]]:
    """Give languages their marks: a colour a script, a marker a language in it, since 14 hues cannot be told apart.

    Returns:
        Name of the script -> code -> mark, in the order of the table of languages, of which no two look alike.

    Raises:
        UsageError: A language is unknown.
    """
    asked = {languages.language(code).code for code in codes}
    members: dict[str, list[str]] = {}
    for code, row in languages.table().items():
        if code in asked:
            members.setdefault(script_name(row.script), []).append(code)
    free = {colour: list(MARKERS) for colour in COLOURS}
    groups = {}
    for name, those in members.items():
        # A colour of its own as long as there are any; then the one of which the most markers are left.
        colour = max(COLOURS, key=lambda colour: len(free[colour]))
        marks = [{"color": colour, "marker": free[colour].pop(0) if free[colour] else "o"} for _ in those]
        groups[name] = dict(zip(those, marks, strict=True))
    return groups


def script_name(script: str) -> str:
    """Name a script in words; one that is not known goes by its code."""
    return SCRIPTS.get(script, script)


def level_name(level: str | None) -> str:
    """Name a resource level in words."""
    return "outside the paper's 14" if level is None else f"{level.replace('_', ' ')} resource"


def grouped_legend(figure: Figure, groups: Mapping[str, Mapping[str, Mark]]) -> None:
    """Put a legend of languages at the right, group by group."""
    line = extras.need("report", "matplotlib.lines").Line2D
    handles = []
    for name, marks in groups.items():
        handles.append(line([], [], linestyle="none", label=name))
        for code, mark in marks.items():
            handles.append(line([], [], **mark, linestyle="none", markersize=6, label=language_name(code)))
    legend = figure.legend(handles=handles, loc="outside right center", fontsize=8.5, handlelength=1.2)
    for text in legend.get_texts():
        if text.get_text() in groups:
            text.set(weight="bold", color=SOFT)


def language_name(code: str) -> str:
    """Name a language for readers: in English, with its code. What the table lacks goes by its code."""
    known = languages.table().get(code)
    return f"{known.name} ({code})" if known else short(code)


def short(name: str, width: int = 30) -> str:
    """Shorten a name in its middle, and drop what is no visible character, so that it fits into a figure."""
    name = "".join(letter if letter.isprintable() else " " for letter in name).strip() or "(no name)"
    half = (width - 1) // 2
    return name if len(name) <= width else f"{name[:half]}…{name[-half:]}"


def svg(figure: Figure, slug: str, title: str) -> str:
    """Give a figure as an `<svg>` element for an HTML page, in the colours and the font of the page.

    Args:
        figure: Drawn within `style()`.
        slug: A name that no other figure of the page has; all ids in it begin with this.
        title: What it shows and what is to be seen in it, for those who do not see it.
    """
    buffer = io.StringIO()
    with style(), extras.need("report", "matplotlib").rc_context({"svg.hashsalt": slug}):
        figure.savefig(buffer, format="svg", metadata=NO_METADATA)
    found = re.search(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>(.*)</svg>', buffer.getvalue(), flags=re.DOTALL)
    box, content = found.groups()  # type: ignore[union-attr]
    # Its <style> would count for the whole page, whose own style says the same for `svg *`.
    content = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", content, flags=re.DOTALL)
    content = re.sub(r" font-family: [^;\"]*;?", "", content)
    content = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{slug}-", content)
    for colour, variable in VARIABLES.items():
        content = content.replace(colour, variable)
    points = float(box.split()[2])
    size = f"width: {points * WIDE / 16:.1f}rem; min-width: {points * NARROW / 16:.1f}rem"
    return f'<svg role="img" aria-label="{escape(title)}" viewBox="{box}" style="{size}">{content}</svg>'


def write(figure: Figure, picture: Path) -> None:
    """Write a figure as PNG, on white; the same figure gives the same bytes."""
    with style(), write_file(picture) as temporary:
        figure.savefig(temporary, format="png", dpi=160, facecolor="white", metadata={"Software": None})
