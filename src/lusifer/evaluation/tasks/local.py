"""Local tasks: mteb task classes whose data are files of a folder or come with the package.

A task is a class that is derived from `LocalTask` and from one of mteb's task classes. `MODULES` names the modules with
the tasks of the library, and `register` adds one of your own. The modules import mteb, so they are imported late.
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
"""Suite -> where its tasks are defined, as "module:name of a tuple"."""
_PERTURBED = "WithoutDiacritics Capitals TypingErrors Decomposed Invisible Emoji OtherDigits"
_ARABIC = "Mesopotamian TaizziAdeni Tunisian SouthLevantine NorthLevantine Najdi Moroccan Egyptian"
NAMES: dict[str, list[str]] = {
    "offline": (
        "SIB200Topics SIB200Clusters SIB200ZeroShotTopics SIB200TranslationToEnglish SIB200TranslationFromEnglish "
        "SIB200TranslationToEnglishDev XQuADParagraphs XQuADToEnglish XQuADFromEnglish STSFile"
    ).split(),
    "sample": ["SampleTranslationToEnglish", "SampleTranslationFromEnglish"],
    "robust": [
        *(f"{start}{name}" for start in ("Sample", "SIB200") for name in f"Clean Romanised {_PERTURBED}".split()),
        *(f"SIB200In{name}Arabic" for name in _ARABIC.split()),
        *(f"XQuAD{name}" for name in f"Clean Romanised CodeMixed CodeMixedRomanised {_PERTURBED}".split()),
    ],
    "long": (
        "Long1 Long4Start Long4Middle Long4End Long8Start Long8Middle Long8End Long2Start Long2End Long4EndPassages "
        "Long8EndPassages Long2EndPassages"
    ).split(),
}
"""Suite -> the names of its tasks, so that a wrong name is refused before mteb is imported; a test compares them."""
_ADDED: list[type[LocalTask]] = []


@dataclass
class DataFolder:
    """A folder of evaluation files; each file is parsed once for all tasks.

    Attributes:
        path: The folder; None for tasks that read no files.
        parsed: File -> its parsed content.
    """

    path: Path | None
    parsed: dict[Path, Any] = field(default_factory=dict)

    def read(self, file: Path, parse: Callable[[Path], Any]) -> Any:
        """Give the parsed content of a file.

        Args:
            file: The file.
            parse: Function that reads the file if no task has read it yet.

        Raises:
            DataError: The file is missing or damaged.
        """
        if file not in self.parsed:
            self.parsed[file] = parse(file)
        return self.parsed[file]


class LocalTask:
    """Base class of local tasks; among the base classes of a task it comes before mteb's class.

    Attributes:
        title: Description of the task for tables. A class without a title is a base class and no task.
        type: mteb's type of task, such as "Classification".
        metric: mteb's main metric of that type.
        split: The split that is tested.
        subset: Name of the subset of a language; "{}" is replaced by its code.
        cross_lingual: Whether the language is compared with English; English itself then has no row.
        instruction: Instruction before a query, for a model that was trained with instructions; None for none.
        symmetric: Whether documents get the instruction too.
        cost: Number of texts that a row embeds; None if it is not known.
        texts: Name of the texts that the ids of the examples refer to, if other tasks have the same texts. Intervals of
            means over such tasks resample their texts together.
        optional: Whether a language without a file has no row. Otherwise its score is missing, with the reason.
        by_mteb: Whether mteb computes the score; a `RankedTask` (`evaluation.search.ranked`) computes it itself.
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
        """List the files of a subset, whether they exist or not.

        Args:
            folder: The folder of evaluation files.
            subset: Name of the subset.
        """
        return []

    @staticmethod
    def parse(file: Path) -> Any:
        """Read one file.

        Raises:
            DataError: The file is missing or damaged.
        """
        raise NotImplementedError(f"{file}: write `parse(file)` in the task; it returns the content of the file")

    @classmethod
    def build(cls, subset: str, *contents: Any) -> Any:
        """Make the data of a subset in mteb's form.

        Args:
            subset: Name of the subset.
            *contents: What `parse` returned for each file of `files`, in that order.

        Returns:
            Split -> mteb's data of the split.
        """
        raise NotImplementedError(
            f"{cls.__name__}: write `build(subset, *contents)`; it returns mteb's data of the subset by split"
        )

    @classmethod
    def indexed(cls, code: str) -> bool:
        """Whether another embedder may make the vectors of the documents, as `--against` does."""
        return False

    def load_data(self, **_: Any) -> None:
        """Fill `dataset` with the subsets that will be run; mteb calls this."""
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
        """Give the row of a language; None for English in a task that compares with English."""
        if cls.cross_lingual and code == ENGLISH:
            return None
        names = ("type", "split", "metric", "instruction", "symmetric", "cross_lingual", "cost", "title", "texts")
        same = {name: getattr(cls, name) for name in names}
        return SuiteRow(language=code, task=cls.__name__, subsets=(cls.subset.format(code),), **same)


def named(folder: Path, pattern: str, code: str) -> Path:
    """Find the file of a language.

    Its name may have any code of the language, such as zho_Hans for zh. A pattern that ends in .jsonl also finds
    .jsonl.gz.

    Args:
        folder: The folder of evaluation files.
        pattern: Name of the file, with {} in place of the code.
        code: Lusifer's code of the language.

    Returns:
        The path. If there is no such file, the path that the pattern gives for the code.

    Raises:
        DataError: Two files belong to the language.
    """
    files = [file for other, _, file in _by_code(folder, pattern) if other == code]
    if len(files) > 1:
        names = " and ".join(file.name for file in files[:2])
        raise DataError(f"{folder}: {names} are both for {code}: leave only one of them in the folder")
    return files[0] if files else folder / pattern.format(code)


def _by_code(folder: Path, pattern: str, pairs: bool = False) -> Iterator[tuple[str, str, Path]]:
    """Yield the files of a pattern, sorted by name: code of the language, code as the name has it, file.

    With `pairs`, yield only files whose code looks like two languages (en-de).
    """
    before, after = pattern.split("{}")
    for file in sorted(os.listdir(folder)) if folder.is_dir() else ():
        packed = after.endswith(".jsonl") and file.lower().endswith(".gz")
        name = file[:-3] if packed else file
        if name.startswith(before) and name.lower().endswith(after):
            word = name[len(before) : len(name) - len(after)]
            with suppress(UsageError):  # not the code of a language
                code = languages.language(word).code
                if is_pair(word) == pairs:
                    yield code, word, folder / file


@cache
def is_pair(word: str) -> bool:
    """Whether a code looks like two languages.

    This holds for en-de and eng-deu. It does not hold for en-DE (a territory), zh-cmn and fr-fr (the same language
    twice) or zh-cn ("cn" is not a language).
    """
    first, *others = re.split("[-_]", word.strip())
    found = [part for part in others[:1] if re.fullmatch("[A-Za-z]{3}", part)]
    found = found or [part for part in others if re.fullmatch("[A-Za-z]{2}", part) and not part.isupper()]
    with suppress(UsageError):
        return any(languages.language(part).code != languages.language(first).code for part in found)
    return False


def _patterns(kinds: Sequence[type[LocalTask]], folder: Path) -> list[str]:
    """The names of the files of tasks, with {} in place of a language."""
    names = [file.name for task in kinds for file in task.files(folder, task.subset.format("{}"))]
    return list(dict.fromkeys(name for name in names if "{}" in name))


def codes(kinds: Sequence[type[LocalTask]], folder: Path) -> set[str]:
    """Give the languages for which the folder has a file of one of the tasks."""
    return {code for name in _patterns(kinds, folder) for code, _, _ in _by_code(folder, name)}


def notes(kinds: Sequence[type[LocalTask]], codes: Collection[str], folder: Path) -> list[str]:
    """Say which files have another code of a language in their names, and which are ignored as language pairs.

    Args:
        kinds: Tasks of a suite.
        codes: The languages that are measured.
        folder: The folder of evaluation files.
    """
    found = []
    for pattern in _patterns(kinds, folder):
        for code, word, file in _by_code(folder, pattern):
            if code in codes and word != code:
                found.append(f"{file.name}: read as {code} ({languages.language(code).name})")
    return found + _ignored(kinds, codes, folder)


def _ignored(kinds: Sequence[type[LocalTask]], codes: Collection[str], folder: Path) -> list[str]:
    return [
        f"{file.name}: not read: {word} looks like two languages; write a territory in capitals (pt-BR)"
        for pattern in _patterns(kinds, folder)
        for code, word, file in _by_code(folder, pattern, pairs=True)
        if code in codes
    ]


def _metadata(task: type[LocalTask], codes: Iterable[str] = ()) -> Any:
    """Describe a task to mteb, for the languages of Lusifer's table and for `codes`."""
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
        ValueError: Another task has the same name.
    """
    others = [known for known in tasks("offline") if extras.qualified(known) != extras.qualified(task)]
    if any(known.__name__ == task.__name__ for known in others):
        raise ValueError(f"task {task.__name__!r}: another class already has this name: choose another name")
    _ADDED[:] = [known for known in _ADDED if known in others] + [task]


def tasks(suite: str) -> list[type[LocalTask]]:
    """Give the task classes of a local suite; this imports mteb.

    Raises:
        MissingExtraError: mteb is not installed.
    """
    extras.need("eval", "mteb")
    known = [task for place in MODULES[suite] for task in pkgutil.resolve_name(place)]
    return [*known, *(_ADDED if suite == "offline" else [])]


def refuse_unknown(suite: str, names: Iterable[str]) -> None:
    """Refuse names that no task of a local suite has, without importing mteb.

    Raises:
        UsageError: The message lists the names of the suite.
    """
    known = [*NAMES[suite], *(task.__name__ for task in (_ADDED if suite == "offline" else ()))]
    for name in names:
        if name not in known:
            raise UsageError(f"task {name!r} is not in this suite: use one of {', '.join(known)}")


def survey(
    kinds: Sequence[type[LocalTask]], codes: Sequence[str], data: DataFolder, there_only: bool = False
) -> tuple[list[SuiteRow], dict[tuple[str, str], str], list[Path]]:
    """List the rows of tasks, and read every file, so that a damaged file is reported before hours of work.

    The files of English are read too.

    Args:
        kinds: Tasks of a suite.
        codes: The languages to measure.
        data: The folder of evaluation files.
        there_only: Whether a task has no row in a language without its file. Otherwise the row's score is missing.

    Returns:
        The rows; language and task of those without a file -> the reason; and the files that exist.

    Raises:
        DataError: The folder has no file of the tasks, or a file is damaged.
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
        ignored = "".join(f"; {words}" for words in _ignored(kinds, codes, data.path)[:1])
        raise DataError(
            f"{data.path}: nothing to measure in it: expected {', '.join(names)}, with a language code in place of xx"
            f"{ignored}"
        )
    return rows, absent, list(found)


def make(kinds: Sequence[type[LocalTask]], data: DataFolder, rows: Sequence[SuiteRow]) -> Any:
    """Make the task of some rows; its data are not loaded yet.

    Args:
        kinds: Tasks of a suite.
        data: The folder of evaluation files.
        rows: Rows of the same task.

    Returns:
        An instance of the task, for mteb.
    """
    task = next(kind for kind in kinds if kind.__name__ == rows[0].task)()
    task.source = data
    if task.by_mteb:
        task.metadata = _metadata(type(task), [row.language for row in rows])
    return task
