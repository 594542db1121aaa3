"""One line for what is wrong with a recipe: file, line, key, and the mend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from lusifer.training import recipe_keys
from lusifer.training.recipe_yaml import Path


def explain(
    error: ValidationError, value: Any, file: str, lines: Mapping[Path, int], given: Mapping[Path, str]
) -> str:
    """Turn pydantic's report into one line.

    Args:
        error: What pydantic found.
        value: The recipe as plain values.
        file: Where it was read from.
        lines: Line by path.
        given: Paths that --set changed.

    Returns:
        The first error in the order of the file, and how many more there are.
    """
    found: dict[Path, list[str]] = {}
    for detail in error.errors(include_url=False):
        path = _path(detail["loc"], value)
        found.setdefault(path, []).append(_message(detail, path, value))
    first = min(found, key=lambda path: (line_of(path, lines), path != (), len(path)))
    # The branches of a union each complain: one key, one message.
    message = " or ".join(dict.fromkeys(found[first]))
    key = f"{'.'.join(map(str, first))}: " if first else ""
    more = f" ({len(found) - 1} more after this)" if len(found) > 1 else ""
    return f"{place(first, file, lines, given)}: {key}{message}{more}"


def place(path: Path, file: str, lines: Mapping[Path, int], given: Mapping[Path, str]) -> str:
    """Where a path comes from: a line of the file, or the words of --set."""
    for length in range(len(path), 0, -1):
        if path[:length] in given:
            return given[path[:length]]
        if path[:length] in lines:
            return f"{file} line {lines[path[:length]]}"
    return file


def line_of(path: Path, lines: Mapping[Path, int]) -> int:
    """The line of a path, or of the nearest part above it; 0 for the whole file."""
    return next((lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in lines), 0)


def _path(location: tuple[str | int, ...], value: Any) -> Path:
    """pydantic's location without the names of union branches, which are not keys."""
    path: list[str | int] = []
    for number, part in enumerate(location):
        last = number == len(location) - 1
        if isinstance(value, list) and isinstance(part, int):
            path.append(part)
            value = value[part] if part < len(value) else None
        elif isinstance(value, dict) and (part in value or last):
            path.append(part)
            value = value.get(part)
    return tuple(path)


def _message(detail: ErrorDetails, path: Path, value: Any) -> str:
    """Words for one error."""
    kind = detail["type"]
    if kind == "extra_forbidden":
        return f"unknown key; {recipe_keys.suggestion(str(path[-1]), _siblings(path, value))}"
    if kind == "missing":
        return "is missing: add it"
    if kind == "value_error":
        return str(detail["ctx"]["error"])
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        tag = detail["ctx"]["discriminator"].strip("'")
        expected = detail["ctx"].get("expected_tags") or "'alignment', 'contrastive'"
        found = f"found {detail['ctx']['tag']}" if "tag" in detail["ctx"] else "it is missing"
        return f"{tag} must be one of {expected}, {found}"
    return f"{_decapitalised(detail['msg'])}, found {detail['input']!r}"


def _siblings(path: Path, value: Any) -> list[str]:
    """The keys that may stand where an unknown one was found."""
    node = recipe_keys.schema()
    for part in path[:-1]:
        if isinstance(part, int):
            node, value = recipe_keys.items(node) or {}, value[part]
        else:
            node, value = (recipe_keys.children(node, value) or {}).get(part, {}), value[part]
    return list(recipe_keys.children(node, value) or {})


def _decapitalised(text: str) -> str:
    return text[:1].lower() + text[1:]
