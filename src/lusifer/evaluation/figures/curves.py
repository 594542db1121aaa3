"""Learning curves: scores over steps, from what a run logged or from evaluations of several checkpoints."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lusifer import extras, languages
from lusifer.errors import DataError, UsageError
from lusifer.evaluation.figures import style
from lusifer.evaluation.figures.style import Estimate, Mark

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve = Sequence[tuple[float, Estimate]]
"""(step, score) in order; a missing score is a gap."""


def logged(metrics: Path, key: str) -> dict[str, dict[str, list[tuple[float, Estimate]]]]:
    """Read the curves of one key from a run's `metrics.jsonl`.

    Args:
        metrics: One object a line, with `stage` and `step`; lines without the key are passed over.
        key: As in the lines, as "loss"; "retrieval.sw" is the entry "sw" of "retrieval". Where the value is an object,
            as {"sw": 41.2, "te": null}, each of its entries is a curve; null is a gap.

    Returns:
        Stage -> name of the curve (the entry, or the key) -> points.

    Raises:
        DataError: The file is missing or damaged, or no line has the key.
    """
    found: dict[str, dict[str, list[tuple[float, Estimate]]]] = {}
    for number, row in _rows(metrics):
        value: Any = row
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is None:
            continue
        entries = value if isinstance(value, dict) else {key: value}
        try:
            stage, step = str(row["stage"]), float(row["step"])
            for name, each in entries.items():
                point = Estimate(None if each is None else _finite(each))
                found.setdefault(stage, {}).setdefault(name, []).append((step, point))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{metrics}:{number}: no stage and step, or {key} is no number ({error!r})") from error
    if not found:
        raise DataError(f"{metrics}: no line has the key {key}")
    return found


def _rows(metrics: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        for number, line in enumerate(metrics.read_text(encoding="utf-8").splitlines(), 1):
            row = json.loads(line)
            if not isinstance(row, dict):
                raise DataError(f"{metrics}:{number}: not an object")
            yield number, row
    except (OSError, ValueError) as error:
        raise DataError(f"{metrics}: no readable metrics ({error})") from error


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value} is not finite")
    return number


def curves(
    panels: Mapping[str, Mapping[str, Curve]], ylabel: str, xlabel: str = "step", shared_scale: bool = True
) -> Figure:
    """Draw curves, a panel a stage (the steps of two stages cannot be compared).

    Args:
        panels: Stage, or any title -> name of the curve -> points. Curves that are all named by language codes get
            a colour a resource level and a marker a language; else each has a colour of its own.
        ylabel: What the numbers are, with the unit.
        xlabel: What the steps are.
        shared_scale: Whether the numbers of all panels can be compared; the losses of two stages cannot.

    Returns:
        The figure; points with an interval have a band, missing points leave a gap.

    Raises:
        UsageError: There is no point.
        MissingExtraError: matplotlib is not installed.
    """
    names = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    if not any(point.value is not None for panel in panels.values() for curve in panel.values() for _, point in curve):
        raise UsageError(f"{ylabel}: there is no point to draw")
    of_languages = set(names) <= set(languages.table())
    groups = style.language_marks(names, "level") if of_languages else {"": style.model_marks(names)}
    marks = {name: mark for group in groups.values() for name, mark in group.items()}
    ticker = extras.need("report", "matplotlib.ticker")
    with style.style():
        figure = style.new(4.8 * len(panels) + (1.8 if of_languages else 0), 3.6)
        axes = figure.subplots(1, len(panels), squeeze=False, sharey=shared_scale)[0]
        for axis, (title, panel) in zip(axes, panels.items(), strict=True):
            for name, curve in panel.items():
                _draw(axis, curve, marks[name])
            axis.set(title=style.short(title) if title else "", xlabel=xlabel)
            axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True, nbins=7))  # there is no half step
            axis.grid()
        axes[0].set_ylabel(ylabel)
        if of_languages:
            style.grouped_legend(figure, groups, lines=True)
        elif len(names) > 1:
            line = axes[0].plot
            handles = [line([], [], color=m.colour, marker=m.marker, linestyle=m.dash)[0] for m in marks.values()]
            figure.legend(handles, [style.short(name) for name in marks], loc="outside lower center", ncols=3)
    return figure


def _draw(axis: Axes, curve: Curve, mark: Mark) -> None:
    def column(part: str) -> np.ndarray:
        values = [getattr(point, part) for _, point in curve]
        return np.array([np.nan if value is None else value for value in values])  # matplotlib leaves NaN out

    steps = np.array([step for step, _ in curve])
    axis.plot(steps, column("value"), color=mark.colour, linestyle=mark.dash, marker=mark.marker, markersize=4.5,
              linewidth=1.6)  # fmt: skip
    if not np.isnan(column("low")).all():
        axis.fill_between(steps, column("low"), column("high"), color=mark.colour, alpha=0.15, linewidth=0)
