"""An index that is open while others change it: what was committed is seen, and no vector of another model gets in."""

from __future__ import annotations

import os
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from lusifer.errors import LusiferError, UsageError
from lusifer.index import index, table
from lusifer.index.index import Index
from lusifer.index.reindex import reindex

ANEW = "was embedded again meanwhile, by .*: open it again"
DOCUMENTS = [{"id": f"n{number}", "text": f"Text {number}"} for number in range(4)]


@pytest.fixture
def made(model_folder: Path, embedder: Any, tmp_path: Path) -> Index:
    made = Index.create(tmp_path / "i", model_folder, embedder=embedder)
    made.add(DOCUMENTS)
    return made


def test_of_two_that_make_one_index_the_second_is_told(model_folder, embedder, tmp_path, monkeypatch):
    create = table.PassageTable.create

    def meanwhile(*args: Any) -> table.PassageTable:
        with pytest.raises(UsageError, match=r"i: is being made by another process: wait until it is done"):
            Index.create(tmp_path / "i", model_folder, embedder=embedder)
        return create(*args)

    monkeypatch.setattr(table.PassageTable, "create", meanwhile)
    Index.create(tmp_path / "i", model_folder, embedder=embedder).add(DOCUMENTS)
    monkeypatch.undo()
    describe = index.describe

    def made_meanwhile(*args: Any) -> Any:
        Index.create(tmp_path / "j", model_folder, embedder=embedder)
        return describe(*args)

    with monkeypatch.context() as changed, pytest.raises(UsageError, match="j: was made by another process meanwhile"):
        changed.setattr(index, "describe", lambda *args: changed.undo() or made_meanwhile(*args))
        Index.create(tmp_path / "j", model_folder, embedder=embedder)
    with pytest.raises(UsageError, match="already has an index"):
        Index.create(tmp_path / "i", model_folder, embedder=embedder)


def test_an_index_that_a_killed_reindex_had_moved_away_is_found(made, model_folder, embedder, monkeypatch):
    """Where two names cannot be swapped in one step; the process of the pid has ended."""
    away = made.folder / f".documents.lance.{socket.gethostname()}-{2**22 + 1}-whole-00.lance"
    (made.folder / "documents.lance").rename(away)
    assert Index.open(made.folder, model_folder, embedder=embedder).ids() == {each["id"] for each in DOCUMENTS}
    assert not away.exists()


@pytest.mark.parametrize("inode", ["another", "the same"])
def test_whoever_has_it_open_while_it_is_embedded_anew_neither_asks_nor_writes(
    made, model_folder, trained_into, embedder, monkeypatch, inode
):
    if inode == "the same":  # a file system gives the number of a folder that is gone to the next
        real = table.PassageTable._stamp
        monkeypatch.setattr(table.PassageTable, "_stamp", lambda self: (1, real(self)[1]))
    reader, writer = (Index.open(made.folder, model_folder, embedder=embedder) for _ in range(2))
    reader.search("Text 1")
    for model in (model_folder, trained_into):
        reindex(made.folder, model, embedder=embedder, tokens=32)
    for _ in range(3):
        for call in (lambda: reader.search("Text 1"), lambda: len(reader), reader.ids):
            with pytest.raises(UsageError, match=ANEW):
                call()
        for call in (
            lambda: writer.add([{"id": "new", "text": "New"}]),
            lambda: writer.update([{"id": "n1", "text": "New"}]),
            lambda: writer.delete(["n1"]),
            writer.optimize,
        ):
            with pytest.raises(UsageError, match=ANEW):
                call()
    assert Index.open(made.folder).ids() == {"n0", "n1", "n2", "n3"}


def test_one_that_writes_compares_the_table_that_it_opens(made, model_folder, trained_into, embedder, monkeypatch):
    writer = Index.open(made.folder, model_folder, embedder=embedder)
    reindex(made.folder, trained_into, embedder=embedder)
    monkeypatch.setattr(table.PassageTable, "refresh", lambda self: None)  # as if nothing showed that it changed
    with pytest.raises(UsageError, match=ANEW):
        writer.add([{"id": "new", "text": "New"}])


def test_a_second_commit_with_the_time_of_the_first_is_seen(made, embedder, monkeypatch):
    versions = made.folder / "documents.lance" / "_versions"
    reader = Index.open(made.folder, embedder=embedder)
    assert len(reader) == 4
    time = versions.stat().st_mtime_ns
    made.add([{"id": "new", "text": "New"}])
    os.utime(versions, ns=(time, time))
    monkeypatch.setattr(table.time, "time_ns", lambda: time + 3 * table.SETTLED)
    assert len(reader) == 5


def test_what_was_deleted_is_removed_after_a_while(made, monkeypatch):
    monkeypatch.setattr(table, "KEPT", timedelta(milliseconds=1))
    monkeypatch.setattr(table, "MANY_VERSIONS", 4)
    made.add({"id": str(number), "text": f"Another text {number}"} for number in range(20))
    for id in sorted(made.ids()):  # the last of them leaves nothing
        made.delete(id)
        assert sum(1 for _ in made.folder.rglob("*.manifest")) < 10
    assert sum(1 for _ in made.folder.rglob("*.arrow")) < 10
    made.add(DOCUMENTS)
    assert made.search("2", mode="words")[0][0].id == "n2"


def test_one_that_reads_while_the_table_is_replaced_is_not_told_of_damage(made, model_folder, embedder):
    reads = table.PassageTable(made.folder)
    reindex(made.folder, model_folder, embedder=embedder)
    with pytest.raises(LusiferError, match="i: was embedded again while it was read: try again"):
        reads.snapshot()
    reads.refresh()  # the model is the same
    assert len(reads.snapshot().rows) == 4
