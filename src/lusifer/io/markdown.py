"""Write Markdown tables and lists, and open the jinja2 templates of pages and cards."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jinja2


def cell(value: object) -> str:
    """Format a value as a cell of a table: on one line, with `|` escaped."""
    return " ".join(str(value).split()).replace("|", "\\|")


def table(header: Sequence[object], rows: Iterable[Sequence[object]], left: int = 1) -> str:
    """Format a Markdown table, without a line break at the end.

    Args:
        header: Names of the columns.
        rows: The cells of each row, as many as there are columns.
        left: How many of the first columns are aligned to the left; the others are aligned to the right, for numbers.
    """
    lines = [[cell(value) for value in row] for row in (header, *rows)]
    lines.insert(1, ["---" if place < left else "---:" for place in range(len(header))])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def bullets(lines: Iterable[str]) -> str:
    """Format a Markdown list with one item per line."""
    return "\n".join(f"- {line}" for line in lines)


@functools.cache
def environment(package: str, **filters: Callable[..., Any]) -> jinja2.Environment:
    """Open the templates of a package.

    In files that end in `.html` all values are escaped unless they are marked as safe; in Markdown no value is. A
    template that uses an undefined name raises an error.

    Args:
        package: The dotted name; its templates are the files in its folder `templates`.
        filters: Name -> a function that templates may apply to values.
    """
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        autoescape=lambda name: name is not None and name.endswith(".html"),
        undefined=jinja2.StrictUndefined,
        extensions=["jinja2.ext.do"],
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= filters
    return made
