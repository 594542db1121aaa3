"""`--set key.path=value`: change a recipe before it is checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lusifer.errors import RecipeError
from lusifer.training.recipe import keys, yaml12

Overrides = dict[yaml12.Path, str]
"""Path of each changed key -> the words of the user."""


def apply(value: dict[str, Any], overrides: Sequence[str]) -> Overrides:
    """Put overrides into a recipe that was read but not checked yet, in place.

    Args:
        value: The recipe as plain values.
        overrides: "key.path=value" each. A list item is named by its number or its `name`, as in
            "stages.retrieval.max_steps=10" or "stages.0.max_steps=10"; the value is YAML.

    Returns:
        What was changed, for messages.

    Raises:
        RecipeError: Not of that form, or a key that does not exist; the message names the nearest.
    """
    given: Overrides = {}
    for text in overrides:
        key, sign, word = text.partition("=")
        where = f"--set {text}"
        if not sign or not key.strip():
            raise RecipeError(f"{where}: expected key.path=value, as in stages.0.max_steps=10")
        path = _put(value, key.strip().split("."), yaml12.value_of(word, where), where)
        given[path] = where
    return given


def _put(value: Any, parts: list[str], new: Any, where: str) -> yaml12.Path:
    """Walk down to the last part and set it; parts that the recipe leaves out are made."""
    node: keys.Schema = keys.schema()
    path: list[str | int] = []
    for position, part in enumerate(parts):
        last = position == len(parts) - 1
        if isinstance(value, list):
            key: str | int = _item(value, part, f"{where}: {'.'.join(parts[:position])}")
            node = keys.items(node) or {}
        else:
            key, node = part, _key(node, value, part, f"{where}: {'.'.join(parts[: position + 1])}")
        path.append(key)
        if last:
            value[key] = new
        elif isinstance(key, int):
            value = value[key]
        else:
            if value.get(key) is None:
                value[key] = {}
            value = value[key]
            if not isinstance(value, dict | list):
                raise RecipeError(f"{where}: {'.'.join(parts[: position + 1])} has no keys below it")
    return tuple(path)


def _item(value: list[Any], part: str, where: str) -> int:
    """The number of a list item that a number or a name stands for."""
    names = [item.get("name") if isinstance(item, dict) else None for item in value]
    if part in names:
        return names.index(part)
    if part.isdecimal() and int(part) < len(value):
        return int(part)
    known = [str(name) for name in names if name is not None]
    numbers = f"0 to {len(value) - 1}" if value else "no item to change"
    raise RecipeError(
        f"{where}.{part}: no such item: {keys.suggestion(part, known) if known else numbers}"
        + (f" (or {numbers})" if known else "")
    )


def _key(node: keys.Schema, value: Any, part: str, where: str) -> keys.Schema:
    """The schema below a key, which must exist."""
    allowed = keys.children(node, value)
    if allowed is None:
        return {}
    if part not in allowed:
        raise RecipeError(f"{where}: unknown key; {keys.suggestion(part, list(allowed))}")
    return allowed[part]
