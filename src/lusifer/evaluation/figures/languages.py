"""Where texts of many languages lie: a picture by t-SNE, and a number from the full vectors under it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lusifer import extras, nearest
from lusifer.errors import UsageError
from lusifer.evaluation.figures import style
from lusifer.evaluation.figures.style import LINE, PAPER, Mark

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NEIGHBOURS = 10
LAYERS = 7
BLOCK = 1024  # rows of the similarity matrix that are held at once


@dataclass(frozen=True)
class Predictability:
    """How well the neighbours of a text tell its language, in percent.

    Attributes:
        accuracy: Texts whose language most of their nearest have; a tie of m languages counts 1/m.
        chance: 100 / languages.
        neighbours: How many were asked.
    """

    accuracy: float
    chance: float
    neighbours: int


def predictability(vectors: Mapping[str, np.ndarray], neighbours: int = NEIGHBOURS) -> Predictability:
    """Ask the nearest neighbours of each text for its language; the same number as `predicted` of `embedder.gap`.

    A text and its translations are left out: that a translation is near is no sign of a language. Near 100 the
    languages are islands, near chance language does not decide where a text lies. It is computed on the full vectors,
    unlike a picture of two dimensions.

    Args:
        vectors: Language code -> vectors (n, d), compared by cosine; row i says the same in every language.
        neighbours: How many to ask; at most n - 1.

    Returns:
        The accuracy and its chance level.

    Raises:
        UsageError: There are fewer than two languages or texts, or languages with different counts.
    """
    counts = {len(part) for part in vectors.values()}
    if len(vectors) < 2 or len(counts) != 1 or min(counts) < 2:
        raise UsageError("to tell a language from its neighbours takes two languages, and the same texts, two or more")
    pool = np.stack([np.asarray(part, dtype=np.float64) for part in vectors.values()])
    pool /= np.maximum(np.linalg.norm(pool, axis=2, keepdims=True), 1e-12)
    asked = min(neighbours, min(counts) - 1)
    _, told = nearest.neighbours(pool, asked, BLOCK)
    return Predictability(100 * float(told.mean()), 100 / len(vectors), asked)


def islands(
    models: Mapping[str, Mapping[str, np.ndarray]], seed: int = 0, by: str = "script", neighbours: int = NEIGHBOURS
) -> Figure:
    """Draw the texts of each model in the plane by t-SNE (as in the paper's figure 6), models side by side.

    Under each picture stands `predictability`, so that the picture is not the only evidence.

    Args:
        models: Name -> language code -> vectors (n, d) of the same texts.
        seed: Of t-SNE, the same for all models.
        by: What the colours say: "script" or "level"; the marker says the language.
        neighbours: Of `predictability`.

    Returns:
        The figure.

    Raises:
        UsageError: There is no model, the models have other languages, or there are too few texts.
        MissingExtraError: matplotlib or scikit-learn is not installed.
    """
    codes = [list(vectors) for vectors in models.values()]
    if not models or any(set(each) != set(codes[0]) for each in codes):
        raise UsageError("models are shown side by side on texts of the same languages")
    groups = style.language_marks(codes[0], by)
    columns = min(len(models), 3)
    rows = -(-len(models) // columns)
    with style.style():
        figure = style.new(4.4 * columns + 1.8, 4.6 * rows)
        axes = figure.subplots(rows, columns, squeeze=False).flatten()
        for axis, (name, vectors) in zip(axes, models.items(), strict=False):
            known = predictability(vectors, neighbours)
            places = _places(vectors, seed)
            _scatter(axis, places, {code: mark for group in groups.values() for code, mark in group.items()})
            axis.set(title=style.short(name), xticks=[], yticks=[])
            told = f"{known.accuracy:.0f} % right (by chance {known.chance:.0f} %)"
            axis.set_xlabel(f"language of a text told by its {known.neighbours} nearest:\n{told}", fontsize=9.5)
            axis.spines[:].set(visible=True, color=LINE)
        for axis in axes[len(models) :]:
            axis.set_visible(False)
        style.grouped_legend(figure, groups)
    return figure


def _scatter(axis: Axes, places: Mapping[str, np.ndarray], marks: Mapping[str, Mark]) -> None:
    """Draw each language in several layers between those of the others: else the last one would cover the first."""
    for number, (code, mark) in enumerate(marks.items()):
        layers = min(LAYERS, len(places[code]))
        for layer in range(layers):
            depth = (number + layer * len(marks) // layers) % len(marks) / len(marks)
            axis.scatter(
                *places[code][layer::layers].T,
                s=30,
                color=mark.colour,
                marker=mark.marker,
                edgecolors=PAPER,
                linewidths=0.5,
                zorder=2 + depth / 2,
            )


def _places(vectors: Mapping[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """Code -> places (n, 2)."""
    everything = np.concatenate(list(vectors.values()))
    # Cosine, since only directions carry meaning; a perplexity about the size of a group of translations.
    perplexity = min(len(vectors), len(everything) - 1)
    tsne = extras.need("eval", "sklearn.manifold").TSNE
    places = tsne(metric="cosine", init="random", perplexity=perplexity, random_state=seed).fit_transform(everything)
    ends = np.cumsum([len(part) for part in vectors.values()])
    return dict(zip(vectors, np.split(places, ends[:-1]), strict=True))
