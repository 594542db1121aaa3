"""The part of a stage that watches the gap between languages while it trains, and may end the stage by it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lusifer import language_gap
from lusifer.errors import DataError
from lusifer.io import parallel_text as parallel
from lusifer.training.recipe.data import Settings


class Watch(Settings):
    """Embed parallel text now and then with the model as it stands. Nothing is learned from that text."""

    every: int = Field(default=100, ge=1)
    """Steps between measurements; the last step of the stage is measured as well."""
    parallel: str = Field(default=parallel.SAMPLE, min_length=1)
    """A .jsonl or .jsonl.gz file, one object a line, a sentence by language code (en among them); relative to
    `data_root`. `sample` is the one in the package: 28 sentences in 14 languages."""
    metric: Literal["retrieval", "margin"] = "retrieval"
    """What counts as better. retrieval: accuracy at 1 of translations, both ways, mean over languages; margin: mean
    cosine of translations less that of others. A model that gives one vector for all is bad by both."""
    patience: int | None = Field(default=None, ge=1)
    """Measurements in a row that are no better than the best one, after which the stage ends. With it the model of the
    stage is that of the best measurement (of the last such one), however the stage ends; null only watches: the stage
    runs to its last step, and that is its model."""


def read(watch: Watch) -> parallel.Parallel:
    """Read what a stage is watched on.

    Args:
        watch: Of the stage.

    Raises:
        DataError: The file cannot be read, or has too few sentences.
    """
    found = parallel.read(watch.parallel)
    if found.sentences <= language_gap.K:
        raise DataError(
            f"{watch.parallel}: {found.sentences} sentences a language: {language_gap.K + 1} or more are needed"
        )
    return found


def words(watch: Watch, steps: int | None) -> str:
    """Say what a stage is watched on, how often, and what follows from it.

    Args:
        watch: Of the stage.
        steps: Of the stage; None where they are unknown.

    Raises:
        DataError: As for `read`.
    """
    found = read(watch)
    texts = found.sentences * len(found.texts)
    often = "" if steps is None else f" ({-(-steps // watch.every):,} times in {steps:,} steps)"
    end = "; ends no stage"
    if watch.patience is not None:
        measured = "measurement" if watch.patience == 1 else "measurements"
        end = (
            f"; ends the stage after {watch.patience} {measured} without a better {watch.metric}, the best is its model"
        )
    name = watch.parallel.rpartition("/")[2]
    return (
        f"watched every {watch.every:,} steps and at the end{often}: {texts:,} texts, {found.sentences:,} sentences in "
        f"{len(found.texts)} languages ({name}){end}"
    )
