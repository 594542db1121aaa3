"""Text from templates: pages, Markdown and model cards are filled by jinja2."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jinja2


@functools.cache
def environment(package: str, **filters: Callable[..., Any]) -> jinja2.Environment:
    """Open the templates of a package.

    In a file that ends in `.html` every value is escaped that is not marked as safe; in Markdown none is. A name that
    is not given to a template is an error.

    Args:
        package: Dotted name; its templates are the files in its folder `templates`.
        filters: Functions that templates may use on values, by name.
    """
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
