"""How much a stage has to read: rows, tokens a text and steps, per source, before anything is downloaded."""

from __future__ import annotations

import gzip
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from lusifer.data import sources as data_sources
from lusifer.io.rows import BadRows
from lusifer.training.objectives.objective import PAIRED_ROLES
from lusifer.training.recipe.data import AlignmentSource, PairSource, Source
from lusifer.training.recipe.recipe import Recipe
from lusifer.training.recipe.stage import AlignmentStage, ContrastiveStage

CHARACTERS_PER_TOKEN = 4  # English prose under a subword tokenizer, roughly
_LOOK = 500  # rows whose lengths are looked at


@dataclass(frozen=True)
class SourceLoad:
    """One source of a stage.

    `rows` after `limit` and `weight` (None: unknown before the download), `tokens` a text (`measured`: from the first
    rows of a local file; else the longest that is allowed), `steps` of the stage that it gets (None: unknown), `cut`
    the share of those first rows' texts that are longer than the stage reads.
    """

    name: str
    rows: int | None
    tokens: float
    measured: bool
    steps: float | None = None
    cut: float = 0.0


@dataclass(frozen=True)
class StageLoad:
    """What a stage reads: its sources, the names of those that `english_only` drops, and optimizer steps."""

    sources: list[SourceLoad]
    dropped: list[str]
    steps: int | None

    @property
    def tokens(self) -> float:
        """Mean tokens a text, by rows where they are known."""
        known = [source for source in self.sources if source.rows]
        if len(known) < len(self.sources):
            return max(source.tokens for source in self.sources)
        return sum(source.tokens * source.rows for source in known) / sum(source.rows for source in known)


def stage_load(recipe: Recipe, stage: AlignmentStage | ContrastiveStage) -> StageLoad:
    """Measure a stage; local files are counted, hub sets have the rows of their `limit`, or none that we know.

    Raises:
        DataError: One of the first rows of a local file is not what it should be.
    """
    loads = [_source_load(source, recipe.longest(stage)) for source in recipe.sources(stage)]
    rows = [load.rows for load in loads]
    total = sum(rows) if None not in rows else None
    steps = stage.max_steps if total is None else stage.steps(total)
    shared = [
        replace(load, steps=steps * load.rows / total if steps and total and load.rows is not None else None)
        for load in loads
    ]
    return StageLoad(shared, [_name(source) for source in stage.data if not recipe.reads(source)], steps)


def _source_load(source: Source, max_length: int) -> SourceLoad:
    """Rows and tokens of one source."""
    weight = source.weight if isinstance(source, PairSource) else 1.0
    if source.path is None:
        rows = None if source.limit is None else round(source.limit * weight)
        return SourceLoad(_name(source), rows, max_length, measured=False)
    files = data_sources.files(source.path)
    rows = sum(map(_count, files))
    rows = rows if source.limit is None else min(rows, source.limit)
    lengths = _lengths(source, files[0])
    tokens = min(float(max_length), sum(lengths) / max(len(lengths), 1) / CHARACTERS_PER_TOKEN + 2)
    cut = sum(length > max_length * CHARACTERS_PER_TOKEN for length in lengths) / max(len(lengths), 1)
    return SourceLoad(_name(source), round(rows * weight), tokens, measured=True, cut=cut)


def _lengths(source: Source, file: Path) -> list[int]:
    """Characters of the texts in the first rows of a file."""
    paired = not isinstance(source, AlignmentSource) or source.role in PAIRED_ROLES
    kind, bad = "pairs" if paired else "passages", BadRows(source.skip_bad)
    lengths: list[int] = []
    for row in islice(data_sources.read_file(file, kind, source.fields, bad), _LOOK):
        texts = [row["query"], *row["positive"][:1], *row["negative"]] if paired else [row["text"]]
        lengths += map(len, texts)
    return lengths


def _count(file: Path) -> int:
    """Rows of a file without reading their values where that can be helped."""
    if file.name.endswith(".parquet"):
        import pyarrow.parquet as pq

        return pq.ParquetFile(file).metadata.num_rows
    with gzip.open(file, "rb") if file.name.endswith(".gz") else file.open("rb") as stream:
        lines = sum(1 for line in stream if line.strip())
    return lines if ".jsonl" in file.name else max(lines - 1, 0)  # CSV: an upper bound where cells hold line breaks


def _name(source: Source) -> str:
    """A short name for the table."""
    return data_sources.short_name(source.path, source.hub)
