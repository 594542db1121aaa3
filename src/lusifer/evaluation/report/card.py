"""The report as Markdown, and the scores of one model for its card: tables to read, and the Hub's list of results."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lusifer.errors import UsageError
from lusifer.evaluation.report import tables, verdict
from lusifer.evaluation.report.facts import Facts
from lusifer.evaluation.report.tables import mean_cell, name_of, notes, score_cell, title_of
from lusifer.evaluation.scores.averages import TASK, Board, boards
from lusifer.evaluation.scores.bootstrap import Key, interval, spread
from lusifer.evaluation.scores.results import Results
from lusifer.io.markdown import table

if TYPE_CHECKING:
    from huggingface_hub import EvalResult


def markdown(facts: Facts) -> str:
    """Lay out the facts: the verdict, then the tables of scores; no figure, no HTML.

    It names no command: Markdown is published, and a command names local folders.

    Args:
        facts: As `facts.read` gives them.

    Returns:
        Markdown with headings of the second level and below; ends with a line break.
    """
    lay_out = model_card if len(facts.evaluations) == 1 else tables.page
    text = tables.render(
        "report.md",
        suite=facts.evaluations[0].suite,
        verdict=verdict.sentences(facts),
        tables=_without_tags(lay_out(facts.evaluations, seed=facts.seed)),
        evaluations=list(zip(facts.names, facts.evaluations, strict=True)),
        plain=_plain,
    )
    return text.rstrip() + "\n"


def _plain(words: object) -> str:
    """Escape what Markdown or HTML would read as markup, on one line."""
    plain = " ".join(str(words).split())
    plain = plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~$])", r"\\\1", plain)


def _without_tags(text: str) -> str:
    """Escape what may begin a tag in Markdown that is laid out already: renderers let tags through."""
    return re.sub(r"<(?=[a-zA-Z/!?])", "&lt;", text)


def eval_results(results: Sequence[Results]) -> list[EvalResult]:
    """Give the scores as the Hub reads them in the front matter of a card (`model-index`).

    Args:
        results: Evaluation folders of one model.

    Returns:
        One for each score that is there, in percent; a missing score has none.
    """
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type=entry.type,
            dataset_type=entry.task,
            dataset_name=f"{entry.title}, {name_of(entry.language)}",
            dataset_config=", ".join(entry.subsets) if entry.cross_lingual else entry.language,
            dataset_split=entry.split,
            metric_type=entry.metric,
            metric_name=f"{entry.metric}, %",
            metric_value=round(entry.score, 2),
        )
        for result in results
        for entry in result.scores
        if entry.score is not None
    ]


def model_card(results: Sequence[Results], seed: int = 0) -> str:
    """Lay out the scores of one model for its card: a table a task, with the interval of each language.

    Args:
        results: Evaluation folders of the model, such as those of several suites.
        seed: Of the resampling.

    Returns:
        Markdown with headings of the third level, without a line break at the end. It holds no path and no date.

    Raises:
        UsageError: There is no folder, or they are of different models.
    """
    if not results:
        raise UsageError("a model card needs an evaluation folder")
    first = results[0]
    for result in results[1:]:
        if result.model.identity != first.model.identity or (
            first.model.identity is None and result.model.name != first.model.name
        ):
            raise UsageError(
                f"{result.folder or result.model.name} is of another model than {first.folder or first.model.name}: "
                "a card has the scores of one model"
            )
    blocks = []
    for result in results:
        for cross, kind in ((False, "within each language"), (True, "from one language to another")):
            part = result.part(cross)
            if part.scores:
                board = boards([part], seed)[0]
                blocks.append(f"### Suite {result.suite}, {kind}")
                blocks += [_task(board, task, seed) for task in dict.fromkeys(key[TASK] for key in board.entries)]
    return _without_tags("\n\n".join(blocks))


def _task(board: Board, task: str, seed: int) -> str:
    """Title, table and notes of one task."""
    keys = [key for key in board.entries if key[TASK] == task]
    header = ["language", "score", "95 % interval", "examples", "met in training"]
    rows = []
    for key in keys:
        entry = board.entries[key]
        seen = f"{entry.seen.seen} of {entry.seen.of}" if entry.seen else ""
        examples = "" if entry.n is None else f"{entry.n:,}"
        rows.append([name_of(entry.language), score_cell(entry.score), _interval(board, key, seed), examples, seen])
    if len(keys) > 1:
        rows.append(["mean", mean_cell(board.mean(keys, TASK)), "", "", ""])
    if not any(row[-1] for row in rows):
        header, rows = header[:-1], [row[:-1] for row in rows]
    blocks = [f"**{title_of(board.entries[keys[0]])}**", table(header, rows), notes([board], keys, rows)]
    return "\n\n".join(block for block in blocks if block)


def _interval(board: Board, key: Key, seed: int) -> str:
    """The interval of a score as it was written, else as its examples give it; of draws their spread."""
    entry, examples = board.entries[key], board.results.examples.get(key)
    if examples is not None and examples.kind == "draws":
        deviation = spread(examples)
        return "" if deviation is None else f"none; standard deviation of {len(examples.ids)} draws {deviation:.1f}"
    ends = (entry.low, entry.high) if entry.low is not None else interval(examples, seed) if examples else None
    return f"{score_cell(ends[0])} to {score_cell(ends[1])}" if ends else ""
