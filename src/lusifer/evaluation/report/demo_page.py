"""One HTML page about a look at two models: no script, no other file, no network."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from lusifer import languages
from lusifer.evaluation.suites.sample import Hit, Look

STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5d6877; --line: #d9dee5; --good: #0072b2; --paper: #fff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e7ebf0; --soft: #9aa6b5; --line: #3a4350; --good: #56b4e9; --paper: #14181d; }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 62rem;
  margin: 2.5rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.7rem; margin-bottom: .2rem; } h2 { font-size: 1.2rem; margin-top: 2.4rem; }
p.note { color: var(--soft); } table { border-collapse: collapse; width: 100%; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
td.after { color: var(--good); font-weight: 600; } tr.mean td { border-top: 2px solid var(--ink); }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 1.5rem; } img { max-width: 100%; background: #fff; }
@media (max-width: 46rem) { .pair { grid-template-columns: 1fr; } }
ol { padding-left: 1.2rem; margin: .3rem 0; } li span { color: var(--soft); font-size: .85rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .2rem; } h4 { font-size: .85rem; color: var(--soft); margin: .2rem 0; }
"""


@dataclass(frozen=True)
class Search:
    """A query and what each model found for it, the best first."""

    query: str
    before: Sequence[Hit]
    after: Sequence[Hit]


def page(
    title: str,
    words: Sequence[str],
    names: tuple[str, str],
    before: Look,
    after: Look,
    searches: Sequence[Search],
    picture: Path,
) -> str:
    """Lay out the page.

    Args:
        title: Of the page.
        words: Paragraphs under it: what was compared, on which texts, and what it does not show.
        names: Of the two models.
        before: The first model.
        after: The second one.
        searches: What each found.
        picture: A PNG file, taken into the page.

    Returns:
        HTML.
    """  # fmt: skip
    image = base64.b64encode(picture.read_bytes()).decode("ascii")
    intro = "\n".join(f'<p class="note">{escape(paragraph)}</p>' for paragraph in words)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
{intro}
<h2>Language by language</h2>
{_table(names, before, after)}
<h2>One search over all languages</h2>
{"".join(_search(names, each) for each in searches)}
<h2>Where the sentences lie</h2>
<p class="note">t-SNE of all sentences, a colour a script and a marker a language. Islands of one kind mean that a
model tells languages apart before meanings; mixed ones, that translations lie together. The number under each picture
is from the full vectors: how often the nearest sentences tell the language of one.</p>
<img alt="t-SNE of the sentences, {escape(names[0])} on the left, {escape(names[1])} on the right"
 src="data:image/png;base64,{image}">
</body>
</html>
"""


def _table(names: tuple[str, str], before: Look, after: Look) -> str:
    known = languages.table()
    head = "".join(f'<th class="number">{escape(name)}</th>' for name in (*names, *names))
    rows = [_row(f"{known[code].name}", [look.found[code] for look in (before, after)],
                 [look.topic[code] for look in (before, after)]) for code in before.found]  # fmt: skip
    means = [[_mean(getattr(look, what)) for look in (before, after)] for what in ("found", "topic")]
    body = "".join([*rows, _row("mean", *means, kind="mean")])
    return (
        '<table><thead><tr><th></th><th class="number" colspan="2">translation found (%)</th>'
        '<th class="number" colspan="2">topic found (%)</th></tr>'
        f"<tr><th>language</th>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def _row(name: str, found: Sequence[float], topic: Sequence[float], kind: str = "") -> str:
    cells = "".join(
        f'<td class="number{" after" if place == 1 else ""}">{value:.0f}</td>'
        for values in (found, topic)
        for place, value in enumerate(values)
    )
    return f'<tr class="{kind}"><td>{escape(name)}</td>{cells}</tr>'


def _mean(values: dict[str, float]) -> float:
    return sum(values.values()) / len(values)


def _search(names: tuple[str, str], search: Search) -> str:
    lists = "".join(f"<div><h4>{escape(name)}</h4>{_hits(hits)}</div>" for name, hits in zip(
        names, (search.before, search.after), strict=True))  # fmt: skip
    return f'<h3 dir="auto">{escape(search.query)}</h3><div class="pair">{lists}</div>'


def _hits(hits: Sequence[Hit]) -> str:
    known = languages.table()
    items = (
        f'<li><bdi lang="{hit.code}">{escape(hit.text)}</bdi> '
        f"<span>{known[hit.code].name}, {hit.similarity:.2f}</span></li>"
        for hit in hits
    )
    return f"<ol>{''.join(items)}</ol>"
