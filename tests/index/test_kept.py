"""Indexes that others made: taken in without embedding, compared with the embedder that is named, asked by another."""

from __future__ import annotations

import json
from pathlib import Path

import faiss
import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lusifer.cli import main
from lusifer.index.index import Index
from lusifer.serving.dtypes import FormatChoice

TEXTS = ["Water is life.", "Вода — это жизнь.", "水は命です。", "Maji ni uhai."]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, embedder) -> Path:
    """A folder with vectors of `TEXTS` in every form, as other programs write them."""
    monkeypatch.chdir(tmp_path)
    vectors = embedder.encode(TEXTS).astype(np.float32)
    np.save("v.npy", vectors)
    np.save("half.npy", vectors.astype(np.float16))
    Path("rows.jsonl").write_text("".join(json.dumps({"id": f"d{n}", "text": t}) + "\n" for n, t in enumerate(TEXTS)))
    Path("ids.txt").write_text("d0\nd1\nd2\nd3\n")
    np.save("ids.npy", np.array(["d0", "d1", "d2", "d3"]))
    flat = faiss.IndexFlatIP(48)
    flat.add(vectors)
    faiss.write_index(flat, "v.faiss")
    named = faiss.IndexIDMap(faiss.IndexFlatIP(48))
    named.add_with_ids(vectors, np.array([10, 11, 12, 13]))
    faiss.write_index(named, "named.faiss")
    quantizer = faiss.IndexFlatL2(48)
    cells = faiss.IndexIVFFlat(quantizer, 48, 2)
    cells.train(vectors)
    cells.add(vectors)
    faiss.write_index(cells, "ivf.faiss")
    lists = pa.array(list(vectors), pa.list_(pa.float32(), 48))
    ids = pa.array(["d0", "d1", "d2", "d3"])
    columns = {"id": ids, "text": pa.array(TEXTS), "lang": pa.array(["en", "ru", "ja", "sw"])}
    pq.write_table(pa.table(columns | {"embedding": lists}), "v.parquet")
    pq.write_table(pa.table({"key": ids, "body": columns["text"], "a": lists, "b": lists}), "two.parquet")
    pq.write_table(pa.table({"id": ids, "embedding": lists}), "bare.parquet")
    about = {"page": 3, "_node_content": "{}", "_node_type": "TextNode", "ref_doc_id": None}  # as LlamaIndex writes
    nested = pa.array([{"lang": lang} | about for lang in ("en", "ru", "ja", "sw")])
    none = pa.nulls(4)
    made = pa.table({"id": ids, "doc_id": none, "vector": lists, "text": columns["text"], "metadata": nested})
    lancedb.connect("db").create_table("docs", made)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "first", "with_text"),
    [
        (["--vectors", "v.npy", "--input", "rows.jsonl"], "d0", True),
        (["--vectors", "half.npy", "--input", "rows.jsonl"], "d0", True),
        (["--vectors", "v.npy", "--ids", "ids.txt"], "d0", False),
        (["--vectors", "v.npy", "--ids", "ids.npy"], "d0", False),
        (["--vectors", "v.npy"], "0", False),
        (["--vectors", "v.faiss", "--input", "rows.jsonl"], "d0", True),
        (["--vectors", "ivf.faiss", "--input", "rows.jsonl"], "d0", True),
        (["--vectors", "named.faiss"], "10", False),
        (["--vectors", "v.parquet"], "d0", True),
        (["--vectors", "bare.parquet"], "d0", False),
        (["--vectors", "two.parquet", "--vector-field", "b", "--id", "key", "--field", "body"], "d0", True),
        (["--vectors", "db/docs.lance"], "d0", True),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else None,
)
def test_an_index_of_others_is_asked_by_a_model_of_its_space(
    folder, model_folder, trained_into, capsys, monkeypatch, embedder, words, first, with_text
):
    monkeypatch.setattr("lusifer.cli.search.load_to_embed", lambda *_, **__: (embedder, FormatChoice(None)))
    assert main(["index", str(model_folder), "--output", "i", *words]) == 0
    said = capsys.readouterr().err
    assert ("4 texts embedded again by" in said and "cosine 1.000 with their vectors" in said) == with_text
    assert ("cannot check that" in said) == (not with_text)
    assert "4 documents -> i: 4 added" in said
    reader = Index.open("i", trained_into, embedder=embedder)
    hits = [each[0] for each in reader.search(TEXTS)]
    assert hits[0].id == first and [hit.score for hit in hits] == pytest.approx([1, 1, 1, 1], abs=2e-3)
    assert [hit.text for hit in hits] == (TEXTS if with_text else [None] * 4)
    if "docs" in words[1]:
        assert hits[1].fields == {"lang": "ru", "page": 3}


def one_line(capsys) -> str:
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("lusifer: error: "), lines
    return lines[0]


def test_vectors_of_another_embedder_are_refused_and_no_index_is_left(
    folder, model_folder, embedder, capsys, monkeypatch
):
    monkeypatch.setattr("lusifer.cli.search.load_to_embed", lambda *_, **__: (embedder, FormatChoice(None)))
    vectors = np.load("v.npy")
    np.save("other.npy", np.roll(vectors, 7, axis=1))
    assert main(["index", str(model_folder), "--output", "i", "--vectors", "other.npy", "--input", "rows.jsonl"]) == 1
    assert "gives this text another vector (cosine" in one_line(capsys)
    np.save("short.npy", vectors[:, :40])
    assert main(["index", str(model_folder), "--output", "i", "--vectors", "short.npy", "--input", "rows.jsonl"]) == 1
    assert "a vector of 40 dimensions, but" in one_line(capsys)
    assert not Path("i").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--vectors", "no.npy"], "--vectors no.npy: no such file"),
        (["--vectors", "rows.jsonl"], "--vectors rows.jsonl: unknown ending: use .npy"),
        (["--vectors", "v.npy", "--input", "rows.jsonl", "--ids", "ids.txt"], "leave one of the two out"),
        (["--vectors", "v.parquet", "--input", "rows.jsonl"], "its rows have ids and texts"),
        (["--vectors", "v.npy", "--vector-field", "x"], "v.npy has no fields"),
        (["--vectors", "two.parquet"], "2 columns can be the vector (a, b): name it with --vector-field"),
        (
            ["--vectors", "v.parquet", "--vector-field", "x"],
            "--vector-field x: no such column in v.parquet: use one of id, text, lang, embedding",
        ),
        (["--vectors", "ids.npy"], "an array of 1 dimensions"),
        (["--vectors", "nan.npy"], "nan.npy row 2: its vector is not finite"),
        (["--vectors", "v.npy", "--ids", "few.txt"], "4 vectors, but few.txt has 2 rows"),
        (["--vectors", "v.npy", "--ids", "many.txt"], "4 vectors, but many.txt has more rows"),
        (["--vectors", "v.npy", "--ids", "latin.txt"], "latin.txt: not UTF-8 (byte 1): save the file as UTF-8"),
        (["--vectors", "bad.npy"], "bad.npy: not a readable array"),
        (["--vectors", "bad.faiss"], "bad.faiss: not a readable FAISS index"),
        (["--vectors", "db/none.lance"], "--vectors db/none.lance: no such table"),
        (["--ids", "ids.txt", "--input", "rows.jsonl"], "--ids ids.txt: needs --vectors"),
        ([], "--input: name a folder or a file of texts"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_taken_in_is_named_before_a_model_is_loaded(
    folder, model_folder, capsys, monkeypatch, words, message
):
    monkeypatch.setattr("lusifer.cli.search.load_to_embed", lambda *_, **__: pytest.fail("a model is loaded"))
    vectors = np.load("v.npy")
    vectors[2, 5] = np.nan
    np.save("nan.npy", vectors)
    Path("few.txt").write_text("a\nb\n")
    Path("latin.txt").write_bytes(b"a\xe4\n")
    Path("many.txt").write_text("a\nb\nc\nd\ne\n")
    Path("bad.npy").write_bytes(b"\x93NUMPY no")
    Path("bad.faiss").write_bytes(b"no index")
    assert main(["index", str(model_folder), "--output", "i", *words]) in (1, 2)
    assert message in one_line(capsys)
    assert not Path("i").exists()
