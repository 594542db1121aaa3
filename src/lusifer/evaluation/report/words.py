"""Numbers and names as readers of all pages see them, and the templates that show them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from lusifer.evaluation.figures import style
from lusifer.io.markdown import environment

if TYPE_CHECKING:
    from lusifer.evaluation.scores.averages import Mean

MISSING = "missing"


def count_of(number: int, word: str) -> str:
    """A number with its noun: 1 language, 2 languages."""
    return f"{number} {word}{'s' * (number != 1)}"


def score_cell(value: float | None, sign: str = "-") -> str:
    """A score, or that it is missing. One decimal; what rounds to 0 has no minus. Sign "+" is for differences."""
    return MISSING if value is None else f"{value:{'+' if sign == '+' else ''}z.1f}"


def mean_cell(mean: Mean, kind: str = "") -> str:
    """A mean with its interval behind it, if it has one: 64.6 (55.2 to 73.1)."""
    ends = "" if mean.low is None else f" ({kind}{score_cell(mean.low)} to {score_cell(mean.high)})"
    return score_cell(mean.value) + ends


def render(template: str, **values: Any) -> str:
    """Fill a template of a report; its filters give scores, languages and other values as readers see them."""
    filters = {"language": style.language_name, "level": style.level_name, "script": style.script_name}
    opened = environment("lusifer.evaluation.report", **filters, score=score_cell, json=_json)
    return opened.get_template(template).render(**values)


def _json(value: object, indent: int | None = None) -> str:
    return json.dumps(value, indent=indent, ensure_ascii=False, sort_keys=True)
