"""What `lusifer public` prints: models, their means, ranks and rows, and a user's model's place."""

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
    """What is to be shown; None is all there is, or for `suite` that of the paper.

    Attributes:
        suite: Whose rows; not with `against`.
        languages: Codes, in any usual form.
        types: mteb's types of task.
        tasks: Names of tasks.
        models: Public models, by name or part of it; all of these are compared, by however few rows.
        against: An evaluation folder, whose rows and model count.
        by: What the columns are.
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
    """What is shown: a table for the monolingual rows and one for the cross-lingual ones, as far as there are any.

    `places` are those of the user's model, empty without one; they are over all public models.
    """

    leagues: tuple[League, ...]
    places: tuple[Standing, ...]
    by: By
    public: PublicTable


def show(asked: Asked) -> Shown:
    """Compare public models, and a user's with them.

    Raises:
        UsageError: A suite, language, type, task or model is unknown, or nothing that is asked for is public.
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
            raise UsageError("--suite: not with --against: the rows are those of the evaluation")
        made = own_name(results.read(asked.against), public)
        made = replace(made, scores=tuple(_chosen(made.scores, asked)))
        found = [found for cross in (False, True) if (found := _beside(made.part(cross), named, public, asked))]
        places = standings(made, public)
    found = [each for each in found if each.keys]
    if not found:
        if asked.against:
            raise UsageError(
                f"{asked.against}: no score of its rows is public: evaluate with --suite quick or paper, or take other "
                "--languages, --tasks or --models"
            )
        raise UsageError("no score of these rows is public: other --languages, --tasks or --models may have one")
    return Shown(tuple(found), tuple(places), asked.by, public)


def _beside(mine: Results, names: Sequence[str], public: PublicTable, asked: Asked) -> League | None:
    """The user's model beside public ones over its rows; None where they share none."""
    rows = [entry for entry in mine.scores if entry.score is not None]
    if not rows:
        return None
    models = [public.results(name, rows) for name in names]
    found = league(
        [replace(mine, scores=tuple(rows), examples={}), *models], keep_all=asked.models is not None, first=True
    )
    return found if len(found.models) > 1 else None


def _matching(models: Sequence[str], words: Sequence[str]) -> list[str]:
    """The models whose names have any of the words in them."""
    for word in words:
        if not any(word.lower() in model.lower() for model in models):
            raise UsageError(f"--models {word!r}: no public model has it in its name: use some of {', '.join(models)}")
    return [model for model in models if any(word.lower() in model.lower() for word in words)]


def _chosen(rows: Sequence[Row], asked: Asked) -> list[Row]:
    """The rows of some languages, types and tasks."""
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
        raise UsageError("no row has such a language, type and task together")
    return found


def as_text(shown: Shown, as_markdown: bool = False) -> str:
    """Lay out all tables and what must be known to read them, as plain text or as Markdown."""
    lay_out = markdown.table if as_markdown else _plain
    parts = []
    for found in shown.leagues:
        kind = ", cross-lingual" if found.cross_lingual else ""
        title = f"Public scores{kind}: means in per cent over the rows that all of these models have"
        parts += [_title(title, as_markdown), lay_out(*_means(found, shown, as_markdown)), *_said(found, shown)]
    for each in shown.places:
        kind = ", cross-lingual" if each.league.cross_lingual else ""
        title = f"{each.model} among the public models{kind}; each line is over the rows that its models share"
        head = ["", "rank", "of", "rows", each.model, "the best public model", "its mean"]
        lines = [_place(place) for place in (each.whole, *each.languages, *each.types)]
        parts += [_title(title, as_markdown), lay_out(head, lines), *each.notes]
        parts += [f"No public model has a row of: {', '.join(each.alone)}."] if each.alone else []
    return "\n\n".join([*parts, f"Source: {shown.public.source}; {shown.public.facts['left_out']}."]) + "\n"


def _title(words: str, as_markdown: bool) -> str:
    return f"### {words}" if as_markdown else words


def _plain(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A table in columns; the first is aligned to the left."""
    lines = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [[line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:]))] for line in lines]
    return "\n".join("  ".join(line).rstrip() for line in padded)


def _means(found: League, shown: Shown, full: bool) -> tuple[list[str], list[list[str]]]:
    """Head and lines: rank and mean over everything, then the columns; the last line says how many rows each has."""
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
    """On a terminal a public model goes without its organisation."""
    return name if full or name not in shown.public.models else name.rpartition("/")[2]


def _cell(mean: float) -> str:
    return f"{mean:.{PLACES}f}"


def _said(found: League, shown: Shown) -> list[str]:
    """Which rows and models are not in a table."""
    how = "languages, of the means over their tasks"
    if found.cross_lingual:
        how = "tasks, each over its pairs of languages"
    rows = f"the {len(found.keys)} of {len(found.asked)} rows that all of them have"
    said = [f"{len(found.models)} models, over {rows}. A mean is over {how}."]
    apart = sorted(found.apart.items(), key=lambda pair: -pair[1])
    if apart:
        words = ", ".join(f"{_name(name, shown, False)} {rows}" for name, rows in apart)
        said.append(f"Not compared, with how many of the rows they have: {words}. --models compares any.")
    return said


def _place(place: Place) -> list[str]:
    best, mean = place.best
    rows = str(place.rows) if place.rows == place.measured else f"{place.rows} of {place.measured}"
    interval = "" if place.low is None or place.high is None else f" ({_cell(place.low)} to {_cell(place.high)})"
    reach = "" if place.reach is None or len({*place.reach}) < 2 else f" ({place.reach[0]} to {place.reach[1]})"
    return [place.label, f"{place.rank}{reach}", str(place.of), rows, _cell(place.mean) + interval, best, _cell(mean)]


def as_json(shown: Shown) -> dict[str, Any]:
    """Give the same as values, with every score of the compared models."""
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
