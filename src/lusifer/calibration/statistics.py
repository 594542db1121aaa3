"""The language statistics of a model, in one file: mean vectors and cosines of each language.

The cosines of wrong pairs (a question and an unrelated document) have a different mean and spread in each pair of
languages. So no cosine is a good threshold for all languages. The calibrated score is (cosine - mean) / spread, by the
wrong pairs of the two languages, like score normalization in speaker verification (Auckenthaler et al. 2000,
doi 10.1006/dspr.1999.0360). The mean of wrong documents is 0 in every pair of languages.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from lusifer.embedder.contents import LANGUAGES
from lusifer.errors import DataError, ModelFolderError, UsageError
from lusifer.io import weights
from lusifer.io.files import expand_user, refuse_no_file, refuse_pointer, write_file
from lusifer.io.parallel_text import ENGLISH
from lusifer.languages import among, language

WRONG, SPREAD, RIGHT, ERROR = range(4)
"""The indices of the numbers of a pair of languages: mean and standard deviation of the cosines of wrong pairs, mean of
those of right pairs, and the standard error of the first mean."""
_FORMAT = "1"
_ADVICE = "make it again with `lusifer calibrate`"


@dataclass(frozen=True)
class LanguageStatistics:
    """The statistics that `lusifer calibrate` computes for a model, or for two models (questions and documents).

    They have no dtype, and those of float32 vectors also serve an index in bfloat16. For `mini` on the packaged
    sentences, bfloat16 moves the zero of a score by at most 0.0102 spreads; its standard error there is 0.109 or more.
    A test bounds the shift by half of the standard error.

    Args:
        model: The name of the model that embeds questions.
        identity: Its identity.
        documents: The identity of the model that embeds documents; usually the same.
        query: The prefix of questions.
        document: The prefix of documents.
        source: Where the parallel text comes from, in words.
        sentences: The number of sentences in each language.
        languages: The codes of the L languages.
        query_means: The mean vectors of questions, (L, d) float32, over vectors of length 1.
        document_means: The same for documents.
        pairs: (2, L, L, 4) float64: without and with offsets subtracted, language of the question, language of the
            document, and `WRONG`, `SPREAD`, `RIGHT`, `ERROR`. `RIGHT` of a language with itself is NaN.
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
        """The number of dimensions of a vector."""
        return self.query_means.shape[1]

    def place(self, code: str | None) -> int | None:
        """Return the index of a language in `languages`; None if it is None or not there."""
        if code is None:
            return None
        found = among(code, self.languages)
        return self.languages.index(found) if found in self.languages else None

    def calibrated(self, cosine: Any, question: str | None, document: str | None, offsets: bool = False) -> Any:
        """Compute the calibrated score of a cosine: its distance from the mean of wrong pairs, in spreads.

        Args:
            cosine: The cosine of question and document; a number, or an array of any shape.
            question: The language of the question. None, or one that is not in `languages`, means all together.
            document: The language of the document, in the same way.
            offsets: Whether the offsets were subtracted from both vectors.

        Returns:
            A number or an array, like `cosine`.
        """
        row, column = (-1 if (place := self.place(code)) is None else place for code in (question, document))
        mean, spread = self._zero[int(offsets), row, column].tolist()
        return (cosine - mean) / spread

    @cached_property
    def _zero(self) -> np.ndarray:
        """Mean and spread of wrong pairs, (2, L + 1, L + 1, 2); the last row and column are of all languages together.

        The spread of all languages together is that of their pooled wrong pairs, with equal weights.
        """
        mean, square = self.pairs[..., WRONG], self.pairs[..., SPREAD] ** 2 + self.pairs[..., WRONG] ** 2
        for axis in (1, 2):
            mean, square = (
                np.concatenate([each, each.mean(axis=axis, keepdims=True)], axis=axis) for each in (mean, square)
            )
        return np.stack([mean, np.sqrt((square - mean**2).clip(min=1e-12))], axis=3)

    def without_offset(self, vectors: np.ndarray, codes: Sequence[str | None], side: str) -> np.ndarray:
        """Subtract the offsets of their languages from vectors.

        The offset of a language is its mean vector minus that of English. So English vectors are unchanged, and vectors
        in an unknown language too.

        Args:
            vectors: (n, d), of any length but 0.
            codes: The language of each; None is unknown.
            side: "query" or "document".

        Returns:
            (n, d) float32, of length 1.
        """
        means = self.query_means if side == "query" else self.document_means
        offsets = np.concatenate([offsets_of(means, self.languages), np.zeros((1, self.dimensions))])
        places = [len(self.languages) if (place := self.place(code)) is None else place for code in codes]
        return unit(unit(vectors) - offsets[places]).astype(np.float32)

    def require(self, where: str, identity: str, documents: str, query: str | None, document: str | None) -> None:
        """Refuse statistics of another model, or with other prompts.

        Args:
            where: The file of the statistics, for the message.
            identity: The identity of the model that embeds questions.
            documents: The identity of the model that embeds documents.
            query: The prefix of questions.
            document: The prefix of documents.

        Raises:
            UsageError: One of these differs; the message has both values.
        """
        for what, found, wanted in (
            ("questions", self.identity, identity),
            ("documents", self.documents, documents),
        ):
            if found != wanted:
                words = f"has the statistics of {self.model}, with {what} by {found}, but here {what} are by {wanted}"
                raise UsageError(f"{where}: {words}: make them for this model (`lusifer calibrate`)")
        for what, found, wanted in (
            ("questions", self.query, query or ""),
            ("documents", self.document, document or ""),
        ):
            if found != wanted:
                words = f"was made with the prompt {found!r} for {what}, but here it is {wanted!r}"
                raise UsageError(f"{where}: {words}: make it with the same --task or --prompt (`lusifer calibrate`)")

    @property
    def worst(self) -> tuple[float, str]:
        """Return the largest standard error of a zero point, in spreads, and its pair of languages."""
        errors = self.pairs[0, ..., ERROR] / self.pairs[0, ..., SPREAD]
        row, column = np.unravel_index(int(errors.argmax()), errors.shape)
        return float(errors[row, column]), f"{self.languages[row]}-{self.languages[column]}"

    @cached_property
    def digest(self) -> str:
        """A digest of all values, as 12 hexadecimal digits."""
        made = hashlib.sha256(json.dumps(self._about(), sort_keys=True).encode())
        for name in _ARRAYS:
            made.update(np.ascontiguousarray(getattr(self, name)).tobytes())
        return made.hexdigest()[:12]

    def _about(self) -> dict[str, str]:
        said = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in _ARRAYS}
        return {name: value if isinstance(value, str) else json.dumps(value) for name, value in said.items()}

    def write(self, file: str | os.PathLike[str]) -> None:
        """Write the statistics to a safetensors file, atomically."""
        arrays = {name: np.ascontiguousarray(getattr(self, name)) for name in _ARRAYS}
        with write_file(file) as temporary:
            weights.save_arrays(temporary, arrays, {"format": _FORMAT} | self._about())


_ARRAYS = ("query_means", "document_means", "pairs")


def read(file: str | os.PathLike[str]) -> LanguageStatistics:
    """Read the statistics from a file or from a model folder.

    Raises:
        UsageError: There is no such file.
        DataError: The file is damaged, or is something else.
    """
    path = expand_user(file)
    path = path / LANGUAGES if path.is_dir() else path
    refuse_no_file(path, f"make it with `lusifer calibrate MODEL --parallel FILE --output {path}`", UsageError)
    refuse_pointer(path)
    try:
        with weights.opened(path, _ADVICE, "np") as tensors:
            about, arrays = tensors.metadata() or {}, {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
    except ModelFolderError as error:
        raise DataError(str(error)) from error
    return _checked(about, arrays, str(path))


def _checked(about: Mapping[str, Any], arrays: Mapping[str, np.ndarray], where: str) -> LanguageStatistics:
    """The statistics, if they are complete and their shapes agree."""
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
            words = f"expected numbers for {count} languages, found {name} of {found.dtype} {found.shape}"
            raise DataError(f"{where}: damaged, {words}: {_ADVICE}")
    # A language with itself has no right pairs: that number is NaN.
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
    """The languages of a file: a list of distinct codes as `languages.language` returns them, with English.

    Raises:
        ValueError: It is something else.
        UsageError: A code is no language.
    """
    if not isinstance(said, list) or not all(isinstance(code, str) for code in said):
        raise ValueError("languages: expected a list of codes")
    if len(set(said)) < len(said):
        raise ValueError("languages: a duplicate code")
    for code in said:
        if language(code).code != code:
            raise ValueError(f"language {code!r} must be written {language(code).code}")
    if ENGLISH not in said:
        raise ValueError(f"no {ENGLISH} among its languages")
    return tuple(said)


def offsets_of(means: np.ndarray, languages: Sequence[str]) -> np.ndarray:
    """Return the offsets of languages: their mean vectors minus that of English.

    Args:
        means: The mean vectors, (L, d).
        languages: The codes of the L languages.

    Returns:
        (L, d).
    """
    return means - means[list(languages).index(ENGLISH)]


def unit(vectors: np.ndarray, dtype: Any = np.float64) -> np.ndarray:
    """Scale vectors (n, d) to length 1 in a dtype; a vector of zeros is unchanged."""
    vectors = np.asarray(vectors, dtype=dtype)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1e-12)
