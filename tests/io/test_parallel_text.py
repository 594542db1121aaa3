"""Parallel text: what a file may hold, and what is said of one that is not parallel."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lusifer.errors import DataError
from lusifer.io import parallel_text

ROWS = [{"en": f"sentence {n}", "sw": f"sentensi {n}", "zh-Hans": f"句子 {n}"} for n in range(3)]


def written(folder: Path, *lines: str | bytes, name: str = "rows.jsonl") -> Path:
    content = b"".join((line.encode() if isinstance(line, str) else line) + b"\n" for line in lines)
    (folder / name).write_bytes(gzip.compress(content, mtime=0) if name.endswith(".gz") else content)
    return folder / name


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_a_file_is_read(tmp_path: Path, name: str) -> None:
    lines = [json.dumps(row) for row in ROWS]
    found = parallel_text.read(written(tmp_path, "\ufeff" + lines[0], "", *lines[1:], name=name))
    assert list(found.texts) == ["en", "sw", "zh-Hans"]
    assert found.texts["sw"] == ("sentensi 0", "sentensi 1", "sentensi 2")
    assert found.sentences == 3 and found.topics is None


def test_the_sample_is_read_by_its_name_and_has_topics() -> None:
    found = parallel_text.read(parallel_text.SAMPLE)
    assert found == parallel_text.sample()
    assert found.sentences == 28 and len(found.texts) == 14 and len(set(found.topics or ())) == 7


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"en": "a"}', r"line 2: key sw is missing: give every row the same keys"),
        ('{"en": "a", "sw": "b", "fi": "c"}', "line 2: key fi is not in the rows before"),
        ('{"en": "a", "sw": " "}', "line 2: key sw: expected a sentence, found ' ': add it"),
        ('{"en": "a", "sw": 3}', "line 2: key sw: expected a sentence, found 3"),
        ('{"en": "a", "sw": "\\ud800"}', "line 2: key sw: lone surrogate in the text"),
        ('{"en": "a", "Swahili": "b"}', "line 2: key 'Swahili' is no language code"),
        ('["a", "b"]', "line 2: found list: write one object per row"),
        ('{"en": "a"', "line 2: not JSON"),
        (b'{"en": "\xff"}', r"line 2: not UTF-8 \(byte 8\): save the file as UTF-8"),
    ],
)
def test_a_bad_line_is_named_with_the_mend(tmp_path: Path, line: str | bytes, words: str) -> None:
    file = written(tmp_path, '{"en": "a", "sw": "b"}', line)
    with pytest.raises(DataError, match=words) as caught:
        parallel_text.read(file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("lines", "name", "words"),
    [
        ((), "rows.jsonl", "no rows"),
        (('{"sw": "a", "fi": "b"}',), "rows.jsonl", "line 1: key en and at least one other language are needed"),
        (('{"en": "a", "topic": "b"}',), "rows.jsonl", "at least one other language"),
        (("en,sw",), "rows.tsv", r"give a file \(.jsonl, .*.parquet\), or `sample`"),
    ],
)
def test_a_file_that_holds_no_parallel_text_is_refused(
    tmp_path: Path, lines: tuple[str, ...], name: str, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        parallel_text.read(written(tmp_path, *lines, name=name))


@pytest.mark.parametrize(
    ("key", "texts"),
    [
        ("id", ["r1", "r2", "r3"]), ("id", ["doc-7", "doc-8", "note"]), ("id", ["abc", "abd", "abe"]),
        ("no", ["1", "2", "3"]), ("is", ["9f3c-0b", "77aa-1c", "e0e0-2d"]),
    ],
)  # fmt: skip
def test_a_column_that_names_the_rows_is_no_language(tmp_path: Path, key: str, texts: list[str]) -> None:
    lines = [json.dumps({key: text, "en": "Good day.", "es": "Buenos días."}) for text in texts]
    with pytest.raises(DataError, match=f"rows.jsonl: key {key}: its values.*look like names of rows.*: remove"):
        parallel_text.read(written(tmp_path, *lines))


@pytest.mark.parametrize(
    ("key", "texts"),
    [
        ("id", ["Selamat pagi.", "Terima kasih!", "Ya."]), ("id", ["Ada 3 kucing.", "Bab 1", "COVID-19"]),
        ("th", ["สวัสดี", "ปี2020", "ขอบคุณ"]), ("de", ["Halt!", "Ja.", "Nein."]),
    ],
)  # fmt: skip
def test_sentences_stay_a_language(tmp_path: Path, key: str, texts: list[str]) -> None:
    lines = [json.dumps({key: text, "en": "Good day."}) for text in texts]
    assert parallel_text.read(written(tmp_path, *lines)).texts[key] == tuple(texts)


def test_a_file_that_is_not_there_or_not_whole_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.jsonl: no such file: correct the name"):
        parallel_text.read(tmp_path / "nowhere.jsonl")
    whole = written(tmp_path, *[json.dumps(row) for row in ROWS], name="rows.jsonl.gz")
    whole.write_bytes(whole.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"rows\.jsonl\.gz: cannot be read to its end"):
        parallel_text.read(whole)
    whole.write_bytes(b"plain")
    with pytest.raises(DataError, match=r"is not gzip .*: remove \.gz from its name"):
        parallel_text.read(whole)


@given(st.lists(st.binary(max_size=40) | st.text(max_size=40).map(lambda text: json.dumps({"en": text}).encode())))
def test_any_bytes_are_refused_in_one_line(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    file = written(tmp_path_factory.mktemp("bytes"), *lines)
    with pytest.raises(DataError) as caught:
        parallel_text.read(file)  # no other language in it
    assert "\n" not in str(caught.value)
