"""Which language statistics an index is asked with, and the offsets that are taken out of what it holds."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lusifer.calibration.statistics import LanguageStatistics, read
from lusifer.embedder.contents import FILES, LANGUAGES
from lusifer.errors import DataError, UsageError
from lusifer.io import hub, names
from lusifer.serving import guard

Given = str | os.PathLike[str] | LanguageStatistics | tuple[LanguageStatistics, str]
"""A file, what was read of one, or both as `taken` gives them."""
KEPT = "offsets-{}.safetensors"
"""The statistics whose offsets were taken out of the documents of an index, in its folder, by their digest."""
_PART = f".{KEPT.format('*')}.*"
"""One that is being written, as `write_file` names it."""


def taken(given: Given) -> tuple[LanguageStatistics, str]:
    """Statistics as they are given, read if they are a file; and what they are called.

    Raises:
        UsageError: There is no such file.
        DataError: It is damaged.
    """
    if isinstance(given, tuple):
        return given
    return (given, "the statistics") if isinstance(given, LanguageStatistics) else (read(given), os.fspath(given))


def of_model(name: str) -> tuple[LanguageStatistics, str]:
    """The statistics that lie in the folder of a model.

    Raises:
        UsageError: It has none; the message has the command that makes them.
        DataError: They are damaged.
    """
    folder: Path | str | None = None
    try:
        folder = names.model(name)
    except UsageError:  # a model in memory, or one that is not there any more
        pass
    if isinstance(folder, str):
        folder = hub.fetch(folder, FILES)  # as it was fetched to be identified
    if folder is None or not (folder / LANGUAGES).is_file():
        command = f"lusifer calibrate {shlex.quote(name)} --parallel FILE --output NAME.safetensors"
        words = f"make them (`{command}`), and name the file (--statistics)"
        raise UsageError(f"{name}: no language statistics ({LANGUAGES}) in its folder: {words}")
    return read(folder), str(folder / LANGUAGES)


def keep(folder: Path, statistics: LanguageStatistics) -> None:
    """Keep the statistics of the offsets in the folder of an index; nothing of what is there is touched."""
    file = folder / KEPT.format(statistics.digest)
    if not file.exists():
        statistics.write(file)


def is_kept(file: Path) -> bool:
    """Whether a file in the folder of an index is one of these, or a part of one that a kill left."""
    return any(file.match(pattern) for pattern in (KEPT.format("*"), _PART))


def kept(folder: Path, digest: str) -> LanguageStatistics:
    """The statistics of the offsets of an index.

    Raises:
        UsageError: They are not in its folder any more.
        DataError: They are damaged.
    """
    file = folder / KEPT.format(digest)
    if not file.is_file():
        mend = f"put it back from a copy, or `lusifer reindex {shlex.quote(str(folder))} --model MODEL`"
        raise UsageError(f"{file}: is missing, and with it the offsets of the index: {mend}")
    return read(file)


def forget(folder: Path, digest: str | None) -> None:
    """Remove the statistics of offsets that an index does not have any more; who calls is the one that writes."""
    for file in [*folder.glob(KEPT.format("*")), *folder.glob(_PART)]:
        if file.name != KEPT.format(digest):
            file.unlink()


def chosen(given: Given | None, folder: Path, own: str | None, model: str) -> tuple[LanguageStatistics, str]:
    """The statistics that an index is asked with, and what they are called.

    Args:
        given: By the user.
        folder: Of the index.
        own: The digest of its offsets, where the model that took them out asks.
        model: The name of the model that asks; what lies in its folder comes last.

    Raises:
        UsageError: There are none, or they are not those whose offsets were taken out.
        DataError: Their file is damaged.
    """
    if given is None:
        return of_model(model) if own is None else (kept(folder, own), str(folder))
    made, called = taken(given)
    if own is not None and made.digest != own:
        raise UsageError(f"{called}: the offsets of {folder} are of other statistics: leave --statistics out")
    return made, called


def languages_of(
    texts: Sequence[str], given: str | Sequence[str | None] | None, statistics: LanguageStatistics
) -> list[str | None]:
    """The languages of questions: as they are given, or told by py3langid among those of the statistics.

    Args:
        texts: The questions.
        given: One code for all, or one for each; None, or a blank one for all, tells them.
        statistics: Of the model that is asked by.

    Returns:
        Of each its code as the statistics have it; None where it cannot be told, or is not among them.

    Raises:
        UsageError: A code is of no language, or there are more codes than questions, or fewer.
        MissingExtraError: A language is to be told, and py3langid is not installed.
    """
    if given is None or (isinstance(given, str) and not given.strip()):
        return [guard.told(text, statistics.languages) for text in texts]
    codes = [given] * len(texts) if isinstance(given, str) else list(given)
    if len(codes) != len(texts):
        raise UsageError(f"languages: {len(codes)} codes for {len(texts)} questions: give one for each, or one for all")
    places = [statistics.place(code) for code in codes]
    return [None if place is None else statistics.languages[place] for place in places]


def scale(
    statistics: LanguageStatistics, question: str | None, named: str | None, offsets: bool
) -> Callable[[Any], tuple[float, str | None]]:
    """What gives a hit of a question its calibrated score, and says which language of its document that counts.

    The language is None where it could not be told, or the statistics lack it: all languages count together then.

    Args:
        statistics: Of the model.
        question: The language of the question, as `languages_of` gives it.
        named: The field that has the language of a document; None tells it from the passage.
        offsets: Whether the offsets were taken out of all vectors.
    """

    def score(hit: Any) -> tuple[float, str | None]:
        document = document_language(statistics, hit.text, hit.fields, named, f"document {hit.id}")
        return float(statistics.calibrated(hit.score, question, document, offsets)), document

    return score


def document_language(
    statistics: LanguageStatistics, text: str | None, fields: Mapping[str, Any], named: str | None, place: str
) -> str | None:
    """The language of a document; None where it is not among those of the statistics, or cannot be told.

    Args:
        statistics: Those of the index.
        text: None where an index has vectors alone.
        fields: Its fields. Where that of the language is missing or blank, the text tells it.
        named: The field that has the language; None tells it from the text.
        place: Where the document came from, for messages.

    Raises:
        DataError: The field holds no code of a language.
        MissingExtraError: A language is to be told, and py3langid is not installed.
    """
    said = None if named is None else fields.get(named)
    if said is None or not str(said).strip():  # an empty cell of a table is a text
        return None if text is None else guard.told(text, statistics.languages)
    try:
        found = statistics.place(str(said))
    except UsageError as error:
        raise DataError(f"{place}: field {named!r}: {error}") from error
    return None if found is None else statistics.languages[found]


@dataclass
class DocumentOffsets:
    """Takes the offsets of their languages out of documents.

    Args:
        statistics: Those of the index.
        named: The field that has the language of a document; None tells it from the text.
    """

    statistics: LanguageStatistics
    named: str | None
    unknown: int = 0
    first_unknown: str = ""

    def language(self, text: str | None, fields: Mapping[str, Any], place: str) -> str | None:
        """As `document_language` gives it; those without one are counted."""
        code = document_language(self.statistics, text, fields, self.named, place)
        if code is None:
            self.unknown += 1
            self.first_unknown = self.first_unknown or place
        return code

    def taken_out(self, vectors: np.ndarray, codes: Sequence[str | None]) -> np.ndarray:
        """Vectors of passages (n, d) without the offsets of their languages, each of length 1."""
        return self.statistics.without_offset(vectors, codes, "document")
