"""Variants of a recipe: the same training with a stage left out or a key changed, for ablations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import Field

from lusifer.errors import RecipeError
from lusifer.training.recipe.data import Settings

FULL = "full"
"""The recipe as it stands."""
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
Value = TypeVar("Value")


class Variant(Settings):
    """What a variant changes."""

    stages: list[str] | None = Field(default=None, min_length=1)
    """Names of the stages that are run, in the order of the recipe; null is all of them."""
    set: list[str] = []
    """Keys that are changed, as for `--set`: "stages.contrastive.train.llm=frozen"."""


def names(value: Mapping[str, Any]) -> list[str]:
    """Name the variants of a recipe that was read but not checked yet, the recipe as it stands first."""
    variants = value.get("variants")
    return [FULL, *(variants if isinstance(variants, dict) else ())]


def take(value: dict[str, Any], name: str, where: str) -> tuple[list[str], list[int] | None]:
    """Turn a recipe into one of its variants, in place, all but the keys that the variant sets.

    Args:
        value: The recipe as plain values; its `variants` are taken away.
        name: Of the variant.
        where: The file, for messages.

    Returns:
        What it sets, and the numbers of the stages that are left; None where all are.

    Raises:
        RecipeError: There is no such variant, or a stage that it names.
    """
    known = names(value)
    if name not in known:
        raise RecipeError(f"{where}: variant {name!r} is unknown: use one of {', '.join(known)}")
    variant = (value.pop("variants", None) or {}).get(name) or {}
    if name == FULL:
        return [], None
    if not isinstance(variant, dict):
        raise RecipeError(f"{where}: variants.{name}: expected the keys `stages` and `set`")
    value["name"] = f"{value.get('name', 'lusifer')}-{name}"
    kept = variant.get("stages")
    stages = value.get("stages")
    if kept is None or not isinstance(stages, list):
        return list(variant.get("set") or []), None
    there = [stage.get("name") if isinstance(stage, dict) else None for stage in stages]
    unknown = [stage for stage in kept if stage not in there]
    if unknown:
        raise RecipeError(
            f"{where}: variants.{name}.stages: no stage {unknown[0]!r}: use some of {', '.join(map(str, there))}"
        )
    numbers = [number for number, stage in enumerate(there) if stage in kept]
    value["stages"] = [stages[number] for number in numbers]
    return list(variant.get("set") or []), numbers


def moved(by_path: Mapping[tuple[Any, ...], Value], numbers: list[int] | None) -> dict[tuple[Any, ...], Value]:
    """Give what is known by place in a recipe the places that it has once some stages are gone."""
    if numbers is None:
        return dict(by_path)
    found = {}
    for path, item in by_path.items():
        if path[:1] != ("stages",) or len(path) < 2:
            found[path] = item
        elif path[1] in numbers:
            found["stages", numbers.index(path[1]), *path[2:]] = item
    return found
