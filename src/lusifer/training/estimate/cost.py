"""Estimate the cost of a recipe: parameters, memory, FLOPs and hours. Nothing is downloaded, and nothing is timed.

Only configurations and local data files are read. The model is built on torch's meta device, without memory, so the
counts of parameters are exact. `memory` counts memory and FLOPs.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from lusifer.data import sources as data_sources
from lusifer.data.held import FEWEST
from lusifer.errors import UsageError
from lusifer.io.rows import ending, lines, open_bytes
from lusifer.model import build
from lusifer.model.adapters import PartReport
from lusifer.model.bases import backbones
from lusifer.training.estimate import lengths
from lusifer.training.estimate.memory import Estimator, Memory, here
from lusifer.training.objectives import OBJECTIVES
from lusifer.training.objectives.examples import draw_objectives
from lusifer.training.recipe.data import Evaluate, PairSource, Source
from lusifer.training.recipe.recipe import AlignmentStage, BaseSettings, Recipe, Stage
from lusifer.training.recipe.stage import StageSettings


@dataclass(frozen=True)
class SourceLoad:
    """The load of one source of a stage.

    Args:
        name: The name of the source.
        rows: The rows after `limit` and `weight`. None if they are unknown before the download.
        tokens: The encoder's tokens of a text: the mean of the first rows of local files, else the maximum.
        measured: Whether `tokens` comes from local files.
        steps: The steps of the stage that use the source. None if they are unknown.
        cut: The share of texts in the first rows that are truncated.
        texts: The number of texts of a row in the file.
        target: The LLM's tokens of a text, if the LLM reads it and its tokenizer is on this machine.
        looked: The number of rows that were read for the lengths.
        counted: Whether lengths were counted with the encoder's tokenizer, not estimated from characters.
    """

    name: str
    rows: int | None
    tokens: float
    measured: bool
    steps: float | None = None
    cut: float = 0.0
    texts: float = 2.0
    target: float | None = None
    looked: int = 0
    counted: bool = False


@dataclass(frozen=True)
class ScoreLoad:
    """The load of `evaluate` in a stage; None is unknown.

    Args:
        times: The number of scores.
        rows: The number of held-out pairs.
        texts: The number of texts of one score.
        tokens: The tokens of a text.
    """

    times: int | None
    rows: int | None
    texts: float | None
    tokens: float


@dataclass(frozen=True)
class StageLoad:
    """The load of a stage: its sources, the names that `english_only` leaves out, optimizer steps, and its scores."""

    sources: list[SourceLoad]
    dropped: list[str]
    steps: int | None
    scores: ScoreLoad | None = None

    @property
    def tokens(self) -> float:
        """The mean number of tokens of a text, weighted by rows; the largest mean if any rows are unknown."""
        return self._mean([source.tokens for source in self.sources])

    @property
    def target(self) -> float:
        """The same for the LLM's tokens, where they are known."""
        return self._mean([source.tokens if source.target is None else source.target for source in self.sources])

    def _mean(self, lengths: Sequence[float]) -> float:
        rows = [source.rows or 0 for source in self.sources]
        if 0 in rows:
            return max(lengths)
        return sum(length * count for length, count in zip(lengths, rows, strict=True)) / sum(rows)


@dataclass(frozen=True)
class StageEstimate:
    """The estimate of a stage.

    Args:
        name: The name of the stage.
        kind: "alignment" or "contrastive".
        parts: Parameters of each part.
        load: Its sources and steps.
        memory: Memory on a GPU.
        here: Memory on the device of this machine; `auto` and the activations of layers differ from a GPU.
        flops: FLOPs of a step.
        scoring: FLOPs of all scores on held-out pairs. None if they are unknown or there are none.
        hours: Name of a machine -> hours, with the scores if known. None if the steps are unknown.
    """

    name: str
    kind: str
    parts: list[PartReport]
    load: StageLoad
    memory: Memory
    here: Memory
    flops: float
    scoring: float | None
    hours: dict[str, float | None]
    work: float | None = None
    """FLOPs of the stage, scores included; None: steps unknown."""


@cache
def cards() -> dict[str, dict[str, float]]:
    """Read the table of machines: name -> tflops, utilisation (assumed), gib, and watts if known."""
    return _table("cards.toml")


def estimate(recipe: Recipe, only: Collection[str] | None = None) -> list[StageEstimate]:
    """Estimate the cost of every stage of a recipe, in order, or of the stages named `only`.

    Raises:
        UsageError: A base is neither on disk nor in `known_bases.toml`, its architecture is not supported, or an
            objective needs an LM head and the LLM has none.
    """
    encoder, llm = base_config(recipe.model.encoder, "encoder"), base_config(recipe.model.llm, "llm")
    estimator = Estimator(recipe, encoder, llm)
    wanted = [stage for stage in recipe.stages if only is None or stage.name in only]
    return [_stage(recipe, stage, estimator, llm) for stage in wanted]


def _stage(recipe: Recipe, stage: StageSettings, estimator: Estimator, llm: PreTrainedConfig) -> StageEstimate:
    stage.refuse_llm(llm, backbones.is_decoder(llm))
    load = stage_load(recipe, stage)
    parts = {kind: estimator.parts(stage, kind) for kind in ("cuda", here())}
    flops = estimator.flops(stage, load.tokens, load.target)
    scores = load.scores
    known = scores is None or None not in (scores.times, scores.texts)
    scoring = estimator.forward_flops(stage, scores.tokens) * scores.times * scores.texts if scores and known else None
    total = None if load.steps is None else load.steps * flops + (scoring or 0)
    hours = {
        name: None if total is None else total / (card["tflops"] * 1e12 * card["utilisation"]) / 3600
        for name, card in cards().items()
    }
    gpu, this = (estimator.memory(stage, parts[kind], kind) for kind in ("cuda", here()))
    return StageEstimate(stage.name, stage.kind, parts["cuda"], load, gpu, this, flops, scoring, hours, total)


def stage_load(recipe: Recipe, stage: Stage) -> StageLoad:
    """Compute the load of a stage. Rows of local files are counted; a dataset on the Hub has its `limit`, or None.

    Args:
        recipe: The recipe.
        stage: The stage.

    Raises:
        DataError: One of the first rows of a local file is bad.
    """
    loads = [_source_load(recipe, stage, source) for source in recipe.sources(stage)]
    rows = [load.rows for load in loads]
    total = sum(rows) if None not in rows else None
    scored, held = stage.evaluate, 0
    if scored is not None and scored.held is not None and total is not None:
        held = round(scored.held * total)
        held = held if held >= FEWEST else 0
        scored = scored if held else None
    steps = stage.max_steps if total is None else stage.steps(total - held)
    shared = [replace(load, steps=each) for load, each in zip(loads, _shares(recipe, stage, rows, steps), strict=True)]
    dropped = [source.name for source in stage.data if not recipe.reads(source)]
    if scored is None:
        return StageLoad(shared, dropped, steps)
    apart = [_source_load(recipe, stage, source) for source in scored.data] or loads
    return StageLoad(shared, dropped, steps, _score_load(scored, apart, steps))


def _shares(recipe: Recipe, stage: Stage, rows: Sequence[int | None], steps: int | None) -> Sequence[float | None]:
    """Divide the steps among the sources by rows; in an alignment stage only among those that an objective reads."""
    if not steps:
        return [None] * len(rows)
    if not isinstance(stage, AlignmentStage):
        return _by_rows(rows, steps)
    objectives = [each for name, each in OBJECTIVES.items() if stage.objectives.get(name, 0) > 0]
    # The seed of the stage, so that the objectives are those of the run.
    seed = recipe.seed + 1 + next(number for number, each in enumerate(recipe.stages) if each is stage)
    drawn = draw_objectives([stage.objectives[each.name] for each in objectives], steps, seed)
    found: list[float | None] = [0.0] * len(rows)
    for number, objective in enumerate(objectives):
        reads = objective.reads([source.role for source in recipe.sources(stage)])
        places = [place for place, read in enumerate(reads) if read]
        parts = _by_rows([rows[place] for place in places], int((drawn == number).sum()))
        for place, part in zip(places, parts, strict=True):
            found[place] = None if part is None or found[place] is None else found[place] + part
    return found


def _by_rows(rows: Sequence[int | None], steps: int) -> Sequence[float | None]:
    """Divide steps in proportion to rows. A single source gets all steps, also if its rows are unknown."""
    if len(rows) == 1:
        return [float(steps)]
    total = None if None in rows else sum(rows)
    return [steps * count / total if total else None for count in rows]


def _score_load(scored: Evaluate, apart: list[SourceLoad], steps: int | None) -> ScoreLoad:
    """Compute the load of `evaluate`; `apart` are the sources of the held-out pairs, of which `held` takes a share."""
    tokens = max(load.tokens for load in apart)
    known = None not in [load.rows for load in apart]
    rows = round(sum(load.rows for load in apart) * (scored.held or 1)) if known else None
    texts = sum(load.rows * load.texts for load in apart) * (scored.held or 1) if known else None
    times = None if steps is None else 1 + math.ceil(steps / scored.steps_between(steps))
    return ScoreLoad(times, rows, texts, tokens)


def _source_load(recipe: Recipe, stage: Stage, source: Source) -> SourceLoad:
    """Compute the load of one source."""
    weight = source.weight if isinstance(source, PairSource) else 1.0
    if source.path is None:
        rows = None if source.limit is None else round(source.limit * weight)
        return SourceLoad(source.name, rows, recipe.longest(stage), measured=False)
    files = data_sources.files(source.path)
    rows = sum(map(_count, files))
    rows = round((rows if source.limit is None else min(rows, source.limit)) * weight)
    found = lengths.read(recipe, stage, source, files)
    return SourceLoad(
        source.name,
        rows,
        found.tokens,
        measured=True,
        cut=found.cut,
        texts=found.texts,
        target=found.target,
        looked=found.rows,
        counted=found.counted,
    )


def _count(file: Path) -> int:
    """Count the rows of a file, without parsing them."""
    if ending(file) == ".parquet":
        import pyarrow.parquet as pq

        return pq.ParquetFile(file).metadata.num_rows
    with open_bytes(file) as stream:
        count = sum(1 for line in lines(stream, str(file)) if line.strip())
    # an upper bound for CSV files whose cells contain line breaks
    return count if ".jsonl" in ending(file) else max(count - 1, 0)


def base_config(base: BaseSettings, backbone: str) -> PreTrainedConfig:
    """Read the configuration of a base: from disk, from the Hub's cache on disk, or from `known_bases.toml`.

    Args:
        base: The settings of the base; `layers` counts.
        backbone: "encoder" or "llm".

    Raises:
        UsageError: The configuration is not on this machine.
    """
    wanted = base.base()
    if base.path.startswith("tiny:"):
        return build.read_config(replace(wanted, path=str(build.TINY / backbone)), backbone)
    if base.path.startswith(("package:", "/")):
        return build.read_config(wanted, backbone)
    known = _table("known_bases.toml")
    try:
        config = AutoConfig.from_pretrained(
            base.path, revision=base.revision, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError):
        if base.path not in known:
            raise UsageError(
                f"model.{backbone}.path: the configuration of {base.path} is not on this machine: fetch it with "
                f"`hf download {base.path} config.json`, or give a folder"
            ) from None
        config = AutoConfig.for_model(**known[base.path])
    return build.checked(config, wanted, backbone)


def _table(name: str) -> dict[str, dict[str, Any]]:
    """Read a TOML file next to this file."""
    return tomllib.loads(resources.files("lusifer.training.estimate").joinpath(name).read_text(encoding="utf-8"))
