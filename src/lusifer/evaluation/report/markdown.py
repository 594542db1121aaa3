"""The same facts as Markdown, for a model card: the verdict, then the tables of scores; no figure, no HTML."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lusifer.evaluation.report import card as tables_of_one
from lusifer.evaluation.report import tables, verdict
from lusifer.evaluation.report.facts import Facts

INTERVALS = (
    "Scores are percent, in brackets the 95 % interval from resampling the examples; it does not cover the choice of "
    "tasks and languages or another seed of training. A missing score is not 0."
)


def card(facts: Facts) -> str:
    """Lay out the facts.

    Args:
        facts: As `report_facts.read` gives them.

    Returns:
        Markdown with headings of the second level and below; ends with a line break.
    """
    suite = facts.evaluations[0].suite
    lay_out = tables_of_one.model_card if len(facts.evaluations) == 1 else tables.page
    # Cells are Markdown by now, but a word of theirs may still be a tag, which renderers of Markdown let through.
    scores = re.sub(r"<(?=[a-zA-Z/!?])", "&lt;", lay_out(facts.evaluations, seed=facts.seed))
    parts = [f"## Evaluation: suite {said(suite)}", _bullets(verdict.sentences(facts)), INTERVALS, scores]
    return "\n\n".join([*parts, "## Measured", _bullets(_origins(facts))]) + "\n"


def said(words: object) -> str:
    """Escape what Markdown or HTML would read as markup, on one line."""
    plain = " ".join(str(words).split())
    plain = plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~$])", r"\\\1", plain)


def _origins(facts: Facts) -> list[str]:
    """What was measured with what; not by which command, for a card is published and a command names local folders."""
    found = []
    for name, each in zip(facts.names, facts.evaluations, strict=True):
        versions = ", ".join(f"{package} {number}" for package, number in each.versions.items())
        found.append(f"{name}: identity {_short(each.model.identity)}; {versions or 'versions not known'}")
    return found


def _short(identity: str | None) -> str:
    """The first of the hash, and a number format behind it."""
    digest, dash, dtype = (identity or "not known").partition("-")
    return digest[:12] + dash + dtype


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {said(line)}" for line in lines)
