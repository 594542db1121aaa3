"""Files of texts: every row has its place, and a bad one is refused by it."""

import gzip
import io
import json
import sys
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from lusifer.errors import DataError, TextError, UsageError
from lusifer.serving.files import TextSource


def read(path, field=None, form=None):
    return [text for _, text in TextSource(str(path), field, form).rows()]


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
    with pytest.raises(
        DataError,
        match=r"a\.csv line 3: no field 'text' \(found id, body; line 1 must be the header\): name it with --field",
    ):
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


@pytest.mark.parametrize("form", ["txt", "jsonl", "csv"])
def test_parquet_and_gzip_that_are_read_as_another_format_are_told_apart(form, tmp_path, monkeypatch):
    file = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"text": ["x"]}), file)
    with pytest.raises(DataError, match=r"a\.parquet: is Parquet, not text: leave out the option for the format"):
        read(file, form=form)
    (tmp_path / "a.bin").write_bytes(file.read_bytes())
    with pytest.raises(DataError, match=r"a\.bin: is Parquet, not text: rename it to end in \.parquet"):
        read(tmp_path / "a.bin", form=form)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(file.read_bytes())))
    with pytest.raises(DataError, match="standard input: is Parquet, which can only be read from a file"):
        read("-", form=form)
    (tmp_path / "b.bin").write_bytes(gzip.compress(b"text\nx\n", mtime=0))
    with pytest.raises(DataError, match=r"b\.bin .*the file is gzip: rename it to end in \.gz"):
        read(tmp_path / "b.bin", form=form)


def test_standard_input_is_read_once_and_kept(monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO("eins\nघर\n".encode())))
    source = TextSource("-")
    assert source.check() == 2
    assert list(source.rows()) == [("standard input line 1", "eins"), ("standard input line 2", "घर")]


ROWS = b'{"id": 1, "body": "eins"}\n\n{"id": 2, "body": "zwei"}\n'


@pytest.mark.parametrize(
    ("form", "field", "content"),
    [
        ("jsonl", "body", ROWS),
        ("jsonl", "body", gzip.compress(ROWS, mtime=0)),
        ("csv", "body", b"id,body\n1,eins\n2,zwei\n"),
        ("csv", None, gzip.compress(b"\xef\xbb\xbftext\neins\nzwei\n", mtime=0)),
        ("txt", None, b"eins\nzwei"),
        (None, None, gzip.compress(b"eins\nzwei\n", mtime=0)),
    ],
)
def test_standard_input_of_each_form(form, field, content, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))
    assert read("-", field, form) == ["eins", "zwei"]
    file = tmp_path / ("a.log.gz" if content.startswith(b"\x1f") else "a.log")
    file.write_bytes(content)
    assert read(file, field, form or "txt") == ["eins", "zwei"]


@pytest.mark.parametrize(
    ("content", "form", "message"),
    [
        (b'{"text": "a"}\n\n{"te', "jsonl", "standard input line 3: not JSON"),
        (b'{"text": "a", "text": "b"}', "jsonl", r"standard input line 1: .*\(duplicate key 'text'"),
        (b"text,text\na,b\n", "csv", "standard input line 1: duplicate column 'text': rename one of the two"),
        (b"\xef\xbb\xbf" + ROWS, "jsonl", "standard input line 1: no field 'text' \\(found id, body\\)"),
        (gzip.compress(ROWS, mtime=0)[:30], "jsonl", "standard input: is damaged gzip"),
        (b"one\rtwo\r", None, "standard input line 1: a carriage return without a line feed after it"),
    ],
)
def test_standard_input_that_is_wrong_is_refused_by_line(content, form, message, monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))
    with pytest.raises(DataError, match=message):
        TextSource("-", None, form).check()


def test_a_field_of_lines_of_text_is_refused(monkeypatch, tmp_path):
    for name in ("-", "a.txt", "b.TXT", "c.txt.gz"):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(ROWS)))
        if name != "-":
            (tmp_path / name).write_bytes(ROWS)
        with pytest.raises(UsageError, match="--field body: .*: lines of text have no fields: leave it out, or give"):
            TextSource(name if name == "-" else str(tmp_path / name), "body")
    with pytest.raises(UsageError, match="--field text"):
        TextSource(str(tmp_path / "a.txt"), "text")


@pytest.mark.parametrize("name", ["a.TXT", "a.Txt.GZ", "A.JSONL", "a.jsonl.GZ", "a.CSV", "a.CSV.GZ", "a.PARQUET"])
def test_endings_may_be_in_capitals(name, tmp_path):
    file, lower = tmp_path / name, name.lower()
    content = {".jsonl": b'{"text": "eins"}\n', ".csv": b"text\neins\n", ".txt": b"eins\n"}
    if lower.endswith(".parquet"):
        parquet.write_table(pa.table({"text": ["eins"]}), file)
    else:
        plain = content["." + lower.split(".")[1]]
        file.write_bytes(gzip.compress(plain, mtime=0) if lower.endswith(".gz") else plain)
    assert read(file) == ["eins"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"one\n\nthree\n", "line 2: the text is empty"),
        (b"one\n \t \n", "line 2: the text is empty"),
        (b"one\ntw\x00o\n", "line 2: NUL character at position 2"),
        (b"one\nt\xed\xa0\x80wo\n", r"line 2: lone surrogate U\+D800 at position 1"),
        (b"one\nt\xffwo\n", r"line 2: not UTF-8 \(byte 1\): save the file as UTF-8"),
        (b"", "no texts: give"),
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
        ('{"text": ' + "9" * 5000 + "}", "JSON that cannot be read .* one plain object per line"),
        ('{"text": ' + "[" * 100_000 + "]" * 100_000 + "}", "JSON that cannot be read .* one plain object per line"),
        ("{", "line 1: not JSON"),
        ("", "no texts: give"),
        ("[1]", r"line 1: expected an object with columns, found a list: write one object per line \(jq -c"),
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
    with pytest.raises(UsageError, match=r"unknown ending '\.tsv': use \.txt, \.txt\.gz, \.jsonl, .*\.parquet"):
        TextSource(str(tmp_path / "a.tsv"))
