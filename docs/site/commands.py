"""Write docs/commands.md from the commands and their help: make commands."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import typer

from lusifer.cli import app

PAGE = Path(__file__).resolve().parents[1] / "commands.md"
HEAD = """# Commands

Every command prints the text below with `--help`. The order is that of the work: train, use a model, search, evaluate.

- `lusifer --version` prints the version.
- `lusifer --debug COMMAND ...` shows the traceback of an error.
- Exit status: 0 success, 1 failure, 2 wrong arguments, 130 interrupted, 143 stopped by SIGTERM.
- Results go to standard output, everything else to standard error.
"""


def commands(command: Any, name: str = "lusifer") -> Iterator[tuple[str, Any]]:
    """Give the name and the object of every command that does something."""
    if not hasattr(command, "commands"):
        yield name, command
    for word, each in getattr(command, "commands", {}).items():
        yield from commands(each, f"{name} {word}")


def value(hint: Any) -> str:
    """Describe the values of an option by the annotation of its parameter; empty for a flag."""
    if get_origin(hint) in (types.UnionType, Union, list):
        (hint,) = (each for each in get_args(hint) if each is not type(None))
        return value(hint)
    if get_origin(hint) is tuple:
        return ", ".join(map(value, get_args(hint)))
    choices = get_args(hint) if get_origin(hint) is Literal else []
    if isinstance(hint, type) and issubclass(hint, Enum):
        choices = [each.value for each in hint]
    names = {int: "integer", float: "number", Path: "path", bool: ""}
    return ", ".join(f"`{each}`" for each in choices) or names.get(hint, "text")


def row(parameter: Any, hint: Any) -> str:
    """Write the line of an argument or option in a table."""
    is_option = parameter.opts[0].startswith("--")
    names = [*parameter.opts, *parameter.secondary_opts] if is_option else [parameter.metavar]
    kind = f"`{parameter.metavar}`" if is_option and parameter.metavar else value(hint)
    default = parameter.default
    if parameter.required:
        end = "*required*"
    elif default in (None, "") or isinstance(default, bool):
        end = ""
    else:
        end = f"*default* `{' '.join(map(str, default)) if isinstance(default, tuple) else default}`"
    named, told = ", ".join(f"`{name}`" for name in names), "<br>".join(filter(None, (kind, end)))
    text = " ".join(parameter.help.split())
    return "| " + " | ".join(part.replace("|", "\\|") for part in (named, told, text)) + " |"


def section(name: str, command: Any) -> str:
    """Write the heading, the help and the table of a command."""
    hints = get_type_hints(command.callback)
    lines = [row(each, hints.get(each.name)) for each in command.params if each.name != "help"]
    table = ["| Argument or option | Value | Meaning |", "|---|---|---|", *lines] if lines else []
    return "\n".join([f"## `{name}`", "", inspect.cleandoc(command.callback.__doc__), "", *table, ""])


def page() -> str:
    """The page as it should be."""
    return "\n".join([HEAD, *(section(name, each) for name, each in commands(typer.main.get_command(app)))])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
