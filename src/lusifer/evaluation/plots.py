"""Pictures; they need matplotlib, of the extra `report`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lusifer import extras, languages
from lusifer.errors import DataError
from lusifer.folders import write_file

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
    figures = extras.need("report", "matplotlib.figure")
    stages = losses(metrics)
    if not stages:
        raise DataError(f"{metrics}: no losses in it")
    figure = figures.Figure(figsize=(4.5 * len(stages), 3.2), layout="constrained")
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
    """Draw the texts of each model in the plane by t-SNE, a colour a language (as in the paper's figure 6).

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
    figures, manifold = extras.need("report", "matplotlib.figure"), extras.need("eval", "sklearn.manifold")
    colours = extras.need("report", "matplotlib").colormaps["tab20"].colors
    known = languages.table()
    figure = figures.Figure(figsize=(5.2 * len(models) + 1.6, 4.8), layout="constrained")
    for axis, (name, vectors) in zip(figure.subplots(1, len(models), squeeze=False)[0], models.items(), strict=True):
        everything = np.concatenate(list(vectors.values()))
        # Cosine, since only directions carry meaning; a perplexity about the size of a group of translations.
        perplexity = min(len(vectors), len(everything) - 1)
        tsne = manifold.TSNE(metric="cosine", init="random", perplexity=perplexity, random_state=seed)
        places = tsne.fit_transform(everything)
        starts = np.cumsum([0, *map(len, vectors.values())])
        for number, code in enumerate(vectors):
            part = places[starts[number] : starts[number + 1]]
            axis.scatter(part[:, 0], part[:, 1], s=16, color=colours[number % len(colours)], label=known[code].name)
        axis.set(title=name, xticks=[], yticks=[])
        axis.spines[:].set_color("#cccccc")
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize=8)
    with write_file(picture) as temporary:
        figure.savefig(temporary, dpi=150)
    return picture
