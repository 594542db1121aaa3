"""Format numbers and names for all pages, and fill their templates."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from lusifer import languages
from lusifer.errors import UsageError
from lusifer.io.markdown import environment

if TYPE_CHECKING:
    from lusifer.evaluation.scores.averages import Mean

MISSING = "missing"
SCRIPTS = {
    "Arab": "Arabic", "Beng": "Bengali", "Cyrl": "Cyrillic", "Deva": "Devanagari", "Grek": "Greek", "Hang": "Hangul",
    "Hans": "Chinese", "Jpan": "Japanese", "Latn": "Latin", "Telu": "Telugu", "Thai": "Thai",
}  # fmt: skip


def count_of(number: int, word: str) -> str:
    """Write a number with its noun: 1 language, 2 languages."""
    return f"{number} {word}{'s' * (number != 1)}"


def score_cell(value: float | None, sign: str = "-") -> str:
    """Write a score with one decimal, or "missing".

    Args:
        value: The score; None if it is missing.
        sign: "+" for differences, which always get a sign.
    """
    return MISSING if value is None else f"{value:{'+' if sign == '+' else ''}z.1f}"


def mean_cell(mean: Mean, kind: str = "") -> str:
    """Write a mean with its interval, if it has one: 64.6 (55.2 to 73.1).

    Args:
        mean: The mean.
        kind: Words before the interval.
    """
    ends = "" if mean.low is None else f" ({kind}{score_cell(mean.low)} to {score_cell(mean.high)})"
    return score_cell(mean.value) + ends


def script_name(script: str) -> str:
    """Give the English name of a script."""
    if script in SCRIPTS:
        return SCRIPTS[script]
    import langcodes

    return langcodes.Language.make(script=script).script_name()


def level_name(level: str | None) -> str:
    """Give the name of a resource level."""
    return "unknown (outside the paper's 14)" if level is None else f"{level.replace('_', ' ')} resource"


def language(code: str) -> languages.Language | None:
    """Find a language by its code; None if the code is unknown, as it may be in evaluations of other programs."""
    with suppress(UsageError):
        return languages.language(code)
    return None


def language_name(code: str) -> str:
    """Give the English name of a language with its code; only the code if it is unknown."""
    known = language(code)
    return f"{known.name} ({code})" if known else short(code)


def short(name: str, width: int = 30) -> str:
    """Shorten a name in the middle and replace invisible characters, for use in a figure.

    Args:
        name: The name.
        width: Maximum number of characters.
    """
    name = "".join(letter if letter.isprintable() else " " for letter in name).strip() or "(no name)"
    half = (width - 1) // 2
    return name if len(name) <= width else f"{name[:half]}…{name[-half:]}"


def render(template: str, **values: Any) -> str:
    """Fill a template; its filters format scores, languages and other values.

    Args:
        template: Name of the template.
        **values: Variables of the template.
    """
    filters = {"language": language_name, "level": level_name, "script": script_name}
    opened = environment("lusifer.evaluation.report", **filters, score=score_cell, json=_json)
    return opened.get_template(template).render(**values)


def _json(value: object, indent: int | None = None) -> str:
    return json.dumps(value, indent=indent, ensure_ascii=False, sort_keys=True)
