"""Repeats, near repeats and leaks: what goes, what stays, and what is said."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lusifer.cli import main
from lusifer.data import dedup
from lusifer.data.tables import RowCounts
from lusifer.errors import UsageError

WORDS = "river stone winter letter garden window silver bridge morning doctor engine forest market island".split()
LETTERS = str.maketrans("0123456789", "abcdefghij")  # a number makes another text


def sentence(seed: int, words: int = 14) -> str:
    generator = random.Random(seed)
    return " ".join(f"{generator.choice(WORDS)}{generator.randrange(90)}" for _ in range(words))


def pair(query: str, *positives: str, **columns) -> dict:
    row = {"query": query, "positive": list(positives), "negative": [], "instruction": None, "task": None}
    return {**row, "label": None, "cluster": None, "source": None, **columns}


def cleaned(rows: list[dict], kind: str = "pairs", **settings):
    kept, report = dedup.dedup(rows, kind, **settings)
    return list(kept), report


def test_near_repeats_need_both_query_and_positive() -> None:
    passage, question = sentence(1, 60), sentence(2)
    rows = [
        pair(question, passage),
        pair(question + "?", passage + " again"),  # nearly the same row
        pair(sentence(3), passage),  # another question about the same passage
        pair(question, sentence(4, 60)),  # another answer to the same question
    ]
    kept, report = cleaned(rows)
    assert kept == [rows[0], rows[2], rows[3]]
    assert report.counts[dedup.NEAR] == 1 and report.counts[dedup.KEPT] == 3
    assert report.examples[dedup.NEAR] == [f"{question}? | {question}"]


def test_exact_repeats_go_by_the_text_but_for_case_and_the_ends_of_a_sentence() -> None:
    rows = [pair("Who  is it?", "Ann."), pair("who is it", "ann"), pair("Who is it?", "Bob.")]
    kept, report = cleaned(rows, threshold=2)
    assert [row["positive"] for row in kept] == [["Ann."], ["Bob."]]
    assert kept[0]["query"] == "Who is it?" and report.counts[dedup.SAME] == 1


def test_a_row_that_teaches_nothing_goes_and_false_negatives_are_taken_out() -> None:
    rows = [
        pair("The same.", "the same", source="s"),
        pair("Question", "Answer", negative=["answer!", "Other", "other", "Third"]),
        pair("Question two", "Question two.", "A true answer"),
    ]
    kept, report = cleaned(rows)
    assert [row["negative"] for row in kept] == [["Other", "Third"], []] and kept[1]["positive"] == ["A true answer"]
    assert report.counts[dedup.EMPTY] == 1 and report.counts[dedup.NEGATIVE] == 2
    assert report.counts[dedup.ITSELF] == 1
    (row,), _ = cleaned([pair("Which sign adds?", "+", negative=["+", "-"])])
    assert row["negative"] == ["-"]


def test_nothing_blank_is_written() -> None:
    rows = [
        pair("\ufeff", "text"),
        pair("query", "\u200e\ufeff\x07".replace("\u200e", ""), "text", negative=["\ufeff"]),
    ]
    kept, report = cleaned(rows)
    assert [(row["positive"], row["negative"]) for row in kept] == [(["text"], [])]
    assert report.counts[dedup.BLANK] == 1


def test_only_what_is_like_a_row_that_stays_goes() -> None:
    base = sentence(5, 40).translate(LETTERS).split()
    rows = []
    for step in range(4):  # each changes two more words: neighbours are alike, the ends are not
        words = [*base]
        for place in range(2 * step):
            words[place * 4] = f"changed{place}".translate(LETTERS)
        rows.append({"text": " ".join(words), "source": None})
    sets = [dedup.shingles(row["text"]) for row in rows]
    assert dedup.jaccard(sets[0], sets[1]) >= 0.8 > dedup.jaccard(sets[0], sets[3])
    kept, report = cleaned(rows, "passages")
    assert rows[0] in kept and 1 < len(kept) < 4
    for row in rows:  # nothing went that was unlike all that stayed, and nothing stayed that was like an earlier one
        others = [one for one in kept if one is not row and rows.index(one) < rows.index(row)]
        near = any(dedup.jaccard(dedup.shingles(one["text"]), dedup.shingles(row["text"])) >= 0.8 for one in others)
        assert near == (row not in kept)
    assert report.counts[dedup.NEAR] == 4 - len(kept)


def test_labels_that_contradict_each_other_are_counted_apart() -> None:
    rows = [
        {"text": "Hello there", "label": label, "source": source}
        for label, source in (("a", "x"), ("b", "x"), ("b", "y"))
    ]
    kept, report = cleaned(rows, "labelled")
    assert kept == [rows[0], rows[2]] and report.counts[dedup.LABELS] == 1
    words = sentence(20, 30)
    near = [{"text": text, "label": label, "source": "s"} for text, label in ((words, "a"), (words + " so", "b"))]
    kept, report = cleaned(near, "labelled")
    assert kept == near[:1] and report.counts[dedup.NEAR_LABELS] == 1


def test_texts_in_maps_and_binary_columns_of_parquet_are_compared(tmp_path: Path) -> None:
    words = [sentence(number, 20) for number in range(40, 46)]
    kinds = {
        "map": pa.array([[("translation", words[0])], None], pa.map_(pa.string(), pa.string())),
        "key": pa.array([[(words[1], 1)], []], pa.map_(pa.string(), pa.int64())),
        "bytes": pa.array([words[2].encode(), None]),
        "inside": pa.array([[{"x": words[3].encode()}], None], pa.list_(pa.struct([("x", pa.large_binary())]))),
        "deep": pa.array([[("a", [words[4]])], None], pa.map_(pa.string(), pa.list_(pa.string()))),
        "image": pa.array([b"\x89PNG\xff\xfe", words[5].encode()]),
        "picture": pa.array([{"bytes": b"\xff\xd8"}, None], pa.struct([("bytes", pa.binary())])),
    }
    pq.write_table(pa.table(kinds), tmp_path / "eval.parquet")
    report = RowCounts("")
    assert set(dedup.evaluation_texts([tmp_path / "eval.parquet"], report)) == set(words)
    assert report.counts[dedup.BINARY] == 2
    named = [f"{tmp_path}/eval.parquet: {column}" for column in ("image", "picture")]
    assert report.examples[dedup.BINARY] == named
    kept, report = cleaned([pair(sentence(50), word) for word in words], against=[tmp_path / "eval.parquet"])
    assert not kept and report.counts[dedup.TEST] == 6


def test_texts_in_lists_that_cells_spell_are_compared(tmp_path: Path) -> None:
    words = [f"the ferry number {number} leaves in the morning" for number in range(5)]
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["id", "texts"], [1, json.dumps(words[:2])], [2, json.dumps({"x": [words[2]]})]])
    pq.write_table(pa.table({"x": [json.dumps([words[3], ""]).encode(), b"[1"]}), tmp_path / "b.parquet")
    rows = [{"x": json.dumps([words[4]])}, {"x": "[no list"}, json.dumps({"a": 1})]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert set(words) <= set(dedup.evaluation_texts([tmp_path], RowCounts("")))
    kept, report = cleaned([pair(sentence(50), word) for word in words], against=[tmp_path])
    assert not kept and report.counts[dedup.TEST] == 5


def test_texts_of_evaluation_files_go_exact_and_near(tmp_path: Path) -> None:
    test, question = sentence(6, 30), sentence(7, 20)
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "a.jsonl").write_text(json.dumps({"text": test, "label": "science/technology"}) + "\n")
    questions = json.dumps({"questions": [{"id": "x", "text": question}]})
    (tmp_path / "eval" / "b.json").write_text(questions, encoding="utf-8-sig")
    rows = [
        pair(sentence(8), test.upper()),
        pair(question + " now", sentence(9)),
        pair(sentence(10), sentence(11), negative=[test]),
        pair(sentence(12), "science/technology"),
        pair("short", sentence(13)),
    ]
    kept, report = cleaned(rows, against=[tmp_path / "eval"])
    assert report.counts[dedup.FILES] == 2 and report.counts[dedup.TEXTS] == 3  # the label has letters enough
    assert report.counts[dedup.SHORT] == 1  # the id
    assert report.examples[dedup.FILES] == [
        f"{tmp_path}/eval/a.jsonl: 2 texts", f"{tmp_path}/eval/b.json: 1 texts",
    ]  # fmt: skip
    assert report.counts[dedup.TEST] == 3 and report.counts[dedup.NEAR_TEST] == 1 and kept == rows[4:]
    (tmp_path / "empty").mkdir()
    for name, words in (("none", "none: no such file: correct the name"), ("empty", "no evaluation file there")):
        with pytest.raises(UsageError, match=words):
            dedup.evaluation_texts([tmp_path / name], report)


def test_normalisation_keeps_joiners_and_line_breaks() -> None:
    assert dedup.normalise(" e\u0301\u00a0 a\r\nb\ufeff\x07 ") == "\u00e9 a\nb"
    assert dedup.normalise("می\u200cخواهم") == "می\u200cخواهم"


@given(st.text(max_size=60))
def test_normalising_twice_is_normalising_once(text: str) -> None:
    once = dedup.normalise(text)
    assert dedup.normalise(once) == once


def test_minhash_finds_what_comparing_all_pairs_finds() -> None:
    generator = random.Random(0)
    texts = [sentence(number, 25) for number in range(60)]
    for number in range(60):  # copies with some words changed: likeness from 0.4 to 1
        words = texts[number].split()
        for place in generator.sample(range(25), generator.randrange(6)):
            words[place] = "otherword"
        texts.append(" ".join(words))
    sets = list(map(dedup.shingles, texts))
    exact = {(b, a): dedup.jaccard(sets[a], sets[b]) for a in range(len(texts)) for b in range(a + 1, len(texts))}
    wanted = {ends for ends, likeness in exact.items() if likeness >= 0.8}
    found = set(dedup.near_pairs(dedup.bands(texts), texts.__getitem__, 0.8))
    assert found <= wanted and len(found) >= 0.97 * len(wanted) and len(wanted) > 25
    first, second = texts[:60], texts[60:]
    bands = dedup.bands(first), dedup.bands(second)
    joined = set(dedup.near_pairs_across(*bands, second.__getitem__, first.__getitem__))
    assert joined == {(one - 60, other) for one, other in found if other < 60 <= one}


def test_across_compares_with_every_text_of_a_bucket() -> None:
    first, second, text = sentence(30, 30), sentence(31, 30), sentence(31, 30) + " too"
    known = [first, second]
    bucket = np.array([[7], [7]], dtype=np.uint64)  # both are in the bucket of the text, and the first is unlike it
    found = dedup.near_pairs_across(bucket, bucket[:1], [text].__getitem__, known.__getitem__)
    assert list(found) == [(0, 1)]
    none = np.zeros((0, 1), dtype=np.uint64)
    assert (
        list(dedup.near_pairs_across(none, bucket, str, str))
        == list(dedup.near_pairs_across(bucket, none, str, str))
        == []
    )


@given(st.text(max_size=30), st.text(max_size=30))
def test_jaccard_is_that_of_sets(one: str, other: str) -> None:
    a, b = set(dedup.shingles(one).tolist()), set(dedup.shingles(other).tolist())
    assert dedup.jaccard(dedup.shingles(one), dedup.shingles(other)) == len(a & b) / len(a | b)


def test_command_writes_rows_and_a_page_and_refuses_to_write_over_its_input(tmp_path: Path, capsys) -> None:
    file, output = tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz"
    file.write_text('{"text": "One  text", "source": "s"}\n{"text": "one text."}\n')
    assert main(["data", "dedup", str(file), "--output", str(output)]) == 0
    assert "rows kept" in capsys.readouterr().out
    assert main(["data", "dedup", str(output), "--output", str(tmp_path / "c.jsonl")]) == 0
    assert (tmp_path / "c.jsonl").read_text() == '{"text": "One text", "source": "s"}\n'
    assert "| dropped: duplicate of an earlier row | 1 |" in (tmp_path / "b.jsonl.gz.report.md").read_text()
    capsys.readouterr()
    assert main(["data", "dedup", str(file), "--output", str(file)]) == 2
    assert "is also an input, which would be lost: name another file" in capsys.readouterr().err
    assert main(["data", "dedup", str(file), "--output", str(tmp_path / "d.csv")]) == 2
    assert "unknown ending" in capsys.readouterr().err


def test_no_file_that_is_read_is_written_over(tmp_path: Path, capsys) -> None:
    file, test = tmp_path / "a.jsonl", tmp_path / "test.jsonl"
    for each in (file, test):
        each.write_text('{"text": "One text of some length"}\n')
    for words in (
        ["--output", str(test), "--against", str(test)],
        ["--output", str(test), "--against", str(tmp_path)],
    ):
        assert main(["data", "dedup", str(file), *words]) == 2
        assert "name another file" in capsys.readouterr().err
    assert main(["data", "mine", "sample:pairs", "--model", "mini", "--corpus", str(test), "--output", str(test)]) == 2
    assert file.read_text() == test.read_text() == '{"text": "One text of some length"}\n'
