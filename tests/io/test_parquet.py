"""Parquet: only the columns that somebody reads are opened."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lusifer.data import dedup, sources
from lusifer.data.mining.corpus import CorpusFiles
from lusifer.data.tables import RowCounts
from lusifer.errors import DataError
from lusifer.io import parallel_text, rows
from lusifer.serving.files import TextSource

FAR = 2**62
ODD = {
    "far": pa.array([FAR, -FAR], pa.timestamp("us")),
    "far seconds": pa.array([2**50, None], pa.timestamp("s")),
    "zone": pa.array([1, 2], pa.timestamp("us", tz="Mars/Olympus")),
    "nanoseconds": pa.array([1, 2], pa.timestamp("ns", tz="+99:00")),
    "duration": pa.array([FAR, 1], pa.duration("ns")),
    "date": pa.array([2**31 - 1, 0], pa.date32()),
    "vector": pa.array([[0.5] * 8] * 2, pa.list_(pa.float32(), 8)),
    "bytes": pa.array([b"\xff\xfe", None]),
    "nothing": pa.nulls(2),
    "zones": pa.array([[1], []], pa.list_(pa.timestamp("us", tz="Nowhere/Here"))),
    "object": pa.array([{"t": 1, "w": FAR}] * 2, pa.struct([("t", pa.int8()), ("w", pa.timestamp("us", "X/Y"))])),
    "map": pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.timestamp("us", "X/Y"))),
    "decimal": pa.array([1, 2]).cast(pa.decimal128(38, 2)),
    "texts": pa.array([["a"], []], pa.list_(pa.string())),
    "not utf8": pa.Array.from_buffers(pa.string(), 2, pa.array([b"\xff", b"\xfe"]).buffers()),
    "categories": pa.array(["a", "b"]).dictionary_encode(),
}
NAMES = st.text(min_size=1, max_size=8, alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
READ = {
    "pairs": (["query", "positive"], lambda file: [row["query"] for row in sources.read_file(file, "pairs")]),
    "kind": (["query", "positive"], lambda file: [row["query"] for row in sources.open_files([str(file)], 0, {}).rows]),
    "passages": (["text"], lambda file: [row["text"] for row in sources.read_file(file, "passages")]),
    "corpus": (["body"], lambda file: [row["text"] for row in CorpusFiles([file], "body")()]),
    "embed": (["body"], lambda file: [text for _, text in TextSource(str(file), "body").rows()]),
}
TEXTS = ["The ferry leaves at noon.", "Bread rises slowly."]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(odd=st.dictionaries(NAMES, st.sampled_from([*ODD]), max_size=5), reader=st.sampled_from([*READ]))
def test_columns_that_nobody_reads_change_nothing(odd: dict[str, str], reader: str, tmp_path: Path) -> None:
    columns, read = READ[reader]
    known = {"query", "positive", "negative", "text", "body", "label", "source", "task", "instruction", "cluster"}
    beside = {name: ODD[kind] for name, kind in odd.items() if name not in known}
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table(beside | dict.fromkeys(columns, pa.array(TEXTS))), file)
    assert read(file) == TEXTS


@pytest.mark.parametrize("dotted", ["text.zone", "text.", "text.a.b"])
def test_a_name_with_a_dot_is_another_column(dotted: str, tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": TEXTS, dotted: ODD["zone"]}), file)
    assert [row["text"] for row in sources.read_file(file, "passages")] == TEXTS


def test_evaluation_files_give_all_their_texts(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    inside = pa.array(
        [{"deep": TEXTS[0] + " Inside.", "w": 1}] * 2,
        pa.struct([("deep", pa.string()), ("w", pa.timestamp("us", "X/Y"))]),
    )
    lists = pa.array([[TEXTS[0] + " Listed."], []], pa.list_(pa.large_string()))
    odd = {name: column for name, column in ODD.items() if name != "not utf8"}
    pq.write_table(
        pa.table(
            {
                "plain": TEXTS,
                "o": inside,
                "l": lists,
                "c": pa.array([TEXTS[1] + " Twice."] * 2).dictionary_encode(),
                **odd,
            }
        ),
        file,
    )
    found = dedup.evaluation_texts([file], RowCounts("test"))
    assert set(found) == {*TEXTS, TEXTS[0] + " Inside.", TEXTS[0] + " Listed.", TEXTS[1] + " Twice."}


@pytest.mark.parametrize("name", ["far", "zone", "object", "date"])
def test_a_column_that_is_read_is_named_with_its_type(name: str, tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({name: ODD[name]}), file)
    with pytest.raises(DataError) as caught:
        TextSource(str(file), name).check()
    assert str(caught.value).startswith(f"{file}: column {name!r} ({ODD[name].type}) cannot be read (")


def test_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    for names in (["text", "text"], ["text", "other", "other"]):
        pq.write_table(pa.Table.from_arrays([pa.array(TEXTS)] * len(names), names=names), file)
        with pytest.raises(DataError, match=rf"a\.parquet: duplicate column '{names[-1]}': rename one of the two"):
            TextSource(str(file)).check()


def test_vectors_beside_the_text_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, asked, sizes = tmp_path / "a.parquet", [], []
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(16, "f4")), 8)
    pq.write_table(pa.table({"text": TEXTS, "vector": vectors, "label": [1, 2]}), file)
    real = pq.ParquetFile.iter_batches

    def iter_batches(self, size, columns):
        asked.append(list(columns))
        sizes.append(size)
        return real(self, size, columns=columns)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", iter_batches)
    assert [row["label"] for row in sources.open_files([str(file)], 0, {}).rows] == ["1", "2"]
    assert TextSource(str(file)).check() == 2
    assert dedup.evaluation_texts([file], RowCounts("test")) == TEXTS
    assert sizes[-2:] == [rows.PARQUET_ROWS, rows.BINARY_ROWS]  # nobody named the columns: pictures may be among them
    assert (
        asked[-2:] == [["text"], ["text"]] and asked[-3] == ["text", "label"] and not any("vector" in a for a in asked)
    )


def test_parallel_text_may_be_a_table(tmp_path: Path) -> None:
    file = tmp_path / "a.PARQUET"
    pq.write_table(pa.table({"en": TEXTS, "sw": ["a", "b"]}), file)
    (tmp_path / "b.csv").write_text(f"en,sw\n{TEXTS[0]},a\n{TEXTS[1]},b\n")
    assert parallel_text.read(file) == parallel_text.read(tmp_path / "b.csv")
    assert parallel_text.read(file).texts["en"] == tuple(TEXTS)


def test_rows_without_any_column_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": ODD["zone"]}), file)
    assert list(rows.rows(file, ())) == [(f"{file} row 1", {"a": None}), (f"{file} row 2", {"a": None})]
