"""Markdown tables and lists, and the templates of pages and cards, which jinja2 fills."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jinja2


def cell(value: object) -> str:
    """Give a value as one cell of a table: on one line, with `|` escaped."""
    return " ".join(str(value).split()).replace("|", "\\|")


def table(header: Sequence[object], rows: Iterable[Sequence[object]], left: int = 1) -> str:
    """Lay out a Markdown table, without a line break at the end.

    Args:
        header: Names of the columns.
        rows: As many cells each as there are columns.
        left: How many columns are aligned to the left, from the first on; the others hold numbers.
    """
    lines = [[cell(value) for value in row] for row in (header, *rows)]
    lines.insert(1, ["---" if place < left else "---:" for place in range(len(header))])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def bullets(lines: Iterable[str]) -> str:
    """Lay out a Markdown list, a line an item."""
    return "\n".join(f"- {line}" for line in lines)


@functools.cache
def environment(package: str, **filters: Callable[..., Any]) -> jinja2.Environment:
    """Open the templates of a package.

    In a file that ends in `.html` every value is escaped that is not marked as safe; in Markdown none is. A name that
    is not given to a template is an error.

    Args:
        package: Dotted name; its templates are the files in its folder `templates`.
        filters: Functions that templates may use on values, by name.
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
