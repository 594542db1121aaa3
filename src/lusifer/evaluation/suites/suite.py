"""The selection of an evaluation: rows of a suite in some languages, chosen and checked before a model is loaded."""

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
from lusifer.io.files import refuse_no_file, sha256

MINE = "mine"
"""The suite of a user's own questions."""
LOCAL = (*local.MODULES, MINE)
"""Suites of Lusifer's own tasks, which need no Hub."""
PACKAGED = ("sample", "robust")
"""Suites with tasks on the packaged sentences, which need no folder."""
EVERY = "all"
"""Stands for every language that has data, in place of codes."""
PERTURBED_TEXTS = "texts in disguise"
"""Key of the digest of perturbed texts; folders of older evaluations have it, so it does not change."""


def names() -> tuple[str, ...]:
    """Give the names of all suites."""
    return (*LOCAL, *benchmark.names())


@dataclass(frozen=True)
class Selection:
    """The rows that an evaluation measures.

    Attributes:
        suite: Name of the suite.
        rows: One row for each language and task, cheapest first.
        make: Function that makes the task of rows that share it; its data are not loaded yet.
        absent: Language and task of rows that cannot be run -> the reason.
        digests: Name of a file -> its SHA-256.
        parallel: Language -> the same sentences in it, for the gap between languages; None if there are none.
        notes: Messages about files and scripts that were read as a language.
        facts: Facts about the scores, for the settings in the summary.
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
    """Choose the rows of an evaluation; files are read here, once.

    Args:
        suite: Name of the suite.
        data: The folder of the suites `offline`, `long` and `robust`, or the file of questions of the suite `mine`.
            Without a folder `robust` uses the packaged sentences.
        languages: Codes of languages, or "all" alone for every language that has data. None is the 14 languages of the
            paper; for the suites `mine` and those from the Hub it is every language with a row.
        tasks: Names of tasks; None for all of the suite.
        against: Whether to choose only tasks whose documents another embedder may encode, without the language gap.
        documents: The documents of the suite `mine`, if they are not in the file of questions.

    Raises:
        DataError: A file of a local suite is damaged, or the folder has none.
        MissingExtraError: The suite is a local one, and mteb is not installed.
        UsageError: A suite, language or task is unknown, the folder is missing, no perturbation applies to the chosen
            rows, or `against` is used with a suite from the Hub.
    """
    if suite not in names():
        raise UsageError(f"--suite {suite!r} is unknown: use one of {', '.join(names())}")
    every = EVERY in map(str.lower, languages or ())
    if every and len(languages or ()) > 1:
        raise UsageError(f"--languages: {EVERY} already means every language with data: give no other code with it")
    for code in () if every else languages or ():
        languages_.language(code)  # before the tasks are imported, which takes seconds
    if suite == MINE:
        return _mine(data, None if every else languages, tasks, against, documents)
    if documents is not None:
        raise UsageError(f"--documents: only for the suite {MINE!r}, not for {suite!r}: leave it out")
    asked = languages or [row.code for row in languages_.paper()]
    if suite not in LOCAL:
        if against:
            raise UsageError(f"--against: not with the suite {suite!r} from the Hub: use one of {', '.join(LOCAL)}")
        table = benchmark.suite(suite)
        there = {row.language for row in table}
        codes, notes = _codes(languages if languages and not every else sorted(there), there)
        return Selection(suite, select(table, codes, tasks), benchmark.make, notes=notes)
    return _from_files(suite, None if suite == "sample" else data, None if every else asked, tasks, against)


def _from_files(
    suite: str, data: Path | None, asked: Sequence[str] | None, tasks: Sequence[str] | None, against: bool
) -> Selection:
    """Choose the rows of a local suite, in some languages or in every language with data (None)."""
    if suite not in PACKAGED and data is None:
        raise UsageError(f"--suite {suite} reads files: name their folder with --data")
    local.refuse_unknown(suite, tasks or ())
    folder, kinds = local.DataFolder(data), local.tasks(suite)
    if data is None:
        kinds = [kind for kind in kinds if not kind.files(Path(), kind.subset.format(local.ENGLISH))]
    packaged = parallel_text.sample().texts if suite in PACKAGED else {}
    there = set(packaged) | (local.codes(kinds, data) if data is not None else set())
    codes, notes = _codes(sorted(there) if asked is None else asked, there)
    if data is None:
        unknown = [code for code in codes if code not in there]
        if unknown:
            raise UsageError(
                f"--languages: {unknown[0]!r} has no packaged sentences: use some of {', '.join(packaged)}"
            )
        if codes == [local.ENGLISH]:
            raise UsageError("--languages: the packaged sentences are compared with English: name another language")
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
        digests[PERTURBED_TEXTS] = fit.digest
        if not rows:
            raise UsageError(f"nothing to measure: {fit.why_none()}: choose other --languages or --tasks")
        bare = [code for code in codes if code not in {row.language for row in rows}]
        notes += [f"{', '.join(bare)}: no score: {fit.why_none()}"] if bare else []
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
    """Choose the rows of a user's own questions, in some languages or in all of them (None)."""
    how = "docs/how-to/evaluate.md describes the file"
    if data is None:
        raise UsageError(f"--suite {MINE} reads a file of questions: name it with --data; {how}")
    if data.is_dir():
        words = "this is a folder: name the file of questions in it (JSONL, CSV, Parquet)"
        raise UsageError(f"--data {data}: {words}; {how}")
    refuse_no_file(data, f"correct the name; {how}", UsageError, "--data")
    if against and isinstance(documents, Searched) and documents.vectors is not None:
        raise UsageError("--against: the documents of an index already have vectors: leave it out")
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
    """Give the sentences that all languages share: the packaged ones, or those of a split of SIB-200."""
    from lusifer.evaluation.tasks import sib200

    known = parallel_text.sample().texts
    return {code: known[code] for code in codes} if suite == "sample" else sib200.parallel(folder, codes, split)


def _codes(asked: Sequence[str], there: Collection[str]) -> tuple[list[str], list[str]]:
    """Find codes in a set, with a note for each that exists only in another script or that looks like two languages."""
    found = {code: languages_.among(code, there) for code in asked}
    others = {
        code: languages_.language(other) for code, other in found.items() if languages_.language(code).code != other
    }
    notes = [f"{code}: only {row.code} ({row.name}) has texts, so it is measured" for code, row in others.items()]
    for code in filter(local.is_pair, found):
        row = languages_.language(found[code])
        notes.append(f"{code}: read as {row.code} ({row.name}): write a comma between two languages")
    return list(dict.fromkeys(found.values())), notes
