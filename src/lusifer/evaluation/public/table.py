"""The packaged scores of public models, cell by cell as they were published.

scores.csv.gz  one line a task, split and subset; a column a model: main score in per cent, empty where there is none
runs.csv.gz    one line a model and task: revisions of model and data, version of mteb
public.toml    repository, commit, date, licence
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
    """How a model was scored on a task, as published.

    Attributes:
        revision: Of the model, 12 digits; "external" where the score is from the model's own card.
        dataset_revision: 12 digits, or "" where it was not said.
        mteb_version: Of the library; "" where it was not said.
    """

    revision: str
    dataset_revision: str
    mteb_version: str

    @property
    def before_2(self) -> bool:
        """Whether it was scored by mteb 1; what names no version is from model cards of that time."""
        return not self.mteb_version or self.mteb_version.startswith("1.")


@dataclass(frozen=True, eq=False)
class PublicTable:
    """All scores.

    Attributes:
        models: Names on the hub.
        scores: Cell -> model -> main score in per cent; a model without a score is not there.
        runs: Model and task -> how it was scored.
        facts: Source, licence and what else `public.toml` says.
    """

    models: tuple[str, ...]
    scores: Mapping[Cell, Mapping[str, float]]
    runs: Mapping[tuple[str, str], PublicRun]
    facts: Mapping[str, Any]

    @property
    def source(self) -> str:
        """Repository, commit, date and licence in one line."""
        return "{repository} at commit {commit} ({date}), {licence}".format_map(self.facts)

    def results(self, model: str, rows: Iterable[SuiteRow | Entry], suite: str = "") -> Results:
        """Give what is public of one model as an evaluation of these rows, without examples and intervals.

        A row is the mean over its subsets, and is missing where one of them is.
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
        """The row's, unless the score was measured by a version whose main metric had another name."""
        run = self.runs.get((model, row.task))
        older = self.facts["metrics_before_2"].get(row.type)
        return older if older and run and run.before_2 else row.metric


@cache
def table() -> PublicTable:
    """Read the packaged table; some 0.1 seconds, once in a process."""
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
