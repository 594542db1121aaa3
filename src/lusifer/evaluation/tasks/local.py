"""Local tasks: mteb task classes whose data lie in files of a folder, or come with the package.

A task is one class, derived from `LocalTask` and from one of mteb's task classes; `MODULES` names the modules that
hold those of the library, and `register` adds one from outside. The modules import mteb, so they are imported late.
"""

from __future__ import annotations

import os
import pkgutil
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from lusifer import extras, languages
from lusifer.errors import DataError, UsageError
from lusifer.evaluation.tasks.rows import SuiteRow

ENGLISH = "en"
MODULES: dict[str, list[str]] = {
    "offline": [f"lusifer.evaluation.tasks.{name}:TASKS" for name in ("sib200", "xquad", "sts")],
    "sample": ["lusifer.evaluation.tasks.sib200:SAMPLE_TASKS"],
    "robust": ["lusifer.evaluation.tasks.robust:TASKS"],
    "long": ["lusifer.evaluation.search.long:TASKS"],
}
"""Suite -> where its tasks stand: module and name of a tuple."""
_ADDED: list[type[LocalTask]] = []


@dataclass
class DataFolder:
    """A folder of evaluation files, None for tasks that read none; each file is parsed once for all tasks."""

    path: Path | None
    parsed: dict[Path, Any] = field(default_factory=dict)

    def read(self, file: Path, parse: Callable[[Path], Any]) -> Any:
        """Give the content of a file; one that is missing or damaged is a `DataError`."""
        if file not in self.parsed:
            self.parsed[file] = parse(file)
        return self.parsed[file]


class LocalTask:
    """The part of a local task that mteb does not have; name it before mteb's class among the bases.

    Attributes:
        title: What is measured, in words, for tables. A class without one is no task, but a base of others.
        type: mteb's type, as in "Classification".
        metric: mteb's main metric of that type.
        split: The split that is tested.
        subset: The subset of a language: "{}" is replaced by its code.
        cross_lingual: Whether English takes part beside the language; English itself has no row then.
        instruction: What stands before a query for a model that was trained with instructions.
        symmetric: Whether documents carry the instruction too.
        cost: Texts that a row embeds; None where that is not known.
        texts: What the ids of its examples are ids of, where other tasks have the same texts: means over such tasks
            have their texts drawn together.
        optional: Whether a language without a file has no row at all; else its score is missing, with the reason.
        by_mteb: Whether mteb measures it; a `RankedTask` (`evaluation.search.ranked`) does so itself.
    """

    title: ClassVar[str]
    type: ClassVar[str]
    metric: ClassVar[str]
    split: ClassVar[str] = "all"
    subset: ClassVar[str] = "{}"
    cross_lingual: ClassVar[bool] = False
    instruction: ClassVar[str | None] = None
    symmetric: ClassVar[bool] = True
    cost: ClassVar[int | None] = None
    texts: ClassVar[str | None] = None
    optional: ClassVar[bool] = False
    by_mteb: ClassVar[bool] = True
    source = DataFolder(None)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if hasattr(cls, "title") and cls.by_mteb:
            cls.metadata = _metadata(cls)

    @classmethod
    def files(cls, folder: Path, subset: str) -> list[Path]:
        """List the files that a subset is made of, whether they are there or not."""
        return []

    @staticmethod
    def parse(file: Path) -> Any:
        """Read one file; one that is missing or damaged is a `DataError`."""
        raise NotImplementedError(f"{file}: write `parse(file)` in the task: it returns what the file holds")

    @classmethod
    def build(cls, subset: str, *contents: Any) -> Any:
        """Make mteb's data of a subset, by split, from what `parse` gave for each of its files."""
        raise NotImplementedError(
            f"{cls.__name__}: write `build(subset, *contents)`: it returns mteb's data of the subset by split"
        )

    @classmethod
    def indexed(cls, code: str) -> bool:
        """Whether what a text is compared with may be another embedder's: English texts, or the second of a pair."""
        return False

    def load_data(self, **_: Any) -> None:
        """Fill `dataset` with the subsets that will be run, as mteb asks for it."""
        if not self.data_loaded:
            self.dataset = {
                subset: self.build(
                    subset, *(self.source.read(file, self.parse) for file in self.files(self.source.path, subset))
                )
                for subset in self.hf_subsets
            }
            self.data_loaded = True

    @classmethod
    def row(cls, code: str) -> SuiteRow | None:
        """The row of a language; None for English in a task that compares with English."""
        if cls.cross_lingual and code == ENGLISH:
            return None
        names = ("type", "split", "metric", "instruction", "symmetric", "cross_lingual", "cost", "title", "texts")
        same = {name: getattr(cls, name) for name in names}
        return SuiteRow(language=code, task=cls.__name__, subsets=(cls.subset.format(code),), **same)


def named(folder: Path, pattern: str, code: str) -> Path:
    """The file of a language: `pattern` has {} in place of its code, or of another one of it (zho_Hans for zh).

    A pattern that ends in .jsonl stands for .jsonl.gz as well; the name without .gz where there is neither.

    Raises:
        DataError: Two files stand for the language.
    """
    files = [file for other, _, file in _by_code(folder, pattern) if other == code]
    if len(files) > 1:
        names = " and ".join(file.name for file in files[:2])
        raise DataError(f"{folder}: {names} both stand for {code}: keep one of them in the folder")
    return files[0] if files else folder / pattern.format(code)


def _by_code(folder: Path, pattern: str, pairs: bool = False) -> Iterator[tuple[str, str, Path]]:
    """The files of a pattern, sorted by name: language, the word for it in the name, file.

    With `pairs` only those with a second language where a territory could stand (en-de): files of no one language.
    """
    before, after = pattern.split("{}")
    for file in sorted(os.listdir(folder)) if folder.is_dir() else ():
        packed = after.endswith(".jsonl") and file.lower().endswith(".gz")
        name = file[:-3] if packed else file
        if name.startswith(before) and name.lower().endswith(after):
            word = name[len(before) : len(name) - len(after)]
            with suppress(UsageError):  # a word that is the code of no language
                code = languages.language(word).code
                if is_pair(word) == pairs:
                    yield code, word, folder / file


@cache
def is_pair(word: str) -> bool:
    """Whether the code of a language has a second one where a territory could stand.

    So in en-de and eng-deu; not in en-DE, zh-cmn, fr-fr and zh-cn, which is the code of no language.
    """
    first, *others = re.split("[-_]", word.strip())
    found = [part for part in others[:1] if re.fullmatch("[A-Za-z]{3}", part)]
    found = found or [part for part in others if re.fullmatch("[A-Za-z]{2}", part) and not part.isupper()]
    with suppress(UsageError):
        return any(languages.language(part).code != languages.language(first).code for part in found)
    return False


def _patterns(kinds: Sequence[type[LocalTask]], folder: Path) -> list[str]:
    """The names of the files of tasks, {} in place of a language."""
    names = [file.name for task in kinds for file in task.files(folder, task.subset.format("{}"))]
    return list(dict.fromkeys(name for name in names if "{}" in name))


def codes(kinds: Sequence[type[LocalTask]], folder: Path) -> set[str]:
    """The languages that files of tasks are there for."""
    return {code for name in _patterns(kinds, folder) for code, _, _ in _by_code(folder, name)}


def notes(kinds: Sequence[type[LocalTask]], codes: Collection[str], folder: Path) -> list[str]:
    """Say which files of some languages have another code in their names, and which are passed over as pairs."""
    found = []
    for pattern in _patterns(kinds, folder):
        for code, word, file in _by_code(folder, pattern):
            if code in codes and word != code:
                found.append(f"{file.name}: taken for {code} ({languages.language(code).name})")
    return found + _passed_over(kinds, codes, folder)


def _passed_over(kinds: Sequence[type[LocalTask]], codes: Collection[str], folder: Path) -> list[str]:
    return [
        f"{file.name}: not read: {word} looks like two languages; a territory has capitals (pt-BR)"
        for pattern in _patterns(kinds, folder)
        for code, word, file in _by_code(folder, pattern, pairs=True)
        if code in codes
    ]


def _metadata(task: type[LocalTask], codes: Iterable[str] = ()) -> Any:
    """Describe a task to mteb, for the languages of our table and others."""
    from mteb.abstasks.task_metadata import TaskMetadata

    known = [*languages.table().values(), *map(languages.language, codes)]
    scripts = {row.code: f"{row.code3}-{row.script}" for row in known}
    subsets = [task.subset.format(code) for code in scripts if not (task.cross_lingual and code == ENGLISH)]
    return TaskMetadata(
        name=task.__name__,
        description=task.title,
        type=task.type,
        main_score=task.metric,
        eval_splits=[task.split],
        eval_langs={subset: [scripts[code] for code in subset.split("-")] for subset in subsets},
        dataset={"path": f"local/{task.__name__}", "revision": "files"},
    )


def register(task: type[LocalTask]) -> None:
    """Add a task of your own to the suite "offline", for this process.

    Raises:
        ValueError: Another task has the name.
    """
    others = [known for known in tasks("offline") if extras.qualified(known) != extras.qualified(task)]
    if any(known.__name__ == task.__name__ for known in others):
        raise ValueError(f"task {task.__name__!r}: another class has this name already: choose another")
    _ADDED[:] = [known for known in _ADDED if known in others] + [task]


def tasks(suite: str) -> list[type[LocalTask]]:
    """Give the tasks of a local suite; this imports mteb.

    Raises:
        MissingExtraError: mteb is not installed.
    """
    extras.need("eval", "mteb")
    known = [task for place in MODULES[suite] for task in pkgutil.resolve_name(place)]
    return [*known, *(_ADDED if suite == "offline" else [])]


def survey(
    kinds: Sequence[type[LocalTask]], codes: Sequence[str], data: DataFolder, there_only: bool = False
) -> tuple[list[SuiteRow], dict[tuple[str, str], str], list[Path]]:
    """List what tasks measure, and read every file: a damaged one must not be found after hours.

    The files of English are read as well. With `there_only` a task without its file in a language is no row of it.

    Returns:
        The rows; language and task of those that lack a file, with the reason; and the files that are there.

    Raises:
        DataError: There is nothing to measure in the folder, or a file is damaged.
    """
    rows: list[SuiteRow] = []
    absent: dict[tuple[str, str], str] = {}
    found: dict[Path, None] = {}
    for code in dict.fromkeys([*codes, ENGLISH]):
        for task in kinds:
            needed = task.files(data.path, task.subset.format(code))
            there = [file for file in needed if file.is_file()]
            for file in there:
                data.read(file, task.parse)
                found[file] = None
            row = task.row(code) if code in codes else None
            if row is None or ((task.optional or there_only) and there != needed):
                continue
            rows.append(row)
            if there != needed:
                absent[row.key] = f"{next(file.name for file in needed if file not in there)}: no such file"
    if data.path is not None and not found:
        names = dict.fromkeys(file.name for task in kinds for file in task.files(data.path, "xx") if "xx" in file.name)
        passed = "".join(f"; {words}" for words in _passed_over(kinds, codes, data.path)[:1])
        raise DataError(
            f"{data.path}: nothing to measure in it: expected {', '.join(names)}, xx for a language code such as en"
            f"{passed}"
        )
    return rows, absent, list(found)


def make(kinds: Sequence[type[LocalTask]], data: DataFolder, rows: Sequence[SuiteRow]) -> Any:
    """Make the task of rows that share it, its data not yet loaded."""
    task = next(kind for kind in kinds if kind.__name__ == rows[0].task)()
    task.source = data
    if task.by_mteb:
        task.metadata = _metadata(type(task), [row.language for row in rows])
    return task
