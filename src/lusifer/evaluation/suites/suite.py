"""What an evaluation measures: the rows of a suite in some languages, chosen and checked before a model is loaded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from lusifer import languages as languages_
from lusifer.errors import UsageError
from lusifer.evaluation.search import questions
from lusifer.evaluation.search.collection import QuestionSet, Searched
from lusifer.evaluation.suites import benchmark
from lusifer.evaluation.tasks import local
from lusifer.evaluation.tasks.rows import SuiteRow, select
from lusifer.io import parallel_text
from lusifer.io.files import sha256

MINE = "mine"
"""The suite of a user's own questions."""
LOCAL = (*local.MODULES, MINE)
"""Suites of our own tasks, which need no hub."""
PACKAGED = ("sample", "robust")
"""Those of them that have tasks on the packaged sentences, which need no folder."""
EVERY = "all"
"""In place of codes: every language that there is anything for."""


def names() -> tuple[str, ...]:
    """Name the suites."""
    return (*LOCAL, *benchmark.names())


@dataclass(frozen=True)
class Selection:
    """What is measured.

    Attributes:
        suite: Name of the suite.
        rows: A language of a task each, cheapest first.
        make: From rows that share a task: mteb's task, its data not yet loaded.
        absent: Language and task of rows that cannot be run -> the reason.
        digests: SHA-256 of the files by name.
        notes: What to say of files and scripts that were taken for a language.
        facts: What a reader of the scores must know beside them, for the settings in the summary.
        parallel: The same sentences in several languages, for the gap between languages; None where there are none.
    """

    suite: str
    rows: list[SuiteRow]
    make: Callable[[Sequence[SuiteRow]], Any]
    absent: Mapping[tuple[str, str], str] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    parallel: Mapping[str, Sequence[str]] | None = None
    notes: Sequence[str] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


def choose(
    suite: str,
    data: Path | None = None,
    languages: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    against: bool = False,
    documents: Path | Searched | None = None,
) -> Selection:
    """Choose what is measured; files are read here, once.

    `data` is the folder of the suites `offline` and `robust` (which has the packaged sentences without one), or the
    file of one's own questions, whose `documents` may be elsewhere. No languages are the 14 of the paper, of one's own
    questions and of a suite from the hub all that have a row; no tasks are all of the suite. With "all" as the one
    language there are all that have anything, each with the tasks whose files it has. `against` leaves those tasks
    whose documents may be of another embedder, without the gap between languages.

    Raises:
        DataError: A file of the offline suite is damaged, or there is none.
        MissingExtraError: The suite is a local one, and mteb is not installed.
        UsageError: A suite, language or task is unknown, the offline suite has no folder, no disguise applies to what
            was chosen, or `against` is asked of a suite from the hub.
    """
    if suite not in names():
        raise UsageError(f"--suite {suite!r} is unknown: use one of {', '.join(names())}")
    every = EVERY in map(str.lower, languages or ())
    if every and len(languages or ()) > 1:
        raise UsageError(f"--languages: {EVERY} stands alone: it is every language that there is anything for")
    for code in () if every else languages or ():
        languages_.language(code)  # before the tasks are imported, which takes seconds
    if suite == MINE:
        return _mine(data, None if every else languages, tasks, against, documents)
    if documents is not None:
        raise UsageError(f"--documents: belongs to the suite {MINE!r}, not to {suite!r}: leave it out")
    asked = languages or [row.code for row in languages_.paper()]
    if suite not in LOCAL:
        if against:
            raise UsageError(f"--against: not with the suite {suite!r} from the hub: use one of {', '.join(LOCAL)}")
        table = benchmark.suite(suite)
        there = {row.language for row in table}
        codes, notes = _codes(languages if languages and not every else sorted(there), there)
        return Selection(suite, select(table, codes, tasks), benchmark.make, notes=notes)
    return _from_files(suite, None if suite == "sample" else data, None if every else asked, tasks, against)


def _from_files(
    suite: str, data: Path | None, asked: Sequence[str] | None, tasks: Sequence[str] | None, against: bool
) -> Selection:
    """A suite of our own tasks, in some languages or in every one that there is anything for (None)."""
    if suite not in PACKAGED and data is None:
        raise UsageError(f"the suite {suite} reads files: name their folder with --data")
    folder, kinds = local.DataFolder(data), local.tasks(suite)
    if data is None:
        kinds = [kind for kind in kinds if not kind.files(Path(), kind.subset.format(local.ENGLISH))]
    packaged = parallel_text.sample().texts if suite in PACKAGED else {}
    there = set(packaged) | (local.codes(kinds, data) if data is not None else set())
    codes, notes = _codes(sorted(there) if asked is None else asked, there)
    if data is None:
        unknown = [code for code in codes if code not in there]
        if unknown:
            raise UsageError(f"language {unknown[0]!r} is not in the sample: use some of {', '.join(packaged)}")
        if codes == [local.ENGLISH]:
            raise UsageError("--languages: the sample compares languages with English: name another one")
    rows, absent, files = local.survey(kinds, codes, folder, asked is None)
    if against:
        known_tasks = {kind.__name__: kind for kind in kinds}
        rows = [row for row in rows if known_tasks[row.task].indexed(row.language)]
    rows = select(rows, None, tasks)
    digests = {file.name: sha256(file) for file in files}
    compared = [local.ENGLISH, *(code for code in codes if code != local.ENGLISH)]
    parallel, facts = None, {}
    if suite == "robust":
        from lusifer.evaluation.tasks import robust

        fit = robust.fitting(kinds, rows, folder)
        rows, absent, facts = fit.rows, {**absent, **fit.absent}, {"disguises": fit.facts}
        digests["texts in disguise"] = fit.digest
        if not rows:
            raise UsageError(f"nothing to measure: {fit.why_none()}: choose other --languages or --tasks")
        bare = [code for code in codes if code not in {row.language for row in rows}]
        notes += [f"{', '.join(bare)}: without a score: {fit.why_none()}"] if bare else []
    elif not rows:
        raise UsageError(f"{data}: no file for these languages and tasks: choose other --languages or --tasks")
    elif not against and suite != "long":
        parallel = _parallel(suite, folder, compared, "dev" if asked is None else "train")
    notes += local.notes(kinds, compared, data) if data is not None else ()
    return Selection(suite, rows, partial(local.make, kinds, folder), absent, digests, parallel, notes, facts)


def _mine(
    data: Path | None,
    languages: Sequence[str] | None,
    tasks: Sequence[str] | None,
    against: bool,
    documents: Path | Searched | None,
) -> Selection:
    """A user's own questions, in all languages that they are in or in some."""
    if data is None or not data.is_file():
        words = "reads a file of questions: name it with --data"
        if data is not None:
            folder = "is a folder: name the file of questions in it (JSONL, CSV, Parquet)"
            words = f"--data {data}: {folder if data.is_dir() else 'no such file'}"
        raise UsageError(f"--suite {MINE}: {words}; its form: docs/how-to/evaluate.md")
    if against and isinstance(documents, Searched) and documents.vectors is not None:
        raise UsageError("--against: the documents of an index have vectors already: leave it out")
    asked, digests, notes = questions.read(data, documents)
    rows, left_out = questions.survey(asked)
    there = {row.language for row in rows}
    codes, more = _codes(languages, there) if languages else (None, [])
    made = partial(_questions, asked)
    return Selection(MINE, select(rows, codes, tasks), made, digests=digests, notes=[*notes, *left_out, *more])


def _questions(asked: QuestionSet, _: Sequence[SuiteRow]) -> questions.MyQuestions:
    return questions.MyQuestions(asked)


def _parallel(
    suite: str, folder: local.DataFolder, codes: Sequence[str], split: str
) -> dict[str, Sequence[str]] | None:
    """The sentences that are the same in all languages, of SIB-200 those of a split."""
    from lusifer.evaluation.tasks import sib200

    known = parallel_text.sample().texts
    return {code: known[code] for code in codes} if suite == "sample" else sib200.parallel(folder, codes, split)


def _codes(asked: Sequence[str], there: Collection[str]) -> tuple[list[str], list[str]]:
    """The codes as they are in a set, and a note on each that is there in another script alone, or looks like two."""
    found = {code: languages_.among(code, there) for code in asked}
    others = {
        code: languages_.language(other) for code, other in found.items() if languages_.language(code).code != other
    }
    notes = [
        f"{code}: {row.code} ({row.name}) is measured, the only script that is there" for code, row in others.items()
    ]
    for code in filter(local.is_pair, found):
        row = languages_.language(found[code])
        notes.append(f"{code}: taken for {row.code} ({row.name}): two languages have a comma between them")
    return list(dict.fromkeys(found.values())), notes
