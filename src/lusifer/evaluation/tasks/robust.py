"""The suite `robust`: tasks whose queries come in a disguise, each beside the same queries as they were.

What is searched stays as it was, in English. A task is made for each base and disguise, and one for each base without a
disguise, with the same ids: so a loss is taken example by example. The English words of a mixed text would stand in the
translation that is sought, so texts are mixed in XQuAD alone, whose paragraphs do not hold the question.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

from datasets import DatasetDict

from lusifer import languages
from lusifer.errors import MissingExtraError
from lusifer.evaluation.tasks.alignment import english_for
from lusifer.evaluation.tasks.disguises import DISGUISES, NONE, Disguise, romaniser
from lusifer.evaluation.tasks.local import ENGLISH, DataFolder, LocalTask
from lusifer.evaluation.tasks.rows import SuiteRow
from lusifer.evaluation.tasks.sib200 import (
    SampleTranslationToEnglish,
    Sentences,
    SIB200TranslationToEnglishDev,
    file_of,
    translations,
)
from lusifer.evaluation.tasks.xquad import Questions, XQuADToEnglish
from lusifer.io import parallel_text

LEAST = 0.1
"""Share of the texts of a language that a disguise must change to have a row there."""
ARABIC = "ar"
DIALECTS = {
    "acm": "Mesopotamian", "acq": "Taizzi-Adeni", "aeb": "Tunisian", "ajp": "South Levantine",
    "apc": "North Levantine", "ars": "Najdi", "ary": "Moroccan", "arz": "Egyptian",
}  # fmt: skip
"""The dialects of SIB-200: what ISO 639-3 counts under one language whose written standard their speakers share."""


class _Dressed(LocalTask):
    """What the tasks of the suite share.

    Attributes:
        clean: Name of the task with the same texts as they were.
        disguise: None for that one.
        disguised: In words, for tables; empty for that one.
    """

    clean: ClassVar[str]
    disguise: ClassVar[Disguise | None] = None
    disguised: ClassVar[str] = ""
    optional = True

    @classmethod
    def indexed(cls, code: str) -> bool:
        """What is searched is English."""
        return True

    @classmethod
    def queries(cls, subset: str, *contents: Any) -> dict[Any, str]:
        """The queries as they were, by id."""
        raise NotImplementedError(f"{cls.__name__}: write `queries(subset, *contents)`: the texts by id")

    @classmethod
    def english(cls, subset: str, *contents: Any) -> Mapping[Any, Mapping[int, str]]:
        """English words for the words of the queries, by id: what mixed disguises take."""
        return {}

    @classmethod
    def dressed(cls, subset: str, *contents: Any) -> dict[Any, str]:
        """The queries in disguise, by id."""
        plain = cls.queries(subset, *contents)
        if cls.disguise is None:
            return plain
        code = subset.split("-")[0]
        words = cls.english(subset, *contents) if cls.disguise.mixed else {}
        return {name: cls.disguise(text, code, words.get(name, NONE)) for name, text in plain.items()}


class _SampleDressed(_Dressed, SampleTranslationToEnglish):
    """The packaged sentences: the nearest English one should be the translation."""

    clean = "SampleClean"

    @classmethod
    def queries(cls, subset: str, *contents: Any) -> dict[Any, str]:
        return dict(enumerate(parallel_text.sample().texts[subset.split("-")[0]]))

    @classmethod
    def build(cls, subset: str, *contents: Any) -> DatasetDict:
        """Lay the sentences in disguise beside the English ones."""
        english = dict(enumerate(parallel_text.sample().texts[ENGLISH]))
        return DatasetDict({cls.split: translations(cls.dressed(subset), english, subset)})

    @classmethod
    def row(cls, code: str) -> SuiteRow | None:
        """None for a language that the package has no sentences in."""
        return super().row(code) if code in parallel_text.sample().texts else None


class _SIB200Dressed(_Dressed, SIB200TranslationToEnglishDev):
    """The dev sentences of SIB-200: the nearest English one of 99 should be the translation."""

    clean = "SIB200Clean"

    @classmethod
    def queries(cls, subset: str, *contents: Any) -> dict[Any, str]:
        return dict(zip(contents[0].ids, contents[0].texts))

    @classmethod
    def build(cls, subset: str, *contents: Sentences) -> DatasetDict:
        """Lay the sentences in disguise beside the English ones."""
        found = cls.dressed(subset, *contents)
        own = Sentences(tuple(found), tuple(found.values()), ("",) * len(found))
        return super().build(subset, own, contents[1])


class _DialectDressed(_SIB200Dressed):
    """The same sentences of SIB-200 in a dialect; `dialect` is its code."""

    dialect: ClassVar[str]

    @classmethod
    def files(cls, folder: Any, subset: str) -> list[Any]:
        """Those of the standard language and of English, and that of the dialect."""
        return [*super().files(folder, subset), file_of(folder, cls.dialect, "dev")]

    @classmethod
    def row(cls, code: str) -> SuiteRow | None:
        """Arabic has dialects."""
        return super().row(code) if code == ARABIC else None

    @classmethod
    def dressed(cls, subset: str, *contents: Any) -> dict[Any, str]:
        plain, spoken = cls.queries(subset, *contents), dict(zip(contents[2].ids, contents[2].texts))
        return {name: spoken[name] for name in plain if name in spoken}


class _XQuADDressed(_Dressed, XQuADToEnglish):
    """One question of each paragraph of XQuAD: the nearest English paragraph should be the one that answers it."""

    clean = "XQuADClean"
    cross_lingual = False  # so that mteb knows a subset of English
    cost = 480

    @classmethod
    def queries(cls, subset: str, *contents: Questions) -> dict[Any, str]:
        """Of each paragraph the question whose id is the first in English."""
        asked, english = contents
        first: dict[str, str] = {}
        for number, _, paragraph in sorted(english.questions):
            first.setdefault(paragraph, number)
        chosen = set(first.values())
        return {number: text for number, text, _ in asked.questions if number in chosen}

    @classmethod
    def files(cls, folder: Any, subset: str) -> list[Any]:
        """The file of the language and the English one."""
        return [super(_XQuADDressed, cls).files(folder, code)[0] for code in subset.split("-")]

    @classmethod
    def row(cls, code: str) -> SuiteRow | None:
        """English has one as well, which is not cross-lingual."""
        row = super().row(code)
        return row and replace(row, cross_lingual=code != ENGLISH)

    @classmethod
    def english(cls, subset: str, *contents: Questions) -> Mapping[Any, Mapping[int, str]]:
        """Learned from all questions; English is mixed with nothing."""
        if subset.split("-")[0] == ENGLISH:
            return {}
        sides = ({number: text for number, text, _ in side.questions} for side in contents)
        return english_for(*sides)

    @classmethod
    def build(cls, subset: str, *contents: Questions) -> dict[str, Any]:
        """Make queries in disguise, and the English corpus."""
        found = cls.dressed(subset, *contents)
        rows = [(number, found[number], paragraph) for number, _, paragraph in contents[0].questions if number in found]
        return super().build(subset, replace(contents[0], questions=tuple(rows)), contents[1])


def _tasks(base: type[_Dressed], start: str, title: str, what: str) -> Iterator[type[_Dressed]]:
    """The tasks of a base: as it is, and in each disguise that fits."""
    make = partial(_task, base, start)
    yield make("Clean", title=title)
    for disguise in DISGUISES:
        if base is _XQuADDressed or not disguise.mixed:
            yield make(
                disguise.name, title=f"{title}; {what} {disguise.title}", disguise=disguise, disguised=disguise.title
            )


def _task(base: type[_Dressed], start: str, name: str, **more: Any) -> type[_Dressed]:
    return type(f"{start}{name}", (base,), {"__module__": __name__, "__doc__": base.__doc__, **more})


SAMPLE_TITLE = "packaged sentences, the English translation among 28"
SIB_TITLE = "SIB-200, the English translation among 99"
SAMPLE_TASKS = tuple(_tasks(_SampleDressed, "Sample", SAMPLE_TITLE, "sentence"))
"""Those that read no files."""
TASKS = (
    *SAMPLE_TASKS,
    *_tasks(_SIB200Dressed, "SIB200", SIB_TITLE, "sentence"),
    *(
        _task(
            _DialectDressed, "SIB200", f"In{name.replace(' ', '').replace('-', '')}Arabic", dialect=code,
            title=f"{SIB_TITLE}; sentence in {name} Arabic", disguised=f"in {name} Arabic",
        )
        for code, name in DIALECTS.items()
    ),
    *_tasks(_XQuADDressed, "XQuAD", "XQuAD, paragraph in English", "question"),
)  # fmt: skip


@dataclass(frozen=True)
class Fitting:
    """What of the suite there is to measure.

    Attributes:
        rows: Those in which the disguise changes at least `LEAST` of the texts, and those without one.
        absent: Language and task of rows that cannot be run -> the reason.
        facts: For the summary: of each disguise its task, the clean one, its words, and how many texts of how many it
            changes in each language, also where it does not apply.
        digest: SHA-256 of the texts in disguise, but for romanised ones: they need not be there at first.
    """

    rows: list[SuiteRow]
    absent: dict[tuple[str, str], str]
    facts: dict[str, Any]
    digest: str

    def why_none(self) -> str:
        """Why a language has no row."""
        return f"no task has its texts, or the disguises change fewer than {LEAST:.0%} of them"


def fitting(kinds: Sequence[type[LocalTask]], rows: Sequence[SuiteRow], data: DataFolder) -> Fitting:
    """Choose the rows in which a disguise changes enough; it disguises every text."""
    known = {kind.__name__: kind for kind in kinds}
    lacking = _no_romaniser()
    found, absent, tasks, hashed = [], {}, {}, hashlib.sha256()
    for row in rows:
        kind = known[row.task]
        if not issubclass(kind, _Dressed) or kind.clean == row.task:
            found.append(row)
            continue
        about = tasks.setdefault(row.task, {"clean": kind.clean, "disguise": kind.disguised, "changed": {}})
        if lacking and kind.disguise is not None and kind.disguise.romanises:
            if languages.language(row.language).script != "Latn":
                found.append(row)
                absent[row.key] = lacking
            continue
        contents = [data.read(file, kind.parse) for file in kind.files(data.path, *row.subsets)]
        plain, dressed = (make(*row.subsets, *contents) for make in (kind.queries, kind.dressed))
        if (
            kind.disguise is None or not kind.disguise.romanises
        ):  # else a romaniser that comes later is another evaluation
            hashed.update(repr((row.key, sorted(dressed.items()))).encode())
        changed = sum(text != plain[name] for name, text in dressed.items())
        about["changed"][row.language] = [changed, len(dressed)]
        if changed >= LEAST * len(dressed):
            found.append(row)
    return Fitting(found, absent, {"least_share": LEAST, "tasks": tasks}, hashed.hexdigest())


def _no_romaniser() -> str | None:
    """Why nothing can be romanised; None if it can."""
    try:
        romaniser()
    except MissingExtraError as error:
        return str(error)
    return None
