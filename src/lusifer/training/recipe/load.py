"""Recipes as files: read one, with overrides, and say on which line what is wrong; write one out in full."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lusifer.data import sources
from lusifer.errors import RecipeError, UsageError
from lusifer.io import names, parallel_text
from lusifer.training.recipe import start
from lusifer.training.recipe.document import Document, KeyPath, write
from lusifer.training.recipe.recipe import FULL, ModelSettings, Recipe

MAY_CHANGE = ("save_steps", "logging_steps", "keep_checkpoints", "compile")
"""Keys of a stage that a resumed run may change: what it writes and how it computes, not what it learns (max_steps
bends the schedule)."""
WHEN_DONE = {"model.dtype.finished", "model.dtype.added"}
"""Keys that a run reads when its last stage is done."""


def find_recipe(name: str | os.PathLike[str]) -> Path:
    """Give the file of a recipe: a path, or the bare name of one that comes with the package.

    Raises:
        RecipeError: There is none; the message lists the names there are.
    """
    path = Path(name)
    if path.is_file():
        return path
    known = {file.stem: file for folder in reversed(names.roots("recipes")) for file in sorted(folder.glob("*.yaml"))}
    if str(name) in known:
        return known[str(name)]
    raise RecipeError(f"{name}: no such recipe: give a file, or one of {', '.join(sorted(known))}")


def load_recipe(
    path: str | os.PathLike[str], overrides: Sequence[str] = (), *, variant: str | None = None, check_files: bool = True
) -> Recipe:
    """Read a recipe.

    Args:
        path: A YAML file, or a bare name (`tiny`) of a recipe that comes with the package.
        overrides: "key.path=value" each; list items by number or by name, values in YAML.
        variant: One of the recipe's `variants`, or "full"; what it sets comes after the overrides.
        check_files: Whether data files and folders of bases must exist; False to read the recipe of an old run.

    Returns:
        The recipe; local paths are absolute, so it means the same wherever it is saved.

    Raises:
        RecipeError: One line that names file, line and key, and what to do.
    """
    file = find_recipe(path)
    try:
        document = Document.parse(file.read_text(encoding="utf-8"), str(file))
    except UnicodeDecodeError as error:
        raise RecipeError(f"{file}: not UTF-8 (byte {error.start}): save it as UTF-8") from None
    if not isinstance(document.value, dict):
        raise RecipeError(f"{file}: expected keys and values, as in `stages:`; see recipes/tiny.yaml")
    document.set(overrides)
    recipe = _checked(document, file.resolve().parent, check_files)
    if variant is not None:
        _take_variant(document, recipe, variant)
        recipe = _checked(document, file.resolve().parent, check_files)
    if check_files:
        _check_files(recipe, document)
    return recipe


def resolved_yaml(recipe: Recipe) -> str:
    """Write a recipe as YAML with every default written out; `load_recipe` gives an equal recipe back."""
    return write(recipe.model_dump(mode="json", exclude={"variants"}))


def changed_keys(old: Recipe, new: Recipe) -> list[str]:
    """Give the keys in which two recipes differ, stages by name, sorted; `may_change` says which a resume may.

    Where stages were added, removed or put in another order, `stages` is among them.
    """
    one, other = (_flat(each.model_dump(mode="json", exclude={"variants"})) for each in (old, new))
    missing = object()
    found = {key for key in one.keys() | other.keys() if one.get(key, missing) != other.get(key, missing)}
    if [stage.name for stage in old.stages] != [stage.name for stage in new.stages]:
        found.add("stages")
    return sorted(found)


def may_change(key: str, begun: Collection[str]) -> bool:
    """Whether a key of `changed_keys` may differ when a run is resumed; `begun` are the stages that have learned."""
    if key == "report_to":
        return True
    stage, *rest = key.removeprefix("stages.").split(".")
    return key.startswith("stages.") and (stage not in begun or rest[0] in MAY_CHANGE)


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested values as {"stages.NAME.key": value}."""
    if isinstance(value, dict) and value:
        return {k: v for key, item in value.items() for k, v in _flat(item, f"{prefix}{key}.").items()}
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        named = {str(item.get("name", number)): item for number, item in enumerate(value)}
        return _flat(named, prefix)
    return {prefix.rstrip("."): value}


def _checked(document: Document, folder: Path, check_files: bool) -> Recipe:
    """Check the values of a document, its local paths made absolute, what a model to start from has put in."""

    def placed(value: Any, path: KeyPath, root: Path) -> Any:
        """Paths in the file start from its folder, of data from `root`; those of --set from the current folder."""
        if isinstance(value, dict):
            return {key: placed(item, (*path, key), root) for key, item in value.items()}
        if isinstance(value, list):
            return [placed(item, (*path, number), root) for number, item in enumerate(value)]
        start = Path.cwd() if document.origin(path).override else root if path[:1] == ("stages",) else folder
        match path, value:
            case ("data_root",), str():
                local = True
            case ("stages", _, "data", _, "path") | ("stages", _, "evaluate", "data", _, "path"), str():
                local = not value.startswith(sources.SAMPLE)
            case ("stages", _, "watch", "parallel"), str():
                local = value != parallel_text.SAMPLE
            case ("model", _, "path") | ("model", "start"), str() if not value.startswith((names.PACKAGE, "tiny:")):
                local = value.startswith((".", "/", "~")) or (start / value).exists()
            case _:
                local = False
        return os.path.normpath(start / Path(value).expanduser()) if value and local else value

    root = placed(document.value.get("data_root"), ("data_root",), folder)
    value = placed(document.value, (), Path(root) if isinstance(root, str) else folder)
    if check_files:
        value = _started(value, document)
    try:
        return Recipe.model_validate(value)
    except ValidationError as error:
        raise document.explain(error) from None


def _started(value: dict[str, Any], document: Document) -> dict[str, Any]:
    """Put in what a model to start from says; what the recipe says otherwise is refused, as it would have no effect."""
    model = value.get("model")
    given = model.get("start") if isinstance(model, dict) else None
    where = {"path": given} if isinstance(given, str) else given
    if not isinstance(where, dict) or not isinstance(where.get("path"), str):
        return value  # there is none, or the check of the recipe says what is wrong
    with document.at("model", "start"):
        found = start.taken(where["path"], where.get("revision"))
    for key, own in found["model"].items():
        if key == "dtype" or model.get(key) is None:
            continue
        asked, has = _one(key, model[key]), _one(key, own)
        if asked is not None and key in start.TOWERS and own["path"] != found["folder"] and Path(asked.path).exists():
            asked = asked.model_copy(update={"path": has.path})  # of a delta: its base is known by its content
        if asked is not None and asked != has:
            with document.at("model", key):
                raise UsageError(f"model.start has this settled ({own}): take the key out, or start from two bases")
    length = value.get("max_length")
    if isinstance(length, int) and length > found["max_length"]:
        with document.at("max_length"):
            raise UsageError(f"model.start reads {found['max_length']} tokens of a text at most: take the key out")
    model = found["model"] | {key: each for key, each in model.items() if each is not None}
    return {**value, "max_length": length or found["max_length"], "model": model}


def _one(key: str, value: Any) -> Any:
    """One setting of a model as an object; None where it is none."""
    try:
        return getattr(ModelSettings.model_validate({key: value}), key)
    except ValidationError:
        return None


def _take_variant(document: Document, recipe: Recipe, name: str) -> None:
    """Turn a document into one of the variants of its recipe."""
    if name not in recipe.variant_names:
        raise RecipeError(f"{document.file}: variant {name!r} is unknown: use one of {', '.join(recipe.variant_names)}")
    document.value.pop("variants", None)
    if name == FULL:
        return
    document.value["name"] = f"{recipe.name}-{name}"
    if recipe.variants[name].stages is not None:
        document.keep_stages(recipe.variants[name].stages)
    document.set(recipe.variants[name].set)


def _check_files(recipe: Recipe, document: Document) -> None:
    """Refuse missing files and folders; hub ids are not asked for."""
    for tower in ("encoder", "llm"):
        path = ("model", tower, "path")
        with document.at(*path):
            _check_base(getattr(recipe.model, tower).path, document.spoken(path))
    for number, stage in enumerate(recipe.stages):
        scored = stage.evaluate.data if stage.evaluate else []
        for key, each in ((("data",), stage.data), (("evaluate", "data"), scored)):
            for item, source in enumerate(each):
                if source.path is not None:
                    with document.at("stages", number, *key, item, "path"):
                        sources.files(source.path)
        if stage.watch is not None:
            with document.at("stages", number, "watch", "parallel"):
                stage.watch.read()


def _check_base(path: str, key: str) -> None:
    """Refuse a base that is neither here nor a possible hub id."""
    if names.is_tiny(path):
        return
    try:
        names.base(path)
    except UsageError:
        if not Path(path).is_absolute():
            raise
        raise RecipeError(
            f"no model folder at {path} (no config.json): make it first, or give another: --set {key}=FOLDER"
        ) from None
