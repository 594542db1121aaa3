"""The keys that a recipe may have, by place: for overrides, and for "did you mean" in messages."""

from __future__ import annotations

import difflib
from functools import cache
from typing import Any

from lusifer.training.recipe.recipe import Recipe

Schema = dict[str, Any]


@cache
def schema() -> Schema:
    """The JSON schema of a recipe."""
    return Recipe.model_json_schema()


def children(node: Schema, value: Any) -> dict[str, Schema] | None:
    """The keys below a place and their schemas; None where any key may stand.

    Args:
        node: Schema of the place.
        value: What the recipe has there; it decides between kinds (a stage's `kind`, a connector's `type`).
    """
    found: dict[str, Schema] = {}
    for part in _objects(node, value):
        if "properties" not in part and part.get("additionalProperties"):
            return None
        found |= part.get("properties", {})
    return found


def items(node: Schema) -> Schema | None:
    """The schema of the items of a list; None where there is no list."""
    options = [option for option in _options(node) if option.get("type") == "array"]
    return options[0].get("items", {}) if options else None


def suggestion(key: str, allowed: list[str]) -> str:
    """What to say about a key that does not exist: the nearest one, or all."""
    nearest = difflib.get_close_matches(key, allowed, n=1, cutoff=0.6)
    return f"did you mean {nearest[0]}?" if nearest else f"known here: {', '.join(allowed)}"


def _options(node: Schema) -> list[Schema]:
    """Follow references and alternatives to plain schemas."""
    if "$ref" in node:
        return _options(schema()["$defs"][node["$ref"].rsplit("/", 1)[1]])
    if "oneOf" in node or "anyOf" in node:
        return [plain for option in node.get("oneOf", node.get("anyOf")) for plain in _options(option)]
    return [node]


def _objects(node: Schema, value: Any) -> list[Schema]:
    """The objects that may stand at a place; one of several kinds if the value says which."""
    options = [option for option in _options(node) if option.get("type") == "object"]
    for tag in ("kind", "type"):
        chosen = value.get(tag) if isinstance(value, dict) else None
        named = [option for option in options if option.get("properties", {}).get(tag, {}).get("const") == chosen]
        if chosen is not None and named:
            return named
    return options
