"""The inputs of a run: list and fetch them, and record their content.

`inputs.json` in the run folder has, for each key of the recipe, the SHA-256 of every local file and the commit of every
dataset or model on the Hub. Inputs of a stage with a checkpoint must not change, and names on the Hub stay at the
recorded commit. Inputs of stages that have not begun may change: the run reads them again.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lusifer.data import sources as data_sources
from lusifer.errors import ModelFolderError, UsageError
from lusifer.io import bases, hub, names, parallel_text
from lusifer.io.bases import COMMIT
from lusifer.io.files import read_json, sha256, write_json
from lusifer.io.rows import BadRows
from lusifer.training.recipe.data import Source
from lusifer.training.recipe.recipe import Recipe, Stage

if TYPE_CHECKING:
    from lusifer.data.sources import SourceSpec
    from lusifer.training.folder import RunFolder  # imports torch, which `lusifer fetch` does not need

BACKBONES = ("encoder", "llm")

Fingerprints = dict[str, dict[str, str]]
"""Key (`model.llm`, `stages.NAME.data.0`, `stages.NAME.evaluate.data.0`, `stages.NAME.watch.parallel`) -> file ->
SHA-256, or "commit" -> commit. The numbers of `data` do not count sources that `english_only` leaves out."""


@dataclass(frozen=True)
class PlannedSource:
    """A source that a stage reads."""

    stage: str
    source: Source
    spec: SourceSpec

    @property
    def place(self) -> str:
        """The place of the source, and how it is read."""
        source = self.source
        if source.hub is None:
            return f"{source.path}: local"
        config = f", configuration {source.config}" if source.config else ""
        split = f", split {source.split}" if source.split != "train" else ""
        where = f"hf://datasets/{source.hub}@{source.revision or 'newest'}{config}{split}"
        return f"{where}: {'streamed' if source.streaming else 'fetched completely'}"


def _planned(recipe: Recipe) -> list[PlannedSource]:
    """List every source that is read, stage after stage."""
    return [
        PlannedSource(name, source, recipe.spec(stage, source))
        for stage in recipe.stages
        for name, sources in (
            (stage.name, recipe.sources(stage)),
            (f"the scores of {stage.name}", stage.evaluate.data if stage.evaluate else []),
        )
        for source in sources
    ]


def lines(recipe: Recipe) -> Iterator[str]:
    """Yield lines about what a run would read: each dataset or file, then the sums. Nothing is fetched."""
    places: dict[str, list[PlannedSource]] = {}
    for each in _planned(recipe):
        places.setdefault(each.place, []).append(each)
    for place, uses in places.items():
        limits = [each.source.limit for each in uses]
        rows = "all rows" if None in limits else f"{max(limits):,} rows at most"
        yield f"{place}, {rows}, for {', '.join(dict.fromkeys(each.stage for each in uses))}"
    left_out = (source for stage in recipe.stages for source in stage.data if not recipe.reads(source))
    if described := dict.fromkeys(f"{source.name} ({source.language_code})" for source in left_out):
        yield f"left out by english_only: {', '.join(described)}"
    yield _sums(places.values())


def _sums(places: Collection[Sequence[PlannedSource]]) -> str:
    """Make the line with the sums."""
    limits = [each.source.limit for uses in places for each in uses]
    known, whole = [limit for limit in limits if limit is not None], limits.count(None)
    rows = [f"{sum(known):,} rows at most"] * bool(known) + [f"all rows of {whole:,}"] * bool(whole)
    sets = [uses[0].source for uses in places if uses[0].source.hub is not None]
    streamed = sum(source.streaming for source in sets)
    kinds = f"{len(sets) - streamed:,} datasets to fetch, {streamed:,} to stream, {len(places) - len(sets):,} local"
    return f"total: {kinds}; {len(limits):,} sources of stages read {' and '.join(rows) or 'nothing'}"


def fetch(recipe: Recipe, listen: Callable[[PlannedSource, int, list[str]], None]) -> None:
    """Read every row of a recipe as training does, to fill the cache and to check the rows.

    Args:
        recipe: The recipe.
        listen: Called for each source with its number of rows and the messages of its skipped bad rows.

    Raises:
        UsageError: The Hub does not deliver a dataset.
        DataError: A row is bad.
    """
    for each in _planned(recipe):
        bad = BadRows(each.source.skip_bad)
        rows = data_sources.load(each.spec, each.source.row_kind, bad)
        listen(each, len(rows), bad.messages)


def fingerprints(recipe: Recipe) -> Fingerprints:
    """Compute the fingerprints of the inputs of a run, except `tiny:` bases and samples in the package.

    Raises:
        UsageError: A name on the Hub cannot be resolved.
    """
    found: Fingerprints = {}
    looked: dict[tuple[str, str | None], dict[str, str]] = {}  # both backbones may be in one model folder
    for name in (*BACKBONES, "start"):
        base, key = getattr(recipe.model, name), f"model.{name}"
        if base is None or names.is_tiny(base.path):
            continue
        path = str(names.model(base.path)) if name == "start" else base.path
        if (path, base.revision) not in looked:
            looked[path, base.revision] = bases.fingerprint(path, base.revision, key)
        found[key] = looked[path, base.revision]
    for stage in recipe.stages:
        for key, source in _keys(recipe, stage):
            if source.hub is not None:
                with hub.asking(f"{key}: {source.hub}", UsageError):
                    found[key] = {COMMIT: hub.commit(source.hub, source.revision, "dataset") or ""}
            else:
                files = data_sources.files(source.path or "")
                found[key] = _digests(files, os.path.commonpath([file.parent for file in files]))
        if stage.watch is not None and stage.watch.parallel != parallel_text.SAMPLE:
            file = Path(stage.watch.parallel)
            found[f"stages.{stage.name}.watch.parallel"] = _digests([file], file.parent)
    return found


def _keys(recipe: Recipe, stage: Stage) -> Iterator[tuple[str, Source]]:
    """Yield key and source of what a stage trains on, then of what it is scored on."""
    scored = stage.evaluate.data if stage.evaluate else []
    for key, sources in (("data", recipe.sources(stage)), ("evaluate.data", scored)):
        yield from ((f"stages.{stage.name}.{key}.{number}", source) for number, source in enumerate(sources))


def records(recipe: Recipe, run: RunFolder) -> dict[str, dict[str, Any]]:
    """Make the records of the two bases for a delta.

    Args:
        recipe: The pinned recipe, with its `tiny:` bases made.
        run: The run.

    Returns:
        Backbone -> record.
    """
    known, found = _read(run), {}
    for backbone in BACKBONES:
        base, key = getattr(recipe.model, backbone), f"model.{backbone}"
        files = known.get(key) or bases.fingerprint(base.path, base.revision, key)
        found[backbone] = bases.record(base.path, files) | ({"layers": base.layers} if base.layers else {})
    return found


def remember(run: RunFolder, recipe: Recipe, found: Fingerprints) -> None:
    """Store fingerprints in the run folder, and refuse changed inputs of stages that have begun.

    Args:
        run: The run.
        recipe: The recipe.
        found: The result of `fingerprints`.

    Raises:
        UsageError: A file was changed, added or removed.
        ModelFolderError: `inputs.json` is damaged.
    """
    known = _read(run)
    stages = {stage.name for number, stage in enumerate(recipe.stages, start=1) if run.begun(number, stage.name)}
    for key, digests_now in found.items():
        used = bool(stages) if key.startswith("model.") else key.split(".")[1] in stages
        if not used or key not in known:
            known[key] = digests_now
        elif COMMIT not in known[key] and digests_now != known[key]:
            changed = sorted(dict(known[key].items() ^ digests_now.items()))
            raise UsageError(
                f"{key}: {changed[0]} has changed since this run read it ({run.inputs}): put it back, or start a new "
                "run in another --output"
            )
    write_json(run.inputs, known)


def digests(recipe: Recipe, stage: Stage, run: RunFolder) -> list[dict[str, str]]:
    """Return the digests of the sources of a stage, in order.

    Args:
        recipe: The recipe.
        stage: The stage.
        run: The run.

    Returns:
        For each source, file name -> SHA-256; empty for a dataset on the Hub.
    """
    known = _read(run)
    found = (known.get(f"stages.{stage.name}.data.{number}", {}) for number in range(len(recipe.sources(stage))))
    return [{name: value for name, value in files.items() if name != COMMIT} for files in found]


def pinned(recipe: Recipe, run: RunFolder) -> Recipe:
    """Return the recipe with every name on the Hub at the commit in the run's `inputs.json`.

    Args:
        recipe: The recipe.
        run: The run.
    """
    known = _read(run)
    settled = {name: _pin(getattr(recipe.model, name), known, f"model.{name}") for name in (*BACKBONES, "start")}
    stages = []
    for stage in recipe.stages:
        keys = (f"stages.{stage.name}.data.{number}" for number in itertools.count())
        data = [_pin(source, known, next(keys)) if recipe.reads(source) else source for source in stage.data]
        scored = stage.evaluate
        if scored is not None:
            key = f"stages.{stage.name}.evaluate.data"
            each = [_pin(source, known, f"{key}.{number}") for number, source in enumerate(scored.data)]
            scored = scored.model_copy(update={"data": each})
        stages.append(stage.model_copy(update={"data": data, "evaluate": scored}))
    return recipe.model_copy(update={"model": recipe.model.model_copy(update=settled), "stages": stages})


def _pin(settings: Any, known: Mapping[str, Mapping[str, str]], key: str) -> Any:
    commit = known.get(key, {}).get(COMMIT)
    return settings.model_copy(update={"revision": commit}) if commit else settings


def _digests(files: Sequence[Path], top: str | Path) -> dict[str, str]:
    return {str(file.relative_to(top)): sha256(file) for file in files}


def _read(run: RunFolder) -> Fingerprints:
    file, advice = run.inputs, "remove it to continue without this check"
    known = read_json(file, advice, ModelFolderError, dict) if file.is_file() else {}
    if not all(isinstance(files, dict) for files in known.values()):
        raise ModelFolderError(f"{file}: damaged, expected an object for each key; {advice}")
    return known
