"""A full disk is said in one line with the name of what was written, whichever library writes."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lusifer.data import tables
from lusifer.errors import DataError, LusiferError
from lusifer.io.files import full_disk_named, write_file, write_folder, write_json
from lusifer.serving.files import TextRow, write_vectors
from support.small_disk import small_disk

ROWS = [{"text": f"{number} {hash(str(number))}", "source": None} for number in range(3000)]
VECTORS = [([TextRow("", "a text")] * 100, np.random.default_rng(0).random((100, 64), dtype=np.float32))] * 10
TENSORS = {"a": torch.ones(20_000)}


def _tensors(target: Path) -> None:
    with write_folder(target) as folder:
        save_file(TENSORS, folder / "model.safetensors")


def _torch(target: Path) -> None:
    with write_file(target) as file:
        torch.save(TENSORS, file)


def _text(target: Path) -> None:
    with write_file(target) as file:
        file.write_text("x" * 100_000)


WRITERS: dict[str, Callable[[Path], None]] = {
    "v.npy": lambda target: write_vectors(target, 1000, VECTORS),
    "v.parquet": lambda target: write_vectors(target, 1000, VECTORS),
    "v.jsonl": lambda target: write_vectors(target, 1000, VECTORS),
    "r.jsonl": lambda target: tables.write_rows(target, ROWS, "passages"),
    "r.jsonl.gz": lambda target: tables.write_rows(target, ROWS, "passages"),
    "r.parquet": lambda target: tables.write_rows(target, ROWS, "passages"),
    "t.arrow": lambda target: tables.write_table(target, ROWS, "passages"),
    "j.json": lambda target: write_json(target, ROWS),
    "folder": _tensors,
    "t.pt": _torch,
    "t.txt": _text,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_writer_names_the_file_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    target = tmp_path / name
    with small_disk(), pytest.raises(LusiferError) as caught:
        WRITERS[name](target)
    assert str(caught.value).startswith(f"{target}: cannot be written completely: ")
    assert str(caught.value).endswith(": free some space, or name another place") and "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
    WRITERS[name](target)  # with space it is written
    assert target.exists()


def test_rows_that_do_not_fit_into_the_temporary_folder_are_said() -> None:
    with small_disk(), pytest.raises(LusiferError, match="no space for the rows: set TMPDIR"):
        tables.collect(ROWS, "passages")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
        OSError("[Errno 28] Error writing bytes to file. Detail: [errno 28] No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:815] . PytorchStreamWriter failed writing file data/0"),
    ],
)
def test_a_library_may_say_it_in_its_own_words(error: Exception) -> None:
    with pytest.raises(LusiferError, match="^place: cannot be written completely: .*: free some space"):
        with full_disk_named("place"):
            raise error


@pytest.mark.parametrize("error", [OSError(errno.EACCES, "Permission denied"), ValueError("no"), DataError("a row")])
def test_what_is_no_full_disk_passes(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, full_disk_named("place"):
        raise error
    assert caught.value is error
