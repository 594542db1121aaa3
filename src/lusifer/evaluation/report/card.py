"""Scores as Markdown: the tables of an evaluation and of a model card, and the `model-index` for the Hub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lusifer.evaluation.report import facts as report_facts
from lusifer.evaluation.report import losses, verdict
from lusifer.evaluation.report.facts import Facts, MeanTable, ScoreSet
from lusifer.evaluation.report.words import language_name, mean_cell, render, score_cell
from lusifer.evaluation.scores import long, questions
from lusifer.evaluation.scores.averages import TASK, Board
from lusifer.evaluation.scores.bootstrap import Key, interval, spread
from lusifer.evaluation.scores.long import LengthReport
from lusifer.evaluation.scores.questions import QuestionReport, QuestionRow
from lusifer.evaluation.scores.results import Results
from lusifer.io.markdown import bullets, table

if TYPE_CHECKING:
    from huggingface_hub import EvalResult


def markdown(facts: Facts) -> str:
    """Write the facts as Markdown: the verdict, then the tables of means, of scores and of the language gap.

    Headings are of the second level and below. Commands are left out, because they contain local paths.
    """
    perturbed = losses.alone(facts)
    text = render(
        "report.md",
        facts=facts,
        verdict=losses.sentences(facts) if perturbed else verdict.sentences(facts),
        perturbations=losses.blocks(facts),
        sets=[] if perturbed else facts.sets,
        means=_means,
        by_both=_by_language_and_type,
        tasks=lambda scores: _tasks(scores, facts.seed),
        questions=_questions(facts),
        lengths=[(report, _lengths(report)) for report in long.reports(facts.evaluations, facts.names)],
        plain=_plain,
        safe=_without_tags,
    )
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def _questions(facts: Facts) -> list[tuple[QuestionReport, list[str]]]:
    """Make the tables of each report on questions."""
    found = []
    for report in questions.reports(facts.evaluations, facts.names, facts.seed):
        pairs = report.pairs if len(report.pairs) > len(report.languages) else ()
        rows = [_question_row(row, report) for row in (*report.languages, *pairs)]
        header = [
            "questions",
            "documents needed",
            "n",
            "nDCG@10",
            "first is right",
            "recall@10",
            "MRR",
            "median Max@R",
        ]
        tables = [table([*header, "largest Max@R", "errors in own language", "by chance"], rows, left=2)]
        if report.controls:
            controls = [
                [language_name(row.language), f"{row.answered:,}", f"{row.controls:,}", mean_cell(row.auc),
                 f"{row.threshold:.3f}", score_cell(row.passed)]
                for row in report.controls
            ]  # fmt: skip
            header = ["questions", "with an answer", "without", "AUC", "threshold", "passed"]
            tables.append(table(header, controls))
        found.append((report, tables))
    return found


def _lengths(report: LengthReport) -> str:
    """Make the table of how far a model reads: one row for each length and position, one column for each language."""
    rows = []
    for row in report.rows:
        details = row.details
        known = [mean_cell(row.scores[code]) if code in row.scores else "" for code in report.languages]
        about = [f"{details.paragraphs}", "in passages" if details.in_passages else "complete", details.position]
        words = [f"{details.words:.0f}", f"{details.before:.0f}", f"{details.cut} of {details.passages}"]
        rows.append([*about, *words, *known])
    header = ["paragraphs", "embedded", "answer", "words", "words before the answer", "truncated"]
    return table([*header, *map(language_name, report.languages)], rows, left=3)


def _question_row(row: QuestionRow, report: QuestionReport) -> list[str]:
    """Make the cells of questions in a language, or of a pair of languages."""
    own = next(each for each in report.pairs if each.language == row.language)
    documents = row.documents or (own.documents if own.n == row.n else None)
    named = "all" if documents is None else ", ".join(map(language_name, documents.split("+")))
    among = f"{row.told:,} of {row.errors:,}" if row.told < row.errors else f"{row.errors:,}"
    errors = "" if row.own is None else f"{mean_cell(row.own)} of {among}"
    chance = "" if row.chance is None else score_cell(row.chance)
    means = map(mean_cell, (row.ndcg, row.first, row.ten, row.mrr, row.worst_place))
    return [language_name(row.language), named, f"{row.n:,}", *means, f"{row.last:,}", errors, chance]


def _means(means: MeanTable, scores: ScoreSet) -> str:
    """Make a table of means: one row for each language, type or task, one column for each model."""
    rows = [
        [row.label, *map(mean_cell, row.means), *(row.published if means.published else ()), row.size]
        for row in (*means.rows, *([means.whole] if means.whole else []))
    ]
    header = [means.what, *scores.names, *means.published, "results"]
    return f"**{means.caption}**\n\n{table(header, rows)}"


def _by_language_and_type(scores: ScoreSet) -> MeanTable | None:
    """Average by language and type, as the heat map of the page; None if each mean would be a single score."""
    rows = scores.rows(lambda key: f"{language_name(key[0])}, {scores.about(key).type}")
    if len(rows) == len(scores.keys):
        return None
    kind = ", cross-lingual" if scores.cross_lingual else ""
    return MeanTable(f"Mean by language and type of task{kind}", "language, type", rows, None, ())


def _plain(words: object) -> str:
    """Escape the markup characters of Markdown and HTML, and join lines."""
    plain = " ".join(str(words).split())
    plain = plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~$])", r"\\\1", plain)


def _without_tags(text: str) -> str:
    """Escape the beginnings of HTML tags in finished Markdown, because renderers pass tags on."""
    return re.sub(r"<(?=[a-zA-Z/!?])", "&lt;", text)


def eval_results(result: Results) -> list[EvalResult]:
    """Give the scores for the front matter of a model card on the Hub (`model-index`), without missing ones."""
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type=entry.type,
            dataset_type=entry.task,
            dataset_name=f"{entry.title}, {language_name(entry.language)}",
            dataset_config=", ".join(entry.subsets) if entry.cross_lingual else entry.language,
            dataset_split=entry.split,
            metric_type=entry.metric,
            metric_name=f"{entry.metric}, %",
            metric_value=round(entry.score, 2),
        )
        for entry in result.scores
        if entry.score is not None
    ]


def model_card(result: Results, seed: int = 0, others: Sequence[Results] = ()) -> str:
    """Write the scores of a model for its card: one table a task, with the interval of each language.

    Headings are of the third level. The text contains no path and no date.

    Args:
        result: The evaluation of the model.
        seed: Seed of the resampling.
        others: More evaluations. Those of the same model against documents of another embedder follow, each under a
            heading that names this embedder.
    """
    blocks: list[str] = []
    mine = [each for each in others if each.model.against and each.model.identity == result.model.identity]
    for each in (result, *mine):
        index = each.model.against
        for scores in report_facts.gather([each], seed).sets:
            kind = "from one language to another" if scores.cross_lingual else "within each language"
            where = f", queries by this model against documents by {_plain(index.name)}" if index else ""
            groups = [_means(table, scores) for table in scores.grouped()] if scores.many else []
            note = [scores.groups_note] if groups else []
            blocks += [f"### Suite {each.suite}{where}, {kind}", *note, *groups, *_tasks(scores, seed)]
    return _without_tags("\n\n".join(blocks))


def _tasks(scores: ScoreSet, seed: int) -> list[str]:
    """Write title, table and notes of each task."""
    return [_task(scores, task, seed) for task in dict.fromkeys(key[TASK] for key in scores.keys)]


def _task(scores: ScoreSet, task: str, seed: int) -> str:
    """Write one task: one row a language, several columns for a single model, or one column a model."""
    keys = [key for key in scores.keys if key[TASK] == task]
    about = scores.about(keys[0])
    means = scores.groups(keys) if len(keys) > 1 else []
    means = [row for row in means if (row.label.startswith("all") if scores.many else "resources" not in row.label)]
    labels = [f"mean of {row.label}" + f" ({row.size})" * (row.shared < row.of) for row in means]
    columns = {"language": [*(language_name(code) for code, _ in keys), *labels]}
    for place, (name, board) in enumerate(zip(scores.names, scores.boards, strict=True)):
        cells = [(score_cell(board.entries[key].score), _interval(board, key, seed)) for key in keys]
        cells += [(score_cell(mean.value), _ends(mean.low, mean.high)) for row in means if (mean := row.means[place])]
        if len(scores.boards) > 1:
            columns[name] = [f"{score} ({ends.removeprefix('none; ')})" if ends else score for score, ends in cells]
        else:
            columns["score"], columns["95 % interval"] = map(list, zip(*cells, strict=True))
    entries = [scores.about(key) for key in keys]
    columns["examples"] = ["" if entry.n is None else f"{entry.n:,}" for entry in entries] + [""] * len(means)
    if len(scores.boards) == 1 and any(entry.seen for entry in entries):
        seen = [f"{entry.seen.seen} of {entry.seen.of}" if entry.seen else "" for entry in entries]
        columns["seen in training"] = seen + [""] * len(means)
    blocks = [
        f"**{about.title} ({about.metric}, %, {about.split})**",
        table(columns, zip(*columns.values(), strict=True)),
        bullets(_notes(scores, task)),
    ]
    return "\n\n".join(block for block in blocks if block)


def _notes(scores: ScoreSet, task: str) -> list[str]:
    """List missing scores with their reasons, scores without interval, and test texts seen in training."""
    lines = []
    for name, board in zip(scores.names, scores.boards, strict=True):
        found: dict[tuple[str, str], list[str]] = {}
        for code, entry in ((key[0], entry) for key, entry in board.entries.items() if key[TASK] == task):
            examples = board.results.examples.get(entry.key)
            if entry.missing:
                found.setdefault(("missing: ", f": {entry.missing}"), []).append(code)
            elif entry.key not in board.samples:
                why = "without examples" if examples is None else "with too few examples"
                if examples is not None and examples.kind == "draws":
                    why = "that are random draws of the task"
                found.setdefault((f"no interval for scores {why}: ", ", and for means over them"), []).append(code)
            if entry.seen and entry.seen.seen:
                numbers = f": {entry.seen.seen} of {entry.seen.of}"
                found.setdefault(("test texts seen in training: ", numbers), []).append(code)
        of = f"{name}: " if len(scores.names) > 1 else ""
        lines += [f"{of}{before}{task} ({', '.join(codes)}){after}" for (before, after), codes in found.items()]
    return [" ".join(line.split()) for line in lines]


def _interval(board: Board, key: Key, seed: int) -> str:
    """Give the stored interval of a score, otherwise that of its examples; for draws their standard deviation."""
    entry, examples = board.entries[key], board.results.examples.get(key)
    if examples is not None and examples.kind == "draws":
        deviation = spread(examples)
        return "" if deviation is None else f"none; standard deviation of {len(examples.ids)} draws {deviation:.1f}"
    ends = (entry.low, entry.high) if entry.low is not None else interval(examples, seed) if examples else None
    return _ends(*ends) if ends else ""


def _ends(low: float | None, high: float | None) -> str:
    return "" if low is None else f"{score_cell(low)} to {score_cell(high)}"
