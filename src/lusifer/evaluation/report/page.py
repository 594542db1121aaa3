"""The report page: one HTML file about one or more evaluation folders, which asks for no other file and no network."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

from lusifer.evaluation.report import html_tables, pictures, verdict
from lusifer.evaluation.report import sections as report_sections
from lusifer.evaluation.report.facts import Facts
from lusifer.evaluation.report.html import paragraph, said, section


def page(facts: Facts) -> str:
    """Lay out the report.

    Args:
        facts: As `report_facts.read` gives them.

    Returns:
        HTML; the same facts give the same bytes.

    Raises:
        MissingExtraError: matplotlib is not installed, or scikit-learn where models are compared.
    """
    sections = _sections(facts)
    links = "".join(f'<li><a href="#{slug}">{said(title)}</a></li>' for slug, title, _ in sections)
    intro = f"Suite: {facts.evaluations[0].suite}. Scores are percent; a click on the head of a column sorts by it."
    title = f"Evaluation: {', '.join(facts.names)}"
    style, script = (_file(f"report.{kind}") for kind in ("css", "js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    body = "\n".join(section(slug, heading, parts) for slug, heading, parts in sections)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{said(title)}</title>
<style>
{style}</style>
</head>
<body>
<header><h1>{said(title)}</h1>
{paragraph(intro, "note")}
<nav aria-label="Sections"><ul>{links}</ul></nav></header>
<main>
{body}
</main>
<script>{script}</script>
</body>
</html>
"""


def _file(name: str) -> str:
    return resources.files("lusifer.evaluation.report").joinpath(name).read_text(encoding="utf-8")


def _sections(facts: Facts) -> list[tuple[str, str, list[str]]]:
    """Slug, heading and parts of each."""
    found = [
        ("verdict", "Verdict", _verdict(facts)),
        ("measured", "What was measured", report_sections.measured(facts)),
    ]
    if facts.own is not None:
        found.append(("averages", "Monolingual", report_sections.own(facts.own)))
    if facts.cross is not None:
        found.append(("cross-lingual", "Cross-lingual", report_sections.cross(facts.cross)))
    if any(gap is not None for gap in facts.gaps):
        found.append(("gap", "Language gap", report_sections.gap(facts)))
    if facts.comparisons:
        found.append(("comparison", "Comparison", report_sections.comparison(facts)))
    gaps = [html_tables.missing(part) for part in facts.parts]
    return [
        *found,
        ("missing", "Missing, and why", gaps if any(gaps) else [paragraph("Nothing is missing.")]),
        ("seen", "Test texts seen in training", report_sections.seen(facts)),
        ("reading", "How to read this", report_sections.reading(facts)),
    ]


def _verdict(facts: Facts) -> list[str]:
    items = "".join(f"<li>{said(words)}</li>" for words in verdict.sentences(facts))
    return [f"<ul>{items}</ul>", pictures.bars(facts)]
