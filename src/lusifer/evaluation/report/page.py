"""The report page and the demo page, laid out by `templates/`.

A page is one HTML file that loads no other file and needs no network. Templates escape every value; only the figures,
which are drawn here, are inserted as markup.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from lusifer import languages
from lusifer.evaluation.public.standing import Standing, standings
from lusifer.evaluation.report import atlas, choice, figures, losses, verdict
from lusifer.evaluation.report.choice import Choice
from lusifer.evaluation.report.facts import Facts, ScoreSet
from lusifer.evaluation.report.look import Hit, Look
from lusifer.evaluation.report.words import language, language_name, mean_cell, render, short
from lusifer.evaluation.scores import long, perturbed, questions
from lusifer.evaluation.scores.averages import Board, order_of
from lusifer.evaluation.scores.bootstrap import RESAMPLES
from lusifer.evaluation.scores.long import LengthReport
from lusifer.evaluation.scores.perturbed import Change
from lusifer.evaluation.scores.questions import QuestionReport
from lusifer.evaluation.scores.results import Results
from lusifer.io import parallel_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HALF = 4  # a heat map with at most this number of columns fits into half of the page


@dataclass(frozen=True)
class Part:
    """The part of a page about one suite.

    Attributes:
        facts: Scores, comparisons and language gaps.
        slug: Prefix of the ids of its sections; empty for the first part.
        label: Suffix of the titles of its sections.
        verdict: The results in sentences.
        choices: Language -> use -> best model.
        changes: Model -> changes by perturbations; only for the suite `robust`.
        least_share: Share of a language's texts that a perturbation must change to apply; None for other suites.
        questions: Details of search results; only for the suite `mine`.
        lengths: How far each model reads; only for the suite `long`.
        standings: Ranks of the models among public models.
    """

    facts: Facts
    slug: str
    label: str
    verdict: Sequence[str]
    choices: Mapping[str, Mapping[str, Choice]]
    changes: Mapping[str, Sequence[Change]]
    least_share: float | None
    questions: Sequence[QuestionReport]
    lengths: Sequence[LengthReport]
    standings: Sequence[Standing]

    @property
    def plain(self) -> bool:
        """Whether means over tasks are useful; they are not over perturbations, lengths or a user's own questions."""
        return not (self.changes or self.questions or self.lengths)


def page(facts: Sequence[Facts], notes: Sequence[str] = ()) -> str:
    """Write the report as HTML; the same facts give the same bytes.

    Args:
        facts: The facts of each suite.
        notes: Sentences after the verdict.

    Raises:
        MissingExtraError: matplotlib is not installed, or models are compared and scikit-learn is not installed.
    """
    parts = [_part(each, number, len(facts) > 1) for number, each in enumerate(facts)]
    names = dict.fromkeys(name for each in facts for name in each.names)
    return _render(
        "report.html",
        title=f"Evaluation: {', '.join(names)}",
        parts=parts,
        notes=notes,
        prompts=_prompts,
        sentences=parallel_text.sample().texts,
        language_of=language,
        resamples=RESAMPLES,
        order_of=order_of,
        others=choice.OTHERS,
        bounds=(choice.GOOD, choice.POOR),
        bars=lambda part: _bars(part.facts, part.slug),
        heat_maps=_heat_maps,
        islands=lambda part: _islands(part.facts, part.slug),
    )


def _part(facts: Facts, number: int, several: bool) -> Part:
    """Make the part of one suite; the sections of the first part have ids without a prefix."""
    named = list(zip(facts.names, facts.evaluations, strict=True))
    changes = {name: made for name, each in named if (made := perturbed.changes(each, facts.seed))}
    shares = [share for _, each in named if (share := perturbed.least_share(each)) is not None]
    asked = questions.reports(facts.evaluations, facts.names, facts.seed)
    lengths = long.reports(facts.evaluations, facts.names)
    if changes:
        said, choices = losses.sentences(facts), {}
    elif asked:
        said, choices = verdict.of_questions(facts, asked), {}
    elif lengths:
        said, choices = [line for each in lengths for line in each.sentences], {}
    else:
        said, choices = [*choice.sentences(facts), *verdict.sentences(facts)], choice.choices(facts)
    places = [place for each in facts.evaluations if each.model.against is None for place in standings(each)]
    slug, label = f"part-{number + 1}-" if number else "", f": {facts.title}" if several else ""
    return Part(facts, slug, label, said, choices, changes, max(shares, default=None), asked, lengths, places)


def demo(looks: Mapping[str, Look], searches: Mapping[str, Mapping[str, Sequence[Hit]]], islands: Figure) -> str:
    """Write the page of the demo as HTML.

    Args:
        looks: Name of a model -> its results.
        searches: Query -> name of a model -> its hits, best first.
        islands: The figure with all models' vectors by t-SNE.
    """
    svg = Markup(figures.svg(islands, "islands", f"t-SNE of the sentences: {', '.join(looks)}"))
    title = "An English embedder learns languages"
    return _render("demo.html", title=title, looks=looks, searches=searches, islands=svg, languages=languages.table())


def _render(template: str, **values: Any) -> str:
    folder = resources.files("lusifer.evaluation.report").joinpath("templates")
    css, script = (Markup(folder.joinpath(f"page.{kind}").read_text(encoding="utf-8")) for kind in ("css", "js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return render(template, css=css, script=script, digest=digest, **values)


def _prompts(each: Results) -> list[tuple[str, str | None, str | None]]:
    """List task, prompt of queries and prompt of documents, as far as they are known."""
    known = [
        (entry.task, entry.prompt) for entry in each.scores if entry.prompt is not None and entry.score is not None
    ]
    return list(dict.fromkeys((task, prompt.get("query"), prompt.get("document")) for task, prompt in known))


def _figure(drawn: Figure, slug: str, caption: str, alternative: str = "", wide: bool = False) -> dict[str, Any]:
    """Make a figure for the macro of this name; `alternative` describes it for readers who cannot see it."""
    return {"svg": Markup(figures.svg(drawn, slug, alternative or caption)), "caption": caption, "wide": wide}


def _heat_maps(scores: ScoreSet, slug: str) -> list[dict[str, Any]]:
    """Draw one heat map a model on a common scale: languages by types of tasks, or by tasks if they are cross-lingual.

    For many languages, draw one map of all models instead, with the tasks that every language has.
    """
    if scores.many:
        return [_atlas(scores, slug)] if scores.everywhere else []
    grids = [_grid(scores, board) for board in scores.boards]
    limits = figures.span([value for grid in grids for row in grid.values() for value in row.values()])
    what = "task" if scores.cross_lingual else "type of task"
    found = []
    for number, (name, grid) in enumerate(zip(scores.names, grids, strict=True)):
        values = [(value, code, column) for code, row in grid.items() for column, value in row.items()]
        known = [each for each in values if each[0] is not None]
        gone = "none is missing" if len(known) == len(values) else "hatched cells are missing or lack a task"
        caption = alternative = f"{name}: mean score by language and {what}, over the results of this model; {gone}"
        if known:  # the alternative text adds the range
            ends = [f"{each[2]} in {language_name(each[1])} {each[0]:.1f}" for each in (min(known), max(known))]
            alternative = f"{caption}. Lowest: {ends[0]}; highest: {ends[1]}."
        drawn = figures.heat_map(grid, f"{short(name, 40)}: languages by {what}", limits)
        wide = len({column for _, _, column in values}) > HALF
        found.append(_figure(drawn, f"{slug}-{number}", caption, alternative, wide))
    return found


def _atlas(scores: ScoreSet, slug: str) -> dict[str, Any]:
    """Draw every language with every model, for the tasks that all languages have."""
    several, cells = len(scores.names) > 1, {}
    for task in scores.everywhere:
        keys = [key for key in scores.keys if key[1] == task]
        title = scores.about(keys[0]).title
        for name, board in zip(scores.names, scores.boards, strict=True):
            for key in keys:
                label = f"{title}: {name}" if several else title
                cells.setdefault(key[0], {})[label] = board.entries[key].score
    values = [value for row in cells.values() for value in row.values()]
    gone = values.count(None)
    caption = (
        f"{len(cells)} languages by resource class (Joshi et al. 2020); ● XLM-R was trained on it, ○ it was not; "
        f"{f'{gone} hatched cells are missing' if gone else 'none is missing'}"
    )
    title = "Every language" if several else f"{short(scores.names[0], 40)}: every language"
    drawn = atlas.atlas(cells, title, figures.span(values))
    return _figure(drawn, f"{slug}-all", caption, wide=True)


def _grid(scores: ScoreSet, board: Board) -> dict[str, dict[str, float | None]]:
    """Give language -> type or task -> mean of one model's scores; None if one of the scores is missing."""
    cells: dict[str, dict[str, list[float | None]]] = {}
    columns = {key: key[1] if scores.cross_lingual else scores.about(key).type for key in scores.keys}
    for (code, task), column in columns.items():
        cells.setdefault(code, {}).setdefault(column, []).append(board.entries[code, task].score)
    return {
        # An incomplete mean would look like a complete one, so it is missing.
        code: {
            column: None if None in row[column] else float(np.mean(row[column]))
            for column in dict.fromkeys(columns.values())
            if column in row
        }
        for code, row in cells.items()
    }


def _bars(facts: Facts, slug: str) -> dict[str, Any] | None:
    """Draw the overall means of all models; None for a single model."""
    if len(facts.names) < 2:
        return None
    bars: dict[str, dict[str, figures.Estimate]] = {name: {} for name in facts.names}
    for scores in facts.sets:
        for name, mean in zip(facts.names, scores.whole.means, strict=True):
            bars[name][scores.kind] = mean.value, mean.low, mean.high
    caption = "Mean over the results that all models share, with its 95 % interval; the dotted line is the first model"
    told = [
        f"{name}, {scores.kind}: {mean_cell(mean)}"
        for scores in facts.sets
        for name, mean in zip(facts.names, scores.whole.means, strict=True)
    ]
    return _figure(figures.bars(bars, "Means"), f"{slug}means", caption, f"{caption}. {'; '.join(told)}.")


def _islands(facts: Facts, slug: str) -> dict[str, Any] | None:
    """Draw the vectors of each model that has the same texts as the first one; None if there are no vectors."""
    known = {name: each for name, each in zip(facts.names, facts.islands, strict=False) if each is not None}
    if not known:
        return None
    sizes = {name: {code: len(rows) for code, rows in each.items()} for name, each in known.items()}
    first = next(iter(sizes.values()))
    same = {name: each for name, each in known.items() if sizes[name] == first}
    caption = (
        f"{sum(first.values())} texts in {len(first)} languages by t-SNE, with the same seed for each model. If each "
        "language forms a group of its own, the model separates texts by language more than by meaning. The number is "
        "from the vectors, not from the figure"
    )
    return _figure(figures.islands(same, facts.seed), f"{slug}islands", caption)
