"""YAML as recipes use it: numbers and truth values by the rules of YAML 1.2, and the line that each key stands on.

YAML 1.1, which PyYAML reads by default, takes `1e-4` for a text, `no` for false, `010` for eight and `1:30` for
ninety. In a recipe a number is what it looks like.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from lusifer.errors import RecipeError

Path = tuple[str | int, ...]

_RESOLVERS = (
    ("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF"),
    ("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9][0-9_]*$"), "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        re.compile(
            r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
        ),
        "-+0123456789.",
    ),
    ("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
)


class _Loader(yaml.SafeLoader):
    """Reads the YAML 1.2 core schema; a key that stands twice is an error."""

    yaml_implicit_resolvers: dict[str, Any] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Make a dict, unless a key stands twice: YAML would keep the last one without a word."""
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # a list as a key: refused by the constructor below
            if key.value in seen and key.value != "<<":
                raise yaml.MarkedYAMLError(problem=f"key {key.value} stands twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes what either version of YAML would take for something else than a text."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write every part out."""
        return True


def line_of(node: yaml.Node) -> int:
    """The line a node begins on, from 1."""
    return node.start_mark.line + 1


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    """A text; one with line breaks or invisible characters in double quotes, the only style that escapes them all."""
    style = None if value.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)
for _tag, _pattern, _first in _RESOLVERS:
    _Loader.add_implicit_resolver(_tag, _pattern, list(_first))
    _Dumper.add_implicit_resolver(_tag, _pattern, list(_first))
_Loader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile(r"^(?:<<)$"), ["<"])
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value.replace("_", "")))


def read(text: str, where: str) -> tuple[Any, dict[Path, int]]:
    """Parse YAML.

    Args:
        text: The document.
        where: The file, for messages.

    Returns:
        The value, and the line of each key and list item by its path.

    Raises:
        RecipeError: Not YAML, or a key that stands twice.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        value = None if node is None else loader.construct_document(node)
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where} line {mark.line + 1}" if mark is not None else where
        raise RecipeError(f"{place}: not valid YAML: {getattr(error, 'problem', None) or error}") from error
    finally:
        loader.dispose()
    lines: dict[Path, int] = {}
    _lines(node, (), lines)
    return value, lines


def remark(text: str, line: int) -> str:
    """The comment behind the values of a line (from 1) of a document that `read` accepts; "" where there is none."""
    ends = [token.end_mark for token in yaml.scan(text) if token.end_mark.index > token.start_mark.index]
    end = max((mark.column for mark in ends if mark.line == line - 1), default=0)
    rest = text.splitlines()[line - 1][end:].strip()
    return rest.lstrip("# ") if rest.startswith("#") else ""


def value_of(text: str, where: str) -> Any:
    """Parse what stands behind `--set key=`."""
    return read(text, where)[0]


def write(value: Any) -> str:
    """Write plain values as YAML that `read` gives back."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def _lines(node: yaml.Node | None, path: Path, lines: dict[Path, int]) -> None:
    """Note the line of every key and item below a node."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                lines[(*path, key.value)] = line_of(key)
                _lines(value, (*path, key.value), lines)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            lines[(*path, number)] = line_of(value)
            _lines(value, (*path, number), lines)
