"""Pictures; they need matplotlib, of the extra `report`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lusifer import extras
from lusifer.errors import DataError
from lusifer.evaluation.figures import languages, style
from lusifer.io.atomic import write_file

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")  # told apart by readers with any colour vision (Okabe and Ito)


def losses(metrics: Path) -> dict[str, list[tuple[int, float]]]:
    """Read the loss of every stage from a run's `metrics.jsonl`.

    Args:
        metrics: One object a line, with `stage`, `step` and, in most lines, `loss`.

    Returns:
        Stage -> (step, loss) in order.

    Raises:
        DataError: The file is missing or damaged.
    """
    found: dict[str, list[tuple[int, float]]] = {}
    try:
        for line in metrics.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if "loss" in row:
                found.setdefault(row["stage"], []).append((row["step"], row["loss"]))
    except (OSError, json.JSONDecodeError, KeyError) as error:
        raise DataError(f"{metrics}: no readable metrics ({error})") from error
    return found


def loss_curves(metrics: Path, picture: Path) -> Path:
    """Draw the loss of each stage, side by side: the numbers of two stages cannot be compared.

    Args:
        metrics: `metrics.jsonl` of a run folder.
        picture: A .png or .svg file to write.

    Returns:
        `picture`.

    Raises:
        DataError: There are no losses in the file.
        MissingExtraError: matplotlib is not installed.
    """
    drawing = extras.need("report", "matplotlib.figure")
    stages = losses(metrics)
    if not stages:
        raise DataError(f"{metrics}: no losses in it")
    figure = drawing.Figure(figsize=(4.5 * len(stages), 3.2), layout="constrained")
    axes = figure.subplots(1, len(stages), squeeze=False)[0]
    for number, (axis, (stage, points)) in enumerate(zip(axes, stages.items(), strict=True)):
        steps, values = zip(*points, strict=True)
        axis.plot(steps, values, color=COLOURS[number % len(COLOURS)], linewidth=2, marker="o", markersize=4)
        axis.set(title=stage, xlabel="step", ylabel="loss")
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    with write_file(picture) as temporary:
        figure.savefig(temporary, dpi=150)
    return picture


def islands(models: Mapping[str, Mapping[str, np.ndarray]], picture: Path, seed: int = 0) -> Path:
    """Draw the texts of each model in the plane by t-SNE, as in the paper's figure 6.

    Where languages are islands, a model tells languages apart before meanings.

    Args:
        models: Name -> language code -> vectors (n, d) of the same texts.
        picture: A .png or .svg file to write.
        seed: Of t-SNE.

    Returns:
        `picture`.

    Raises:
        MissingExtraError: matplotlib or scikit-learn is not installed.
    """
    return style.write(languages.islands(models, seed), picture)
