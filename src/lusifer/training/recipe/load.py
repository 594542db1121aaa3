"""Read recipes from files with overrides, report errors with their line, and write resolved recipes."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lusifer.data import sources
from lusifer.errors import RecipeError, UsageError
from lusifer.io import names, parallel_text
from lusifer.io.files import expand_user
from lusifer.training.recipe import start
from lusifer.training.recipe.document import Document, KeyPath, write
from lusifer.training.recipe.recipe import FULL, ModelSettings, Recipe

MAY_CHANGE = ("save_steps", "logging_steps", "keep_checkpoints", "compile")
"""Keys of a stage that may change on `--resume`, because they do not affect the weights (max_steps does: it changes
the schedule)."""
WHEN_DONE = {"model.dtype.finished", "model.dtype.added"}
"""Keys that a run reads after its last stage."""


def find_recipe(name: str | os.PathLike[str]) -> Path:
    """Find the file of a recipe.

    Args:
        name: A path, or the name of a recipe in the package.

    Raises:
        RecipeError: There is none.
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
    """Read and check a recipe.

    Args:
        path: A YAML file, or the name of a recipe in the package, such as `tiny`.
        overrides: "key.path=value" each, with the name or number of a list item, and a value in YAML.
        variant: One of the recipe's `variants`, or "full". Its changes are applied after the overrides.
        check_files: Whether data files and folders of bases must exist. Use False to read the recipe of an old run.

    Returns:
        The recipe, with absolute local paths.

    Raises:
        RecipeError: The recipe is wrong. The message has the file, the line and the key.
    """
    file = find_recipe(path)
    try:
        document = Document.parse(file.read_text(encoding="utf-8"), str(file))
    except UnicodeDecodeError as error:
        raise RecipeError(f"{file}: not UTF-8 (byte {error.start}): save it as UTF-8") from None
    if not isinstance(document.value, dict):
        raise RecipeError(f"{file}: expected keys and values, such as `stages:`; see recipes/tiny.yaml")
    document.set(overrides)
    recipe = _checked(document, file.resolve().parent, check_files)
    if variant is not None:
        _take_variant(document, recipe, variant)
        recipe = _checked(document, file.resolve().parent, check_files)
    if check_files:
        _check_files(recipe, document)
    return recipe


def resolved_yaml(recipe: Recipe) -> str:
    """Write a recipe as YAML with every default, from which `load_recipe` reads an equal recipe."""
    return write(recipe.model_dump(mode="json", exclude={"variants"}))


def changed_keys(old: Recipe, new: Recipe) -> list[str]:
    """Find the keys in which two recipes differ; `may_change` says which of them may change on `--resume`.

    Args:
        old: A recipe.
        new: Another one.

    Returns:
        The keys, sorted, with the names of stages. `stages` is among them if stages were added, removed or reordered.
    """
    one, other = (_flat(each.model_dump(mode="json", exclude={"variants"})) for each in (old, new))
    missing = object()
    found = {key for key in one.keys() | other.keys() if one.get(key, missing) != other.get(key, missing)}
    if [stage.name for stage in old.stages] != [stage.name for stage in new.stages]:
        found.add("stages")
    return sorted(found)


def may_change(key: str, begun: Collection[str]) -> bool:
    """Whether a key may change on `--resume`.

    Args:
        key: A key from `changed_keys`.
        begun: The names of the stages that have begun.
    """
    if key == "report_to":
        return True
    stage, *rest = key.removeprefix("stages.").split(".")
    return key.startswith("stages.") and (stage not in begun or rest[0] in MAY_CHANGE)


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested values to {"stages.NAME.key": value}."""
    if isinstance(value, dict) and value:
        return {k: v for key, item in value.items() for k, v in _flat(item, f"{prefix}{key}.").items()}
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        named = {str(item.get("name", number)): item for number, item in enumerate(value)}
        return _flat(named, prefix)
    return {prefix.rstrip("."): value}


def _checked(document: Document, folder: Path, check_files: bool) -> Recipe:
    """Check a document, after making its local paths absolute and adding the settings of `model.start`."""

    def placed(value: Any, path: KeyPath, root: Path) -> Any:
        """Paths are relative to the file's folder, data paths to `root`, and paths in --set to the current folder."""
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
        return os.path.normpath(start / expand_user(value)) if value and local else value

    root = placed(document.value.get("data_root"), ("data_root",), folder)
    value = placed(document.value, (), Path(root) if isinstance(root, str) else folder)
    if check_files:
        value = _started(value, document)
    try:
        return Recipe.model_validate(value)
    except ValidationError as error:
        raise document.explain(error) from None


def _started(value: dict[str, Any], document: Document) -> dict[str, Any]:
    """Add the settings of `model.start`, and refuse other values in the recipe, which would have no effect."""
    model = value.get("model")
    given = model.get("start") if isinstance(model, dict) else None
    where = {"path": given} if isinstance(given, str) else given
    if not isinstance(where, dict) or not isinstance(where.get("path"), str):
        return value  # not set, or wrong, which the check of the recipe reports
    with document.at("model", "start"):
        found = start.taken(where["path"], where.get("revision"))
    for key, own in found["model"].items():
        if key == "dtype" or model.get(key) is None:
            continue
        asked, has = _one(key, model[key]), _one(key, own)
        if (
            asked is not None
            and key in start.BACKBONES
            and own["path"] != found["folder"]
            and Path(asked.path).exists()
        ):
            asked = asked.model_copy(update={"path": has.path})  # the base of a delta is compared by its content
        if asked is not None and asked != has:
            with document.at("model", key):
                raise UsageError(f"model.start already sets this ({own}): remove the key, or start from two bases")
    length = value.get("max_length")
    if isinstance(length, int) and length > found["max_length"]:
        with document.at("max_length"):
            raise UsageError(f"model.start reads at most {found['max_length']} tokens a text: remove the key")
    model = found["model"] | {key: each for key, each in model.items() if each is not None}
    return {**value, "max_length": length or found["max_length"], "model": model}


def _one(key: str, value: Any) -> Any:
    """Make an object of one setting of `model`; None if it is wrong."""
    try:
        return getattr(ModelSettings.model_validate({key: value}), key)
    except ValidationError:
        return None


def _take_variant(document: Document, recipe: Recipe, name: str) -> None:
    """Change a document into a variant of its recipe."""
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
    """Refuse missing local files and folders. Ids on the Hub are not checked."""
    for backbone in ("encoder", "llm"):
        path = ("model", backbone, "path")
        with document.at(*path):
            _check_base(getattr(recipe.model, backbone).path, document.spoken(path))
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
    """Refuse a base that is neither a local folder nor a possible id on the Hub."""
    if names.is_tiny(path):
        return
    try:
        names.base(path)
    except UsageError:
        if not Path(path).is_absolute():
            raise
        raise RecipeError(
            f"no model folder at {path} (no config.json): correct the path, or give another one: --set {key}=FOLDER"
        ) from None
