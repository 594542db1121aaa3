"""What a run reads, by content: a resume that would go on with other bases or other data is refused.

`inputs.json` in the run folder holds, by key of the recipe, the SHA-256 of every local file and the commit of every
hub name. What a stage with a checkpoint has read must not change any more, and a hub name is read at its first commit
from then on, wherever its branch has moved. What nothing was learned from may change: the run then reads it anew.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lusifer.data import sources as data_sources
from lusifer.errors import ModelFolderError, UsageError
from lusifer.io import hub, parallel_text
from lusifer.io.atomic import write_file
from lusifer.model import build
from lusifer.training.folder import INPUTS, RunFolder
from lusifer.training.recipe.recipe import AlignmentStage, ContrastiveStage, Recipe

TOWERS = ("encoder", "llm")
_BASE_FILES = (".json", ".safetensors", ".bin", ".txt", ".model")
_COMMIT = "commit"

Found = dict[str, dict[str, str]]


def fingerprints(recipe: Recipe) -> Found:
    """Look at everything that a run reads.

    Args:
        recipe: as the user gave it.

    Returns:
        By key (`model.llm`, `stages.NAME.data.0`, `stages.NAME.watch.parallel`): file name -> SHA-256, or "commit" ->
        commit. A base that is made from the seed (`tiny:`) is left out, and so is the sample of parallel text.

    Raises:
        UsageError: a hub name cannot be resolved.
    """
    found: Found = {}
    for tower in TOWERS:
        base, key = getattr(recipe.model, tower), f"model.{tower}"
        if base.path.startswith("tiny:"):
            continue
        place = Path(build.resolve(base.path))
        if place.is_dir():
            files = [file for file in sorted(place.rglob("*")) if file.suffix in _BASE_FILES and file.is_file()]
            found[key] = {str(file.relative_to(place)): _sha256(file) for file in files}
        else:
            found[key] = {_COMMIT: _commit(key, base.path, base.revision, "model")}
    for stage in recipe.stages:
        for number, source in enumerate(recipe.sources(stage)):
            key = f"stages.{stage.name}.data.{number}"
            if source.hub is not None:
                found[key] = {_COMMIT: _commit(key, source.hub, source.revision, "dataset")}
            else:
                files = data_sources.files(source.path or "")
                top = os.path.commonpath([file.parent for file in files])
                found[key] = {str(file.relative_to(top)): _sha256(file) for file in files}
        if stage.watch is not None and stage.watch.parallel != parallel_text.SAMPLE:
            file = Path(stage.watch.parallel)
            found[f"stages.{stage.name}.watch.parallel"] = {file.name: _sha256(file)}
    return found


def remember(run: RunFolder, recipe: Recipe, found: Found) -> None:
    """Keep what was found, unless it contradicts what something was learned from.

    Args:
        run: the run folder.
        recipe: of the run.
        found: as `fingerprints` gives it.

    Raises:
        UsageError: names the first file that changed, came or went.
        ModelFolderError: the file of fingerprints is damaged.
    """
    known = _read(run.root)
    stages = {stage.name for number, stage in enumerate(recipe.stages, start=1) if run.begun(number, stage.name)}
    for key, names in found.items():
        used = bool(stages) if key.startswith("model.") else key.split(".")[1] in stages
        if not used or key not in known:
            known[key] = names
        elif _COMMIT not in known[key] and names != known[key]:
            changed = sorted(dict(known[key].items() ^ names.items()))
            raise UsageError(
                f"{key}: {changed[0]} is not what it was when this run read it ({run.root / INPUTS}); put it back, or "
                "start anew in another --output"
            )
    with write_file(run.root / INPUTS) as temporary:
        temporary.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def digests(recipe: Recipe, stage: AlignmentStage | ContrastiveStage, run: RunFolder) -> list[dict[str, str]]:
    """Give the fingerprints of a stage's sources, file name -> SHA-256, in their order; of a hub set none.

    Args:
        recipe: as the user gave it.
        stage: one of its stages.
        run: the run folder, whose `inputs.json` has them.
    """
    known = _read(run.root)
    found = (known.get(f"stages.{stage.name}.data.{n}", {}) for n in range(len(recipe.sources(stage))))
    return [{name: value for name, value in names.items() if name != _COMMIT} for names in found]


def pinned(recipe: Recipe, run: RunFolder) -> Recipe:
    """The recipe with every hub name at the commit in `inputs.json`.

    Args:
        recipe: as the user gave it.
        run: the run folder.
    """
    known = _read(run.root)
    bases = {tower: _pin(getattr(recipe.model, tower), known, f"model.{tower}") for tower in TOWERS}
    stages = []
    for stage in recipe.stages:
        number = itertools.count()  # sources are numbered without those that are left out
        data = [
            _pin(source, known, f"stages.{stage.name}.data.{next(number)}") if recipe.reads(source) else source
            for source in stage.data
        ]
        stages.append(stage.model_copy(update={"data": data}))
    return recipe.model_copy(update={"model": recipe.model.model_copy(update=bases), "stages": stages})


def _pin(settings: Any, known: Mapping[str, Mapping[str, str]], key: str) -> Any:
    commit = known.get(key, {}).get(_COMMIT)
    return settings.model_copy(update={"revision": commit}) if commit else settings


def _commit(key: str, name: str, revision: str | None, kind: str) -> str:
    with hub.asking(f"{key}: {name}", UsageError):
        return hub.commit(name, revision, kind) or ""


def _read(root: Path) -> Found:
    file = root / INPUTS
    if not file.is_file():
        return {}
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        if not (isinstance(known, dict) and all(isinstance(names, dict) for names in known.values())):
            raise ValueError("not names and their fingerprints by key")
    except ValueError as error:  # not UTF-8 or not JSON is one too
        raise ModelFolderError(f"{file}: damaged ({error}); remove it to go on without this check") from error
    return known


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
