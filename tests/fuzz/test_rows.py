"""Whatever is in a file of rows, its reader gives rows or one line with the file's name."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lusifer.data import dedup, sources
from lusifer.data.tables import RowCounts
from lusifer.evaluation.search import questions
from lusifer.evaluation.tasks import sib200, sts, xquad
from lusifer.index import documents
from lusifer.io import parallel_text
from lusifer.serving.files import TextSource
from support.fuzzing import damaged, inputs, tried, values

PAIRS = [{"query": f"What is {n}?", "positive": [f"It is {n}."], "negative": [f"It is {n + 1}."]} for n in range(3)]
TEXTS = [{"id": f"t{n}", "text": f"The ferry leaves at {n}."} for n in range(3)]
LABELS = [{"text": f"a{n}", "label": "b", "index_id": n} for n in range(3)]
SCORED = [{"sentence1": "a", "sentence2": "b", "score": n} for n in range(3)]
PARALLEL = [{"en": f"a {n}", "sw": f"b {n}"} for n in range(3)]
ASKED = [
    {"question": "When does the ferry leave?", "right": "d0", "language": "en"},
    {"id": "d0", "text": "The ferry leaves at noon.", "language": "en"},
    {"id": "d1", "text": "Bread rises slowly.", "language": "en"},
]
XQUAD = {"paragraphs": [{"id": "p", "text": "a"}], "questions": [{"id": "q", "text": "b", "paragraph_id": "p"}]}


def lines(rows: Iterable[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode("utf-8", "surrogatepass")


def table(rows: list[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def separated(rows: list[dict[str, Any]]) -> bytes:
    return "\n".join([",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]).encode()


def pairs(file: Path) -> list[Any]:
    return list(sources.open_files([str(file)], 0, {}).rows)


Reader = Callable[[Path], Any]
READERS: dict[str, tuple[str, list[Any], Reader]] = {
    "pairs": ("rows.jsonl", PAIRS, pairs),
    "passages": ("rows.jsonl", TEXTS, pairs),
    "texts to embed": ("rows.jsonl", TEXTS, lambda file: TextSource(str(file)).check()),
    "documents": ("rows.jsonl", TEXTS, lambda file: list(documents.source(str(file)).documents())),
    "held-out texts": ("rows.jsonl", TEXTS, lambda file: dedup.evaluation_texts([file], RowCounts("test"))),
    "own questions": ("rows.jsonl", ASKED, questions.read),
    "parallel text": ("rows.jsonl", PARALLEL, parallel_text.read),
    "SIB-200": ("rows.jsonl", LABELS, sib200.read),
    "STS": ("rows.jsonl", SCORED, sts.read),
}
FORMS: dict[str, tuple[str, bytes, Reader]] = {
    **{name: (file, lines(rows), read) for name, (file, rows, read) in READERS.items()},
    "packed texts": ("rows.jsonl.gz", gzip.compress(lines(TEXTS), mtime=0), READERS["texts to embed"][2]),
    "texts in CSV": ("rows.csv", separated(TEXTS), READERS["texts to embed"][2]),
    "documents in CSV": ("rows.csv", separated(TEXTS), READERS["documents"][2]),
    "texts in Parquet": ("rows.parquet", table(TEXTS), READERS["texts to embed"][2]),
    "pairs in Parquet": ("rows.parquet", table(PAIRS), pairs),
    "plain texts": ("rows.txt", b"one\ntwo\n", READERS["texts to embed"][2]),
    "XQuAD": ("xquad-en.json", json.dumps(XQUAD).encode(), xquad.read),
}


@pytest.mark.parametrize("form", FORMS)
def test_damaged_files_are_read_or_refused(form: str, tmp_path: Path) -> None:
    name, whole, read = FORMS[form]
    file = tmp_path / name

    @inputs(0.3 / len(FORMS), 12)
    @given(damaged(whole))
    def check(content: bytes) -> None:
        file.write_bytes(content)
        with tried(f"files: {form}"):
            read(file)

    check()


@pytest.mark.parametrize("form", READERS)
def test_rows_of_any_values_are_read_or_refused(form: str, tmp_path: Path) -> None:
    name, rows, read = READERS[form]
    file = tmp_path / name
    changes = st.dictionaries(st.sampled_from([*rows[0], "other"]), values(), max_size=3)

    @inputs(0.2 / len(READERS), 12)
    @given(st.lists(changes, min_size=1, max_size=3), st.booleans())
    def check(changed: list[dict[str, Any]], whole: bool) -> None:
        file.write_bytes(lines([*({**rows[0], **change} if whole else change for change in changed), *rows[1:]]))
        with tried(f"rows: {form}"):
            read(file)

    check()
