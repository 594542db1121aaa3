"""The output of `lusifer public`: models with means, ranks and rows, and the rank of a user's model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from lusifer import languages
from lusifer.errors import UsageError
from lusifer.evaluation.public.league import PLACES, By, League, league, ranks
from lusifer.evaluation.public.standing import Place, Standing, own_name, standings
from lusifer.evaluation.public.table import PublicTable, table
from lusifer.evaluation.scores import results
from lusifer.evaluation.scores.results import Entry, Results
from lusifer.evaluation.suites import benchmark
from lusifer.evaluation.tasks.rows import SuiteRow
from lusifer.io import markdown

Row = TypeVar("Row", SuiteRow, Entry)
PAPER = "paper"


@dataclass(frozen=True)
class Asked:
    """The rows and models to show; None means all, except for `suite`.

    Attributes:
        suite: Suite with the rows; None for `paper`. Not allowed with `against`.
        languages: Codes of languages, in any usual form.
        types: mteb's types of task.
        tasks: Names of tasks.
        models: Names of public models or parts of names; all of them are compared, even if they share few rows.
        against: Evaluation folder of the user's model, whose rows are compared.
        by: Columns of the table: language, type or task.
    """

    suite: str | None = None
    languages: Sequence[str] | None = None
    types: Sequence[str] | None = None
    tasks: Sequence[str] | None = None
    models: Sequence[str] | None = None
    against: Path | None = None
    by: By = "language"


@dataclass(frozen=True, eq=False)
class Shown:
    """The comparisons to show.

    Attributes:
        leagues: One for monolingual and one for cross-lingual rows, if there are any.
        places: The ranks of the user's model among all public models; empty without such a model.
        by: Columns of the table.
        public: The table of public scores.
    """

    leagues: tuple[League, ...]
    places: tuple[Standing, ...]
    by: By
    public: PublicTable


def show(asked: Asked) -> Shown:
    """Compare public models with each other, and with a user's model.

    Raises:
        UsageError: A suite, language, type, task or model is unknown, or no requested score is public.
        DataError: `against` is no evaluation folder.
    """
    public = table()
    named = tuple(_matching(public.models, asked.models) if asked.models else public.models)
    if asked.against is None:
        rows = _chosen(benchmark.suite(asked.suite or PAPER), asked)
        models = [public.results(name, rows, asked.suite or PAPER) for name in named]
        found = [league(models, keep_all=asked.models is not None)]
        places: list[Standing] = []
    else:
        if asked.suite is not None:
            raise UsageError("--suite: not with --against, which takes the rows of the evaluation: leave it out")
        made = own_name(results.read(asked.against), public)
        made = replace(made, scores=tuple(_chosen(made.scores, asked)))
        found = [found for cross in (False, True) if (found := _beside(made.part(cross), named, public, asked))]
        places = standings(made, public)
    found = [each for each in found if each.keys]
    if not found:
        if asked.against:
            raise UsageError(
                f"{asked.against}: no score of its rows is public: evaluate with --suite quick or paper, or choose "
                "other --languages, --tasks or --models"
            )
        raise UsageError("no score of these rows is public: choose other --languages, --tasks or --models")
    return Shown(tuple(found), tuple(places), asked.by, public)


def _beside(mine: Results, names: Sequence[str], public: PublicTable, asked: Asked) -> League | None:
    """Compare the user's model with public models over its rows; None if they share no row."""
    rows = [entry for entry in mine.scores if entry.score is not None]
    if not rows:
        return None
    models = [public.results(name, rows) for name in names]
    found = league(
        [replace(mine, scores=tuple(rows), examples={}), *models], keep_all=asked.models is not None, first=True
    )
    return found if len(found.models) > 1 else None


def _matching(models: Sequence[str], words: Sequence[str]) -> list[str]:
    """Choose the models whose names contain one of the words."""
    for word in words:
        if not any(word.lower() in model.lower() for model in models):
            known = ", ".join(models)
            raise UsageError(f"--models {word!r}: no public model has this in its name: use some of {known}")
    return [model for model in models if any(word.lower() in model.lower() for word in words)]


def _chosen(rows: Sequence[Row], asked: Asked) -> list[Row]:
    """Choose rows by language, type and task."""
    there = {row.language for row in rows}
    codes = None if asked.languages is None else [languages.among(code, there) for code in asked.languages]
    found = list(rows)
    for what, wanted in (("language", codes), ("type", asked.types), ("task", asked.tasks)):
        if wanted is None:
            continue
        known = list(dict.fromkeys(getattr(row, what) for row in rows))
        unknown = [each for each in wanted if each not in known]
        if unknown:
            raise UsageError(f"{what} {unknown[0]!r} is not in these rows: use some of {', '.join(known)}")
        found = [row for row in found if getattr(row, what) in wanted]
    if not found:
        raise UsageError("no row has this language, type and task: leave out --languages, --types or --tasks")
    return found


def as_text(shown: Shown, as_markdown: bool = False) -> str:
    """Write all tables with their notes, as plain text or as Markdown.

    Args:
        shown: The comparisons.
        as_markdown: Whether to write Markdown.
    """
    lay_out = markdown.table if as_markdown else _plain
    parts = []
    for found in shown.leagues:
        kind = ", cross-lingual" if found.cross_lingual else ""
        title = f"Public scores{kind}: means in percent over the rows that all of these models have"
        parts += [_title(title, as_markdown), lay_out(*_means(found, shown, as_markdown)), *_said(found, shown)]
    for each in shown.places:
        kind = ", cross-lingual" if each.league.cross_lingual else ""
        title = f"{each.model} among the public models{kind}; each line compares models over the rows that they share"
        head = ["", "rank", "of", "rows", each.model, "best public model", "its mean"]
        lines = [_place(place) for place in (each.whole, *each.languages, *each.types)]
        parts += [_title(title, as_markdown), lay_out(head, lines), *each.notes]
        parts += [f"No public model has a score for: {', '.join(each.alone)}."] if each.alone else []
    return "\n\n".join([*parts, f"Source: {shown.public.source}; {shown.public.facts['left_out']}."]) + "\n"


def _title(words: str, as_markdown: bool) -> str:
    return f"### {words}" if as_markdown else words


def _plain(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Write a table in aligned columns, the first one to the left."""
    lines = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [[line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:]))] for line in lines]
    return "\n".join("  ".join(line).rstrip() for line in padded)


def _means(found: League, shown: Shown, full: bool) -> tuple[list[str], list[list[str]]]:
    """Make head and lines: rank, mean over all rows, then the columns; the last line has the numbers of rows."""
    groups = found.group(shown.by)
    whole = found.means(found.keys)
    places, columns = ranks(whole), [found.means(keys) for keys in groups.values()]
    lines = [
        [_name(name, shown, full), str(places[name]), _cell(mean), *(_cell(column[name]) for column in columns)]
        for name, mean in whole.items()
    ]
    counts = [str(len(keys)) for keys in groups.values()]
    return ["model", "rank", "all", *groups], [*lines, ["rows", "", str(len(found.keys)), *counts]]


def _name(name: str, shown: Shown, full: bool) -> str:
    """Give the name of a model, on a terminal without the organization of a public model."""
    return name if full or name not in shown.public.models else name.rpartition("/")[2]


def _cell(mean: float) -> str:
    return f"{mean:.{PLACES}f}"


def _said(found: League, shown: Shown) -> list[str]:
    """Say which rows and models are not in a table."""
    how = "over the tasks of a language, then over languages"
    if found.cross_lingual:
        how = "over the language pairs of a task, then over tasks"
    rows = f"the {len(found.keys)} of {len(found.asked)} rows that all of them have"
    said = [f"{len(found.models)} models, compared over {rows}. A mean is {how}."]
    apart = sorted(found.apart.items(), key=lambda pair: -pair[1])
    if apart:
        words = ", ".join(f"{_name(name, shown, False)} {rows}" for name, rows in apart)
        said.append(f"Not compared (number of these rows): {words}. Use --models to compare them.")
    return said


def _place(place: Place) -> list[str]:
    best, mean = place.best
    rows = str(place.rows) if place.rows == place.measured else f"{place.rows} of {place.measured}"
    interval = "" if place.low is None or place.high is None else f" ({_cell(place.low)} to {_cell(place.high)})"
    reach = "" if place.reach is None or len({*place.reach}) < 2 else f" ({place.reach[0]} to {place.reach[1]})"
    return [place.label, f"{place.rank}{reach}", str(place.of), rows, _cell(place.mean) + interval, best, _cell(mean)]


def as_json(shown: Shown) -> dict[str, Any]:
    """Give the comparisons as values for JSON, with every score of the compared models."""
    tables = []
    for found in shown.leagues:
        groups = found.group(shown.by)
        whole = found.means(found.keys)
        entries = {name: found.boards[name].entries for name in found.models}
        tables.append({
            "cross_lingual": found.cross_lingual,
            "rows": [{"language": code, "task": task} for code, task in found.keys],
            "asked": len(found.asked),
            "not_compared": found.apart,
            "models": [
                {
                    "model": name, "rank": ranks(whole)[name], "mean": mean,
                    f"by_{shown.by}": {label: found.means(keys)[name] for label, keys in groups.items()},
                    "scores": [entries[name][key].score for key in found.keys],
                }
                for name, mean in whole.items()
            ],
        })  # fmt: skip
    places = [
        {
            "model": each.model, "cross_lingual": each.league.cross_lingual, "all": asdict(each.whole),
            "languages": [asdict(place) for place in each.languages], "types": [asdict(place) for place in each.types],
            "alone": each.alone, "notes": each.notes,
        }
        for each in shown.places
    ]  # fmt: skip
    return {"source": shown.public.source, "tables": tables, "places": places}
