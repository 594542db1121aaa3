"""A recipe as plain values with their origins: the line of the file, or the `--set` option.

Numbers and booleans follow YAML 1.2: `1e-4` is a number, `no` is a text, `010` is ten.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import RoundTripConstructor
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import RoundTripRepresenter
from ruamel.yaml.scalarbool import ScalarBoolean

from lusifer.errors import LusiferError, RecipeError
from lusifer.training.recipe.recipe import Recipe

KeyPath = tuple[str | int, ...]

_COMPLETE = ("extra_forbidden", "missing", "value_error", "union_tag_not_found", "union_tag_invalid")
"""Kinds of error whose message needs no "found ..."."""

_INSTEAD = {"max_steps": "epochs", "epochs": "max_steps"}
"""Keys of a stage that exclude each other: if `--set` gives one, the other one is removed."""
_MOST, _DEEPEST = 50_000, 50
"""The most values of a recipe, and the most levels. A few lines of nested aliases (`*name`) could otherwise stand for
more values than memory can hold."""
_TRUTH_VALUES = {"y", "n", "yes", "no", "on", "off"}
"""Texts that YAML 1.1 reads as booleans, such as `no`, the language code of Norwegian."""


class _Constructor(RoundTripConstructor):
    """Reads a date as a text."""


class _Representer(RoundTripRepresenter):
    """Writes texts and numbers so that readers of YAML 1.1 and 1.2 read the same values."""

    def represent_str(self, value: str) -> ScalarNode:
        """Quote texts that YAML 1.1 reads as booleans, and texts that need escapes."""
        plain = value.isprintable() and value.lower() not in _TRUTH_VALUES
        return self.represent_scalar("tag:yaml.org,2002:str", value, style=None if plain else '"')

    def represent_none(self, value: None) -> ScalarNode:
        """Write `null` instead of an empty value."""
        return self.represent_scalar("tag:yaml.org,2002:null", "null")

    def represent_float(self, value: float) -> ScalarNode:
        """Write `1.0e-4` and not `1e-4`, which YAML 1.1 reads as a text."""
        node = super().represent_float(value)
        node.value = re.sub(r"^(-?\d+)e", r"\1.0e", node.value)
        return node


_Constructor.add_constructor("tag:yaml.org,2002:timestamp", lambda _, node: node.value)
_Representer.add_representer(str, _Representer.represent_str)
_Representer.add_representer(type(None), _Representer.represent_none)
_Representer.add_representer(float, _Representer.represent_float)


class Origin(NamedTuple):
    """The origin of a key: `words` for messages, and the line of the file, 0 for an override."""

    words: str
    line: int = 0
    override: bool = False


class Document:
    """A recipe that was read and not yet checked: plain values, and the origin of each key and list item.

    Args:
        file: The name of the file, for messages.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self.value: Any = None
        self._origins: dict[KeyPath, Origin] = {(): Origin(file)}
        self._values = 0

    @classmethod
    def parse(cls, text: str, where: str) -> Document:
        """Read YAML.

        Args:
            text: The YAML.
            where: The file or the option, for messages.

        Raises:
            RecipeError: The text is not YAML, has a duplicate key, or has too many values or levels.
        """
        yaml = YAML(pure=True)
        yaml.Constructor = _Constructor
        try:
            loaded = yaml.load(text)
        except RecursionError as error:
            raise RecipeError(f"{where}: is nested too deeply: reduce the levels") from error
        except (YAMLError, ValueError, TypeError) as error:  # TypeError: a list of lists as a key
            mark = getattr(error, "problem_mark", None)
            place = f"{where} line {mark.line + 1}" if mark is not None else where
            problem = getattr(error, "problem", None) or str(error).splitlines()[0]
            raise RecipeError(f"{place}: not valid YAML: {problem}") from error
        document = cls(where)
        document.value = document._plain(loaded, ())
        return document

    def _plain(self, node: Any, path: KeyPath) -> Any:
        """Return the value of a node without comments, and store the origins of everything below it."""
        self._values += 1
        if self._values > _MOST or len(path) > _DEEPEST:
            words = f"more than {_MOST:,} values, or more than {_DEEPEST} levels"
            raise RecipeError(f"{self.origin(path).words}: {words}: remove aliases (*name)")
        if isinstance(node, CommentedMap | CommentedSeq):
            items = list(node.items() if isinstance(node, CommentedMap) else enumerate(node))
            for key, _ in items:
                if key in (node.lc.data or {}):
                    line = node.lc.data[key][0] + 1
                    self._origins[*path, key] = Origin(f"{self.file} line {line}", line)
            plain = {key: self._plain(item, (*path, key)) for key, item in items}
            return plain if isinstance(node, CommentedMap) else list(plain.values())
        if node is None or isinstance(node, bool | ScalarBoolean):
            return None if node is None else bool(node)
        return next((kind(node) for kind in (int, float, str) if isinstance(node, kind)), getattr(node, "value", node))

    def origin(self, path: KeyPath) -> Origin:
        """Return the origin of a key, or of the nearest part above it that has one."""
        return next(
            self._origins[path[:length]] for length in range(len(path), -1, -1) if path[:length] in self._origins
        )

    def set(self, overrides: Sequence[str]) -> None:
        """Apply overrides. Unknown keys are refused later, when the recipe is checked.

        Args:
            overrides: Texts such as "stages.retrieval.max_steps=10" or "stages.0.max_steps=10", with the name or the
                number of a list item, and a value in YAML. max_steps removes epochs from the stage, and epochs removes
                max_steps.

        Raises:
            RecipeError: An override has another form, or there is no such list item.
        """
        for text in overrides:
            key, sign, new = text.partition("=")
            words = f"--set {text}"
            if not sign or not key.strip():
                raise RecipeError(f"{words}: expected key.path=value, as in stages.0.max_steps=10")
            value, path, parts = self.value, (), key.strip().split(".")
            for number, part in enumerate(parts, start=1):
                if not isinstance(value, dict | list):
                    raise RecipeError(f"{words}: {'.'.join(parts[: number - 1])} has no keys: shorten the path")
                place = part if isinstance(value, dict) else _child(value, part)
                if place is None:
                    raise RecipeError(f"{words}: {'.'.join(parts[:number])}: no such item: {_items(value, part)}")
                path = (*path, place)
                if number == len(parts):
                    value[place] = Document.parse(new, words).value
                    other = (*path[:-1], _INSTEAD.get(str(place), ""))
                    if path[0] == "stages" and len(path) == 3 and value[place] is not None:
                        if not self.origin(other).override:
                            value.pop(other[-1], None)
                elif isinstance(value, dict) and value.get(place) is None:
                    value[place] = {}
                    self._origins.setdefault(path, Origin(words))
                value = value[place]
            others = {known: origin for known, origin in self._origins.items() if known[: len(path)] != path}
            self._origins = others | {path: Origin(words, override=True)}

    def keep_stages(self, names: Sequence[str]) -> None:
        """Remove the stages with other names, and renumber the origins of the stages that stay."""
        numbers = [number for number, stage in enumerate(self.value["stages"]) if stage["name"] in names]
        self.value["stages"] = [self.value["stages"][number] for number in numbers]
        origins = {}
        for path, origin in self._origins.items():
            if path[:1] != ("stages",) or len(path) < 2:
                origins[path] = origin
            elif path[1] in numbers:
                origins["stages", numbers.index(path[1]), *path[2:]] = origin
        self._origins = origins

    def spoken(self, path: KeyPath) -> str:
        """Return a path as text, with the name of a list item if it is unique: "stages.retrieval.max_steps"."""
        words, value = [], self.value
        for part in path:
            name = None
            if isinstance(value, list) and isinstance(part, int) and part < len(value):
                names = _names(value)
                name = names[part] if names.count(names[part]) == 1 else None
            words.append(str(name or part))
            value = _below(value, part)
        return ".".join(words)

    @contextmanager
    def at(self, *path: str | int) -> Iterator[None]:
        """Add the place and the key to errors inside the block.

        Raises:
            RecipeError: In place of any `LusiferError`.
        """
        try:
            yield
        except LusiferError as error:
            raise RecipeError(f"{self.origin(path).words}: {self.spoken(path)}: {error}") from None

    def explain(self, error: ValidationError) -> RecipeError:
        """Turn pydantic's report into one line: the first error in the file, and the number of other errors."""
        found: dict[KeyPath, list[ErrorDetails]] = {}
        for detail in error.errors(include_url=False):
            found.setdefault(self._path(detail), []).append(detail)

        def order(path: KeyPath) -> tuple[bool, int, bool, int]:
            # A misspelled key is also reported as missing under its right name: report the misspelling first.
            return found[path][0]["type"] == "missing", self.origin(path).line, path != (), len(path)

        first = min(found, key=order)
        # Each branch of a union has its own error: join them into one message.
        message = " or ".join(dict.fromkeys(map(_message, found[first])))
        place = self.origin(self._named(first, message)).words
        if found[first][0]["type"] not in _COMPLETE:
            message += f", found {found[first][0]['input']!r}"
        key = f"{self.spoken(first)}: " if first else ""
        more = f" ({len(found) - 1} more)" if len(found) > 1 else ""
        return RecipeError(f"{place}: {key}{message}{more}")

    def _path(self, detail: ErrorDetails) -> KeyPath:
        """Return the location of an error without the names of union branches, which are not keys."""
        path, value = (), self.value
        for number, part in enumerate(detail["loc"], start=1):
            absent = detail["type"] == "missing" and number == len(detail["loc"])
            in_mapping = isinstance(value, dict) and (part in value or absent)
            if in_mapping or isinstance(value, list) and isinstance(part, int):
                path, value = (*path, part), _below(value, part)
        return path

    def _named(self, path: KeyPath, message: str) -> KeyPath:
        """Return the path of the key that a message starts with, as in "lora.llm is given, but ..."."""
        value = self.value
        for part in path:
            value = _below(value, part)
        for word in message.split(" ")[0].rstrip(":").split("."):
            part = _child(value, word)
            if part is None:
                break
            path, value = (*path, part), _below(value, part)
        return path


def write(value: Any) -> str:
    """Write plain values as YAML, from which `Document.parse` reads the same values."""
    yaml = YAML(pure=True)
    yaml.Representer = _Representer
    yaml.width, yaml.default_flow_style = 110, False
    text = StringIO()
    yaml.dump(value, text)
    return text.getvalue()


def _names(items: list[Any]) -> list[Any]:
    return [item.get("name") if isinstance(item, dict) else None for item in items]


def _below(value: Any, part: str | int) -> Any:
    """Return the value under a key or an index; None if there is none."""
    if isinstance(value, list) and isinstance(part, int):
        return value[part] if part < len(value) else None
    return value.get(part) if isinstance(value, dict) else None


def _child(value: Any, word: str) -> str | int | None:
    """Return the key, or the index of a list item by its name or number; None if there is none."""
    if isinstance(value, list):
        names = _names(value)
        if word in names:
            return names.index(word)
        return int(word) if word.isdecimal() and int(word) < len(value) else None
    return word if isinstance(value, dict) and word in value else None


def _items(value: list[Any], word: str) -> str:
    """Suggest items of a list for an item that does not exist."""
    numbers = f"0 to {len(value) - 1}" if value else "no item to change"
    names = [str(name) for name in _names(value) if name is not None]
    return f"{_suggestion(word, names)} (or {numbers})" if names else numbers


def _message(detail: ErrorDetails) -> str:
    """Make the message for one error of pydantic."""
    kind = detail["type"]
    if kind == "extra_forbidden":
        return f"unknown key; {_suggestion(str(detail['loc'][-1]), _known_keys(detail['loc']))}"
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


def _suggestion(key: str, known: list[str]) -> str:
    """Suggest the nearest known key, or list all."""
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    return f"did you mean {nearest[0]}?" if nearest else f"known here: {', '.join(known)}"


def _known_keys(location: tuple[str | int, ...]) -> list[str]:
    """Return the known keys at the place of an unknown key; `location` contains the names of union branches."""
    schema = node = Recipe.model_json_schema()
    for part in (*location[:-1], None):
        while "$ref" in node or "anyOf" in node:
            options = [option for option in node.get("anyOf", [node]) if option.get("type") != "null"]
            node = schema["$defs"][options[0]["$ref"].rpartition("/")[2]] if "$ref" in options[0] else options[0]
        if part is None:
            break
        if "discriminator" in node:
            node = {"$ref": node["discriminator"]["mapping"][part]}
        elif isinstance(part, int):
            node = node["items"]
        else:
            of_any_name = next(iter(node.get("patternProperties", {}).values()), {})
            node = node.get("properties", {}).get(part, of_any_name)
    return list(node.get("properties", {}))
