"""An index of an older version is read and written as before; one of a later version, or a damaged one, says so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import lancedb
import numpy as np
import pyarrow as pa
import pytest

from lusifer.cli import main
from lusifer.embedder.identity import identity
from lusifer.errors import LusiferError, UsageError
from lusifer.index import doctor
from lusifer.index.documents import TextDocument
from lusifer.index.index import Index
from lusifer.index.reindex import reindex
from lusifer.index.table import META
from lusifer.io import hub

TEXTS = {"a": "Water is life.", "b": "Fire is warm."}


def by_hand(folder: Path, said: Any, texts: dict[str, str], encode: Any, **changed: Any) -> None:
    """A table as the first version of `lusifer index` wrote it, with other columns or what is said of the model."""
    vectors = np.asarray(encode(list(texts.values())), dtype=np.float32)
    flat = pa.array(vectors.reshape(-1))
    digests = [TextDocument(id, text).digest for id, text in texts.items()]
    columns = {
        "id": pa.array(list(texts), pa.string()),
        "text": pa.array(list(texts.values()), pa.string()),
        "vector": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
        "chunk": pa.array([0] * len(texts), pa.int32()),
        "chunk_count": pa.array([1] * len(texts), pa.int32()),
        "chunk_start": pa.array([0] * len(texts), pa.int32()),
        "chunk_end": pa.array(list(map(len, texts.values())), pa.int32()),
        "digest": pa.array(digests, pa.string()),
    } | changed
    columns = {name: column for name, column in columns.items() if column is not None}
    words = said if isinstance(said, bytes) else json.dumps(said).encode()
    table = pa.table(columns).replace_schema_metadata({META: words})
    lancedb.connect(str(folder)).create_table("documents", table)


@pytest.fixture
def said(model_folder, embedder) -> dict[str, Any]:
    return {
        "name": str(model_folder), "identity": identity(model_folder), "dimensions": embedder.encode(["a"]).shape[1],
        "query": None, "document": None, "dtype": None, "tokens": 64, "overlap": 0,
    }  # fmt: skip


def test_an_index_of_the_first_version_is_read_and_written(said, embedder, tmp_path):
    by_hand(tmp_path / "i", said, TEXTS, embedder.encode)  # it had no index of words until the first commit was tidied
    old = Index.open(tmp_path / "i", embedder=embedder)
    assert old.search("Fire is warm.")[0][0].id == "b" and old.search("fire", mode="words") == [[]]
    report = old.update([{"id": id, "text": text} for id, text in TEXTS.items()] + [{"id": "c", "text": "A lamp."}])
    assert (report.added, report.unchanged) == (1, 2)
    for id, word in (("a", "water"), ("b", "fire"), ("c", "lamp")):
        assert [hit.id for hit in Index.open(tmp_path / "i").search(word, mode="words")[0]] == [id]
    assert reindex(tmp_path / "i", said["name"], embedder=embedder, tokens=32).documents == 3


def test_a_model_of_the_hub_that_an_index_names_is_never_fetched(said, model_folder, embedder, tmp_path, monkeypatch):
    """Only from the cache, where it lies on the machine of whoever made the index; or if the user names it."""
    fetched = []
    monkeypatch.setattr(hub, "fetch", lambda name, *_: fetched.append(name) or model_folder)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    by_hand(tmp_path / "i", said | {"name": "owner/tracker"}, TEXTS, embedder.encode)
    words = (
        r"i: was made by owner/tracker on the Hub, which is not in the cache .*: if you trust it, name it: `--model o"
    )
    with pytest.raises(UsageError, match=words):
        Index.open(tmp_path / "i").search("fire")
    (tmp_path / "q").write_text("fire")
    assert main(["search", str(tmp_path / "i"), "fire"]) == 2
    assert any("if you trust it" in probe.detail for probe in doctor.examine(tmp_path / "i"))
    assert fetched == []
    assert Index.open(tmp_path / "i", "owner/tracker", embedder=embedder).search("fire") and set(fetched) == {
        "owner/tracker"
    }
    repository, fetched[:] = tmp_path / "cache" / "models--owner--tracker", []
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("a" * 40)
    shutil.copytree(model_folder, repository / "snapshots" / ("a" * 40))
    assert Index.open(tmp_path / "i").search("Fire is warm.")[0][0].id == "b" and fetched == []
    assert main(["search", str(tmp_path / "i"), "fire"]) == 0 and fetched == []


@pytest.mark.parametrize(
    ("change", "columns", "message"),
    [
        ({"sparse": True}, {}, r"i: was made by another version.*sparse is unknown.*index the documents again"),
        ({"tokens": "64"}, {}, r"i: was made by another version.*tokens is '64'"),
        ({"tokens": ...}, {}, r"i: was made by another version.*tokens is missing"),
        ({}, {"digest": None}, r"i: has columns of another version of lusifer \(digest \(missing\)\): make it again"),
        ({}, {"chunk": pa.array([0, 0], pa.int64())}, r"i: has columns of another version.*chunk \(int64\)"),
        ({}, {"tags": pa.array([["x"], []])}, r"i: has columns of another version.*tags \(list<"),
        (b"{", {}, r"i: a file of the index is lost or damaged \(its record of the model.*again into a new folder"),
        (b"[1]", {}, r"i: a file of the index is lost or damaged \(its record of the model"),
    ],
)
def test_what_this_version_does_not_know_is_refused_in_words(said, embedder, tmp_path, change, columns, message):
    words = change
    if isinstance(change, dict):
        words = {key: value for key, value in (said | change).items() if value is not ...}
    by_hand(tmp_path / "i", words, TEXTS, embedder.encode, **columns)
    with pytest.raises(LusiferError, match=message) as caught:
        Index.open(tmp_path / "i", embedder=embedder)
    assert "\n" not in str(caught.value)
