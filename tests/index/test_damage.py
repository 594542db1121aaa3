"""An index that lost a file says so, and what to do; what a kill leaves of a new one is in nobody's way."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

import pytest

from lusifer.errors import LusiferError, UsageError
from lusifer.index.disk import commits
from lusifer.index.disk.damage import told
from lusifer.index.index import Index
from support.small_disk import small_disk

LOST = r"i: a file of the index is lost or damaged \(documents.lance/data/\w+.lance\): .*index the documents again"


@pytest.fixture
def made(model_folder, embedder, tmp_path) -> Index:
    made = Index.create(tmp_path / "i", model_folder, embedder=embedder)
    made.add({"id": f"n{number}", "text": f"Text {number}", "tag": "x"} for number in range(4))
    return made


def lose(index: Index, part: str, keep: int | None = None) -> None:
    for file in [each for each in (index.folder / "documents.lance" / part).rglob("*") if each.is_file()]:
        if keep is None:
            file.unlink()
        else:
            file.write_bytes(file.read_bytes()[:keep])


@pytest.mark.parametrize("mode", ["vector", "words", "hybrid"])
@pytest.mark.parametrize("where", [None, "tag = 'x'"])
def test_a_lost_file_is_named_and_no_filter_is_blamed(made, embedder, mode, where):
    lose(made, "data")
    for index in (made, Index.open(made.folder, embedder=embedder)):
        for _ in range(2):
            with pytest.raises(LusiferError, match=LOST):
                index.search("Text 1", mode=mode, where=where)


def test_who_writes_is_told_as_well(made, embedder):
    lose(made, "data")
    fresh = Index.open(made.folder, embedder=embedder)
    for write in (lambda: fresh.delete(["n1"]), lambda: fresh.add([{"id": "new", "text": "x"}]), fresh.ids):
        with pytest.raises(LusiferError, match=LOST):
            write()


@pytest.mark.parametrize(("part", "keep"), [("data", 200), ("_versions", 10), ("_versions", None)])
def test_a_file_that_ends_too_early_is_no_raw_error_either(made, embedder, part, keep):
    lose(made, part, keep)
    with pytest.raises(LusiferError, match="i: a file of the index is lost or damaged"):
        Index.open(made.folder, embedder=embedder).search("Text 1")


def test_of_a_lost_index_of_words_the_texts_are_whole(made, embedder):
    from lusifer.index.reindex import reindex

    lose(made, "_indices")
    with pytest.raises(LusiferError, match="make it from the texts: `lusifer reindex .*i --model MODEL`"):
        Index.open(made.folder, embedder=embedder).search("Text 1", mode="words")
    reindex(made.folder, made.model.name, embedder=embedder)
    assert Index.open(made.folder).search("1", mode="words")[0][0].id == "n1"


def test_a_writer_refuses_a_truncated_index_of_words(made, embedder):
    lose(made, "_indices", 100)
    fresh = Index.open(made.folder, embedder=embedder)
    for write in (lambda: fresh.delete(["n1"]), lambda: fresh.update([{"id": "n1", "text": "Text 1", "tag": "x"}])):
        with pytest.raises(LusiferError, match="documents.lance/_indices/.*lusifer reindex .*i --model MODEL"):
            write()
    assert len(fresh.ids()) == 4


def test_a_filter_that_fails_on_a_row_is_still_the_filters_fault(made):
    for where in ("cast(tag AS int) = 1", "regexp_like(tag, '(')"):
        with pytest.raises(UsageError, match="^filter "):
            made.search("Text 1", where=where)


@pytest.mark.parametrize("left", ["documents.lance", "documents.lance/_transactions", "documents.lance/_versions"])
def test_what_a_kill_leaves_of_a_new_index_is_no_index(model_folder, embedder, tmp_path: Path, left):
    (tmp_path / "i" / left).mkdir(parents=True)
    with pytest.raises(UsageError, match="i: no index there: make one"):
        Index.open(tmp_path / "i")
    made = Index.create(tmp_path / "i", model_folder, embedder=embedder)
    made.add([{"id": "a", "text": "water"}])
    assert [hit.id for hit in Index.open(made.folder).search("water", mode="words")[0]] == ["a"]


def test_what_the_system_refuses_is_no_damage(made, monkeypatch):
    def refused(*_: object) -> None:
        raise RuntimeError("lance error: LanceError(IO): LocalFileSystem error: Too many open files (os error 24)")

    monkeypatch.setattr(type(made._table), "snapshot", told(refused))
    with pytest.raises(LusiferError, match="i: Too many open files; the index is unchanged: try again"):
        made.search("Text 1")


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("work", ["add", "optimize"])
def test_a_file_that_a_full_disk_cut_is_not_committed(model_folder, embedder, tmp_path, monkeypatch, work, large):
    """LanceDB loses the error of the last bytes of a file: what is committed then cannot be read."""
    if large:
        monkeypatch.setattr(commits, "AT_ONCE", 0)

    def begun(name: str) -> Index:
        made = Index.create(tmp_path / name, model_folder, embedder=embedder)
        for number in range(2):
            made.add([{"id": f"{number}-{each}", "text": f"Text {number} {each}"} for each in range(40)])
        return made

    def run(made: Index) -> None:
        made.optimize() if work == "optimize" else made.add([{"id": "new", "text": "More. " * 900}])

    whole, made = begun("whole"), begun("made")
    before = set(whole.folder.rglob("data/*.lance"))
    run(whole)
    size = max(file.stat().st_size for file in set(whole.folder.rglob("data/*.lance")) - before)
    with small_disk(size - 10), pytest.raises(LusiferError, match="made: cannot be written completely: .*free some"):
        run(made)
    again = Index.open(made.folder, embedder=embedder)
    assert len(again.ids()) == 80 and again.search("Text 1 7")[0] and len(again.held()[0]) == 80
    run(again)
    assert len(Index.open(made.folder, embedder=embedder).held()[0]) == len(whole.held()[0])


def test_a_truncated_file_that_no_version_has_is_no_damage(made, embedder, monkeypatch):
    """Neither at first, nor when a later commit has given it a checksum."""
    monkeypatch.setattr(commits, "AT_ONCE", 0)
    place = made.folder / "documents.lance"
    used = next((place / "_indices").rglob("*.lance"))
    for orphan in (place / "data" / "orphan.lance", place / "_indices" / str(uuid.uuid4()) / used.name):
        orphan.parent.mkdir(exist_ok=True)
        orphan.write_bytes(bytes(1000))
    again = Index.open(made.folder, embedder=embedder)
    again.add([{"id": "new", "text": "More"}])
    assert "data/orphan.lance" in (place / commits.CHECKSUMS).read_text(encoding="utf-8")
    assert len(Index.open(made.folder, embedder=embedder).ids()) == 5
    used.write_bytes(used.read_bytes()[:-10])
    with pytest.raises(LusiferError, match=f"lost or damaged .*{used.parent.name}/{used.name}"):
        Index.open(made.folder, embedder=embedder)


class RustPanic(Exception):  # noqa: N818 - as pyo3 calls it
    pass


class PanicException(BaseException):  # noqa: N818 - likewise
    pass


@pytest.mark.parametrize(
    "error",
    [
        ValueError("Invalid input, Column 1 page 0 has 3 buffer offsets but 2 buffer sizes"),
        RuntimeError("lance error: Encountered corrupt file binary mini-block: value offset at position 7 decreases"),
        RustPanic("rust future panicked: unknown error"),
        PanicException("index out of bounds"),
    ],
)
@pytest.mark.parametrize("where", [None, "tag = 'x'"])
def test_other_bytes_than_were_written_are_named(made, monkeypatch, error, where):
    """What flipped bytes made LanceDB say, in `benchmarks/index_siege.py`."""

    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(type(made._table._table), "search", broken)
    with pytest.raises(LusiferError, match="i: a file of the index is lost or damaged"):
        made.search("Text 1", where=where)


def test_an_error_that_is_not_lancedbs_passes(made, monkeypatch):
    def broken(*_: object) -> None:
        raise ValueError("shapes differ")

    monkeypatch.setattr(type(made._table), "snapshot", told(broken))
    with pytest.raises(ValueError, match="^shapes differ"):
        made.search("Text 1")


@pytest.mark.parametrize("left", ["_versions", "data"])
@pytest.mark.parametrize("name", ["reindex.lance", "replaced.lance"])
def test_what_a_kill_leaves_beside_an_index_is_removed(made, embedder, trained_into, left, name):
    from lusifer.index.reindex import reindex

    shutil.copytree(made.folder / "documents.lance" / left, made.folder / name / left)
    assert reindex(made.folder, trained_into, embedder=embedder).documents == 4
    assert [place.name for place in made.folder.glob("*.lance")] == ["documents.lance"]
    assert len(Index.open(made.folder, embedder=embedder).search("Text 1")[0]) == 4
