"""Three formats, one content; whole or not at all."""

import json

import numpy as np
import pyarrow.parquet as parquet
import pytest

from lusifer.errors import DataError, UsageError
from lusifer.serving.files import TextRow, write_vectors

TEXTS = [f"text {number} \u2028 ü" for number in range(11)]
ROWS = [TextRow("", text) for text in TEXTS]
VECTORS = np.random.default_rng(0).standard_normal((11, 5)).astype(np.float32)


def write(path):
    write_vectors(path, 11, ((ROWS[start : start + 4], VECTORS[start : start + 4]) for start in range(0, 11, 4)))


def test_numpy(tmp_path):
    write(tmp_path / "a.npy")
    found = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert found.dtype == np.float32
    assert np.array_equal(found, VECTORS)


def test_parquet(tmp_path):
    write(tmp_path / "a.parquet")
    table = parquet.read_table(tmp_path / "a.parquet")
    assert table["text"].to_pylist() == TEXTS
    assert np.array_equal(np.stack(table["embedding"].to_numpy(zero_copy_only=False)), VECTORS)


def test_json_keeps_every_digit(tmp_path):
    write(tmp_path / "a.jsonl")
    lines = (tmp_path / "a.jsonl").read_text(encoding="utf-8").split("\n")
    rows = [json.loads(line) for line in lines if line]
    assert [row["text"] for row in rows] == TEXTS
    assert np.array_equal(np.array([row["embedding"] for row in rows], dtype=np.float32), VECTORS)


@pytest.mark.parametrize("ending", ["npy", "parquet", "jsonl"])
def test_a_failure_leaves_the_old_file(tmp_path, ending):
    target = tmp_path / f"a.{ending}"
    target.write_bytes(b"old")

    def batches():
        yield ROWS[:2], VECTORS[:2]
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_vectors(target, 11, batches())
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("ending", ["npy", "parquet", "jsonl"])
@pytest.mark.parametrize(("count", "words"), [(3, "3 texts were counted and 2 read"), (1, "counted and more read")])
def test_an_input_that_changed_while_it_was_read_leaves_no_file(tmp_path, ending, count, words):
    with pytest.raises(DataError, match=words):
        write_vectors(tmp_path / f"a.{ending}", count, [(ROWS[:2], VECTORS[:2])])
    assert list(tmp_path.iterdir()) == []


def test_unknown_endings_and_folders_are_refused(tmp_path):
    for name in ("a.csv", "a", "a.npz"):
        with pytest.raises(UsageError, match=r"unknown ending .*: use \.npy, \.parquet, \.jsonl"):
            write_vectors(tmp_path / name, 1, [])
    (tmp_path / "b.npy").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        write_vectors(tmp_path / "b.npy", 1, [])
