"""The packaged scores of public models, as they were published.

scores.csv.gz  a line for each task, split and subset, a column for each model: main score in percent, or empty
runs.csv.gz    a line for each model and task: revisions of model and data, version of mteb
public.toml    repository, commit, date, license
"""

from __future__ import annotations

import csv
import gzip
import io
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from lusifer.evaluation.scores.results import Entry, Model, Results
from lusifer.evaluation.tasks.rows import SuiteRow

SCORES, RUNS, FACTS = "scores.csv.gz", "runs.csv.gz", "public.toml"
CELL = ("task", "split", "subset")
RUN = ("model", "task", "revision", "dataset_revision", "mteb_version")
NO_SCORE = "no public score"

Cell = tuple[str, str, str]
"""Task, split and subset, in mteb's names."""


@dataclass(frozen=True)
class PublicRun:
    """How a public model was evaluated on a task.

    Attributes:
        revision: Revision of the model, 12 digits; "external" for a score from the model's own card.
        dataset_revision: Revision of the data, 12 digits; "" if it was not published.
        mteb_version: Version of mteb; "" if it was not published.
    """

    revision: str
    dataset_revision: str
    mteb_version: str

    @property
    def before_2(self) -> bool:
        """Whether mteb 1 computed the score; scores without a version are from model cards of that time."""
        return not self.mteb_version or self.mteb_version.startswith("1.")


@dataclass(frozen=True, eq=False)
class PublicTable:
    """All packaged scores.

    Attributes:
        models: Names on the Hugging Face Hub.
        scores: Cell -> model -> main score in percent; models without a score are absent.
        runs: Model and task -> how it was evaluated.
        facts: Content of `public.toml`, such as source and license.
    """

    models: tuple[str, ...]
    scores: Mapping[Cell, Mapping[str, float]]
    runs: Mapping[tuple[str, str], PublicRun]
    facts: Mapping[str, Any]

    @property
    def source(self) -> str:
        """Repository, commit, date and license in one line."""
        return "{repository} at commit {commit} ({date}), {licence}".format_map(self.facts)

    def results(self, model: str, rows: Iterable[SuiteRow | Entry], suite: str = "") -> Results:
        """Give the public scores of a model as an evaluation, without examples and intervals.

        A score is the mean over the subsets of a row; it is missing if one of them is.

        Args:
            model: Name of the model.
            rows: Rows of a suite.
            suite: Name of the suite.
        """
        return Results(suite, Model(model), tuple(self._entry(model, row) for row in rows))

    def _entry(self, model: str, row: SuiteRow | Entry) -> Entry:
        cells = [self.scores.get((row.task, row.split, subset), {}).get(model) for subset in row.subsets]
        there = [score for score in cells if score is not None]
        missing = None
        if not there:
            missing = NO_SCORE
        elif len(there) < len(cells):
            missing = f"{NO_SCORE} for {len(cells) - len(there)} of {len(cells)} subsets"
        score = None if missing else sum(there) / len(there)
        about = (row.language, row.task, row.title or row.task, row.type, self._metric(model, row), row.split)
        return Entry(*about, row.subsets, row.cross_lingual, score, missing)

    def _metric(self, model: str, row: SuiteRow | Entry) -> str:
        """Give the metric of a row, under its older name if an older version of mteb computed the score."""
        run = self.runs.get((model, row.task))
        older = self.facts["metrics_before_2"].get(row.type)
        return older if older and run and run.before_2 else row.metric


@cache
def table() -> PublicTable:
    """Read the packaged table, once a process; this takes about 0.1 seconds."""
    lines = _lines(SCORES)
    models = tuple(next(lines)[len(CELL) :])
    scores: dict[Cell, dict[str, float]] = {}
    for task, split, subset, *values in lines:
        named = zip(models, values, strict=True)
        scores[task, split, subset] = {model: float(value) for model, value in named if value}
    runs = _lines(RUNS)
    next(runs)
    facts = tomllib.loads(_file(FACTS).decode())
    return PublicTable(models, scores, {(model, task): PublicRun(*run) for model, task, *run in runs}, facts)


def _lines(name: str) -> Iterator[list[str]]:
    return csv.reader(io.StringIO(gzip.decompress(_file(name)).decode("utf-8"), newline=""))


def _file(name: str) -> bytes:
    return resources.files("lusifer.evaluation.public").joinpath(name).read_bytes()
