"""Scores as Markdown tables, and the templates of all pages: a missing score stays missing, a mean says what it covers.

Models stand side by side as columns. Monolingual and cross-lingual scores have separate tables. A score has one
decimal; a mean has its 95 % interval behind it where all its members have examples. No table ends with a line break.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from lusifer import languages
from lusifer.evaluation.figures import style
from lusifer.evaluation.scores.averages import LANGUAGE, TASK, Board, Mean, boards, groups, order_of
from lusifer.evaluation.scores.bootstrap import Key
from lusifer.evaluation.scores.results import Entry, Results, names
from lusifer.io import markdown
from lusifer.io.templates import environment
from lusifer.language_gap import Gap

MISSING, NO_SUCH = "missing", "-"
FEWER = "over fewer: "
NOT_COMPARABLE, NOT_PUBLISHED = "not comparable", "not published"
COLUMNS = 6
"""Up to so many tasks or types of one model stand side by side; of more, each has a table of its own."""
PublishedRows = Mapping[str, Mapping[str, float]]
"""Name of a published row -> language (cross-lingual: task) -> score in percent."""
GAP_COLUMNS = {
    "xx to en": ("to_english", "z.1f"),
    "en to xx": ("from_english", "z.1f"),
    "shift": ("shift", "z.3f"),
    "of the distance": ("shift_share", "z.1f"),
    "translations": ("translations", "z.3f"),
    "others": ("others", "z.3f"),
    "hubness": ("hubness", "z.2f"),
    "anisotropy": ("anisotropy", "z.3f"),
    "own-language neighbours": ("own_language", "z.1f"),
    "language told": ("predicted", "z.1f"),
}
"""Column -> number of a language gap, and how it is written."""


def page(
    results: Sequence[Results],
    monolingual: tuple[PublishedRows, Collection[Key]] = ({}, ()),
    cross_lingual: tuple[PublishedRows, Collection[Key]] = ({}, ()),
    seed: int = 0,
) -> str:
    """Lay out all tables: averages, by type and by task, of the monolingual scores and then of the cross-lingual ones.

    Args:
        results: Of one or more models.
        monolingual: Published rows to show beside the averages, and the language and task of every score under them.
        cross_lingual: Likewise; its rows go by task.
        seed: Of the resampling.
    """
    sections = []
    for cross, title, published in ((False, "Monolingual", monolingual), (True, "Cross-lingual", cross_lingual)):
        parts = [result.part(cross) for result in results]
        if any(part.scores for part in parts):
            held = boards(parts, seed)
            sections.append(f"## {title}: averages\n\n{_averages(held, *published)}")
            sections.append(f"## {title}: by type of task\n\n{_by(held, 'type')}")
            sections.append(f"## {title}: by task\n\n{_by(held, 'task')}")
    return "\n\n".join(sections)


def language_gap(gap: Gap) -> str:
    """Lay out the gap between the languages: a row a language, their mean, and what the columns say."""
    known = languages.table()

    def row(label: str, value: Callable[[str], float | None]) -> list[str]:
        values = [(value(name), style) for name, style in GAP_COLUMNS.values()]
        return [label, *("-" if number is None else format(number, style) for number, style in values)]

    rows = []
    for code, within in gap.within.items():
        numbers = vars(within) | (vars(gap.against[code]) if code in gap.against else {})
        rows.append(row(known[code].name if code in known else code, numbers.get))
    table = markdown.table(["language", *GAP_COLUMNS], [*rows, row("mean", gap.mean)])
    return render("gap.md", gap=gap, table=table).rstrip()


def name_of(code: str) -> str:
    """A language for readers: name and code."""
    known = languages.table()
    return f"{known[code].name} ({code})" if code in known else code


def title_of(entry: Entry) -> str:
    """A task for readers: title, metric and split."""
    return f"{entry.title} ({entry.metric}, %, {entry.split})"


def count_of(number: int, word: str) -> str:
    """A number with its noun: 1 language, 2 languages."""
    return f"{number} {word}{'s' * (number != 1)}"


def score_cell(value: float | None, sign: str = "-") -> str:
    """A score, or that it is missing. One decimal; what rounds to 0 has no minus. Sign "+" is for differences."""
    return MISSING if value is None else f"{value:{'+' if sign == '+' else ''}z.1f}"


def with_interval(value: float | None, low: float | None, high: float | None) -> str:
    """A number with its interval behind it, if it has one: 64.6 (55.2 to 73.1)."""
    ends = "" if low is None else f" ({score_cell(low)} to {score_cell(high)})"
    return score_cell(value) + ends


def mean_cell(mean: Mean) -> str:
    """A mean with its interval and the number of languages and tasks under it; "over fewer" where some are missing."""
    if mean.value is None:
        return MISSING
    every = (*mean.there, *mean.missing)
    sizes = [
        (word, len({key[place] for key in mean.there}), len({key[place] for key in every}))
        for place, word in ((LANGUAGE, "language"), (TASK, "task"))
    ]
    several = [size for size in sizes if size[2] > 1] or sizes[1:]
    if len(several) > 1 and not mean.complete:
        # All languages and all tasks may be there, and yet not each task in each language.
        several.append(("score", len(mean.there), len(every)))
    counts = [
        count_of(total, word) if there == total else f"{there} of {count_of(total, word)}"
        for word, there, total in several
    ]
    fewer = "" if mean.complete else FEWER
    return f"{with_interval(mean.value, mean.low, mean.high)}, {fewer}{', '.join(counts)}"


def notes(held: Sequence[Board], keys: Iterable[Key], rows: Iterable[Sequence[str]]) -> str:
    """List what stands beneath a table: missing scores with their reasons, means without interval, texts in training.

    Args:
        held: Its models.
        keys: Language and task of its scores.
        rows: Its cells.

    Returns:
        A Markdown list; empty if there is nothing to say.
    """
    keys = list(dict.fromkeys(keys))
    cells = [cell for row in rows for cell in row]
    lines = []
    if NO_SUCH in cells:
        lines.append(f"`{NO_SUCH}`: the task has no scores in this language")
    if any(FEWER in cell for cell in cells):
        lines.append("a mean over fewer is not comparable with one over all")
    for name, board in zip(names([board.results for board in held]), held, strict=True):
        of = f"{name}: " if len(held) > 1 else ""
        lines += [of + line for line in _notes(board, [key for key in keys if key in board.entries])]
    return markdown.bullets(" ".join(line.split()) for line in lines)


def _notes(board: Board, keys: Sequence[Key]) -> list[str]:
    missing: dict[str, list[Key]] = {}
    bare: dict[str, list[Key]] = {}
    for key in keys:
        entry, examples = board.entries[key], board.results.examples.get(key)
        if entry.missing:
            missing.setdefault(entry.missing, []).append(key)
        if entry.score is not None and key not in board.samples:
            why = "without examples" if examples is None else "with too few examples"
            if examples is not None and examples.kind == "draws":
                why = "whose values are the task's own resamplings"
            bare.setdefault(why, []).append(key)
    lines = [f"missing: {_listed(those)}: {reason}" for reason, those in missing.items()]
    lines += [f"no interval of scores {why}: {_listed(those)}, and of means over them" for why, those in bare.items()]
    seen = [(key, entry.seen) for key in keys if (entry := board.entries[key]).seen and entry.seen.seen]
    known = ", ".join(f"{task} ({code}): {seen.seen} of {seen.of}" for (code, task), seen in seen)
    return lines + ([f"texts met in training: {known}"] if known else [])


def _listed(keys: Iterable[Key]) -> str:
    """Tasks with their languages: A (es, fr), B (fr)."""
    tasks: dict[str, list[str]] = {}
    for code, task in keys:
        tasks.setdefault(task, []).append(code)
    return ", ".join(f"{task} ({', '.join(codes)})" for task, codes in tasks.items())


def _by(held: Sequence[Board], what: str) -> str:
    """Languages by task or by type: of one model one table where its columns fit, else a table a task or type."""
    columns: dict[str, list[Key]] = {}
    for key, entry in held[0].entries.items():
        columns.setdefault(entry.task if what == "task" else entry.type, []).append(key)
    entries = {name: held[0].entries[keys[0]] for name, keys in columns.items()}
    titles = {name: title_of(entry) if what == "task" else entry.type for name, entry in entries.items()}
    if len(held) == 1 and 1 < len(columns) <= COLUMNS:
        title = "Scores by task" if what == "task" else "Means by type of task"
        return _grid(title, [(titles[name], held[0], keys) for name, keys in columns.items()], what)
    called = names([board.results for board in held])
    return "\n\n".join(
        _grid(titles[name], [(n, board, keys) for n, board in zip(called, held, strict=True)], what)
        for name, keys in columns.items()
    )


def _grid(title: str, columns: Sequence[tuple[str, Board, Sequence[Key]]], what: str) -> str:
    """A table with a row a language, then the means over languages; columns are name, model and keys."""
    codes = order_of({key[LANGUAGE] for _, _, keys in columns for key in keys})
    cross = any(board.entries[key].cross_lingual for _, board, keys in columns for key in keys)

    def cell(board: Board, keys: Sequence[Key], members: Collection[str], outer: int) -> str:
        mine = [key for key in keys if key[LANGUAGE] in members]
        if mine and outer < 0:
            return score_cell(board.entries[mine[0]].score)
        return mean_cell(board.mean(mine, outer)) if mine else NO_SUCH

    own = -1 if what == "task" else LANGUAGE
    rows = [[name_of(code), *(cell(board, keys, [code], own) for _, board, keys in columns)] for code in codes]
    if len(codes) > 1:
        # The groups by resources stand in the averages alone.
        sets = {"all pairs": codes} if cross else {k: v for k, v in groups(codes).items() if "resources" not in k}
        outer = TASK if cross else LANGUAGE
        for label, members in sets.items():
            rows.append([f"mean of {label}", *(cell(board, keys, members, outer) for _, board, keys in columns)])
    table = markdown.table(["language", *(name for name, _, _ in columns)], rows)
    every = [key for _, _, keys in columns for key in keys]
    beneath = notes(list(dict.fromkeys(board for _, board, _ in columns)), every, rows)
    return "\n\n".join(part for part in (f"**{title}**", table, beneath) if part)


def _averages(held: Sequence[Board], published: PublishedRows, covers: Collection[Key]) -> str:
    """Rows of languages (cross-lingual: of tasks), then of groups; columns of models, then of published rows."""
    entries = held[0].entries
    cross = any(entry.cross_lingual for entry in entries.values())
    outer = TASK if cross else LANGUAGE
    members = list(dict.fromkeys(key[outer] for key in entries))
    comparable, lines = _comparable(held, covers, outer) if published else (set(), [])
    shown = published if comparable else {}
    titles = {key[TASK]: entry.title for key, entry in entries.items()}
    named = [(titles[member] if cross else name_of(member), [member]) for member in members]
    if len(members) > 1:
        for label, chosen in ({"all tasks": members} if cross else groups(members)).items():
            which = f" ({', '.join(chosen)})" if "resources" in label else ""
            named.append((f"mean of {label}{which}", chosen))
    rows = []
    for label, chosen in named:
        means = [board.mean([key for key in entries if key[outer] in chosen], outer) for board in held]
        beside = [_published(row, chosen, comparable) for row in shown.values()]
        rows.append([label, *map(mean_cell, means), *beside])
    shared = [key for key in entries if all(board.entries[key].score is not None for board in held)]
    if len(held) > 1 and 0 < len(shared) < len(entries):
        cells = [mean_cell(board.mean(shared, outer)) for board in held]
        rows.append(["mean of the scores that all models have", *cells, *[""] * len(shown)])
    called = names([board.results for board in held])
    header = ["task" if cross else "language", *called, *(f"{name} (published)" for name in shown)]
    beneath = "\n".join(part for part in (markdown.bullets(lines), notes(held, entries, rows)) if part)
    return "\n\n".join(part for part in (markdown.table(header, rows), beneath) if part)


def _comparable(held: Sequence[Board], covers: Collection[Key], outer: int) -> tuple[set[str], list[str]]:
    """The languages (or tasks) of which a model has exactly what a published mean covers; why the others are not."""
    ours = {key: any(board.entries[key].score is not None for board in held) for key in held[0].entries}
    found, lines = set(), []
    for member in dict.fromkeys(key[outer] for key in ours):
        run = {key for key, there in ours.items() if there and key[outer] == member}
        theirs = {key for key in covers if key[outer] == member}
        if run == theirs and any(all(board.entries[key].score is not None for key in run) for board in held):
            found.add(member)
            continue
        short = ", ".join(sorted(key[1 - outer] for key in theirs - run))
        more = ", ".join(sorted(key[1 - outer] for key in run - theirs))
        why = [f"not run here: {short}"] * bool(short) + [f"not under the published mean: {more}"] * bool(more)
        lines.append(f"no published score beside {member}: {'; '.join(why) or 'no model has all of its tasks'}")
    return found, lines


def _published(row: Mapping[str, float], members: Sequence[str], comparable: set[str]) -> str:
    """A published score, or the mean of published scores."""
    if not set(members) <= comparable:
        return NOT_COMPARABLE
    if not set(members) <= row.keys():
        return NOT_PUBLISHED
    return score_cell(sum(row[member] for member in members) / len(members))


def render(template: str, **values: Any) -> str:
    """Fill a template of a report; its filters give scores, languages and other values as readers see them.

    Args:
        template: Name of its file.
        values: What it names.
    """
    words = {"language": name_of, "score": score_cell, "level": style.level_name, "script": style.script_name}
    opened = environment("lusifer.evaluation.report", **words, json=_json)
    return opened.get_template(template).render(**values)


def _json(value: object, indent: int | None = None) -> str:
    return json.dumps(value, indent=indent, ensure_ascii=False, sort_keys=True)
