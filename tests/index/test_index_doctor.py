"""A byte of an index that changed on the disk is named, by whoever opens a small one, and of any by its doctor."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from lusifer.cli import app
from lusifer.errors import LusiferError, UsageError
from lusifer.index.disk import commits
from lusifer.index.doctor import examine
from lusifer.index.index import Index
from lusifer.index.reindex import reindex
from lusifer.index.table import PassageTable

NAMED = r"a file of the index is lost or damaged \(documents.lance/(data|_versions|_deletions)/.*\): restore it from"


@pytest.fixture(scope="module")
def source(model_folder, embedder, tmp_path_factory) -> Path:
    made = Index.create(tmp_path_factory.mktemp("source") / "i", model_folder, embedder=embedder)
    made.add([{"id": f"n{number}", "text": f"Text {number}", "tag": "x"} for number in range(40)])
    made.update([{"id": "n3", "text": "Another."}])
    made.delete(["n5"])
    return made.folder


@pytest.fixture
def folder(source: Path, tmp_path: Path) -> Path:
    shutil.copytree(source, tmp_path / "i")
    return tmp_path / "i"


def flip(folder: Path, part: str, place: float) -> Path:
    """Change one bit of the largest file of a part."""
    file = max((folder / "documents.lance" / part).rglob("*.*"), key=lambda file: file.stat().st_size)
    content = bytearray(file.read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    file.write_bytes(content)
    return file


def red(folder: Path) -> list[str]:
    return [probe.detail for probe in examine(folder) if not probe.ok]


def test_a_whole_index_is_green(folder):
    probes = examine(folder)
    assert all(probe.ok for probe in probes), probes
    said = " ".join(probe.detail for probe in probes)
    assert "39 documents" in said and "fields: tag" in said and "no checksum" not in said


@pytest.mark.parametrize("place", [0.0, 0.2, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("part", ["data", "_versions", "_deletions"])
def test_every_flipped_bit_is_named_when_it_is_opened(folder, embedder, part, place):
    flip(folder, part, place)
    with pytest.raises(LusiferError, match=NAMED):
        Index.open(folder, embedder=embedder)


def test_a_lost_newest_version_is_named(folder, embedder):
    """LanceDB opens the version before, as if what came later had never been given."""
    newest = max((folder / "documents.lance" / "_versions").glob("*.manifest"), key=commits._version)
    newest.unlink()
    with pytest.raises(LusiferError, match=NAMED):
        Index.open(folder, embedder=embedder)


def test_a_table_that_takes_the_place_meanwhile_is_not_called_lost(folder, embedder, monkeypatch):
    """Of `reindex`, whose table has lower versions: a reader has read the checksums of the one before."""
    real, seen = commits._noted, []

    def noted(place: Path) -> dict[str, str]:
        seen.append(place)
        return {"_versions/1.manifest": "of the one before"} if len(seen) == 1 else real(place)

    monkeypatch.setattr(commits, "_noted", noted)
    monkeypatch.setattr(commits, "_version", lambda file: 9 if file.name == "1.manifest" else 1)
    assert len(Index.open(folder, embedder=embedder).ids()) == 39 and len(seen) == 2


def test_a_large_index_is_opened_unread_and_its_doctor_reads_it(folder, embedder, monkeypatch):
    monkeypatch.setattr(commits, "AT_ONCE", 0)
    file = flip(folder, "data", 0.1)
    index = Index.open(folder, embedder=embedder)
    assert [detail for detail in red(folder) if file.name in detail]
    with pytest.raises(LusiferError, match=NAMED):  # what is damaged is not written anew
        index.optimize()
    with pytest.raises(LusiferError, match=NAMED):
        reindex(folder, index.model.name, embedder=embedder)


@pytest.mark.parametrize("harm", ["cut", "first rows", "newest version"])
def test_of_a_large_index_what_can_be_seen_at_once_is_named_when_it_is_opened(folder, embedder, monkeypatch, harm):
    monkeypatch.setattr(commits, "AT_ONCE", 0)
    assert len(Index.open(folder, embedder=embedder)) > 0
    table = folder / "documents.lance"
    file = max((table / "data").rglob("*.lance"), key=lambda file: file.stat().st_size)
    content = file.read_bytes()
    if harm == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif harm == "first rows":
        file.write_bytes(bytes(len(content) - 300) + content[-300:])
    else:
        max((table / "_versions").glob("*.manifest"), key=commits._version).unlink()
    with pytest.raises(LusiferError, match="a file of the index is lost or damaged"):
        Index.open(folder, embedder=embedder)


@pytest.mark.parametrize("sizes", [[1], [1, 1], [5], [3, 1, 1, 40, 2], [7] * 9, [1000, 1, 999_000]])
def test_the_first_and_last_row_of_each_part_are_found_by_few_reads(sizes):
    numbers = [(part * 7 % 10 << 32) + 2 * row for part, size in enumerate(sizes) for row in range(size)]
    reads = []

    def read(places: list[int]) -> list[int]:
        reads.append(len(places))
        return [numbers[place] for place in places]

    wanted = {row for part in {n >> 32 for n in numbers} for row in _first_and_last(numbers, part)}
    assert commits.ends(len(numbers), read) == wanted
    assert len(reads) <= 21 and max(reads) <= 2 * len(sizes)
    assert commits.ends(0, read) == set()


def _first_and_last(numbers: list[int], part: int) -> tuple[int, int]:
    own = [number for number in numbers if number >> 32 == part]
    return own[0], own[-1]


def test_opening_a_large_index_takes_only_the_ends_of_its_parts(folder, embedder, monkeypatch):
    monkeypatch.setattr(commits, "AT_ONCE", 0)
    index = Index.open(folder, embedder=embedder)
    for number in range(3):
        index.add([{"id": f"{number}-{each}", "text": f"More {each}"} for each in range(5)])
    index.delete(["n0", "n39", "1-0", "1-4"])
    rows = PassageTable(folder).snapshot().rows.tolist()
    real, taken = PassageTable.take, []
    monkeypatch.setattr(
        PassageTable, "take", lambda self, rows, vectors: real(self, taken.append(rows) or rows, vectors)
    )
    PassageTable(folder)
    assert len(rows) == 50 and len(taken) == 1 and len(taken[0]) > 6
    assert taken[0] == {row for part in {n >> 32 for n in rows} for row in _first_and_last(rows, part)}


def test_damage_of_what_is_made_of_the_texts_is_mended_from_them(folder, embedder):
    flip(folder, "_indices", 0.5)
    assert [detail for detail in red(folder) if "lusifer reindex" in detail]
    reindex(folder, Index.open(folder).model.name, embedder=embedder)
    assert not red(folder) and len(Index.open(folder, embedder=embedder).ids()) == 39


@pytest.mark.parametrize("place", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_a_flipped_bit_of_the_full_text_index_is_named_by_the_first_search_by_keywords(folder, embedder, place):
    """Some changed bits only hide passages from the search: LanceDB raises nothing."""
    flip(folder, "_indices", place)
    opened = Index.open(folder, embedder=embedder)
    assert opened.search("Text 1")[0], "vectors are not affected"
    for search in (lambda: opened.search("Text 1", mode="words"), lambda: opened.search("Text 1", mode="hybrid")):
        with pytest.raises(LusiferError, match="documents.lance/_indices/.*lusifer reindex"):
            search()
    with pytest.raises(LusiferError, match="documents.lance/_indices/.*lusifer reindex"):
        opened.optimize()


def test_the_full_text_index_of_a_large_table_is_not_read_by_a_search(folder, embedder, monkeypatch):
    monkeypatch.setattr(commits, "AT_ONCE", 0)
    opened = Index.open(folder, embedder=embedder)
    monkeypatch.setattr(commits, "check", None)
    assert opened.search("Another", mode="words")[0][0].id == "n3"


def test_an_index_from_before_there_were_checksums_gets_them_with_the_next_change(folder, embedder):
    (folder / "documents.lance" / commits.CHECKSUMS).unlink()
    assert not red(folder)
    assert "have no checksum until the next change" in " ".join(probe.detail for probe in examine(folder))
    Index.open(folder, embedder=embedder).add([{"id": "new", "text": "New."}])
    assert "no checksum" not in " ".join(probe.detail for probe in examine(folder))
    flip(folder, "data", 0.5)
    assert red(folder)


def test_checksums_of_files_that_are_gone_are_forgotten(folder, embedder, monkeypatch):
    from datetime import timedelta

    monkeypatch.setattr("lusifer.index.table.KEPT", timedelta(microseconds=1))
    Index.open(folder, embedder=embedder).optimize()
    noted = json.loads((folder / "documents.lance" / commits.CHECKSUMS).read_text())
    assert noted and all((folder / "documents.lance" / name).is_file() for name in noted) and not red(folder)


def test_damaged_checksums_are_named(folder):
    (folder / "documents.lance" / commits.CHECKSUMS).write_text("{")
    with pytest.raises(LusiferError, match=r"checksums.json: damaged .*: the next change writes it again"):
        Index.open(folder)
    assert "checksums.json: damaged" in red(folder)[0]


def test_a_full_disk_costs_a_checksum_and_no_document(folder, embedder, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    index = Index.open(folder, embedder=embedder)
    with monkeypatch.context() as context:
        context.setattr(commits, "write_json", full)
        index.add([{"id": "new", "text": "New."}])
    assert "new" in index.ids() and not red(folder)
    index.delete(["new"])
    assert "no checksum" not in " ".join(probe.detail for probe in examine(folder))


def test_vectors_that_are_0_and_missing_passages_are_counted(folder):
    table = PassageTable(folder)
    row = {"id": ["bad"], "text": ["x"], "chunk": [0], "chunk_count": [1], "chunk_start": [0], "chunk_end": [1]}
    size = table._table.schema.field("vector").type.list_size
    table.write(row | {"digest": [""]}, np.zeros((1, size), dtype=np.float32))
    table.write(row | {"id": ["half"], "chunk_count": [2], "digest": [""]}, np.ones((1, size), dtype=np.float32))
    half, bad = red(folder)
    assert bad.startswith("1 are not, the first of document bad: index the document again")
    assert half.startswith("document 'half': passages are missing")


def test_a_model_that_is_gone_or_another_one_is_named(embedder, model_folder, tmp_path):
    shutil.copytree(model_folder, tmp_path / "m")
    made = Index.create(tmp_path / "i", tmp_path / "m", embedder=embedder)
    made.add([{"id": "a", "text": "Water."}])
    (tmp_path / "m" / "modules.json").rename(tmp_path / "modules.json")
    assert len(red(made.folder)) == 1
    shutil.rmtree(tmp_path / "m")
    assert len(red(made.folder)) == 1 and str(tmp_path / "m") in red(made.folder)[0]


def test_the_command_reads_indexes_as_well_as_models(folder, tmp_path):
    run = CliRunner().invoke(app, ["doctor", str(folder)])
    assert run.exit_code == 0 and run.stdout.count("green") == 5 and "all 5 checks passed" in run.stdout
    flip(folder, "data", 0.5)
    run = CliRunner().invoke(app, ["doctor", str(folder)])
    assert run.exit_code != 0 and run.stdout.startswith("red") and "restore it from a copy" in run.stdout
    with pytest.raises(UsageError, match="no index there"):
        examine(tmp_path)
