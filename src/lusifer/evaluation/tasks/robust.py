"""The suite `robust`: tasks with perturbed queries, each next to a task with the same queries unchanged.

The documents are English and unchanged. Each base task has one variant for each perturbation and one without any. Their
examples have the same ids, so that scores are compared example by example. Only XQuAD has code-mixed queries: in the
other tasks the document is the translation of the query, so the English words would be in it.

Result files store the names of tasks, the keys "disguises" and "disguise" and the titles of perturbations, so these do
not change.
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
from lusifer.evaluation.tasks.local import ENGLISH, DataFolder, LocalTask
from lusifer.evaluation.tasks.perturbations import NONE, PERTURBATIONS, Perturbation, romaniser
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
"""A perturbation has a row in a language if it changes at least this share of the texts."""
ARABIC = "ar"
DIALECTS = {
    "acm": "Mesopotamian", "acq": "Taizzi-Adeni", "aeb": "Tunisian", "ajp": "South Levantine",
    "apc": "North Levantine", "ars": "Najdi", "ary": "Moroccan", "arz": "Egyptian",
}  # fmt: skip
"""The dialects of Arabic in SIB-200: ISO 639-3 code -> name. ISO 639-3 groups them under one macrolanguage."""


class _Perturbed(LocalTask):
    """Base class of the tasks of the suite.

    Attributes:
        clean: Name of the task with the same texts, unchanged.
        perturbation: How the queries are changed; None for the clean task.
        label: Name of the perturbation in tables; empty for the clean task.
    """

    clean: ClassVar[str]
    perturbation: ClassVar[Perturbation | None] = None
    label: ClassVar[str] = ""
    optional = True

    @classmethod
    def indexed(cls, code: str) -> bool:
        """The documents are English in every language."""
        return True

    @classmethod
    def queries(cls, subset: str, *contents: Any) -> dict[Any, str]:
        """Give the unchanged queries by id."""
        raise NotImplementedError(f"{cls.__name__}: write `queries(subset, *contents)`; it returns the texts by id")

    @classmethod
    def english(cls, subset: str, *contents: Any) -> Mapping[Any, Mapping[int, str]]:
        """Give English words for the words of the queries, by id; code-mixing needs them."""
        return {}

    @classmethod
    def perturbed(cls, subset: str, *contents: Any) -> dict[Any, str]:
        """Give the perturbed queries by id."""
        plain = cls.queries(subset, *contents)
        if cls.perturbation is None:
            return plain
        code = subset.split("-")[0]
        words = cls.english(subset, *contents) if cls.perturbation.mixed else {}
        return {name: cls.perturbation(text, code, words.get(name, NONE)) for name, text in plain.items()}


class _SamplePerturbed(_Perturbed, SampleTranslationToEnglish):
    """Packaged sentences: the nearest English sentence should be the translation."""

    clean = "SampleClean"

    @classmethod
    def queries(cls, subset: str, *contents: Any) -> dict[Any, str]:
        return dict(enumerate(parallel_text.sample().texts[subset.split("-")[0]]))

    @classmethod
    def build(cls, subset: str, *contents: Any) -> DatasetDict:
        """Pair the perturbed sentences with the English ones."""
        english = dict(enumerate(parallel_text.sample().texts[ENGLISH]))
        return DatasetDict({cls.split: translations(cls.perturbed(subset), english, subset)})

    @classmethod
    def row(cls, code: str) -> SuiteRow | None:
        """Give the row of a language; None for a language without packaged sentences."""
        return super().row(code) if code in parallel_text.sample().texts else None


class _SIB200Perturbed(_Perturbed, SIB200TranslationToEnglishDev):
    """Dev split of SIB-200: the nearest of 99 English sentences should be the translation."""

    clean = "SIB200Clean"

    @classmethod
    def queries(cls, subset: str, *contents: Any) -> dict[Any, str]:
        return dict(zip(contents[0].ids, contents[0].texts))

    @classmethod
    def build(cls, subset: str, *contents: Sentences) -> DatasetDict:
        """Pair the perturbed sentences with the English ones."""
        found = cls.perturbed(subset, *contents)
        own = Sentences(tuple(found), tuple(found.values()), ("",) * len(found))
        return super().build(subset, own, contents[1])


class _DialectPerturbed(_SIB200Perturbed):
    """The same sentences of SIB-200 in a dialect of Arabic; `dialect` is the code of the dialect."""

    dialect: ClassVar[str]

    @classmethod
    def files(cls, folder: Any, subset: str) -> list[Any]:
        """List the files of the standard language, of English and of the dialect."""
        return [*super().files(folder, subset), file_of(folder, cls.dialect, "dev")]

    @classmethod
    def row(cls, code: str) -> SuiteRow | None:
        """Give the row of Arabic; None for other languages."""
        return super().row(code) if code == ARABIC else None

    @classmethod
    def perturbed(cls, subset: str, *contents: Any) -> dict[Any, str]:
        plain, spoken = cls.queries(subset, *contents), dict(zip(contents[2].ids, contents[2].texts))
        return {name: spoken[name] for name in plain if name in spoken}


class _XQuADPerturbed(_Perturbed, XQuADToEnglish):
    """One question for each paragraph of XQuAD: the nearest English paragraph should be the one that answers it."""

    clean = "XQuADClean"
    cross_lingual = False  # so that mteb knows a subset of English
    cost = 480

    @classmethod
    def queries(cls, subset: str, *contents: Questions) -> dict[Any, str]:
        """Give one question for each paragraph: the one whose id sorts first in English."""
        asked, english = contents
        first: dict[str, str] = {}
        for number, _, paragraph in sorted(english.questions):
            first.setdefault(paragraph, number)
        chosen = set(first.values())
        return {number: text for number, text, _ in asked.questions if number in chosen}

    @classmethod
    def files(cls, folder: Any, subset: str) -> list[Any]:
        """List the file of the language and the English file."""
        return [super(_XQuADPerturbed, cls).files(folder, code)[0] for code in subset.split("-")]

    @classmethod
    def row(cls, code: str) -> SuiteRow | None:
        """Give the row of a language; English has one too, which is not cross-lingual."""
        row = super().row(code)
        return row and replace(row, cross_lingual=code != ENGLISH)

    @classmethod
    def english(cls, subset: str, *contents: Questions) -> Mapping[Any, Mapping[int, str]]:
        """Align the words of all questions with English; English itself gets none."""
        if subset.split("-")[0] == ENGLISH:
            return {}
        sides = ({number: text for number, text, _ in side.questions} for side in contents)
        return english_for(*sides)

    @classmethod
    def build(cls, subset: str, *contents: Questions) -> dict[str, Any]:
        """Make the perturbed queries and the English documents."""
        found = cls.perturbed(subset, *contents)
        rows = [(number, found[number], paragraph) for number, _, paragraph in contents[0].questions if number in found]
        return super().build(subset, replace(contents[0], questions=tuple(rows)), contents[1])


def _tasks(base: type[_Perturbed], start: str, title: str, what: str) -> Iterator[type[_Perturbed]]:
    """Make the tasks of a base: the clean one, and one for each perturbation that fits."""
    make = partial(_task, base, start)
    yield make("Clean", title=title)
    for perturbation in PERTURBATIONS:
        if base is _XQuADPerturbed or not perturbation.mixed:
            words = perturbation.title
            yield make(perturbation.name, title=f"{title}; {what} {words}", perturbation=perturbation, label=words)


def _task(base: type[_Perturbed], start: str, name: str, **more: Any) -> type[_Perturbed]:
    return type(f"{start}{name}", (base,), {"__module__": __name__, "__doc__": base.__doc__, **more})


SAMPLE_TITLE = "packaged sentences, the English translation among 28"
SIB_TITLE = "SIB-200, the English translation among 99"
SAMPLE_TASKS = tuple(_tasks(_SamplePerturbed, "Sample", SAMPLE_TITLE, "sentence"))
"""The tasks that read no files."""
TASKS = (
    *SAMPLE_TASKS,
    *_tasks(_SIB200Perturbed, "SIB200", SIB_TITLE, "sentence"),
    *(
        _task(
            _DialectPerturbed, "SIB200", f"In{name.replace(' ', '').replace('-', '')}Arabic", dialect=code,
            title=f"{SIB_TITLE}; sentence in {name} Arabic", label=f"in {name} Arabic",
        )
        for code, name in DIALECTS.items()
    ),
    *_tasks(_XQuADPerturbed, "XQuAD", "XQuAD, paragraph in English", "question"),
)  # fmt: skip


@dataclass(frozen=True)
class Fitting:
    """The rows of the suite that can be measured.

    Attributes:
        rows: Clean rows, and those in which the perturbation changes at least `LEAST` of the texts.
        absent: Language and task of rows that cannot be run -> the reason.
        facts: For the summary, of each perturbed task: the clean task, the label, and for each language how many texts
            of how many change, also where the perturbation does not apply.
        digest: SHA-256 of the perturbed texts. Romanized ones are left out, so that installing uroman later does not
            make this another evaluation.
    """

    rows: list[SuiteRow]
    absent: dict[tuple[str, str], str]
    facts: dict[str, Any]
    digest: str

    def why_none(self) -> str:
        """Say why a language has no row."""
        return f"no task has texts in it, or the perturbations change fewer than {LEAST:.0%} of them"


def fitting(kinds: Sequence[type[LocalTask]], rows: Sequence[SuiteRow], data: DataFolder) -> Fitting:
    """Choose the rows in which the perturbation changes enough texts; this perturbs every text once.

    Args:
        kinds: The tasks of the suite.
        rows: The rows to choose from.
        data: The folder of evaluation files.
    """
    known = {kind.__name__: kind for kind in kinds}
    lacking = _no_romaniser()
    found, absent, tasks, hashed = [], {}, {}, hashlib.sha256()
    for row in rows:
        kind = known[row.task]
        if not issubclass(kind, _Perturbed) or kind.clean == row.task:
            found.append(row)
            continue
        about = tasks.setdefault(row.task, {"clean": kind.clean, "disguise": kind.label, "changed": {}})
        if lacking and kind.perturbation is not None and kind.perturbation.romanises:
            if languages.language(row.language).script != "Latn":
                found.append(row)
                absent[row.key] = lacking
            continue
        contents = [data.read(file, kind.parse) for file in kind.files(data.path, *row.subsets)]
        plain, perturbed = (make(*row.subsets, *contents) for make in (kind.queries, kind.perturbed))
        if kind.perturbation is None or not kind.perturbation.romanises:
            hashed.update(repr((row.key, sorted(perturbed.items()))).encode())
        changed = sum(text != plain[name] for name, text in perturbed.items())
        about["changed"][row.language] = [changed, len(perturbed)]
        if changed >= LEAST * len(perturbed):
            found.append(row)
    return Fitting(found, absent, {"least_share": LEAST, "tasks": tasks}, hashed.hexdigest())


def _no_romaniser() -> str | None:
    """Say why nothing can be romanized; None if uroman is installed."""
    try:
        romaniser()
    except MissingExtraError as error:
        return str(error)
    return None
