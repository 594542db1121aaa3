"""What a run reads, by content: a resume that would go on with other bases or other data is refused.

`inputs.json` in the run folder holds one line a file: the SHA-256 of a local file, the commit of a hub name. A hub
name is read at the commit of the first start from then on, wherever its branch has moved.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from lusifer import hub
from lusifer.data import sources as data_sources
from lusifer.errors import ModelFolderError, UsageError
from lusifer.folders import write_file
from lusifer.model import build
from lusifer.training import recipe as recipes
from lusifer.training.recipe import Recipe

INPUTS = "inputs.json"
_BASE_FILES = ("config.json", "tokenizer.json", "*.safetensors")


def fingerprints(recipe: Recipe) -> dict[str, str]:
    """Name and fingerprint of everything that a run reads.

    Args:
        recipe: with bases that exist (`tiny:` ones already made).

    Returns:
        "FILE" -> SHA-256, "model NAME" and "dataset NAME" -> commit.

    Raises:
        UsageError: a hub name cannot be resolved.
    """
    found: dict[str, str] = {}
    for tower in ("encoder", "llm"):
        base = getattr(recipe.model, tower)
        place = Path(build.resolve(base.path))
        if place.is_dir():
            for pattern in _BASE_FILES:
                found |= {str(file): _sha256(file) for file in sorted(place.glob(pattern))}
        else:
            found[_name("model", base.path, base.revision)] = _commit(f"model.{tower}.path", base, "model")
    for stage in recipe.stages:
        for source in recipes.sources(recipe, stage)[0]:
            if source.hub is not None:
                key = f"stages.{stage.name}.data"
                found[_name("dataset", source.hub, source.revision)] = _commit(key, source, "dataset")
            else:
                found |= {str(file): _sha256(file) for file in data_sources.files(source.path or "")}
    return found


def remember(root: Path, found: dict[str, str]) -> None:
    """Keep the fingerprints of a run's first start; a local file of a later one must not contradict them.

    Args:
        root: the run folder.
        found: as `fingerprints` gives them.

    Raises:
        UsageError: names the first file that changed.
        ModelFolderError: the file of fingerprints is damaged.
    """
    known = _read(root)
    local = {name: value for name, value in found.items() if not name.startswith(("model ", "dataset "))}
    changed = [name for name, value in local.items() if known.get(name, value) != value]
    if changed:
        more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
        raise UsageError(
            f"{changed[0]}{more}: changed since this run began ({root / INPUTS}); put back what the run was started "
            "with, or start anew in another --output"
        )
    with write_file(root / INPUTS) as temporary:
        temporary.write_text(json.dumps(found | known, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def pinned(recipe: Recipe, root: Path) -> Recipe:
    """The recipe with every hub name at the commit that the run began with.

    Args:
        recipe: as the user gave it.
        root: the run folder, with its fingerprints.
    """
    known = _read(root)

    def pin(settings: Any, kind: str, name: str | None) -> Any:
        commit = known.get(_name(kind, name or "", settings.revision))
        return settings.model_copy(update={"revision": commit}) if commit else settings

    bases = {tower: getattr(recipe.model, tower) for tower in ("encoder", "llm")}
    model = recipe.model.model_copy(update={t: pin(base, "model", base.path) for t, base in bases.items()})
    stages = [
        stage.model_copy(update={"data": [pin(source, "dataset", source.hub) for source in stage.data]})
        for stage in recipe.stages
    ]
    return recipe.model_copy(update={"model": model, "stages": stages})


def _name(kind: str, name: str, revision: str | None) -> str:
    return f"{kind} {name}" + (f"@{revision}" if revision else "")


def _commit(key: str, settings: Any, kind: str) -> str:
    name = settings.path if kind == "model" else settings.hub
    with hub.asking(f"{key}: {name}", UsageError):
        return hub.commit(name, settings.revision, kind) or ""


def _read(root: Path) -> dict[str, str]:
    file = root / INPUTS
    if not file.is_file():
        return {}
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelFolderError(f"{file}: damaged ({error}); remove it to go on without this check") from error


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
