"""Rows: what is read, and what a bad row is told."""

from __future__ import annotations

import csv
import errno
import gzip
import json
import re
import unicodedata
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lusifer.data import tables
from lusifer.data.dedup import signs
from lusifer.data.schema import COLUMNS, check, normalise, same_text
from lusifer.data.sources import SourceSpec, load, published
from lusifer.errors import DataError, LusiferError, TextError, UsageError

PAIRS = [
    {"query": "Who?", "positive": ["She.", "He."], "negative": ["It."], "task": "retrieval", "cluster": 3},
    {"query": "[1] where?", "positive": ["Here."], "negative": [], "task": None, "cluster": None},
]


def write(path: Path, rows: list[dict]) -> Path:
    if path.name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    opened = gzip.open if path.name.endswith(".gz") else open
    with opened(path, "wt", encoding="utf-8", newline="") as stream:
        if ".jsonl" in path.name:
            stream.writelines(json.dumps(row) + "\n" for row in rows)
        else:
            cells = [{k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows]
            writer = csv.DictWriter(stream, rows[0].keys())
            writer.writeheader()
            writer.writerows(cells)
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".csv", ".csv.gz", ".parquet"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    rows = load(SourceSpec(path=str(write(tmp_path / f"a{suffix}", PAIRS))), "pairs")
    assert rows.column_names == list(COLUMNS["pairs"])
    assert rows["query"][:] == ["Who?", "[1] where?"]
    assert rows["positive"][:] == [["She.", "He."], ["Here."]]
    assert rows["negative"][:] == [["It."], []]
    assert rows["task"][:] == ["retrieval", None] and rows["cluster"][:] == [3, None]


@pytest.mark.parametrize(
    ("row", "error", "words"),
    [
        ('{"query": "a"}', DataError, "column positive is missing (found query)"),
        ('{"query": "a", "positive": []}', DataError, "column positive: expected at least one text"),
        ('{"query": "a", "positive": [1]}', TextError, "column positive, item 1: expected a text, found int"),
        (
            '{"query": "a", "positive": {"b": 1}}',
            DataError,
            "column positive: expected a list of texts, found an object",
        ),
        ('{"query": " ", "positive": ["b"]}', TextError, "column query: the text is empty"),
        ('{"query": "a\\u0000", "positive": ["b"]}', TextError, "column query: NUL"),
        ('{"query": "a", "positive": ["b", "\\ud800"]}', TextError, "column positive, item 2: lone surrogate U+D800"),
        ('{"query": "a", "positive": ["b"], "negative": 7}', DataError, "column negative: expected a list of texts"),
        ('{"query": "a", "positive": ["b"], "cluster": 1.5}', DataError, "column cluster: expected an integer"),
        ('{"query": "a", "positive": ["b"], "label": [1]}', DataError, "column label"),
        ('["a"]', DataError, "expected an object with columns, found a list"),
        ('{"query": "a", ', DataError, "not JSON"),
    ],
)
def test_bad_row_names_file_line_and_column(tmp_path: Path, row: str, error: type[DataError], words: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"query": "a", "positive": ["b"]}\n\n' + row + "\n")
    with pytest.raises(error) as caught:
        load(SourceSpec(path=str(file)), "pairs")
    assert str(caught.value).startswith(f"{file} line 3: ") and words in str(caught.value)


def test_bytes_that_are_not_utf8_and_cut_gzip_are_named(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"text": "a"}\n{"text": "\xff"}\n')
    with pytest.raises(DataError, match="line 2: not UTF-8"):
        load(SourceSpec(path=str(file)), "passages")
    whole = gzip.compress(b'{"text": "a"}\n' * 1000, mtime=0)
    (tmp_path / "b.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="b.jsonl.gz: cannot be read to its end"):
        load(SourceSpec(path=str(tmp_path / "b.jsonl.gz")), "passages")
    (tmp_path / "c.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        load(SourceSpec(path=str(tmp_path / "c.parquet")), "passages")
    (tmp_path / "d.csv").write_text("text,source\nonly one\n")
    with pytest.raises(DataError, match="d.csv line 2: expected 2 columns"):
        load(SourceSpec(path=str(tmp_path / "d.csv")), "passages")


def test_missing_empty_and_unknown_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        load(SourceSpec(path=str(tmp_path / "*.jsonl")), "passages")
    (tmp_path / "a.jsonl").write_text("\n")
    with pytest.raises(DataError, match="no row"):
        load(SourceSpec(path=str(tmp_path / "a.jsonl")), "passages")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(UsageError, match="unknown ending"):
        load(SourceSpec(path=str(tmp_path / "a.txt")), "passages")


def test_fields_rename_and_limit_draws_by_seed_in_order(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [{"body": f"text {number}"} for number in range(100)])
    draw = [
        load(SourceSpec(path=str(file), fields={"text": "body"}, limit=10, seed=seed), "passages")["text"][:]
        for seed in (1, 1, 2)
    ]
    assert draw[0] == draw[1] != draw[2]
    numbers = [int(text.split()[1]) for text in draw[0]]
    assert numbers == sorted(numbers) and len(set(numbers)) == 10
    with pytest.raises(DataError, match=r"column text is missing \(found body\).*fields"):
        load(SourceSpec(path=str(file)), "passages")


def test_pattern_reads_all_files_in_order_of_name(tmp_path: Path) -> None:
    for name in "ba":
        write(tmp_path / f"{name}.jsonl", [{"text": name}])
    assert load(SourceSpec(path=str(tmp_path / "?.jsonl")), "passages")["text"][:] == ["a", "b"]


@given(
    st.fixed_dictionaries(
        {},
        optional={
            name: st.one_of(st.none(), st.text(max_size=5), st.integers(), st.lists(st.text(max_size=3), max_size=3))
            for name in COLUMNS["pairs"]
        },
    )
)
def test_any_row_is_checked_or_refused_never_let_through(row: dict) -> None:
    try:
        checked = check("pairs", row, "here")
    except DataError as error:
        assert str(error).startswith("here")
        return
    assert set(checked) == set(COLUMNS["pairs"]) and checked["positive"]
    for text in (checked["query"], *checked["positive"], *checked["negative"]):
        assert text.strip() and "\x00" not in text


def test_sample_of_the_package_is_prose_without_repeats() -> None:
    passages = load(SourceSpec(path="sample:passages"), "passages")["text"][:]
    pairs = load(SourceSpec(path="sample:pairs"), "pairs")
    assert len(passages) == len(set(passages)) == 260
    assert len(set(pairs["query"][:])) == len(pairs) == 250
    for row in pairs:
        assert 1 <= len(row["negative"]) <= 3 and not set(row["positive"]) & set(row["negative"])
    labelled = load(SourceSpec(path="sample:labelled"), "labelled")
    assert len(set(labelled["text"][:])) == len(labelled) == 240
    assert set(Counter(labelled["label"][:]).values()) == {20}


def test_published_sets_are_complete() -> None:
    table = published()
    assert sum("reconstruct" in facts["roles"] for facts in table.values()) == 8
    assert sum("passage_and_query" in facts["roles"] for facts in table.values()) == 15
    assert sum("query_to_passage" in facts["roles"] for facts in table.values()) == 11
    assert sum(facts.get("group") == "retrieval" for facts in table.values()) == 21
    assert sum(facts.get("group") == "classes" for facts in table.values()) == 17
    assert {name for name, facts in table.items() if facts.get("language") == "zh"} == {
        "Hieuman/dureader", "Hieuman/t2ranking", "Hieuman/zh_MIRACL",
    }  # fmt: skip


def test_rows_that_do_not_fit_on_the_disk_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tables, "_write", full)
    with pytest.raises(LusiferError, match="no space for the rows: set TMPDIR"):
        tables.collect([], "pairs")


@given(st.lists(st.text(max_size=5), max_size=30))
def test_rows_on_disk_are_the_rows_that_were_put_there(texts: list[str]) -> None:
    texts = [text for text in texts if text.isprintable()]
    rows = [{"text": text, "source": None} for text in texts]
    kept = tables.collect(iter(rows), "passages")
    assert list(kept) == rows
    assert tables.values(kept, "text", slice(1, 3)) == texts[1:3]
    assert tables.values(kept, "text", range(len(texts) - 1, -1, -1)) == texts[::-1]


@given(st.text(max_size=40))
def test_what_makes_two_texts_the_same_is_stable(text: str) -> None:
    key = same_text(text)
    assert same_text(key) == key
    assert same_text(f"  {text.upper()}  ") == same_text(text.upper()) and bool(key) == bool(normalise(text))


WORDS = st.lists(st.sampled_from(["Paris", "is", "it's", "हिन्दी", "Cd"]), min_size=1, max_size=5)
ENGLAND, SCOTLAND = ("".join(chr(0xE0000 + ord(each)) for each in code) + "\U000e007f" for code in ("gbeng", "gbsct"))
UNLIKE = [
    ("-5 degrees", "5 degrees"), ("–5", "5"), ("\u20115", "5"), ("\uff0d5", "5"), ("\u22125", "5"), ("±5", "5"),
    ("-$5", "$5"), ("-.5", ".5"), (".5", "5"), ("-½", "½"), ("-x", "x"), ("1.5", "15"), ("٫5", "5"), ("§5", "5"),
    ("7 - 5", "7 5"), ("10 – 5", "10 5"), ("x - y", "x y"), ("x=2", "x≠2"), ("≥5", "≤5"), ("5 %", "5"), ("5‰", "5‱"),
    ("5′", "5″"), ("5'", '5"'), ("5!", "5"), ("n!", "n"), ("f'(x)", "f''(x)"), ("x′", "x"), ("[0, 1)", "(0, 1]"),
    ("a/b", "ab"), ("@a", "a"), ("C#", "C"), ("A-", "A"), (".NET", "NET"), ("--force", "force"), ("\\alpha", "alpha"),
    ("👍", "👎"), (":)", ":("), ("so :)", "so :("), ("🇩🇪", "🇫🇷"), (f"🏴{ENGLAND}", f"🏴{SCOTLAND}"),
]  # fmt: skip


@given(WORDS, st.sampled_from(UNLIKE), st.integers(0, 5))
def test_a_sign_or_a_symbol_makes_another_text_wherever_it_stands(words: list, pair: tuple, place: int) -> None:
    one, other = (" ".join([*words[:place], each, *words[place:]]) for each in pair)
    assert same_text(one) != same_text(other)
    assert signs(one) != signs(other)
    assert same_text(pair[0]) != same_text(pair[1])


@given(WORDS, st.sampled_from(["{}...", "«{}».", "{}?!", "\u200b{}\ufe0f", "  {} \u00ad", '"{}."', "{} !", "{}。"]))
def test_case_spaces_and_the_ends_of_a_sentence_do_not(words: list[str], ends: str) -> None:
    assert same_text(ends.format("  ".join(words).upper())) == same_text(" ".join(words).upper())
    assert signs(ends.format("  ".join(words))) == signs(" ".join(words))


@pytest.mark.parametrize(
    ("one", "other"),
    [("Paris - a city", "Paris, a city"), ("he said: no", 'he said "no"'), ("well-known", "well known")],
)
def test_prose_may_be_punctuated_in_two_ways_and_be_nearly_the_same(one: str, other: str) -> None:
    assert signs(one) == signs(other)


@pytest.mark.parametrize(
    ("label", "advice"),
    [
        (1.0, 'write "1.0" or 1'), (-3.0, 'write "-3.0" or -3'), (1.5, 'write "1.5"'), (-0.2, 'write "-0.2"'),
        (float("nan"), 'write "nan"'), (float("inf"), 'write "inf"'),
    ],
)  # fmt: skip
def test_advice_on_a_label_does_not_change_it(label: float, advice: str) -> None:
    with pytest.raises(DataError) as caught:
        check("labelled", {"text": "a", "label": label}, "a line 1")
    assert str(caught.value).endswith(f"found {label}: {advice}")


@pytest.mark.parametrize(
    ("one", "other"),
    [("It was in 1998!", "It was in 1998."), ("Call at 7:30!", "call at 7:30"), ("Only $500!", "only $500"),
     ("Due 2020-05-12!", "due 2020-05-12"), ("It weighs 3.5!", "it weighs 3.5"), ("It had 12,500!", "it had 12,500")],
)  # fmt: skip
def test_an_exclamation_mark_is_no_factorial_behind_a_year_a_time_or_an_amount(one: str, other: str) -> None:
    assert same_text(one) == same_text(other)
    assert same_text("100!") != same_text("100") and same_text("-5!!") == same_text("-5!") != same_text("-5")


@given(st.text(st.sampled_from("eao가나\u1100\u1161\u0301\u0323\u0308\u200b\u00ad\u034f\ufe0f x"), max_size=12))
def test_a_text_is_normal_however_unseen_characters_stand_in_it(text: str) -> None:
    plain = re.sub("[\u200b\u00ad\u034f\ufe0f]", "", text)
    assert normalise(text) == normalise(plain) == unicodedata.normalize("NFC", normalise(text))
