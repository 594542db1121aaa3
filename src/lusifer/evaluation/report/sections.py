"""The sections of a report page: what stands in each, and the words around the numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lusifer import languages
from lusifer.evaluation.figures.style import SCRIPTS, level_name
from lusifer.evaluation.report import html_tables, pictures
from lusifer.evaluation.report.facts import Facts, Part
from lusifer.evaluation.report.html import Cell, Table, count, figures, fold, paragraph, said, table, text
from lusifer.evaluation.report.tables import name_of
from lusifer.evaluation.scores.bootstrap import RESAMPLES
from lusifer.evaluation.scores.results import Results
from lusifer.evaluation.suites import sample as crosslingual

MEANS = (
    "A mean is over the results that every model has that has any in its row, so that models are compared on the same; "
    '"12 of 14" says that 2 results are left out because a model lacks them. All tasks of a language weigh the same, '
    "and then all languages."
)
CROSS = (
    "Here a text in one language is compared with a text in another one, or a classifier learns in one and is tested "
    "in another. These scores are in no mean with those above. All languages of a task weigh the same, then all tasks."
)
READING = (
    "Scores are percent; what a score counts is its metric. Small numbers behind a score are its 95 % interval: of "
    f"{RESAMPLES:,} resamples of the examples, from the 2.5th to the 97.5th percentile. In about "
    "95 of 100 samples of texts such an interval contains the score on all texts of this kind. The score of one new "
    "sample falls into a given interval less often, in about 83 of 100 cases.",
    "Examples of a task that are translations of each other are drawn together in all languages: they are easy or hard "
    "together. A mean has an interval only where each result under it has examples; clustering has none, because its "
    "values are resamplings of the task's own. Where every example is right, or none, resamples do not differ: a "
    "single score has its exact interval then, and the interval of a mean over it is a little narrow.",
    "An interval does not cover the choice of tasks and languages, another seed of training, or errors in the gold "
    "labels. Two intervals that overlap do not show that two models are equal: the comparison tests the difference on "
    "the same examples.",
    "A missing score is not 0. It stands in no mean, and its reason is in the table of what is missing.",
)
TESTS = (
    "Tests are paired and two-sided (McNemar's exact test where an example is right or wrong, else sign flips, or "
    "swaps of ranks for correlations); p is corrected by Holm's method over all rows of a task. Within noise says that "
    "p is 0.05 or more, not that the models are equal. The interval is that of the difference, by paired bootstrap."
)
GAP = (
    "Measured on the same sentences in all languages. Translation found: texts whose nearest in the other language is "
    "their translation, from and to English. Language told: texts whose 10 nearest in all languages, translations left "
    "out, give their language away: at 100 the languages are islands, at chance language does not decide where a text "
    "lies."
)
SEEN = (
    "Zero-shot means that training saw no test text. The texts of training are kept as a Bloom filter by letters and "
    "digits: of 1,000 texts that training did not see it may count one as seen, and it never misses one."
)


def measured(facts: Facts) -> list[str]:
    """Who was measured, by which commands, with which versions, settings, prompts and data."""
    told = [
        _alike(facts, "data", "read the same files (by SHA-256)", "did not read the same files"),
        _alike(facts, "settings", "were measured with the same settings", "were not measured with the same settings"),
        _alike(facts, "versions", "were measured with the same versions", "were not measured with the same versions"),
    ]
    alike = " ".join(words for words in told if words)
    folds = []
    for name, each in zip(facts.names, facts.evaluations, strict=True):
        like = None if each is facts.evaluations[0] else (facts.names[0], facts.evaluations[0])
        folds.append(fold(f"{name}: command, versions, settings, prompts, data", _origin(name, each, like)))
    return [html_tables.models(facts), paragraph(alike) if alike else "", *folds]


def _alike(facts: Facts, what: str, same: str, other: str) -> str:
    """Whether all models share what they should share, in words; empty for a single model."""
    if len(facts.evaluations) < 2:
        return ""
    values: list[Mapping[str, Any]] = [getattr(each, what) for each in facts.evaluations]
    keys = dict.fromkeys(key for value in values for key in value)
    differ = [key for key in keys if any(value.get(key) != values[0].get(key) for value in values)]
    if not keys:  # of none is it known: that says nothing about their being the same
        return ""
    if not differ:
        return f"All models {same}."
    more = f" and {len(differ) - 5} more" if len(differ) > 5 else ""
    return f"The models {other}: {', '.join(differ[:5])}{more}."


def _origin(name: str, each: Results, like: tuple[str, Results] | None) -> str:
    """Where one model's scores come from; what the first model, `like`, has as well is not told again."""
    command = f"<pre>{said(each.command)}</pre>" if each.command else paragraph("The command is not known.", "note")
    settings = said(json.dumps(each.settings, indent=1, ensure_ascii=False, sort_keys=True))
    versions = ", ".join(f"{package} {number}" for package, number in each.versions.items())
    parts = [
        command,
        paragraph(f"Versions: {versions or 'not known'}."),
        f"<pre>{settings}</pre>" if each.settings else "",
    ]
    prompts, files = _prompts(each), list(each.data.items())
    if like is not None and prompts and prompts == _prompts(like[1]):
        parts.append(paragraph(f"Prompts: those of {like[0]}."))
    elif prompts:
        told = [[text(task), *(Cell(words, None, "words") for words in both)] for task, *both in prompts]
        parts.append(table(Table(f"{name}: prompts", ("task", "before a query", "before a document"), told)))
    if like is not None and files and each.data == like[1].data:
        parts.append(paragraph(f"Data files: those of {like[0]}, byte by byte."))
    elif files:
        told = [[text(file), text(digest, "hash")] for file, digest in files]
        parts.append(table(Table(f"{name}: SHA-256 of the data files", ("file", "SHA-256"), told)))
    return "".join(parts)


def _prompts(each: Results) -> list[tuple[str, ...]]:
    """Task, prompt of queries and of documents, as HTML but for the task."""
    found = dict.fromkeys(
        (entry.task, *(_prompt(entry.prompt.get(role)) for role in ("query", "document")))
        for entry in each.scores
        if entry.prompt is not None
    )
    return list(found)


def _prompt(words: str | None) -> str:
    """A prompt with its line breaks written out."""
    return f"<code>{said(json.dumps(words, ensure_ascii=False))}</code>" if words else "nothing"


def own(part: Part) -> list[str]:
    """Means and figures of the monolingual results."""

    def language(key: tuple[str, str]) -> str:
        return name_of(key[0])

    return [
        paragraph(MEANS, "note"),
        html_tables.means("Mean by language", "language", part.rows(language), part),
        html_tables.means("Mean by group of languages", "languages", part.groups(), part, whole=False),
        html_tables.means("Mean by type of task", "type", part.rows(lambda key: part.about(key).type), part),
        html_tables.means("Mean by task", "task", part.rows(lambda key: part.about(key).title), part),
        figures([*pictures.heat_maps(part, "heat"), *pictures.radars(part, "radar")]),
        fold(f"All {len(part.keys)} monolingual results", html_tables.results(part, "Every monolingual result")),
    ]


def cross(part: Part) -> list[str]:
    """Means and figures of the cross-lingual results."""

    def title(key: tuple[str, str]) -> str:
        return part.about(key).title

    def language(key: tuple[str, str]) -> str:
        return name_of(key[0])

    every = html_tables.results(part, "Every cross-lingual result")
    return [
        paragraph(CROSS, "note"),
        html_tables.means("Mean by task, cross-lingual", "task", part.rows(title), part),
        html_tables.means("Mean by language, cross-lingual", "language", part.rows(language), part),
        figures(pictures.heat_maps(part, "cross")),
        fold(f"All {len(part.keys)} cross-lingual results", every),
    ]


def gap(facts: Facts) -> list[str]:
    """How far apart the models keep the languages."""
    known = [(name, each) for name, each in zip(facts.names, facts.gaps, strict=True) if each is not None]
    sizes = "; ".join(
        f"{name}: {each.sentences:,} sentences in each of {len(each.within)} languages, by chance {each.chance:.1f}"
        for name, each in known
    )
    missing = [name for name, each in zip(facts.names, facts.gaps, strict=True) if each is None]
    words = f"{GAP} {sizes}."
    if missing:
        words = f"{words} Not measured for {', '.join(missing)}."
    return [paragraph(words, "note"), html_tables.gaps(facts), pictures.islands(facts)]


def comparison(facts: Facts) -> list[str]:
    """The first model against each other one."""
    others = dict.fromkeys(each.names[1] for each in facts.comparisons)
    found = [paragraph(TESTS, "note")]
    for name in others:
        mine = [each for each in facts.comparisons if each.names[1] == name]
        rows = sum(len(each.rows) for each in mine)
        words = f"{facts.names[0]} against {name}, {rows} results"
        found += [html_tables.verdicts(mine), fold(words, html_tables.comparison(mine))]
    return found


def seen(facts: Facts) -> list[str]:
    """Whether training met the tests."""
    found = [paragraph(SEEN, "note")]
    for model, name in enumerate(facts.names):
        if any(each.seen is not None for each in facts.met(model)):
            found.append(html_tables.seen(facts, model))
        else:
            found.append(paragraph(f"{name}: not known; it is where a model lies in the folder of its run."))
    return found


def reading(facts: Facts) -> list[str]:
    """How numbers and intervals are to be read, and which languages these are."""
    return [*(paragraph(words) for words in READING), fold("The languages", _languages(facts))]


def _languages(facts: Facts) -> str:
    """Name, script and level of each language, with a sentence in it where the package has one."""
    known = languages.table()
    sample = crosslingual.sample().texts
    codes = dict.fromkeys(code for part in facts.parts for code, _ in part.keys)
    rows = []
    for number, code in enumerate(codes):
        row = known.get(code)
        words = sample.get(code, ("",))[0]
        rows.append([
            Cell(text(name_of(code)).html, number),
            text(SCRIPTS.get(row.script, row.script) if row else "not known"),
            text(level_name(row.level) if row else "not known"),
            Cell(f'<bdi lang="{said(code)}">{said(words)}</bdi>' if words else "–"),
            count(sum(key[0] == code for part in facts.parts for key in part.keys)),
        ])  # fmt: skip
    columns = ("language", "script", "resource level", "a sentence, the same in all", "results")
    return table(Table("Languages, in the order of the paper", columns, rows, numbers=frozenset({4})))
