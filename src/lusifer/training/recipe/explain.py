"""One line for what is wrong with a recipe: file, line, key, and the mend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from lusifer.training.recipe import keys
from lusifer.training.recipe.yaml12 import Path

_COMPLETE = ("extra_forbidden", "missing", "value_error", "union_tag_not_found", "union_tag_invalid")
"""Kinds of error whose message needs no "found ..."."""


def explain(error: ValidationError, value: Any, file: str, lines: Mapping[Path, int], given: Mapping[Path, str]) -> str:
    """Turn pydantic's report into one line.

    Args:
        error: What pydantic found.
        value: The recipe as plain values.
        file: Where it was read from.
        lines: Line by path.
        given: Paths that --set changed.

    Returns:
        The first error in the order of the file, missing keys last, and how many more there are.
    """
    found: dict[Path, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        found.setdefault(_path(detail, value), []).append(detail)
    # A misspelt key is missing under its right name too: say the cause first.
    missing = {path: details[0]["type"] == "missing" for path, details in found.items()}
    first = min(found, key=lambda path: (missing[path], line_of(path, lines), path != (), len(path)))
    # The branches of a union each complain: one key, one message.
    message = " or ".join(dict.fromkeys(_message(detail, first, value) for detail in found[first]))
    if found[first][0]["type"] not in _COMPLETE:
        message += f", found {found[first][0]['input']!r}"
    key = f"{spoken(first, value)}: " if first else ""
    more = f" ({len(found) - 1} more)" if len(found) > 1 else ""
    return f"{place(_named(first, message, value), file, lines, given)}: {key}{message}{more}"


def place(path: Path, file: str, lines: Mapping[Path, int], given: Mapping[Path, str]) -> str:
    """Where a path comes from: a line of the file, or the words of --set."""
    if path and path not in lines:  # a part that exists only because --set named something below it
        below = [words for key, words in given.items() if key[: len(path)] == path]
        if below:
            return below[0]
    for length in range(len(path), 0, -1):
        if path[:length] in given:
            return given[path[:length]]
        if path[:length] in lines:
            return f"{file} line {lines[path[:length]]}"
    return file


def spoken(path: Path, value: Any) -> str:
    """A path in words, list items by their name where they have one of their own: "stages.retrieval.max_steps"."""
    words = []
    for part in path:
        word = str(part)
        if isinstance(value, list) and isinstance(part, int):
            names = [item.get("name") if isinstance(item, dict) else None for item in value]
            value = value[part] if part < len(value) else None
            name = value.get("name") if isinstance(value, dict) else None
            if isinstance(name, str) and name and names.count(name) == 1:
                word = name
        elif isinstance(value, dict):
            value = value.get(part)
        words.append(word)
    return ".".join(words)


def line_of(path: Path, lines: Mapping[Path, int]) -> int:
    """The line of a path, or of the nearest part above it; 0 for the whole file."""
    return next((lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in lines), 0)


def _path(detail: ErrorDetails, value: Any) -> Path:
    """The location without the names of union branches, which are not keys."""
    path: list[str | int] = []
    for number, part in enumerate(detail["loc"]):
        absent = detail["type"] == "missing" and number == len(detail["loc"]) - 1
        if isinstance(value, list) and isinstance(part, int):
            path.append(part)
            value = value[part] if part < len(value) else None
        elif isinstance(value, dict) and (part in value or absent):
            path.append(part)
            value = value.get(part)
    return tuple(path)


def _named(path: Path, message: str, value: Any) -> Path:
    """The place that a message about several keys names first, as in "lora.llm is given, but ..."."""
    for part in path:
        if part not in value if isinstance(value, dict) else not isinstance(value, list):
            return path  # a key that is missing
        value = value[part]
    for part in message.split(" ")[0].rstrip(":").split("."):
        if isinstance(value, list):
            names = [item.get("name") if isinstance(item, dict) else None for item in value]
            if part not in names:
                break
            path, value = (*path, names.index(part)), value[names.index(part)]
        elif isinstance(value, dict) and part in value:
            path, value = (*path, part), value[part]
        else:
            break
    return path


def _message(detail: ErrorDetails, path: Path, value: Any) -> str:
    """Words for one error."""
    kind = detail["type"]
    if kind == "extra_forbidden":
        return f"unknown key; {keys.suggestion(str(path[-1]), _siblings(path, value))}"
    if kind == "missing":
        return "is missing: add it"
    if kind == "value_error":
        return str(detail["ctx"]["error"])
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        tag = detail["ctx"]["discriminator"].strip("'")
        expected = detail["ctx"].get("expected_tags") or "'alignment', 'contrastive'"
        found = f"found {detail['ctx']['tag']}" if "tag" in detail["ctx"] else "it is missing"
        return f"{tag} must be one of {expected}, {found}"
    return detail["msg"][:1].lower() + detail["msg"][1:]


def _siblings(path: Path, value: Any) -> list[str]:
    """The keys that may stand where an unknown one was found."""
    node = keys.schema()
    for part in path[:-1]:
        if isinstance(part, int):
            node, value = keys.items(node) or {}, value[part]
        else:
            node, value = (keys.children(node, value) or {}).get(part, {}), value[part]
    return list(keys.children(node, value) or {})
