"""Files of texts: every row has its place, and a bad one is refused by it."""

import io
import json
import sys
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from lusifer.errors import DataError, TextError, UsageError
from lusifer.serving.files import TextSource


def read(path, field="text"):
    return [text for _, text in TextSource(str(path), field).rows()]


def test_lines_end_at_line_feeds_only(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes("\ufeffone\r\ntwo\u2028still two\x0band\x85so\nthree".encode())
    assert read(file) == ["one", "two\u2028still two\x0band\x85so", "three"]
    assert TextSource(str(file)).check() == 3


def test_json_lines_and_their_field(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"text": "x", "body": "zwei\nZeilen"}) + "\n", encoding="utf-8")
    assert read(file) == ["x"]
    assert read(file, "body") == ["zwei\nZeilen"]
    with pytest.raises(DataError, match=r"a\.jsonl line 1: no field 'title' \(found text, body\)"):
        read(file, "title")


def test_csv_and_its_column(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text('id,body\n1,"two\nlines"\n2,x\n', encoding="utf-8")
    assert read(file, "body") == ["two\nlines", "x"]
    with pytest.raises(DataError, match=r"a\.csv line 3: no field 'text' \(found id, body\): name it with --field"):
        read(file)


def test_parquet_and_its_column(tmp_path):
    file = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"body": ["x", "y", None]}), file)
    with pytest.raises(TextError, match=r"a\.parquet row 3: expected a text, found NoneType"):
        read(file, "body")
    with pytest.raises(DataError, match=r"row 1: no field 'text' \(found body\): name it with --field"):
        read(file)
    (tmp_path / "b.parquet").write_bytes(file.read_bytes()[:50])
    with pytest.raises(DataError, match=r"b\.parquet after row 0: not a readable Parquet file"):
        read(tmp_path / "b.parquet")


def test_standard_input_is_read_once_and_kept(monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO("eins\nघर\n".encode())))
    source = TextSource("-")
    assert source.check() == 2
    assert list(source.rows()) == [("standard input line 1", "eins"), ("standard input line 2", "घर")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"one\n\nthree\n", "line 2: the text is empty"),
        (b"one\n \t \n", "line 2: the text is empty"),
        (b"one\ntw\x00o\n", "line 2: NUL character at position 2"),
        (b"one\nt\xed\xa0\x80wo\n", r"line 2: lone surrogate U\+D800 at position 1"),
        (b"one\nt\xffwo\n", r"line 2: not UTF-8 \(byte 1\): save the file as UTF-8"),
        (b"", "no texts in it"),
    ],
)
def test_wrong_lines_are_refused_by_number(tmp_path, content, message):
    file = tmp_path / "a.txt"
    file.write_bytes(content)
    with pytest.raises(DataError, match=message):
        TextSource(str(file)).check()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": ' + "9" * 5000 + "}", "JSON that cannot be read .* one plain object a line"),
        ('{"text": ' + "[" * 100_000 + "]" * 100_000 + "}", "JSON that cannot be read .* one plain object a line"),
        ("{", "line 1: not JSON"),
        ("", "line 1: not JSON"),
        ("[1]", r"line 1: no field 'text' \(found list\)"),
        ('{"text": 3}', "line 1: expected a text, found int"),
        ('{"text": ""}', "line 1: the text is empty"),
        ('{"text": "a\\u0000"}', "line 1: NUL"),
        ('{"text": "\\ud83d"}', r"line 1: lone surrogate U\+D83D"),
    ],
)
def test_wrong_rows_are_refused_by_number(tmp_path, line, message):
    file = tmp_path / "a.jsonl"
    file.write_text(line + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=message):
        TextSource(str(file)).check()


def test_what_is_no_source(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        TextSource(str(tmp_path / "a.txt"))
    (tmp_path / "a.tsv").write_text("x", encoding="utf-8")
    with pytest.raises(UsageError, match=r"unknown ending '\.tsv': use \.txt, \.jsonl, .*\.csv, .*\.parquet"):
        TextSource(str(tmp_path / "a.tsv"))
