"""Embedding an index anew: from its own texts, going on where it was stopped, while it is searched."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lusifer.errors import LusiferError, ModelFolderError, UsageError
from lusifer.index import writing
from lusifer.index.index import Index
from lusifer.index.passages import joined
from lusifer.index.reindex import reindex

DOCUMENTS = [
    {"id": "long", "text": "  Water is life. " * 30 + "\n\nВода — это жизнь. 水は命です。 ", "lang": "en", "n": 1},
    {"id": "short", "text": " Maji ni uhai.\n", "lang": "sw"},
    *({"id": f"n{number}", "text": f"Text {number}", "n": number} for number in range(6)),
]


@pytest.fixture
def old(model_folder: Path, embedder, tmp_path: Path) -> Index:
    made = Index.create(tmp_path / "i", model_folder, embedder=embedder, overlap=10)
    made.add(DOCUMENTS)
    return made


def documents(index: Index) -> dict[str, tuple[str | None, dict]]:
    assert len(index)  # which sees what was committed
    return {each.id: (each.text, dict(each.fields)) for each in joined(index._table.passages())}


def test_documents_come_out_of_an_index_as_they_went_in(old):
    expected = {each["id"]: (each["text"], {k: v for k, v in each.items() if k in ("lang", "n")}) for each in DOCUMENTS}
    assert documents(old) == expected and len(old) > len(DOCUMENTS)


def test_another_model_takes_an_index_over(old, trained_into, embedder):
    reader = Index.open(old.folder, embedder=embedder)
    reader.search("water")
    report = reindex(old.folder, trained_into, embedder=embedder, tokens=32)
    assert (report.added, report.unchanged) == (8, 0)
    new = Index.open(old.folder, embedder=embedder)
    assert new.model.identity != old.model.identity and (new.model.tokens, new.model.overlap) == (32, 10)
    assert documents(new) == documents(old := Index.open(old.folder)) and old.model == new.model
    assert new.search("Text 3", top_k=1)[0][0].id == "n3" and new.search("Maji", mode="words")[0][0].id == "short"
    assert [path.name for path in new.folder.glob("*.lance")] == ["documents.lance"]
    with pytest.raises(UsageError, match="was embedded again meanwhile, by .*: open it again"):
        reader.search("water")


def test_what_a_kill_leaves_of_the_old_table_is_in_nobodys_way(old, trained_into, embedder, monkeypatch):
    def removed_in_part(place: Path) -> None:
        for file in (place / "data").iterdir():
            file.unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "rmtree", removed_in_part)
        reindex(old.folder, trained_into, embedder=embedder)
    new = Index.open(old.folder, embedder=embedder)
    assert new.search("Text 3", top_k=1)[0][0].id == "n3"
    assert reindex(old.folder, trained_into, embedder=embedder, tokens=32).documents == 8
    assert [path.name for path in old.folder.glob("*.lance")] == ["documents.lance"]


def test_a_stopped_call_goes_on_and_follows_what_changed_meanwhile(old, trained_into, embedder, monkeypatch):
    monkeypatch.setattr(writing, "DOCUMENTS_AT_ONCE", 2)

    def stop(done: int) -> None:
        if done >= 4:
            raise LusiferError("stopped")

    with pytest.raises(LusiferError, match="stopped"):
        reindex(old.folder, trained_into, embedder=embedder, progress=stop)
    assert old.search("Text 3", top_k=1)[0][0].id == "n3"  # as before
    old.delete(["short", "n5"])
    old.update([{**DOCUMENTS[0], "text": "Fire."}])
    report = reindex(old.folder, trained_into, embedder=embedder)
    assert (report.unchanged, report.replaced, report.added) == (2, 1, 3)
    new = Index.open(old.folder, trained_into, embedder=embedder)
    assert new.ids() == {"long", "n0", "n1", "n2", "n3", "n4"} and documents(new)["long"][0] == "Fire."


def test_all_that_a_stopped_call_had_embedded_may_be_deleted_meanwhile(old, trained_into, embedder, monkeypatch):
    monkeypatch.setattr(writing, "DOCUMENTS_AT_ONCE", 2)

    def stop(done: int) -> None:
        raise LusiferError("stopped")

    with pytest.raises(LusiferError, match="stopped"):
        reindex(old.folder, trained_into, embedder=embedder, progress=stop)
    old.delete(["long", "short"])
    assert reindex(old.folder, trained_into, embedder=embedder).unchanged == 0
    assert Index.open(old.folder).ids() == {f"n{number}" for number in range(6)}


def test_with_other_settings_it_begins_anew(old, trained_into, embedder):
    def stop(done: int) -> None:
        raise LusiferError("stopped")

    with pytest.raises(LusiferError, match="stopped"):
        reindex(old.folder, trained_into, embedder=embedder, progress=stop)
    report = reindex(old.folder, trained_into, embedder=embedder, tokens=24)
    assert (report.added, report.unchanged) == (8, 0)


def test_a_document_without_all_of_its_passages_ends_it(old, trained_into, embedder):
    old._table._table.delete("id = 'long' AND chunk = 1")
    with pytest.raises(LusiferError, match="^document 'long': passages are missing in the index"):
        reindex(old.folder, trained_into, embedder=embedder)


def test_vectors_without_texts_cannot_be_made_anew(old, model_folder, embedder, tmp_path):
    from lusifer.index.documents import TextDocument

    bare = Index.create(tmp_path / "bare", model_folder, embedder=embedder)
    bare.add([TextDocument("a", None, vector=embedder.encode(["a"])[0])])
    with pytest.raises(UsageError, match="has documents without a text"):
        reindex(bare.folder, model_folder, embedder=embedder)


def test_the_same_model_keeps_prompts_and_number_format_unless_they_are_given(model_folder, embedder, tmp_path):
    said: list[str] = []
    folder = tmp_path / "i"
    old = Index.create(folder, model_folder, embedder=embedder, task="sts", dtype="bfloat16")
    old.add(DOCUMENTS)
    reindex(folder, model_folder, embedder=embedder, tokens=40, say=said.append)
    new = Index.open(folder).model
    assert old.model.query and (new.query, new.document) == (old.model.query, old.model.document)
    assert (new.dtype, new.tokens) == ("bfloat16", 40) and said == ["tokens of a passage: 64 -> 40"]
    reindex(folder, model_folder, embedder=embedder, tokens=40, task="retrieval", dtype="float32", say=said.append)
    newest = Index.open(folder).model
    assert newest.query not in (None, new.query) and newest.document == "" and newest.dtype == "float32"
    assert "prompt of questions" in said[1] and "dtype: 'bfloat16' -> 'float32'" in said[1] and len(said) == 2
    with pytest.raises(UsageError, match="passages of 2 tokens: the prompt and special tokens take 2: raise the size"):
        reindex(folder, model_folder, embedder=embedder, tokens=2)


def test_another_model_has_its_own_prompts_and_the_change_is_said(old, trained_into, model_folder, embedder):
    said: list[str] = []
    reindex(old.folder, model_folder, embedder=embedder, prompt="Find answers", say=said.append)
    reindex(old.folder, trained_into, embedder=embedder, say=said.append)
    assert said[1].startswith("prompt of questions: 'Find answers") and said[1].endswith(" -> nothing")


def test_a_model_without_its_golden_vectors_embeds_nothing(old, model_folder, embedder, tmp_path):
    bad = shutil.copytree(model_folder, tmp_path / "bad")
    (bad / "golden.json").write_text(json.dumps({"texts": ["a"], "vectors": [[1.0] * 48]}))
    with pytest.raises(ModelFolderError, match="bad: gives other vectors than when it was written"):
        reindex(old.folder, bad, embedder=embedder)
    assert [path.name for path in old.folder.glob("*.lance")] == ["documents.lance"]
