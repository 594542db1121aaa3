"""The documents of an index: an id, a text and fields, read from a file or from a folder of texts."""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, time
from typing import Any

import numpy as np

from lusifer.errors import DataError, UsageError
from lusifer.io import rows
from lusifer.io.files import expand_user, refuse_pointer
from lusifer.prompts import check_text
from lusifer.serving.files import TextSource

RESERVED = ("id", "text", "vector", "chunk", "chunk_count", "chunk_start", "chunk_end", "digest")
"""Columns of every index. Fields of documents must not have these names, or names that begin with an underscore."""
TEXT_FILES = (".txt", ".md", ".markdown")
"""The endings of files in a folder that are documents, in lower case."""
SAMPLE = 16
KINDS: dict[type, str] = {bool: "bool", int: "int", float: "float", str: "text"}
Value = str | int | float | bool


@dataclass(frozen=True)
class TextDocument:
    """A document of an index.

    text: May be None only if there is a `vector`, in an index of vectors only.
    place: Where it comes from, for messages.
    vector: (d,) float32, if the document was embedded before.
    """

    id: str
    text: str | None
    fields: Mapping[str, Value] = field(default_factory=dict)
    place: str = ""
    vector: np.ndarray | None = None

    @property
    def digest(self) -> str:
        """A digest by which a changed document is recognized: 16 hexadecimal digits of text, fields and vector."""
        return self._digest(b"")

    @property
    def digest_if_cut(self) -> str:
        """The digest of a truncated document; it differs, so that the document is embedded again to be split."""
        return self._digest(b"cut")

    def _digest(self, taken: bytes) -> str:
        said = json.dumps([self.text, dict(sorted(self.fields.items()))], ensure_ascii=False).encode()
        given = b"" if self.vector is None else np.asarray(self.vector, dtype="<f4").tobytes()
        return hashlib.sha256(said + given + taken).hexdigest()[:16]


def document(row: Any, where: str, text: str = "text", id: str = "id", default: str | None = None) -> TextDocument:
    """Make a document from an object.

    Args:
        row: The object. Texts, numbers and booleans are stored, dates as text; lists, objects and null are not.
        where: Where it comes from, the start of the message.
        text: The field with the text.
        id: The field with the id: a text, or an integer, which becomes a text.
        default: The id of a row without one; None refuses such a row.

    Raises:
        DataError: There is no text that can be embedded, no id, or a field has an invalid name.
    """
    if isinstance(row, TextDocument):
        return row
    rows.refuse_no_object(row, where)
    for name, option in ((text, "--field"), *(() if default is not None else ((id, "--id"),))):
        if name not in row:
            raise DataError(f"{where}: no field {name!r} (found {rows.columns(row)}): name it with {option}")
    name = row.get(id)
    if name is None and default is not None:
        name = default
    if isinstance(name, bool) or not isinstance(name, (str, int)) or name == "":
        raise DataError(f"{where}: its {id!r} is {_kind(name)}: give a text or an integer as id")
    fields = {key: kept for key, value in row.items() if key not in (text, id) and (kept := _kept(value)) is not None}
    for key in fields:
        if key in RESERVED or key.startswith("_") or "." in key or "`" in key or not key:
            words = "the name is reserved or has characters that are not allowed: rename the field"
            raise DataError(f"{where}: field {key!r}: {words}")
        if not _is_unicode(f"{key} {fields[key]}"):
            words = "lone surrogate: remove it, or save the value again as UTF-8"
            raise DataError(f"{where}: field {ascii(key)}: {words}")
    return TextDocument(check_text(str(name), f"{where}: its id"), check_text(row[text], where), fields, where)


def _kind(value: Any) -> str:
    return "an empty text" if value == "" else rows.kind_of_value(value)


def _is_unicode(text: str) -> bool:
    """Whether a text has no lone surrogates."""
    return text.encode("utf-8", "replace").decode("utf-8") == text


def _kept(value: Any) -> Value | None:
    """A value as an index stores it; None if it is not stored."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, (date, time)):  # a datetime is a date
        return value.isoformat()
    for kind in KINDS:  # bool before int, which it is as well
        if isinstance(value, kind):
            return str.__str__(value) if kind is str else value if type(value) is kind else kind(value)
    return None


def given_id(given: object) -> str:
    """Convert a given id, a text or an integer, to the form in the index.

    Raises:
        UsageError: It is neither.
        TextError: It is blank, or has characters that are not allowed.
    """
    given = given.item() if isinstance(given, np.generic) else given
    if isinstance(given, bool) or not isinstance(given, (str, int)):
        raise UsageError(f"{given!r}: not the id of a document: give texts or integers")
    return check_text(str(given), "an id")


class DocumentFile(TextSource):
    """A file of documents, or standard input: one per line of text or per row, with all fields of the row.

    Args:
        path: As for `TextSource`.
        field: As for `TextSource`.
        form: As for `TextSource`.
        id: The field with the id. None is "id", and a row without it gets its file and line as id.
    """

    def __init__(self, path: str, field: str | None = None, form: str | None = None, id: str | None = None) -> None:
        super().__init__(path, field, form)
        if id is not None and self.form == ".txt":
            words = "lines of text have no fields: leave it out, or give the format (--input-format jsonl)"
            raise UsageError(f"--id {id}: {self.name}: {words}")
        self.id = id

    def documents(self) -> Iterator[TextDocument]:
        """Yield every document, in order.

        Raises:
            DataError: A row is no valid document.
        """
        name = "-" if self._data is not None else self.path.name
        for number, (where, row) in enumerate(self._documents(), start=1):
            if isinstance(row, DataError):
                raise row
            own = f"{name}:{where.rpartition(' ')[2] if where[-1].isdigit() else number}"
            if self.form == ".txt":
                yield TextDocument(_name(own, where), check_text(row, where), {}, where)
            else:
                yield document(row, where, self.field, self.id or "id", own if self.id is None else None)

    def _documents(self) -> Iterator[tuple[str, Any]]:
        if self.form == ".parquet":
            import pyarrow.parquet as pq

            refuse_pointer(self.path)
            try:
                schema = pq.read_schema(self.path)
            except Exception:  # noqa: BLE001 - the reader of rows raises the error with a clear message
                yield from rows.rows(self.path, [self.field])
                return
            import pyarrow.types as kinds

            nested = {one.name for one in schema if kinds.is_nested(one.type) or kinds.is_large_binary(one.type)}
            yield from rows.rows(self.path, [name for name in schema.names if name not in nested])
            return
        with self._opened() as stream:
            if self.form == ".txt":
                yield from rows.text_lines(stream, self.name)
            else:
                yield from rows.parse(stream, self.name, self.form)


class DocumentFolder:
    """A folder of texts: each file is a document, with its path in the folder as id.

    Empty and hidden files are skipped.

    Args:
        path: The folder.

    Raises:
        UsageError: The folder has no file that ends in one of `TEXT_FILES`.
    """

    def __init__(self, path: str) -> None:
        self.path, self.name = expand_user(path), str(path)
        self.empty = 0
        self._files = [
            file
            for file in sorted(self.path.rglob("*"))
            if file.suffix.lower() in TEXT_FILES
            and not any(part.startswith(".") for part in file.relative_to(self.path).parts)
            and file.is_file()
        ]
        if not self._files:
            raise UsageError(f"{path}: no files that end in {', '.join(TEXT_FILES)}: name a folder of texts")

    def documents(self) -> Iterator[TextDocument]:
        """Yield every document, by name.

        Raises:
            DataError: A file is not UTF-8, too large, or has characters that no tokenizer accepts.
        """
        self.empty = 0
        for file in self._files:
            refuse_pointer(file)
            try:
                if file.stat().st_size > rows.MOST_IN_A_LINE:
                    raise DataError(f"{file}: more than {rows.MOST_IN_A_LINE:,} bytes: split it, or remove it")
                data = file.read_bytes()
                text = data.decode("utf-8-sig")  # with its line ends, so that places of passages are right
            except UnicodeDecodeError as error:
                raise DataError(f"{file}: not UTF-8 (byte {error.start}): {rows.not_utf8(data[: rows.HEAD])}") from None
            except OSError as error:
                raise DataError(f"{file}: cannot be read ({error.strerror}): fix that, or remove the file") from None
            if not text.strip():
                self.empty += 1
                continue
            name = _name(file.relative_to(self.path).as_posix(), str(file))
            yield TextDocument(name, check_text(text, str(file)), {}, str(file))


def _name(id: str, where: str) -> str:
    """The name of a file as an id; names of files need not be UTF-8, but ids must be."""
    if not _is_unicode(id):
        shown = os.fsencode(where).decode("utf-8", "backslashreplace")
        raise DataError(f"{shown}: the name of the file is not UTF-8, so it cannot be an id: rename the file")
    return id


Source = DocumentFile | DocumentFolder


def source(path: str, field: str | None = None, form: str | None = None, id: str | None = None) -> Source:
    """Open a file or a folder of documents.

    Args:
        path: The file or folder.
        field: As for `DocumentFile`, and so are `form` and `id`; not for a folder.
        form: See `field`.
        id: See `field`.

    Raises:
        UsageError: There is no such file or folder, or an argument does not fit a folder.
    """
    if not expand_user(path).is_dir():
        return DocumentFile(path, field, form, id)
    for option, value in (("--field", field), ("--input-format", form), ("--id", id)):
        if value is not None:
            raise UsageError(f"{option} {value}: {path} is a folder of texts, not a file of rows: leave it out")
    return DocumentFolder(path)


@dataclass
class Survey:
    """The facts of documents after they were read once: count, field -> kind, ids, and a random sample of `SAMPLE`."""

    count: int = 0
    fields: dict[str, str] = field(default_factory=dict)
    ids: set[str] = field(default_factory=set)
    sample: list[TextDocument] = field(default_factory=list)


def survey(found: Any, look: Callable[[TextDocument], None] | None = None) -> Survey:
    """Read all documents of a source once, before a model is loaded.

    Args:
        found: The source: an object with `name` and `documents()`.
        look: Called with each document.

    Raises:
        DataError: There is no document, one is invalid, or two have the same id.
    """
    seen, chance = Survey(), random.Random(0)
    for each in found.documents():
        if each.id in seen.ids:
            raise DataError(f"{each.place}: duplicate id {each.id!r}: give each document its own")
        seen.ids.add(each.id)
        seen.count += 1
        widen(seen.fields, each.fields)
        if look is not None:
            look(each)
        if (place := chance.randrange(seen.count) if len(seen.sample) == SAMPLE else len(seen.sample)) < SAMPLE:
            seen.sample[place : place + 1] = [each]
    if not seen.count:
        raise DataError(f"{found.name}: no texts: give an input with at least one")
    return seen


def widen(kinds: dict[str, str], fields: Mapping[str, Value]) -> None:
    """Widen the kinds of fields in place so that they fit the values of a further document."""
    for name, value in fields.items():
        kind = KINDS[type(value)]
        before = kinds.setdefault(name, kind)
        if before != kind:
            kinds[name] = "float" if {before, kind} == {"int", "float"} else "text"


def fitted(each: TextDocument, kinds: Mapping[str, str]) -> dict[str, Value]:
    """Convert the fields of a document to the kinds of the index.

    Args:
        each: The document.
        kinds: Field -> kind.

    Raises:
        DataError: A value does not fit its kind.
    """
    found: dict[str, Value] = {}
    for name, value in each.fields.items():
        kind, own = kinds[name], KINDS[type(value)]
        if own != kind and kind == "text":
            value = json.dumps(value)
        elif own != kind and (kind, own) == ("float", "int"):
            try:
                value = float(value)
            except OverflowError:
                raise _too_large(each, name) from None
        elif own != kind and (kind, own) == ("int", "float") and value == int(value):
            value = int(value)
        elif own != kind:
            words = f"the index has {kind} values in this field, but this is {rows.kind_of_value(value)}"
            raise DataError(f"{each.place}: field {name!r}: {words}: convert it, or rename the field")
        if kind == "int" and not -(2**63) <= value < 2**63:
            raise _too_large(each, name)
        found[name] = value
    return found


def _too_large(each: TextDocument, name: str) -> DataError:
    digits = f"{each.fields[name]}"
    shown = digits if len(digits) <= 40 else f"a number of {len(digits):,} digits"
    return DataError(f"{each.place}: field {name!r}: {shown} is too large: write it as text")


def windows(found: Iterable[TextDocument], most: int, characters: int) -> Iterator[list[TextDocument]]:
    """Yield lists of at most `most` documents; a list ends with the document that reaches `characters`."""
    window: list[TextDocument] = []
    length = 0
    for each in found:
        window.append(each)
        length += len(each.text or "")
        if len(window) >= most or length >= characters:
            yield window
            window, length = [], 0
    if window:
        yield window
