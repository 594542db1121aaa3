"""Choose the language statistics for searching an index, and subtract language offsets from its documents."""

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
"""A file, statistics, or statistics and their name as `taken` returns them."""
KEPT = "offsets-{}.safetensors"
"""The file in the folder of an index with the statistics whose offsets were subtracted, by their digest."""
_PART = f".{KEPT.format('*')}.*"
"""The temporary file of `write_file` for it."""


def taken(given: Given) -> tuple[LanguageStatistics, str]:
    """Return the given statistics, read if they are a file, and their name for messages.

    Raises:
        UsageError: There is no such file.
        DataError: The file is damaged.
    """
    if isinstance(given, tuple):
        return given
    return (given, "the statistics") if isinstance(given, LanguageStatistics) else (read(given), os.fspath(given))


def of_model(name: str) -> tuple[LanguageStatistics, str]:
    """Read the statistics in the folder of a model.

    Returns:
        The statistics and their file.

    Raises:
        UsageError: The folder has none; the message has the command that makes them.
        DataError: The file is damaged.
    """
    folder: Path | str | None = None
    try:
        folder = names.model(name)
    except UsageError:  # a model in memory, or a folder that is gone
        pass
    if isinstance(folder, str):
        folder = hub.fetch(folder, FILES)  # the same files as for the identity, so they are in the cache
    if folder is None or not (folder / LANGUAGES).is_file():
        command = f"lusifer calibrate {shlex.quote(name)} --parallel FILE --output NAME.safetensors"
        words = f"make them (`{command}`), and give the file (--statistics)"
        raise UsageError(f"{name}: no language statistics ({LANGUAGES}) in its folder: {words}")
    return read(folder), str(folder / LANGUAGES)


def keep(folder: Path, statistics: LanguageStatistics) -> None:
    """Store the statistics of the offsets in the folder of an index, unless they are there already.

    Args:
        folder: The folder of the index.
        statistics: The statistics.
    """
    file = folder / KEPT.format(statistics.digest)
    if not file.exists():
        statistics.write(file)


def is_kept(file: Path) -> bool:
    """Whether a file in the folder of an index has statistics of offsets, or is a temporary file of them."""
    return any(file.match(pattern) for pattern in (KEPT.format("*"), _PART))


def kept(folder: Path, digest: str) -> LanguageStatistics:
    """Read the statistics of the offsets of an index.

    Args:
        folder: The folder of the index.
        digest: Their digest.

    Raises:
        UsageError: They are not in the folder.
        DataError: They are damaged.
    """
    file = folder / KEPT.format(digest)
    if not file.is_file():
        fix = f"restore it from a copy, or run `lusifer reindex {shlex.quote(str(folder))} --model MODEL`"
        raise UsageError(f"{file}: missing, the index needs it for its offsets: {fix}")
    return read(file)


def forget(folder: Path, digest: str | None) -> None:
    """Remove the statistics of offsets that an index no longer has; only the process that writes may call it.

    Args:
        folder: The folder of the index.
        digest: The digest of the statistics that stay; None removes all.
    """
    for file in [*folder.glob(KEPT.format("*")), *folder.glob(_PART)]:
        if file.name != KEPT.format(digest):
            file.unlink()


def chosen(given: Given | None, folder: Path, own: str | None, model: str) -> tuple[LanguageStatistics, str]:
    """Choose the statistics for searching an index.

    Args:
        given: The statistics of the user, or None.
        folder: The folder of the index.
        own: The digest of the index's offsets, if the searching model is the one whose offsets were subtracted.
        model: The name of the searching model; without `given` and `own` the statistics in its folder are taken.

    Returns:
        The statistics, and their name for messages.

    Raises:
        UsageError: There are none, or they are not those whose offsets were subtracted.
        DataError: Their file is damaged.
    """
    if given is None:
        return of_model(model) if own is None else (kept(folder, own), str(folder))
    made, called = taken(given)
    if own is not None and made.digest != own:
        raise UsageError(f"{called}: the offsets of {folder} are from other statistics: leave --statistics out")
    return made, called


def languages_of(
    texts: Sequence[str], given: str | Sequence[str | None] | None, statistics: LanguageStatistics
) -> list[str | None]:
    """Determine the languages of questions: the given ones, or those that py3langid identifies.

    Args:
        texts: The questions.
        given: One code for all, or one for each. None, or a blank code for all, identifies them.
        statistics: The statistics of the searching model.

    Returns:
        The code of each question as the statistics have it; None if it is unknown or not among them.

    Raises:
        UsageError: A code is no language, or the numbers of codes and questions differ.
        MissingExtraError: A language must be identified, and py3langid is not installed.
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
    """Return a function that computes the calibrated score of a hit.

    Args:
        statistics: The statistics of the model.
        question: The language of the question, as `languages_of` returns it.
        named: The field with the language of a document; None identifies it from the passage.
        offsets: Whether the offsets were subtracted from all vectors.

    Returns:
        Hit -> (calibrated score, language of the document). The language is None if it is unknown or not in the
        statistics; then the score is by all languages together.
    """

    def score(hit: Any) -> tuple[float, str | None]:
        document = document_language(statistics, hit.text, hit.fields, named, f"document {hit.id}")
        return float(statistics.calibrated(hit.score, question, document, offsets)), document

    return score


def document_language(
    statistics: LanguageStatistics, text: str | None, fields: Mapping[str, Any], named: str | None, place: str
) -> str | None:
    """Determine the language of a document.

    Args:
        statistics: The statistics of the index.
        text: The text; None if the index has only vectors.
        fields: The document's fields. If the one with the language is missing or blank, the text decides.
        named: The field with the language; None identifies it from the text.
        place: Where the document comes from, for messages.

    Returns:
        The code as the statistics have it; None if it is unknown or not among them.

    Raises:
        DataError: The field has no language code.
        MissingExtraError: A language must be identified, and py3langid is not installed.
    """
    said = None if named is None else fields.get(named)
    if said is None or not str(said).strip():  # an empty cell of a table is an empty text, not None
        return None if text is None else guard.told(text, statistics.languages)
    try:
        found = statistics.place(str(said))
    except UsageError as error:
        raise DataError(f"{place}: field {named!r}: {error}") from error
    return None if found is None else statistics.languages[found]


@dataclass
class DocumentOffsets:
    """Subtracts the offsets of their languages from documents.

    Args:
        statistics: The statistics of the index.
        named: The field with the language of a document; None identifies it from the text.
        unknown: The number of documents without a known language.
        first_unknown: The place of the first of them.
    """

    statistics: LanguageStatistics
    named: str | None
    unknown: int = 0
    first_unknown: str = ""

    def language(self, text: str | None, fields: Mapping[str, Any], place: str) -> str | None:
        """Determine the language of a document as `document_language` does, and count documents without one.

        Args:
            text: The text, or None.
            fields: The document's fields.
            place: Where the document comes from.
        """
        code = document_language(self.statistics, text, fields, self.named, place)
        if code is None:
            self.unknown += 1
            self.first_unknown = self.first_unknown or place
        return code

    def taken_out(self, vectors: np.ndarray, codes: Sequence[str | None]) -> np.ndarray:
        """Subtract the offsets from vectors of passages.

        Args:
            vectors: (n, d), of any length but 0.
            codes: The language of each; None is unknown.

        Returns:
            (n, d) float32, of length 1.
        """
        return self.statistics.without_offset(vectors, codes, "document")
