"""Scores as Markdown: what is missing stays missing, and every mean says over how much it is.

Models stand side by side as columns. Monolingual and cross-lingual scores have separate tables. A score has one
decimal; a mean has its 95 % interval behind it where all its members have examples. No table ends with a line break.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from lusifer.evaluation.report.cells import (
    NO_SUCH,
    count_of,
    markdown,
    mean_cell,
    name_of,
    score_cell,
    title_of,
    with_interval,
)
from lusifer.evaluation.report.notes import notes
from lusifer.evaluation.scores.averages import LANGUAGE, TASK, Board, boards, groups, order_of
from lusifer.evaluation.scores.bootstrap import Key
from lusifer.evaluation.scores.compare import Comparison, sentence
from lusifer.evaluation.scores.results import Results, names

NOT_COMPARABLE, NOT_PUBLISHED = "not comparable", "not published"
COLUMNS = 6
"""Tasks or types of one model that still stand side by side; of more, each has a table of its own."""
Published = Mapping[str, Mapping[str, float]]
"""Name of a published row -> language (cross-lingual: task) -> score in percent."""


def page(
    results: Sequence[Results],
    monolingual: tuple[Published, Collection[Key]] = ({}, ()),
    cross_lingual: tuple[Published, Collection[Key]] = ({}, ()),
    seed: int = 0,
) -> str:
    """All tables: averages, by type and by task, of the monolingual scores and then of the cross-lingual ones.

    Args:
        results: Of one or more models.
        monolingual: Published rows to show beside the averages, and the language and task of every score under them.
        cross_lingual: Likewise; its rows go by task.
        seed: Of the resampling.
    """
    sections = []
    for cross, title, (published, covers) in (
        (False, "Monolingual", monolingual),
        (True, "Cross-lingual", cross_lingual),
    ):
        parts = [result.part(cross) for result in results]
        if any(part.scores for part in parts):
            held = boards(parts, seed)
            sections.append(f"## {title}: averages\n\n{_averages(held, published, covers)}")
            sections.append(f"## {title}: by type of task\n\n{_by(held, 'type')}")
            sections.append(f"## {title}: by task\n\n{_by(held, 'task')}")
    return "\n\n".join(sections)


def by_task(results: Sequence[Results], seed: int = 0) -> str:
    """Languages by task: a row a language and a column a task for one model, else a table a task and a column a model.

    Args:
        results: Of one or more models, either their monolingual or their cross-lingual part.
        seed: Of the resampling.

    Raises:
        UsageError: Cross-lingual and monolingual scores are mixed.
    """
    return _by(boards(results, seed), "task")


def by_type(results: Sequence[Results], seed: int = 0) -> str:
    """Languages by type of task: the mean over a language's tasks of the type, with their number.

    Args:
        results: As for `by_task`.
        seed: Of the resampling.

    Raises:
        UsageError: Cross-lingual and monolingual scores are mixed.
    """
    return _by(boards(results, seed), "type")


def averages(
    results: Sequence[Results], published: Published | None = None, covers: Collection[Key] = (), seed: int = 0
) -> str:
    """The averages of the LUSIFER paper's tables 1 and 2, with its groups of languages by resources.

    Monolingual: a row a language, the mean over its tasks, then the mean over languages. Cross-lingual: a row a task,
    the mean over its languages, then the mean over tasks.

    Args:
        results: As for `by_task`.
        published: Rows to show beside ours where the same tasks were run, and nowhere else.
        covers: Language and task of every score under the published rows.
        seed: Of the resampling.

    Raises:
        UsageError: Cross-lingual and monolingual scores are mixed.
    """
    return _averages(boards(results, seed), published or {}, covers)


def comparison(found: Comparison) -> str:
    """A comparison of two models: its sentence, a row a language, and the mean of the differences."""
    rows = []
    for row in found.rows:
        change, p = row.difference, "" if row.p is None else "< 0.001" if row.p < 0.001 else f"{row.p:.3f}"
        difference = with_interval(change.value, change.low, change.high, sign="+") if change else ""
        scores = [score_cell(value) for value in row.scores]
        rows.append([name_of(row.language), *scores, difference, p, row.verdict or NOT_COMPARABLE])
    if found.mean is not None:
        number = sum(row.difference is not None for row in found.rows)
        mean = with_interval(found.mean, found.low, found.high, sign="+")
        rows.append([f"mean of {count_of(number, 'language')}", "", "", mean, "", ""])
    table = markdown(["language", *found.names, "difference (95 %)", "p, corrected", "verdict on the first"], rows)
    tests = dict.fromkeys(row.difference.test for row in found.rows if row.difference)
    used = f"\n\n- p by {', '.join(tests)}; corrected after Holm over the comparisons of this task" if tests else ""
    kind = ", cross-lingual" * found.cross_lingual
    return f"**{found.title}{kind}**\n\n{sentence(found)}\n\n{table}{used}"


def _by(held: Sequence[Board], what: str) -> str:
    """Languages by task or by type."""
    entries = held[0].entries if held else {}
    columns: dict[str, list[Key]] = {}
    for key, entry in entries.items():
        columns.setdefault(entry.task if what == "task" else entry.type, []).append(key)
    if len(held) == 1 and 1 < len(columns) <= COLUMNS:
        title = "Scores by task" if what == "task" else "Means by type of task"
        return _grid(title, [(_title(held[0], keys, what), held[0], keys) for keys in columns.values()], what)
    called = names([board.results for board in held])
    return "\n\n".join(
        _grid(_title(held[0], keys, what), [(n, b, keys) for n, b in zip(called, held, strict=True)], what)
        for keys in columns.values()
    )


def _title(board: Board, keys: Sequence[Key], what: str) -> str:
    """A task with its metric, or a type."""
    entry = board.entries[keys[0]]
    return title_of(entry) if what == "task" else entry.type


def _grid(title: str, columns: Sequence[tuple[str, Board, Sequence[Key]]], what: str) -> str:
    """A table with a row a language, then the means over languages; columns are name, model and keys."""
    codes = order_of({key[LANGUAGE] for _, _, keys in columns for key in keys})
    rows = []
    for code in codes:
        cells = []
        for _, board, keys in columns:
            mine = [key for key in keys if key[LANGUAGE] == code]
            if what == "task":
                cells.append(score_cell(board.entries[mine[0]].score) if mine else NO_SUCH)
            else:
                cells.append(mean_cell(board.mean(mine)) if mine else NO_SUCH)
        rows.append([name_of(code), *cells])
    every = [key for _, _, keys in columns for key in keys]
    cross = any(board.entries[key].cross_lingual for _, board, keys in columns for key in keys)
    for label, members in _sets(codes, cross).items() if len(codes) > 1 else ():
        cells = [_over(board, keys, members, cross=cross) for _, board, keys in columns]
        rows.append([f"mean of {label}", *cells])
    table = markdown(["language", *(name for name, _, _ in columns)], rows)
    beneath = notes(list(dict.fromkeys(board for _, board, _ in columns)), every, rows)
    return "\n\n".join(part for part in (f"**{title}**", table, beneath) if part)


def _sets(codes: Sequence[str], cross: bool) -> dict[str, list[str]]:
    """The languages of each mean beneath a table; the groups by resources stand in the averages alone."""
    if cross:
        return {"all pairs": list(codes)}
    return {label: members for label, members in groups(codes).items() if "resources" not in label}


def _over(board: Board, keys: Sequence[Key], codes: Collection[str], cross: bool) -> str:
    chosen = [key for key in keys if key[LANGUAGE] in codes]
    return mean_cell(board.mean(chosen, TASK if cross else LANGUAGE)) if chosen else NO_SUCH


def _averages(held: Sequence[Board], published: Published, covers: Collection[Key]) -> str:
    """Rows of languages (cross-lingual: of tasks), then of groups; columns of models, then of published rows."""
    entries = held[0].entries if held else {}
    if not entries:
        return ""
    cross = any(entry.cross_lingual for entry in entries.values())
    outer = TASK if cross else LANGUAGE
    members = list(dict.fromkeys(key[outer] for key in entries))
    comparable, lines = _comparable(held, covers, outer) if published else (set(), [])
    shown = published if comparable else {}
    titles = {key[TASK]: entry.title for key, entry in entries.items()}
    named = [(titles[member] if cross else name_of(member), [member]) for member in members]
    if len(members) > 1:
        sets = {"all tasks": members} if cross else groups(members)
        for label, chosen in sets.items():
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
    beneath = "\n".join(part for part in ("\n".join(lines), notes(held, entries, rows)) if part)
    return "\n\n".join(part for part in (markdown(header, rows), beneath) if part)


def _comparable(held: Sequence[Board], covers: Collection[Key], outer: int) -> tuple[set[str], list[str]]:
    """The languages (or tasks) of which a model has all that is under a published mean and nothing else; the others."""
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
        lines.append(f"- no published score beside {member}: {'; '.join(why) or 'no model has all of its tasks'}")
    return found, lines


def _published(row: Mapping[str, float], members: Sequence[str], comparable: set[str]) -> str:
    """A published score, or the mean of published scores."""
    if not set(members) <= comparable:
        return NOT_COMPARABLE
    if not set(members) <= row.keys():
        return NOT_PUBLISHED
    return score_cell(sum(row[member] for member in members) / len(members))
