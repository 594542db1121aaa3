"""The commands read rows by one reader: what one of them takes or refuses, the others do, in the same words."""

from __future__ import annotations

import functools
import gzip
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from lusifer.cli import main
from lusifer.data import dedup, sources
from lusifer.data.tables import RowCounts
from lusifer.errors import DataError, LusiferError, UsageError
from lusifer.evaluation.tasks import sib200, sts, xquad
from lusifer.index import documents
from lusifer.io import parallel_text
from lusifer.serving.files import TextSource

packed = functools.partial(gzip.compress, mtime=0)
CASES = Path(__file__).parents[1] / "cases"
MARK = b"\xef\xbb\xbf"
PAIR = ['{"query": "What is it?", "positive": ["A tool."]}', '{"query": "Who is it?", "positive": ["A man."]}']
TEXT = ['{"text": "The ferry leaves at noon."}', '{"text": "Bread rises slowly."}']
READERS: dict[str, tuple[list[str], Callable[[Path], object]]] = {
    "data": (PAIR, lambda file: list(sources.open_files([str(file)], 0, {}).rows)),
    "passages": (TEXT, lambda file: list(sources.open_files([str(file)], 0, {}).rows)),
    "against": (TEXT, lambda file: dedup.evaluation_texts([file], RowCounts("test"))),
    "embed": (TEXT, lambda file: TextSource(str(file)).check()),
    "watch": (['{"en": "a", "sw": "b"}', '{"en": "c", "sw": "d"}'], parallel_text.read),
    "sib": ([f'{{"text": "a{i}", "label": "b", "index_id": {i}}}' for i in range(2)], sib200.read),
    "sts": ([f'{{"sentence1": "a", "sentence2": "b", "score": {i}}}' for i in range(2)], sts.read),
}
TOO_LONG = "line 2: JSON that cannot be read (a number has thousands of digits): write one plain object per line"
TOO_DEEP = "line 2: JSON that cannot be read (brackets nest too deep): write one plain object per line"
TWICE = "line 2: JSON that cannot be read (duplicate key 'en' in one object): write one plain object per line"
JOINED = "line 2: a byte-order mark inside the file, as after joining files: remove it"
RETURNS = "line 1: a carriage return without a line feed after it: save the file with line feeds"
POINTER = (CASES / "lfs-pointer.txt").read_bytes()
Make = Callable[[bytes, bytes], bytes]
SOUND: dict[str, Make] = {
    "mark": lambda one, two: MARK + one + b"\n" + two,
    "mark-and-blank": lambda one, two: MARK + b"\n" + one + b"\n" + two,
    "blank-last": lambda one, two: one + b"\n" + two + b"\n\n",
    "blank-between": lambda one, two: one + b"\n \t\n" + two + b"\n\r\n",
    "windows": lambda one, two: one + b"\r\n" + two + b"\r\n",
    "deep": lambda one, two: one + b'\n{"deep": ' + b"[" * 500 + b"]" * 500 + b", " + two[1:] + b"\n",
}
WRONG: dict[str, tuple[Make, str]] = {
    "huge": (lambda one, two: one + b'\n{"x": ' + b"9" * 5000 + b", " + two[1:], TOO_LONG),
    "huge-negative": (lambda one, two: one + b'\n{"x": [-' + b"1" * 9000 + b"], " + two[1:], TOO_LONG),
    "deep": (lambda one, two: one + b'\n{"x": ' + b"[" * 10**5 + b"]" * 10**5 + b", " + two[1:], TOO_DEEP),
    "deep-objects": (lambda one, two: one + b"\n" + b'{"x": ' * 10**5 + b"1" + b"}" * 10**5, TOO_DEEP),
    "twice": (lambda one, two: one + b'\n{"en": "a", "en": "b", ' + two[1:], TWICE),
    "twice-inside": (lambda one, two: one + b'\n{"x": [{"en": 1, "b": 0, "en": 1}], ' + two[1:], TWICE),
    "twice-escaped": (lambda one, two: one + b'\n{"en": 1, "\\u0065n": 2, ' + two[1:], TWICE),
    "joined": (lambda one, two: one + b"\n" + MARK + two, JOINED),
    "returns": (lambda one, two: one + b"\r" + two + b"\r", RETURNS),
    "returns-later": (
        lambda one, two: one + b"\n" + two + b"\r" + one + b"\r\n",
        "line 2: a carriage return without a line feed after it",
    ),
    "bytes": (
        lambda one, two: one + b'\n{"x": "\xff", ' + two[1:],
        "line 2: not UTF-8 (byte 7): save the file as",
    ),
    "wide": (lambda one, two: one.decode().encode("utf-16"), "line 1: not UTF-8 (byte 0): the file is UTF-16"),
    "packed": (
        lambda one, two: gzip.compress(one, mtime=0),
        "line 1: not UTF-8 (byte 1): the file is gzip: rename",
    ),
    "pointer": (lambda one, two: POINTER, "is a Git LFS pointer, not the file itself: fetch it (git lfs pull)"),
    "array": (lambda one, two: b"[\n" + one + b"\n]", "line 1: a JSON array over several lines"),
    "half": (lambda one, two: one + b"\n" + two[:-1], "line 2: not JSON (Expecting ',' delimiter"),
}


# The keys of parallel text are languages, so it has no field beside them for a deep value.
@pytest.mark.parametrize(
    ("reader", "kind"), [(reader, kind) for reader in READERS for kind in SOUND if (reader, kind) != ("watch", "deep")]
)
def test_what_is_no_fault_is_none_anywhere(reader: str, kind: str, tmp_path: Path) -> None:
    rows, read = READERS[reader]
    one, two = map(str.encode, rows)
    (tmp_path / "plain.jsonl").write_bytes(one + b"\n" + two + b"\n")
    for name, pack in (("a.jsonl", bytes), ("a.jsonl.gz", packed), ("A.JSONL.GZ", packed)):
        file = tmp_path / name
        file.write_bytes(pack(SOUND[kind](one, two)))
        assert read(file) == read(tmp_path / "plain.jsonl")


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("reader", READERS)
def test_what_is_wrong_is_said_in_the_same_words_everywhere(reader: str, kind: str, tmp_path: Path) -> None:
    rows, read = READERS[reader]
    make, words = WRONG[kind]
    file = tmp_path / "a.jsonl"
    file.write_bytes(make(*map(str.encode, rows)))
    with pytest.raises(DataError) as caught:
        read(file)
    assert str(caught.value).startswith(str(file)) and words in str(caught.value) and "\n" not in str(caught.value)


QUESTIONS = {"paragraphs": [{"id": "p", "text": "a"}], "questions": [{"id": "q", "text": "b", "paragraph_id": "p"}]}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"paragraphs": ' + b"9" * 5000 + b"}", "a number has thousands of digits"),
        (b"[" * 10**5, "brackets nest too deep"),
        (b'{"paragraphs": [], "paragraphs": []}', "duplicate key 'paragraphs' in one object"),
        (POINTER, "is a Git LFS pointer, not the file itself: fetch it (git lfs pull)"),
        (b'{"a": "\xff"}', "can't decode byte 0xff"),
        (
            json.dumps({**QUESTIONS, "paragraphs": QUESTIONS["paragraphs"] * 2}).encode(),
            "paragraphs: duplicate id 'p'",
        ),
        (json.dumps({**QUESTIONS, "questions": QUESTIONS["questions"] * 3}).encode(), "questions: duplicate id 'q'"),
    ],
)
def test_whole_files_of_json_have_the_same_words(content: bytes, words: str, tmp_path: Path) -> None:
    file = tmp_path / "xquad-en.json"
    file.write_bytes(MARK + json.dumps(QUESTIONS).encode())
    assert xquad.read(file).paragraphs == {"p": "a"}
    assert dedup.evaluation_texts([file], RowCounts("test")) == []
    file.write_bytes(content)
    with pytest.raises(DataError) as caught:
        xquad.read(file)
    assert str(caught.value).startswith(str(file)) and words in str(caught.value)


def test_values_may_nest_as_deep_as_the_reader_goes(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"x": ' + "[" * 900 + '"a text of an evaluation file"' + "]" * 900 + "}\n")
    assert dedup.evaluation_texts([file], RowCounts("test")) == ["a text of an evaluation file"]


@pytest.mark.parametrize(
    ("case", "parse"),
    [
        ("sib-bom/sib200-en-dev.jsonl.gz", sib200.read),
        ("sts-bom/sts-en.jsonl", sts.read),
        ("xquad-bom/xquad-en.json", xquad.read),
        ("held-bom.json", lambda file: dedup.evaluation_texts([file], RowCounts("test"))),
        ("last-line-blank.jsonl", lambda file: TextSource(str(file)).check()),
        ("last-line-blank.jsonl", lambda file: list(sources.read_file(file, "passages"))),
        ("one-row.jsonl", lambda file: list(sources.read_file(file, "pairs"))),
    ],
)
def test_cases_that_are_no_fault(case: str, parse: Callable[[Path], object]) -> None:
    assert parse(CASES / case)


@pytest.mark.parametrize(
    ("case", "parse", "words"),
    [
        (
            "sts-hugeint/sts-en.jsonl",
            sts.read,
            "line 25: score is 100000000000000000...0000000000000000000, not",
        ),
        ("sts-deep/sts-en.jsonl.gz", sts.read, "line 25: JSON that cannot be read (brackets nest too deep)"),
        ("bom2.jsonl", lambda file: TextSource(str(file)).check(), "line 2: a byte-order mark inside the file"),
        ("cr-only.txt", lambda file: TextSource(str(file)).check(), RETURNS),
        ("lfs-pointer.txt", lambda file: TextSource(str(file)).check(), "is a Git LFS pointer"),
        ("garb.jsonl.gz", lambda file: TextSource(str(file)).check(), "bytes that are not gzip follow the gzip data"),
        ("sep.csv", lambda file: TextSource(str(file)).check(), "line 1: a setting of Excel (sep=,)"),
        ("one-line-array.jsonl", lambda file: TextSource(str(file)).check(), "write one object per line (jq -c '.[]')"),
    ],
)
def test_cases_that_are_refused(case: str, parse: Callable[[Path], object], words: str) -> None:
    with pytest.raises(LusiferError) as caught:
        parse(CASES / case)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("bom2.jsonl", "line 2: a byte-order mark inside the file"),
        ("clfloat.jsonl", "line 1: column cluster: expected an integer, found 3.0"),
        ("lab_float.jsonl", "line 1: column label: expected a text or an integer, found 1.0"),
        ("one-line-array.jsonl", "write one object per line (jq -c '.[]')"),
        ("garb.jsonl.gz", "bytes that are not gzip follow the gzip data"),
        ("sep.csv", "line 1: a setting of Excel (sep=,)"),
    ],
)
def test_cases_that_data_inspect_refuses(case: str, words: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["data", "inspect", str(CASES / case)]) == 1
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("row", ["[1]", '["text"]', '"text"', "3", "-0.5", "true", "null"])
def test_a_row_without_columns_is_refused_in_the_same_words(row: str, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(row + "\n")
    said = []
    for read in (READERS["embed"][1], READERS["passages"][1], lambda file: list(sources.read_file(file, "pairs"))):
        with pytest.raises(DataError) as caught:
            read(file)
        said.append(str(caught.value))
    assert len(set(said)) == 1 and said[0].startswith(f"{file} line 1: expected an object with columns, found ")


@pytest.mark.parametrize(("case", "counted"), [("nanpos.csv", "nan 1"), ("none.csv", "None 1")])
def test_cases_of_missing_values_are_counted(case: str, counted: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["data", "inspect", str(CASES / case)]) == 0
    assert f"texts that may stand for a missing value: {counted}\n" in capsys.readouterr().out


def test_a_column_is_named_once(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"query": "a", "question": "b", "positive": "c"}\n')
    calls = {
        "has both columns of --field query=question": (1, ["query=question"]),
        "--field query=question: column query is named twice": (2, ["query=positive", "query=question"]),
        "--field query=question: column question is named twice": (2, ["positive=question", "query=question"]),
    }
    for words, (status, fields) in calls.items():
        assert main(["data", "inspect", str(file), *(f"--field={field}" for field in fields)]) == status
        assert words in capsys.readouterr().err
    swapped = ["query=positive", "positive=query"]  # both are renamed
    assert main(["data", "inspect", str(file), *(f"--field={field}" for field in swapped)]) == 0


@pytest.mark.parametrize("before", [b"", b"\n", b"\r\n\r\n", b"\n \n\n", MARK + b"\n", b"\t\r\n", b",\n", b"\n, ,\r\n"])
def test_blank_lines_before_the_header_of_a_csv_file_are_passed_over(before: bytes, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(before + b"text,label\nThe ferry leaves.,x\n\nBread rises.,y\n")
    assert [text for _, text in TextSource(str(file)).rows()] == ["The ferry leaves.", "Bread rises."]
    file.write_bytes(before + b"text,label\na,b,c\n")
    with pytest.raises(DataError, match=f"a.csv line {before.count(10) + 2}: expected 2 columns as in the header"):
        TextSource(str(file)).check()
    file.write_bytes(before + b"text,text\na,b\n")
    with pytest.raises(DataError, match=f"a.csv line {before.count(10) + 1}: duplicate column 'text'"):
        TextSource(str(file)).check()


@pytest.mark.parametrize(
    ("content", "line"),
    [(b"one\ntwo\rthree\n", 2), (b"a\r\nb\r\nc\rd", 3), (b"a\n\rb\n", 2), (b"a\nb\r\r\n", 2), (b"a\nb\r", 2)],
)
def test_a_carriage_return_alone_in_lines_of_text_is_refused(content: bytes, line: int, tmp_path: Path) -> None:
    for name, pack in (("a.txt", bytes), ("a.txt.gz", packed)):
        file = tmp_path / name
        file.write_bytes(pack(content))
        with pytest.raises(DataError, match=f"{name} line {line}: a carriage return without a line feed after it"):
            TextSource(str(file)).check()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x89PNG\r\n\x1a\n", "is a PNG image, not text: give a text file"),
        (b"%PDF-1.7\r%\xe2\xe3\r", "is PDF, not text"),
        (b"PK\x03\x04\r\0", "is a ZIP archive"),
        (b"\r\0\xfe\x01\r\n", "line 1: not UTF-8 (byte 2): the file is binary, not text: give a text file"),
        (b"a\xfe\nb\n\0", "line 1: not UTF-8 (byte 1): the file is binary, not text: give a text file"),
    ],
)
def test_a_binary_file_is_not_told_to_mend_its_lines(content: bytes, words: str, tmp_path: Path) -> None:
    for name in ("a.txt", "a.csv", "a.jsonl"):
        file = tmp_path / name
        file.write_bytes(content)
        with pytest.raises(DataError) as caught:
            TextSource(str(file)).check()
        csv = words.replace("(byte 2)", "(invalid start byte)").replace("(byte 1)", "(invalid start byte)")
        assert (csv if name == "a.csv" else words) in str(caught.value)
        assert "carriage" not in str(caught.value)


def test_a_binary_file_is_recognized_by_its_start_not_by_its_bad_line(tmp_path: Path) -> None:
    for content, words in ((bytes(range(128, 256)) + b"\n\0", "the file is binary"), (b"caf\xe9\n", "save the file")):
        for name in ("a.txt", "a.txt.gz", "a.csv", "a.csv.gz", "a.jsonl", "folder/a.md"):
            file = tmp_path / name
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(packed(content) if name.endswith(".gz") else content)
            found = documents.source(str(file.parent if name.startswith("folder") else file))
            with pytest.raises(DataError, match=words):
                list(found.documents())


def test_the_line_of_a_csv_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    for lines in (0, 1, 5, 4_000):
        file.write_bytes(b"text\n" + b"Bread rises.\n" * lines + b"caf\xe9\n")
        with pytest.raises(DataError, match=rf"a\.csv line {lines + 2}: not UTF-8 \(.*\): save the file as UTF-8"):
            TextSource(str(file)).check()


def test_a_csv_file_without_a_header_is_called_that(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = tmp_path / "a.csv"
    file.write_text("Hallo,Welt\nGuten,Tag\n")
    found = "(found Hallo, Welt; line 1 must be the header)"
    for read in (TextSource(str(file)).check, lambda: list(documents.source(str(file)).documents())):
        with pytest.raises(DataError) as caught:
            read()
        assert str(caught.value) == f"{file} line 2: no field 'text' {found}: name it with --field"
    with pytest.raises(DataError, match=re.escape(f"column query is missing {found}: add it")):
        list(sources.read_file(file, "pairs"))
    assert main(["data", "inspect", str(file)]) == 1
    assert f"text (passages) {found}: rename the columns" in capsys.readouterr().err


def test_a_pipe_is_no_folder_and_is_sent_to_standard_input(tmp_path: Path) -> None:
    for name in ("pipe", "pipe.txt", "pipe.jsonl"):
        os.mkfifo(tmp_path / name)
        for form in (None, "txt"):
            with pytest.raises(UsageError, match="is a pipe or a device, not a file: give - and send the texts"):
                documents.source(str(tmp_path / name), form=form)
        with pytest.raises(UsageError, match="is a pipe or a device, not a file: save its rows as a file"):
            sources.files(str(tmp_path / name))
    with pytest.raises(UsageError, match="is a folder: name a file in it"):
        TextSource(str(tmp_path))


def test_a_carriage_return_as_a_space_of_json_breaks_no_line(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"text":\r"a"}\n{"text": "b\\rc"}\r\n')
    assert [text for _, text in TextSource(str(file)).rows()] == ["a", "b\rc"]


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.csv.gz"])
def test_a_text_that_begins_as_parquet_does_is_a_text(name: str, tmp_path: Path) -> None:
    content = b"PAR1,text\ngene,PAR1 is a gene.\n"
    file = tmp_path / name
    file.write_bytes(gzip.compress(content, mtime=0) if name.endswith(".gz") else content)
    texts = [text for _, text in TextSource(str(file)).rows()]
    assert texts == (["PAR1,text", "gene,PAR1 is a gene."] if name == "a.txt" else ["PAR1 is a gene."])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"text": "a"}\n', "is not Parquet but another format: rename it"),
        (b"text\na\n", "is not Parquet but another format: rename it"),
        (gzip.compress(b"text\na\n", mtime=0), "is not Parquet but gzip: decompress it"),
        (b"", "not a readable Parquet file"),
        (b"PAR1", "not a readable Parquet file"),
    ],
)
def test_what_is_called_parquet_and_is_not_is_told_by_its_first_bytes(
    content: bytes, words: str, tmp_path: Path
) -> None:
    (tmp_path / "a.parquet").write_bytes(content)
    for work in (lambda file: TextSource(str(file)).check(), lambda file: list(sources.read_file(file, "passages"))):
        with pytest.raises(DataError, match=rf"a\.parquet.* ?{words}"):
            work(tmp_path / "a.parquet")
