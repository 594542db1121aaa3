"""The tables of a report page."""

from __future__ import annotations

from collections.abc import Sequence

from lusifer.evaluation.figures.style import Estimate
from lusifer.evaluation.report.facts import Facts, Part, Row
from lusifer.evaluation.report.html import Cell, Table, count, score, table, text
from lusifer.evaluation.report.tables import name_of
from lusifer.evaluation.scores.averages import Mean, order_of
from lusifer.evaluation.scores.compare import BETTER, NOISE, WORSE, Comparison

NO_MODEL = "no model has a result"
LACKS = "it lacks results that the other models share"


def models(facts: Facts) -> str:
    """Who was measured."""
    rows = []
    for name, each in zip(facts.names, facts.evaluations, strict=True):
        known, there = each.model, sum(entry.score is not None for entry in each.scores)
        seconds = None if each.seconds is None else round(each.seconds)
        numbers = (known.dimension, known.max_tokens, there, len(each.scores) - there, seconds)
        identity = text(known.identity, "hash") if known.identity else text("not known", "missing")
        rows.append([text(name), identity, *map(count, numbers)])
    columns = ("model", "identity", "dimension", "longest text (tokens)", "scores", "missing", "seconds")
    caption = "Models; the identity is a hash of weights and prompts, then a number format that is not the folder's own"
    return table(Table(caption, columns, rows, numbers=frozenset(range(2, 7))))


def means(caption: str, what: str, rows: Sequence[Row], part: Part, whole: bool = True) -> str:
    """Means by language, type, task or group.

    Args:
        caption: Of the table.
        what: The first column.
        rows: A line each.
        part: Of what they are.
        whole: Whether the mean over everything stands below.
    """
    columns = (what, *part.names, "results")
    foot = [_means(part.row("all", part.keys))] if whole and len(rows) > 1 else []
    numbers = frozenset(range(1, len(columns)))
    return table(Table(caption, columns, [_means(row) for row in rows], foot, numbers))


def _means(row: Row) -> list[Cell]:
    reason = LACKS if row.shared else NO_MODEL
    of = count(row.shared)
    if row.shared < row.of:
        of = Cell(f"{row.shared} of {row.of}", row.shared, "number")
    return [text(row.label), *(score(estimate(mean), reason) for mean in row.means), of]


def estimate(mean: Mean) -> Estimate:
    """A mean as figures and cells take it."""
    return Estimate(mean.value, mean.low, mean.high)


def results(part: Part, caption: str) -> str:
    """Every single result."""
    rows = []
    for key in part.keys:
        about = part.about(key)
        subset = "" if about.subsets == (about.language,) else f", {', '.join(about.subsets)}"
        cells = [text(name_of(key[0])), _task(about.title, about.task), text(about.type),
                 text(f"{about.metric}, {about.split}{subset}")]  # fmt: skip
        for board in part.boards:
            entry = board.entries[key]
            cells.append(score(Estimate(entry.score, entry.low, entry.high), entry.missing))
        rows.append([*cells, count(about.n)])
    columns = ("language", "task", "type", "metric, split, subsets", *part.names, "n")
    return table(Table(caption, columns, rows, numbers=frozenset(range(4, len(columns)))))


def _task(title: str, task: str) -> Cell:
    if title in ("", task):
        return text(task, "task")
    return Cell(f'{text(title).html} <span class="interval">{text(task).html}</span>', title, "task")


def comparison(found: Sequence[Comparison]) -> str:
    """One model against another, task by task and language by language."""
    first, second = found[0].names
    rows = []
    for each in found:
        for row in each.rows:
            cells = [text(name_of(row.language)), _task(each.title, each.task)]
            cells += [score(Estimate(value)) for value in row.scores]
            if row.difference is None:
                cells += [count(None), count(None), text(f"not comparable: {row.reason}", "words")]
            else:
                change = Estimate(row.difference.value, row.difference.low, row.difference.high)
                p = Cell("–") if row.p is None else Cell(_p(row.p), row.p, "number")
                cells += [score(change, sign="+"), p, text(row.verdict)]
            rows.append(cells)
    columns = ("language", "task", first, second, "difference (points)", "p", f"{first} is")
    caption = f"{first} minus {second}, on the same examples"
    return table(Table(caption, columns, rows, numbers=frozenset({2, 3, 4, 5})))


def verdicts(found: Sequence[Comparison]) -> str:
    """One model against another, a line a task."""
    first, second = found[0].names
    rows = []
    for each in found:
        mean = score(Estimate(each.mean, each.low, each.high), "no language is comparable", sign="+")
        counts = [count(len(each.languages(verdict))) for verdict in (BETTER, WORSE, NOISE, None)]
        rows.append([_task(each.title, each.task), mean, *counts])
    columns = ("task", "mean difference (points)", BETTER, WORSE, NOISE, "not comparable")
    caption = f"{first} against {second}: in how many languages the first one is better or worse beyond chance"
    return table(Table(caption, columns, rows, numbers=frozenset(range(1, 6))))


def _p(value: float) -> str:
    return "&lt; 0.001" if value < 0.001 else f"{value:.3f}"


def missing(part: Part) -> str:
    """What is not there, and why; empty where everything is."""
    rows = []
    for gap in part.missing():
        codes = [name_of(code) for code in gap.languages]
        rows.append([text(gap.model), text(gap.task), text(", ".join(codes)), text(gap.reason)])
    if not rows:
        return ""
    kind = "cross-lingual" if part.cross_lingual else "monolingual"
    return table(Table(f"Missing results, {kind}", ("model", "task", "languages", "reason"), rows))


def seen(facts: Facts, model: int) -> str:
    """Test texts of one model that stand in its training data, languages by tasks."""
    met = facts.met(model)
    tasks = list(dict.fromkeys(each.task for each in met))
    found = {(each.language, each.task): each.seen for each in met}
    codes = list(dict.fromkeys(code for part in facts.parts for code, _ in part.keys))
    rows = []
    for code in [code for code in codes if any(each.language == code for each in met)]:
        cells = [text(name_of(code))]
        for task in tasks:
            known = found.get((code, task))
            if known is not None:
                cells.append(Cell(f"{known.seen:,} of {known.of:,}", known.seen, "number"))
            else:
                cells.append(Cell("not known" if (code, task) in found else "–", None, "number missing"))
        rows.append(cells)
    caption = f"{facts.names[model]}: test texts that stand in its training data"
    return table(Table(caption, ("language", *tasks), rows, numbers=frozenset(range(1, len(tasks) + 1))))


def gaps(facts: Facts) -> str:
    """How far apart each model keeps the languages: two numbers a language and model; none measured: empty."""
    found = [(name, gap) for name, gap in zip(facts.names, facts.gaps, strict=True) if gap is not None]
    codes = order_of({code for _, gap in found for code in gap.within})
    rows = []
    for code in codes:
        cells = [text(name_of(code))]
        for _, gap in found:
            within, against = gap.within.get(code), gap.against.get(code)
            cells += [_percent(None if against is None else against.retrieval)]
            cells += [_percent(None if within is None else within.predicted)]
        rows.append(cells)
    foot = [text("mean")]
    for _, gap in found:
        foot += [_percent(gap.mean("retrieval")), _percent(gap.mean("predicted"))]
    columns = ["language", *(f"{name}: {what}" for name, _ in found for what in ("translation found", "language told"))]
    numbers = frozenset(range(1, len(columns)))
    return table(Table("Gap between the languages, in percent", columns, rows, [foot], numbers)) if found else ""


def _percent(value: float | None) -> Cell:
    return count(None) if value is None else Cell(f"{value:.1f}", round(value, 4), "number")
