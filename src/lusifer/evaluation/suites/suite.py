"""What an evaluation measures: the rows of a suite in some languages, chosen and checked before a model is loaded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from lusifer import languages as languages_
from lusifer.errors import UsageError
from lusifer.evaluation.suites import benchmark
from lusifer.evaluation.tasks import local
from lusifer.evaluation.tasks.rows import SuiteRow, select
from lusifer.io import parallel_text
from lusifer.io.files import sha256

LOCAL = tuple(local.MODULES)
"""Suites of our own tasks, which need no hub."""
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
        parallel: The same sentences in several languages, for the gap between languages; None where there are none.
    """

    suite: str
    rows: list[SuiteRow]
    make: Callable[[Sequence[SuiteRow]], Any]
    absent: Mapping[tuple[str, str], str] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    parallel: Mapping[str, Sequence[str]] | None = None
    notes: Sequence[str] = ()


def choose(
    suite: str,
    data: Path | None = None,
    languages: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    against: bool = False,
) -> Selection:
    """Choose what is measured; files are read here, once.

    Only the offline suite has a folder, `data`. No languages are the 14 of the paper, no tasks all of the suite. With
    "all" as the one language there are all that have anything, each with the tasks whose files it has. `against`
    leaves those tasks whose documents may be of another embedder, without the gap between languages.

    Raises:
        DataError: A file of the offline suite is damaged, or there is none.
        MissingExtraError: The suite is a local one, and mteb is not installed.
        UsageError: A suite, language or task is unknown, the offline suite has no folder, or `against` is asked of a
            suite from the hub.
    """
    if suite not in names():
        raise UsageError(f"--suite {suite!r} is unknown: use one of {', '.join(names())}")
    every = EVERY in map(str.lower, languages or ())
    if every and len(languages or ()) > 1:
        raise UsageError(f"--languages: {EVERY} stands alone: it is every language that there is anything for")
    asked = languages or [row.code for row in languages_.paper()]
    if suite not in LOCAL:
        if against:
            raise UsageError(f"--against: not with the suite {suite!r} from the hub: use one of {', '.join(LOCAL)}")
        table = benchmark.suite(suite)
        there = {row.language for row in table}
        codes, notes = _codes(sorted(there) if every else asked, there)
        return Selection(suite, select(table, codes, tasks), benchmark.make, notes=notes)
    known = parallel_text.sample().texts
    folder = local.DataFolder(data if suite != "sample" else None)
    kinds = local.tasks(suite)
    there = set(known) if suite == "sample" else local.codes(kinds, data) if data is not None else set()
    codes, notes = _codes(sorted(there) if every else asked, there)
    if suite == "sample":
        unknown = [code for code in codes if code not in known]
        if unknown:
            raise UsageError(f"language {unknown[0]!r} is not in the sample: use some of {', '.join(known)}")
        if codes == [local.ENGLISH]:
            raise UsageError("--languages: the sample compares languages with English: name another one")
    elif data is None:
        raise UsageError("the offline suite reads files: name their folder with --data")
    rows, absent, files = local.survey(kinds, codes, folder, every)
    if against:
        known_tasks = {kind.__name__: kind for kind in kinds}
        rows = [row for row in rows if known_tasks[row.task].indexed(row.language)]
    compared = [local.ENGLISH, *(code for code in codes if code != local.ENGLISH)]
    return Selection(
        suite,
        select(rows, None, tasks),
        partial(local.make, kinds, folder),
        absent,
        {file.name: sha256(file) for file in files},
        None if against else _parallel(suite, folder, compared, "dev" if every else "train"),
        [*notes, *(local.notes(kinds, compared, data) if data is not None and suite != "sample" else ())],
    )


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
