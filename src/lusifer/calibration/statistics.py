"""The language statistics of a model, one file: where its vectors lie in each language, what its cosines are there.

The cosines of wrong pairs (a question, and a document that says something else) have another mean and another spread in
each pair of languages, so no cosine is a threshold for all. The calibrated score is (cosine - mean) / spread by the
wrong pairs of the two languages, as scores are normalised in speaker verification (Auckenthaler et al. 2000,
doi 10.1006/dspr.1999.0360): 0 is what a wrong document has on average, whatever the languages.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lusifer.embedder.contents import LANGUAGES
from lusifer.errors import DataError, ModelFolderError, UsageError
from lusifer.io import weights
from lusifer.io.files import refuse_pointer, write_file
from lusifer.io.parallel_text import ENGLISH
from lusifer.languages import among, language

WRONG, SPREAD, RIGHT, ERROR = range(4)
"""The numbers of a pair of languages, by their place: mean and standard deviation of the cosines of wrong pairs, mean
of those of right pairs, and the standard error of the first."""
_FORMAT = "1"
_ADVICE = "make it anew: `lusifer calibrate`"


@dataclass(frozen=True)
class LanguageStatistics:
    """What `lusifer calibrate` measured of a model, or of one that asks and another that embedded the documents.

    Args:
        model: The name of the model that embeds questions.
        identity: Its identity.
        documents: The identity of the model that embeds documents; mostly the same.
        query: What stood before a question.
        document: What stood before a document.
        source: Where the parallel text came from, in words.
        sentences: How many there were in each language.
        languages: Their codes (L).
        query_means: Mean vectors of questions (L, d), each vector of length 1.
        document_means: Likewise of documents.
        pairs: (2, L, L, 4) by `WRONG`, `SPREAD`, `RIGHT` and `ERROR`, for vectors as they are and with offsets taken
            out, by the language of the question and of the document. `RIGHT` of a language with itself is not a number.
    """

    model: str
    identity: str
    documents: str
    query: str
    document: str
    source: str
    sentences: int
    languages: tuple[str, ...]
    query_means: np.ndarray
    document_means: np.ndarray
    pairs: np.ndarray

    @property
    def dimensions(self) -> int:
        """How many numbers a vector has."""
        return self.query_means.shape[1]

    def place(self, code: str | None) -> int | None:
        """The place of a language among `languages`; None where it is unknown, or not there."""
        if code is None:
            return None
        found = among(code, self.languages)
        return self.languages.index(found) if found in self.languages else None

    def calibrated(self, cosine: Any, question: str | None, document: str | None, offsets: bool = False) -> Any:
        """The calibrated score of a cosine: how many spreads it lies above the mean of wrong pairs.

        Args:
            cosine: Of question and document; a number, or an array of any shape.
            question: The language of the question; for None, or one that is not there, all languages count together.
            document: Likewise of the document.
            offsets: Whether the offsets were taken out of both vectors.
        """
        row, column = (-1 if (place := self.place(code)) is None else place for code in (question, document))
        mean, spread = self._zero[int(offsets), row, column].tolist()
        return (cosine - mean) / spread

    @cached_property
    def _zero(self) -> np.ndarray:
        """Mean and spread of wrong pairs (2, L + 1, L + 1, 2); the last row and column are of all languages together.

        The spread of several languages together is that of their wrong pairs in one heap, as many of each.
        """
        mean, square = self.pairs[..., WRONG], self.pairs[..., SPREAD] ** 2 + self.pairs[..., WRONG] ** 2
        for axis in (1, 2):
            mean, square = (
                np.concatenate([each, each.mean(axis=axis, keepdims=True)], axis=axis) for each in (mean, square)
            )
        return np.stack([mean, np.sqrt((square - mean**2).clip(min=1e-12))], axis=3)

    def without_offset(self, vectors: np.ndarray, codes: Sequence[str | None], side: str) -> np.ndarray:
        """Vectors (n, d) of length 1 without the offsets of their languages.

        The offset of a language is its mean vector less that of English, of questions or of documents. So English stays
        as it is, and what is in a language that is not known here too.

        Args:
            vectors: (n, d), of any length but 0.
            codes: The language of each; None is unknown.
            side: "query" or "document".
        """
        means = self.query_means if side == "query" else self.document_means
        offsets = np.concatenate([offsets_of(means, self.languages), np.zeros((1, self.dimensions))])
        places = [len(self.languages) if (place := self.place(code)) is None else place for code in codes]
        return unit(unit(vectors) - offsets[places]).astype(np.float32)

    def require(self, where: str, identity: str, documents: str, query: str | None, document: str | None) -> None:
        """Refuse statistics of another model, or of other prompts.

        Args:
            where: What the statistics are of, for the message: their file.
            identity: Of the model that embeds the questions.
            documents: Of the one that embeds the documents.
            query: What stands before a question.
            document: What stands before a document.

        Raises:
            UsageError: They are of others; says of which.
        """
        for what, found, wanted in (
            ("questions", self.identity, identity),
            ("documents", self.documents, documents),
        ):
            if found != wanted:
                words = f"holds the statistics of {self.model}, {what} by {found}, and here {what} are by {wanted}"
                raise UsageError(f"{where}: {words}: make them for this model (`lusifer calibrate`)")
        for what, found, wanted in (
            ("questions", self.query, query or ""),
            ("documents", self.document, document or ""),
        ):
            if found != wanted:
                words = f"was made with {found!r} before {what}, and here it is {wanted!r}"
                raise UsageError(f"{where}: {words}: make it with the same --task or --prompt (`lusifer calibrate`)")

    @property
    def worst(self) -> tuple[float, str]:
        """How well the worst known zero is known, as a standard error in spreads, and of which pair of languages."""
        errors = self.pairs[0, ..., ERROR] / self.pairs[0, ..., SPREAD]
        row, column = np.unravel_index(int(errors.argmax()), errors.shape)
        return float(errors[row, column]), f"{self.languages[row]}-{self.languages[column]}"

    @cached_property
    def digest(self) -> str:
        """A name for exactly these numbers: 12 hexadecimal digits."""
        made = hashlib.sha256(json.dumps(self._about(), sort_keys=True).encode())
        for name in _ARRAYS:
            made.update(np.ascontiguousarray(getattr(self, name)).tobytes())
        return made.hexdigest()[:12]

    def _about(self) -> dict[str, str]:
        said = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in _ARRAYS}
        return {name: value if isinstance(value, str) else json.dumps(value) for name, value in said.items()}

    def write(self, file: str | os.PathLike[str]) -> None:
        """Write them to a file, whole or not at all."""
        arrays = {name: np.ascontiguousarray(getattr(self, name)) for name in _ARRAYS}
        with write_file(file) as temporary:
            weights.save_arrays(temporary, arrays, {"format": _FORMAT} | self._about())


_ARRAYS = ("query_means", "document_means", "pairs")


def read(file: str | os.PathLike[str]) -> LanguageStatistics:
    """Read the statistics of a file, or of a model folder.

    Raises:
        UsageError: There is no such file.
        DataError: It is damaged, or holds something else.
    """
    path = Path(file).expanduser()
    path = path / LANGUAGES if path.is_dir() else path
    if not path.is_file():
        raise UsageError(f"{path}: no such file: make it: `lusifer calibrate MODEL --parallel FILE --output {path}`")
    refuse_pointer(path)
    try:
        with weights.opened(path, _ADVICE, "np") as tensors:
            about, arrays = tensors.metadata() or {}, {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
    except ModelFolderError as error:
        raise DataError(str(error)) from error
    return _checked(about, arrays, str(path))


def _checked(about: Mapping[str, Any], arrays: Mapping[str, np.ndarray], where: str) -> LanguageStatistics:
    """The statistics, if all is there and of one size."""
    names = {each.name for each in fields(LanguageStatistics)} - set(_ARRAYS)
    if about.get("format") != _FORMAT or not names <= about.keys() or arrays.keys() != set(_ARRAYS):
        raise DataError(f"{where}: no language statistics of this version: {_ADVICE}")
    said = {name: about[name] for name in names}
    try:
        said |= {"sentences": int(about["sentences"]), "languages": _codes(json.loads(about["languages"]))}
        if said["sentences"] < 1:
            raise ValueError(f"{said['sentences']} sentences")
    except (ValueError, RecursionError, UsageError) as error:
        raise DataError(f"{where}: damaged ({str(error):.200}): {_ADVICE}") from error
    made = LanguageStatistics(**said, **arrays)
    count, size = len(made.languages), made.query_means.shape[-1:]
    shapes = {"query_means": (count, *size), "document_means": (count, *size), "pairs": (2, count, count, 4)}
    for name, shape in shapes.items():
        found = arrays[name]
        if found.shape != shape or not found.size or found.dtype.kind != "f":
            words = f"numbers for {count} languages are expected, and {name} is {found.dtype} {found.shape}"
            raise DataError(f"{where}: damaged, {words}: {_ADVICE}")
    # Of a language with itself there is no right pair: that one number is none.
    right = made.pairs[..., RIGHT][:, ~np.eye(count, dtype=bool)]
    for name, numbers in (
        ("query_means", made.query_means), ("document_means", made.document_means),
        ("pairs", np.delete(made.pairs, RIGHT, axis=-1)), ("pairs", right),
    ):  # fmt: skip
        if not np.isfinite(numbers).all():
            raise DataError(f"{where}: damaged, a number of {name} is not finite: {_ADVICE}")
    if not (made.pairs[..., SPREAD] > 0).all():
        raise DataError(f"{where}: damaged, a spread of wrong pairs is not above 0: {_ADVICE}")
    return made


def _codes(said: Any) -> tuple[str, ...]:
    """The languages of a file: a list of codes as `languages.language` gives them, each once, English among them.

    Raises:
        ValueError: It is none.
        UsageError: A code is of no language.
    """
    if not isinstance(said, list) or not all(isinstance(code, str) for code in said):
        raise ValueError("its languages are no list of codes")
    if len(set(said)) < len(said):
        raise ValueError("a language is there twice")
    for code in said:
        if language(code).code != code:
            raise ValueError(f"language {code!r} is written {language(code).code} here")
    if ENGLISH not in said:
        raise ValueError(f"no {ENGLISH} among its languages")
    return tuple(said)


def offsets_of(means: np.ndarray, languages: Sequence[str]) -> np.ndarray:
    """The offsets of languages (L, d) by their mean vectors."""
    return means - means[list(languages).index(ENGLISH)]


def unit(vectors: np.ndarray, dtype: Any = np.float64) -> np.ndarray:
    """The same vectors (n, d), each of length 1, in a number format; one without a direction stays."""
    vectors = np.asarray(vectors, dtype=dtype)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1e-12)
