"""What files and folders hold, as documents."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lusifer.errors import DataError, UsageError
from lusifer.index.documents import TextDocument, document, fitted, source, survey, widen


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(path: str, *words, **more) -> list[tuple[str, str | None, dict]]:
    return [(each.id, each.text, dict(each.fields)) for each in source(path, *words, **more).documents()]


def test_a_line_of_text_is_named_by_file_and_line():
    Path("a.txt").write_text("one\nдва\n", encoding="utf-8")
    Path("a.txt.gz").write_bytes(gzip.compress(b"eins\n", mtime=0))
    assert read("a.txt") == [("a.txt:1", "one", {}), ("a.txt:2", "два", {})]
    assert read("a.txt.gz") == [("a.txt.gz:1", "eins", {})]


def test_rows_keep_their_fields_and_lists_are_left_out():
    rows = [
        {"id": 7, "body": "one", "n": 1, "tags": ["x"], "x": None, "ok": True},
        {"body": "two", "n": 1.5, "inner": {"a": 1}, "id": "b"},
        {"body": "three", "n": "many"},
    ]
    Path("r.jsonl").write_text("\n" + "".join(json.dumps(row) + "\n" for row in rows))
    found = read("r.jsonl", "body")
    assert found == [
        ("7", "one", {"n": 1, "ok": True}),
        ("b", "two", {"n": 1.5}),
        ("r.jsonl:4", "three", {"n": "many"}),
    ]
    with pytest.raises(DataError, match="r.jsonl line 4: no field 'id' .* name it with --id"):
        read("r.jsonl", "body", id="id")


def test_csv_and_parquet_are_read_with_all_columns():
    Path("r.csv").write_text("key,text,lang\n1,one,en\n", encoding="utf-8")
    assert read("r.csv", id="key") == [("1", "one", {"lang": "en"})]
    import datetime

    table = {"text": ["one"], "id": [5], "day": [datetime.date(2026, 1, 2)], "v": [[0.1, 0.2]], "n": [2], "b": [b"raw"]}
    pq.write_table(pa.table(table), "r.parquet")
    assert read("r.parquet") == [("5", "one", {"day": "2026-01-02", "n": 2})]


def test_a_folder_is_its_text_files_by_path_without_empty_and_hidden_ones():
    for name, text in (
        ("b/ä.MD", "# Ж"), ("a.txt", "one\r\ntwo"), ("empty.txt", " \n"), (".git/x.txt", "no"), ("c.py", "no"),
        ("b/.x.txt", "no"), ("bom.markdown", "\ufeffmark"),
    ):  # fmt: skip
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(text.encode())
    found = source(".")
    assert [(each.id, each.text) for each in found.documents()] == [
        ("a.txt", "one\r\ntwo"),
        ("b/ä.MD", "# Ж"),
        ("bom.markdown", "mark"),
    ]
    assert found.empty == 1


def test_a_folder_that_cannot_be_read_is_named():
    Path("texts").mkdir()
    with pytest.raises(UsageError, match="^texts: no files that end in .txt, .md"):
        source("texts")
    Path("texts/a.txt").write_bytes(b"\xe4")
    with pytest.raises(DataError, match=r"^texts/a.txt: not UTF-8 \(byte 0\): save the file as UTF-8"):
        survey(source("texts"))
    with pytest.raises(UsageError, match="--field body: texts is a folder of texts, not a file of rows"):
        source("texts", "body")
    Path("texts/a.txt").write_text("a\x00b")
    with pytest.raises(DataError, match="^texts/a.txt: NUL character"):
        survey(source("texts"))


def test_a_file_whose_name_is_not_utf8_is_named_before_a_model_is_loaded():
    Path("texts").mkdir()
    for place in (b"texts/\xff.txt", b"\xff.txt"):
        Path(os.fsdecode(place)).write_text("hello\n")
    for place, shown in (("texts", r"texts/\\xff.txt"), (os.fsdecode(b"\xff.txt"), r"\\xff.txt line 1")):
        with pytest.raises(DataError, match=f"^{shown}: the name of the file is not UTF-8, .*: rename the file"):
            survey(source(place))


def test_numbers_that_no_column_holds_are_named_by_row_and_field():
    for value, kind in ((10**400, "float"), (10**400, "int"), (-(10**30), "int")):
        with pytest.raises(DataError, match=r"^r line 2: field 'n': \S.* is too large: write it as text"):
            fitted(TextDocument("x", "x", {"n": value}, "r line 2"), {"n": kind})


def test_numbers_and_texts_of_numpy_are_those_of_python():
    made = document({"id": "a", "text": "x", "n": np.float64(1.5), "s": np.str_("y"), "ok": True}, "r line 1")
    assert [type(value) for value in made.fields.values()] == [float, str, bool]


def test_an_id_that_is_there_twice_and_no_documents_are_refused():
    Path("r.jsonl").write_text('{"id": 1, "text": "a"}\n{"id": "1", "text": "b"}\n')
    with pytest.raises(DataError, match="^r.jsonl line 2: duplicate id '1': give each document its own"):
        survey(source("r.jsonl"))
    Path("r.jsonl").write_text("\n")
    with pytest.raises(DataError, match="^r.jsonl: no texts: give"):
        survey(source("r.jsonl"))


def test_a_field_has_the_narrowest_kind_that_holds_its_values():
    kinds: dict[str, str] = {}
    for fields in ({"a": 1, "b": 1, "c": True}, {"a": 2.5, "b": "x", "c": False}, {"d": 1}):
        widen(kinds, fields)
    assert kinds == {"a": "float", "b": "text", "c": "bool", "d": "int"}
    made = TextDocument("x", "x", {"a": 1, "b": True, "c": True, "d": 3.0})
    assert fitted(made, kinds) == {"a": 1.0, "b": "true", "c": True, "d": 3}
    with pytest.raises(DataError, match="field 'c': the index has bool values in this field, but this is a number"):
        fitted(TextDocument("x", "x", {"c": 1}), kinds)
