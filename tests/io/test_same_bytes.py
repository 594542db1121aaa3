"""What is written twice from the same content is the same file, in any process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import safe_open

from lusifer.io.seen import SEEN, write
from lusifer.io.weights import save_arrays

ABOUT = {f"fact {number}": f"Größe {number}" for number in range(12)}
ARRAYS = {
    "b": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a": np.arange(3, dtype=np.uint8),
    "none": np.zeros((0, 2)),
}


def test_order_of_facts_and_of_arrays_does_not_count(tmp_path: Path) -> None:
    for number in range(5):  # the library has a new order in each call
        save_arrays(tmp_path / f"{number}", ARRAYS, ABOUT)
    save_arrays(tmp_path / "turned", dict(reversed(ARRAYS.items())), dict(reversed(ABOUT.items())))
    assert len({file.read_bytes() for file in tmp_path.iterdir()}) == 1


def test_the_library_reads_what_was_written(tmp_path: Path) -> None:
    file = tmp_path / "some.safetensors"
    save_arrays(file, ARRAYS, ABOUT)
    assert (8 + int.from_bytes(file.read_bytes()[:8], "little")) % 8 == 0
    with safe_open(file, "np") as opened:
        assert opened.metadata() == ABOUT
        assert set(opened.keys()) == ARRAYS.keys()
        for name, array in ARRAYS.items():
            found = opened.get_tensor(name)
            assert found.dtype == array.dtype and found.shape == array.shape and (found == array).all()


def test_a_filter_of_seen_texts_is_the_same_file_again(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / f"{number}").mkdir()
        write(tmp_path / f"{number}", ["one text", "another"], 2)
    assert len({file.read_bytes() for file in tmp_path.glob(f"*/{SEEN}")}) == 1
