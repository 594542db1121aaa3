"""Files that are not what they should be: each kind is told apart before anything trains, with place and mend."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lusifer.cli import main
from lusifer.data.schema import MAX_CHARACTERS
from lusifer.data.sources import SourceSpec, load
from lusifer.errors import DataError
from lusifer.io.rows import BadRows

GOOD = b'{"query": "a", "positive": ["b"]}\n'
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 116000000\n"
KINDS = {
    "not-utf8.jsonl": (GOOD + b'{"query": "\xe9", "positive": ["b"]}\n', "line 2: not UTF-8 (byte 11): save the file"),
    "utf16.jsonl": ('{"query": "a"}'.encode("utf-16"), "line 1: not UTF-8 (byte 0): the file is UTF-16"),
    "packed.jsonl": (
        gzip.compress(GOOD, mtime=0),
        "line 1: not UTF-8 (byte 1): the file is gzip: rename it to end in .gz",
    ),
    "plain.jsonl.gz": (GOOD, "is not gzip (Not a gzipped file (b'{\"')): remove .gz from its name"),
    "cut.jsonl.gz": (gzip.compress(GOOD * 2000, mtime=0)[:60], "cannot be read to its end"),
    "half.jsonl": (GOOD + b'{"query": "a", "posi', "line 2: not JSON (Unterminated string starting at column 16)"),
    "array.jsonl": (b'[\n{"query": "a", "positive": ["b"]}\n]\n', "line 1: a JSON array over several lines"),
    "lists.jsonl": (GOOD + b'["a", "b"]\n', "line 2: expected an object with columns, found a list"),
    "columns.jsonl": (
        GOOD + b'{"query": "a", "answer": "b"}\n',
        "line 2: column positive is missing (found query",
    ),
    "unknown.jsonl": (b'{"question": "a"}\n', "line 1: neither a column query (pairs) nor text (passages)"),
    "no-positive.jsonl": (GOOD + b'{"query": "a", "positive": []}\n', "line 2: column positive: expected at least one"),
    "numbers.jsonl": (GOOD + b'{"query": "a", "positive": ["b", 3]}\n', "column positive, item 2: expected a text"),
    "blank.jsonl": (GOOD + b'{"query": "  ", "positive": ["b"]}\n', "line 2: column query: the text is empty"),
    "nul.jsonl": (GOOD + b'{"query": "a\\u0000", "positive": ["b"]}\n', "line 2: column query: NUL character"),
    "surrogate.jsonl": (GOOD + b'{"query": "\\ud800", "positive": ["b"]}\n', "column query: lone surrogate U+D800"),
    "long.jsonl": (
        json.dumps({"query": "a", "positive": ["b" * (MAX_CHARACTERS + 1)]}).encode(),
        "column positive, item 1: the text has 200,001 characters (at most 200,000)",
    ),
    "deep.jsonl": (GOOD + b"[" * 100_000 + b"\n", "line 2: JSON that cannot be read"),
    "huge.jsonl": (GOOD + b'{"query": "a", "positive": ["b"], "cluster": "' + b"9" * 5000 + b'"}\n', "column cluster"),
    "sign.jsonl": (
        GOOD + b'{"query": "a", "positive": ["b"], "cluster": "--5"}\n',
        "column cluster: expected an integer",
    ),
    "stream.jsonl.gz": (gzip.compress(GOOD * 9, mtime=0)[:20] + b"\xff" * 40, "cannot be read to its end"),
    "empty.jsonl": (b"\n\n", "no rows:"),
    "cells.csv": (b"query,positive\na,b\na\n", "line 3: expected 2 columns as in the header, found 1: fix"),
    "more.csv": (b"query,positive\na,b,c,d\n", "line 2: expected 2 columns as in the header, found 4: fix"),
    "control.jsonl": (GOOD + b'{"query": "a\tb"}\n', "line 2: not JSON (Invalid control character at column 13)"),
    "twice.csv": (b"query,positive,query\na,b,c\n", "line 1: duplicate column 'query'"),
    "quotes.csv": (b'query,positive\n"a"x,b\n', "not CSV"),
    "large.csv": (b"query,positive\na,b\nc," + b"x" * 140_000 + b"\n", "line 3: a cell of more than 131,072"),
    "open.csv": (b'query,positive\n"c,d\n' + b"e,f\n" * 40_000, "line 2: a cell of more than 131,072"),
    "signs.csv": (
        b"query;positive\na;b, c\n",
        "line 1: one column 'query;positive': the file seems to use",
    ),
    "pandas.csv": (b"query,positive\na,\"['b', 'c']\"\n", "line 2: column positive: a Python list"),
    "numpy.csv": (b"query,positive\na,\"['b'\n 'c']\"\n", "column positive: a Python list"),
    "pandas.jsonl": (GOOD + b'{"query": "a", "positive": "[\'b\']"}\n', "line 2: column positive: a Python list"),
    "cut.csv": (b'query,positive\na,"[""b"", ""c"\n', "line 2: column positive: a damaged JSON list"),
    "comma.csv": (b'query,positive\na,"[""b"" ""c""]"\n', "column positive: a Python list"),
    "latin1.csv": (b"query,positive\ncaf\xe9,b\n", "not UTF-8"),
    "mark.jsonl": (GOOD + b"\xef\xbb\xbf" + GOOD, "line 2: a byte-order mark inside the file, as after joining files"),
    "returns.jsonl": (GOOD.replace(b"\n", b"\r") * 2, "line 1: a carriage return without a line feed after it"),
    "one-line.jsonl": (b"[" + GOOD.strip() + b"]\n", "found a list: write one object per line"),
    "tail.jsonl.gz": (gzip.compress(GOOD, mtime=0) + b"junk", "bytes that are not gzip follow the gzip data"),
    "sep.csv": (b"sep=,\nquery,positive\na,b\n", "line 1: a setting of Excel (sep=,)"),
    "floats.jsonl": (
        GOOD + b'{"query": "a", "positive": ["b"], "cluster": 3.0}\n',
        "column cluster: expected an integer, found 3.0: write 3",
    ),
    "labels.jsonl": (
        GOOD + b'{"query": "a", "positive": ["b"], "label": 1.0}\n',
        'column label: expected a text or an integer, found 1.0: write "1.0" or 1',
    ),
    "pointer.jsonl": (POINTER, "is a Git LFS pointer, not the file itself: fetch it (git lfs pull)"),
    "pointer.jsonl.gz": (POINTER, "is a Git LFS pointer"),
    "pointer.parquet": (POINTER, "is a Git LFS pointer"),
    "broken.parquet": (b"PAR1 is all there is", "not a readable Parquet file"),
}


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_of_malformed_file_is_said_before_anything_trains(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    content, words = KINDS[name]
    file = tmp_path / name
    file.write_bytes(content)
    assert main(["data", "inspect", str(file)]) == 1
    error = capsys.readouterr().err.strip()
    assert error.count("\n") == 0 and error.startswith(f"lusifer: error: {file}") and words in error, error
    if not name.startswith("unknown"):
        with pytest.raises(DataError) as caught:
            load(SourceSpec(path=str(file)), "pairs")
        assert str(caught.value).startswith(str(file)) and words in str(caught.value)


def test_texts_that_stand_for_a_missing_value_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = tmp_path / "a.csv"
    file.write_text("query,positive,negative\na,b,None\nc,d,nan\ne,f,nan\ng,h,nanny\n")
    assert main(["data", "inspect", str(file)]) == 0
    assert "texts that may stand for a missing value: nan 2, None 1\n" in capsys.readouterr().out


def test_parquet_with_columns_of_another_type(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"query": ["a", "b"], "positive": [[1], [2]]}), file)
    assert main(["data", "inspect", str(file)]) == 1
    assert f"{file} row 1: column positive, item 1: expected a text, found int" in capsys.readouterr().err


def test_what_only_looks_like_a_list_is_one_text(tmp_path: Path) -> None:
    texts = ['["b", "c"]', "[1, 2]", '["Yes," he said.] And left.', "[sic] 'so'", "['b', c]"]
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps({"query": "a", "positive": text}) + "\n" for text in texts))
    assert load(SourceSpec(path=str(file)), "pairs")["positive"][:] == [[text] for text in texts]
    file.write_text(json.dumps({"query": "a", "positive": ["['b', 'c']"]}) + "\n")  # the mend that the message gives
    assert load(SourceSpec(path=str(file)), "pairs")["positive"][:] == [["['b', 'c']"]]
    with (tmp_path / "a.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["query", "positive"], *(["a", text] for text in [*texts[2:], '["d", "e"]'])])
    found = load(SourceSpec(path=str(tmp_path / "a.csv")), "pairs")["positive"][:]
    assert found == [*([text] for text in texts[2:]), ["d", "e"]]


def test_a_cell_that_is_too_large_ends_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    for large in ('"a",' + "b" * 140_000, 'a,"' + "b" * 140_000):  # the second one is never closed
        file.write_text(f"query,positive\nc,d\n{large}\ne,f\n")
        with pytest.raises(DataError, match="line 3: a cell of more than 131,072 characters"):
            load(SourceSpec(path=str(file)), "pairs", BadRows(9))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sample:nope", "sample:nope: no such sample in the package: use one of sample:labelled, sample:pairs"),
        ("{}", "is a folder: name its files, such as '"),
        ("{}/*.csv", "*.csv: no such file: nothing matches the pattern"),
        ("owner/name@main", "for a dataset on the Hub use {hub: OWNER/NAME} in a recipe"),
        ("{}/none.csv", "none.csv: no such file: correct the path (in a recipe"),
    ],
)
def test_what_is_no_file_is_told_apart(name: str, words: str, tmp_path: Path, capsys) -> None:
    assert main(["data", "inspect", name.format(tmp_path)]) == 2
    assert words in capsys.readouterr().err


def test_a_row_without_a_label_is_named_where_labels_decide(tmp_path: Path, capsys) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"query": "a", "positive": ["b"], "label": "x"}\n' + GOOD)
    call = ["data", "mine", str(file), "--labels", "--model", "mini", "--output", str(tmp_path / "o.jsonl")]
    assert main(call) == 1
    assert f"{file} line 2: column label: is empty" in capsys.readouterr().err


def test_some_bad_rows_are_tolerated_and_listed(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(GOOD + b"no\n" + GOOD + b'{"query": "a", "positive": []}\n')
    bad = BadRows(2)
    assert len(load(SourceSpec(path=str(file)), "pairs", bad)) == 2
    assert [message.split(": ")[0] for message in bad.messages] == [f"{file} line 2", f"{file} line 4"]
    assert main(["data", "inspect", str(file), "--skip-bad", "2"]) == 0
    said = capsys.readouterr()
    assert "2 rows of pairs" in said.out and said.err.count("left out: ") == 2
    assert main(["data", "inspect", str(file), "--skip-bad", "1"]) == 1
    assert "line 4: column positive" in (error := capsys.readouterr().err) and "at most 1 may be skipped" in error


def test_a_bad_first_row_may_be_skipped_too(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b"no\n" + GOOD)
    assert main(["data", "inspect", str(file), "--skip-bad", "1"]) == 0


def test_a_damaged_file_is_no_bad_row(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl.gz"
    file.write_bytes(gzip.compress(GOOD * 2000, mtime=0)[:60])
    with pytest.raises(DataError, match="cannot be read to its end"):
        load(SourceSpec(path=str(file), skip_bad=10**6), "pairs")
