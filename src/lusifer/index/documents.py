"""What an index holds: documents with an id, a text and fields, read from a file as for `embed`, or from a folder."""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, time
from pathlib import Path
from typing import Any

import numpy as np

from lusifer.errors import DataError, UsageError
from lusifer.io import rows
from lusifer.io.files import refuse_pointer
from lusifer.prompts import check_text
from lusifer.serving.files import TextSource

RESERVED = ("id", "text", "vector", "chunk", "chunk_count", "chunk_start", "chunk_end", "digest")
"""Columns of every index; no field of a document may have such a name, nor one that begins with an underscore."""
TEXT_FILES = (".txt", ".md", ".markdown")
"""Files of a folder that are documents, by the ending of their names in small letters."""
SAMPLE = 16
KINDS: dict[type, str] = {bool: "bool", int: "int", float: "float", str: "text"}
Value = str | int | float | bool


@dataclass(frozen=True)
class TextDocument:
    """A document of an index.

    `text` may be None only where `vector` is there, as in an index of vectors alone. `place` says where it came from,
    for messages.
    """

    id: str
    text: str | None
    fields: Mapping[str, Value] = field(default_factory=dict)
    place: str = ""
    vector: np.ndarray | None = None

    @property
    def digest(self) -> str:
        """What says that a document changed: 16 hexadecimal digits of its text, fields and given vector."""
        return self._digest(b"")

    @property
    def digest_if_cut(self) -> str:
        """Likewise of one of which the beginning alone was embedded, so that it is no longer the same when split."""
        return self._digest(b"cut")

    def _digest(self, taken: bytes) -> str:
        said = json.dumps([self.text, dict(sorted(self.fields.items()))], ensure_ascii=False).encode()
        given = b"" if self.vector is None else np.asarray(self.vector, dtype="<f4").tobytes()
        return hashlib.sha256(said + given + taken).hexdigest()[:16]


def document(row: Any, where: str, text: str = "text", id: str = "id", default: str | None = None) -> TextDocument:
    """Make a document of an object.

    Args:
        row: Its fields. Texts, numbers and truth values are kept, dates as text; lists, objects and nothing are not.
        where: Where it came from.
        text: The field that holds the text.
        id: The field that holds the id: a text or a whole number, which becomes a text.
        default: The id of a row without one; None refuses it.

    Raises:
        DataError: No text that can be embedded, no id, or a name of a field that no index can have.
    """
    if isinstance(row, TextDocument):
        return row
    rows.refuse_no_object(row, where)
    for name, option in ((text, "--field"), *(() if default is not None else ((id, "--id"),))):
        if name not in row:
            has = ", ".join(map(str, row)) or "none"
            raise DataError(f"{where}: no field {name!r} (found {has}): name it with {option}")
    name = row.get(id)
    if name is None and default is not None:
        name = default
    if isinstance(name, bool) or not isinstance(name, (str, int)) or name == "":
        raise DataError(f"{where}: its {id!r} is {_kind(name)}: an id is a text or a whole number")
    fields = {key: kept for key, value in row.items() if key not in (text, id) and (kept := _kept(value)) is not None}
    for key in fields:
        if key in RESERVED or key.startswith("_") or "." in key or "`" in key or not key:
            words = "such a name is the index's own, or none it can have: rename the field"
            raise DataError(f"{where}: field {key!r}: {words}")
        if not _is_unicode(f"{key} {fields[key]}"):
            words = "half of a surrogate pair: remove it, or write the value anew as UTF-8"
            raise DataError(f"{where}: field {ascii(key)}: {words}")
    return TextDocument(check_text(str(name), f"{where}: its id"), check_text(row[text], where), fields, where)


def _kind(value: Any) -> str:
    return "an empty text" if value == "" else rows.kind_of_value(value)


def _is_unicode(text: str) -> bool:
    """Whether a text has no half of a surrogate pair."""
    return text.encode("utf-8", "replace").decode("utf-8") == text


def _kept(value: Any) -> Value | None:
    """A value as an index keeps it; None for what it does not."""
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
    """An id as it is given, a text or a whole number, as an index has it.

    Raises:
        UsageError: It is neither.
        TextError: It is blank, or a text that no index can have.
    """
    given = given.item() if isinstance(given, np.generic) else given
    if isinstance(given, bool) or not isinstance(given, (str, int)):
        raise UsageError(f"{given!r}: no id of a document: give texts or whole numbers")
    return check_text(str(given), "an id")


class DocumentFile(TextSource):
    """A file of documents, or standard input: a line of text or a row each, with all fields of the row.

    Args:
        path: As for `TextSource`.
        field: Likewise.
        form: Likewise.
        id: The field that holds the id. None is "id", and a row without one is named by its file and line.
    """

    def __init__(self, path: str, field: str | None = None, form: str | None = None, id: str | None = None) -> None:
        super().__init__(path, field, form)
        if id is not None and self.form == ".txt":
            words = "a text a line has no fields: leave it out, or say what the input is (--input-format jsonl)"
            raise UsageError(f"--id {id}: {self.name}: {words}")
        self.id = id

    def documents(self) -> Iterator[TextDocument]:
        """Yield every document, in order.

        Raises:
            DataError: A row is none.
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
            except Exception:  # noqa: BLE001 - the reader of rows says what is wrong
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
    """A folder of texts: a file is a document, and its path within the folder its id. Empty and hidden files are none.

    Raises:
        UsageError: `path` has no file that ends in .txt or .md.
    """

    def __init__(self, path: str) -> None:
        self.path, self.name = Path(path).expanduser(), str(path)
        self.empty = 0
        self._files = [
            file
            for file in sorted(self.path.rglob("*"))
            if file.suffix.lower() in TEXT_FILES
            and not any(part.startswith(".") for part in file.relative_to(self.path).parts)
            and file.is_file()
        ]
        if not self._files:
            raise UsageError(f"{path}: no file in this folder ends in {', '.join(TEXT_FILES)}: name a folder of texts")

    def documents(self) -> Iterator[TextDocument]:
        """Yield every document, by name.

        Raises:
            DataError: A file is not UTF-8, or holds characters that no tokenizer accepts.
        """
        self.empty = 0
        for file in self._files:
            refuse_pointer(file)
            try:
                if file.stat().st_size > rows.MOST_IN_A_LINE:
                    raise DataError(
                        f"{file}: more than {rows.MOST_IN_A_LINE:,} bytes, no text: split it, or take it away"
                    )
                text = file.read_bytes().decode("utf-8-sig")  # with its line ends: places are counted in it
            except UnicodeDecodeError as error:
                raise DataError(f"{file}: not UTF-8 (byte {error.start}): save the file as UTF-8") from None
            except OSError as error:
                raise DataError(f"{file}: cannot be read ({error.strerror}): mend it, or take it away") from None
            if not text.strip():
                self.empty += 1
                continue
            name = _name(file.relative_to(self.path).as_posix(), str(file))
            yield TextDocument(name, check_text(text, str(file)), {}, str(file))


def _name(id: str, where: str) -> str:
    """The name of a file as an id, which is UTF-8 where the names of files need not be."""
    if not _is_unicode(id):
        shown = os.fsencode(where).decode("utf-8", "backslashreplace")
        raise DataError(f"{shown}: the name of the file is not UTF-8, and documents are called by it: rename the file")
    return id


Source = DocumentFile | DocumentFolder


def source(path: str, field: str | None = None, form: str | None = None, id: str | None = None) -> Source:
    """A file or a folder of documents; the arguments are those of `DocumentFile`.

    Raises:
        UsageError: There is none, or a folder has fields named.
    """
    if not Path(path).expanduser().is_dir():
        return DocumentFile(path, field, form, id)
    for option, value in (("--field", field), ("--input-format", form), ("--id", id)):
        if value is not None:
            raise UsageError(f"{option} {value}: {path} is a folder of texts, which has none: leave it out")
    return DocumentFolder(path)


@dataclass
class Survey:
    """What documents there are: how many, which fields of which kind, their ids, and `SAMPLE` of them at random."""

    count: int = 0
    fields: dict[str, str] = field(default_factory=dict)
    ids: set[str] = field(default_factory=set)
    sample: list[TextDocument] = field(default_factory=list)


def survey(found: Any, look: Callable[[TextDocument], None] | None = None) -> Survey:
    """Read all documents of a source once, before a model is loaded; it has a `name` and gives `documents()`.

    `look` is called with each of them.

    Raises:
        DataError: There is none, one is no document, or two have one id.
    """
    seen, chance = Survey(), random.Random(0)
    for each in found.documents():
        if each.id in seen.ids:
            raise DataError(f"{each.place}: the id {each.id!r} is there twice: give each document its own")
        seen.ids.add(each.id)
        seen.count += 1
        widen(seen.fields, each.fields)
        if look is not None:
            look(each)
        if (place := chance.randrange(seen.count) if len(seen.sample) == SAMPLE else len(seen.sample)) < SAMPLE:
            seen.sample[place : place + 1] = [each]
    if not seen.count:
        raise DataError(f"{found.name}: no texts in it")
    return seen


def widen(kinds: dict[str, str], fields: Mapping[str, Value]) -> None:
    """Take the values of a document into account: the kind of a field is the narrowest that holds all of its values."""
    for name, value in fields.items():
        kind = KINDS[type(value)]
        before = kinds.setdefault(name, kind)
        if before != kind:
            kinds[name] = "float" if {before, kind} == {"int", "float"} else "text"


def fitted(each: TextDocument, kinds: Mapping[str, str]) -> dict[str, Value]:
    """The fields of a document as values of their kinds.

    Raises:
        DataError: A value is not of its kind.
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
            words = f"the index has {kind} values in this field, and this is {rows.kind_of_value(value)}"
            raise DataError(f"{each.place}: field {name!r}: {words}: write all alike, or name the field anew")
        if kind == "int" and not -(2**63) <= value < 2**63:
            raise _too_large(each, name)
        found[name] = value
    return found


def _too_large(each: TextDocument, name: str) -> DataError:
    digits = f"{each.fields[name]}"
    shown = digits if len(digits) <= 40 else f"a number of {len(digits):,} digits"
    return DataError(f"{each.place}: field {name!r}: {shown} is too large: write it as text")


def windows(found: Iterable[TextDocument], most: int, characters: int) -> Iterator[list[TextDocument]]:
    """Cut documents into lists of at most `most` and, one document more or less, `characters`."""
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
