"""Vectors of many texts on disk, made a block at a time; work that was stopped goes on at its last whole block."""

from __future__ import annotations

import ctypes
import json
import mmap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lusifer.errors import DataError
from lusifer.io.atomic import write_file

BLOCK = 4096  # texts between two points where the work can go on

Encode = Callable[[list[str]], np.ndarray]
"""Texts -> (n, d) float vectors, as `SentenceTransformer.encode` gives them."""
Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Vectors:
    """Unit vectors in half precision, (rows, width), mapped from disk."""

    array: np.ndarray

    def __len__(self) -> int:
        """How many there are."""
        return len(self.array)

    def take(self, rows: np.ndarray | slice) -> np.ndarray:
        """Some of them as float32, contiguous."""
        return np.ascontiguousarray(self.array[rows], dtype=np.float32)

    def release(self) -> None:
        """Let go of what was read."""
        release(self.array)


def embed(
    file: Path,
    texts: Callable[[slice], list[str]],
    count: int,
    encode: Encode,
    progress: Progress = lambda done, total: None,
) -> Vectors:
    """Embed texts into `file`, or go on with what is in it.

    Args:
        file: Where the vectors are kept; beside it `file.done` says how many are there.
        texts: Gives a slice of the texts.
        count: How many there are, at least one.
        encode: The model. Vectors are brought to length 1.
        progress: Called with (done, count).

    Raises:
        DataError: The model gave a vector that is no number, or of length 0.
    """
    mark = file.with_name(file.name + ".done")
    state = json.loads(mark.read_text("utf-8")) if mark.is_file() else {"done": 0, "width": None}
    while state["done"] < count:
        some = texts(slice(state["done"], min(state["done"] + BLOCK, count)))
        block = _unit(np.asarray(encode(some), dtype=np.float32), some)
        state["width"] = block.shape[1]
        array = _open(file, count, block.shape[1], "r+" if state["done"] else "w+")
        array[state["done"] : state["done"] + len(block)] = block
        array.flush()
        release(array)
        state["done"] += len(block)
        with write_file(mark) as temporary:
            temporary.write_text(json.dumps(state), encoding="utf-8")
        _give_back()
        progress(state["done"], count)
    return Vectors(_open(file, count, state["width"], "r"))


def release(array: np.ndarray) -> None:
    """Let go of the pages of a mapped array: what was read or flushed stays in its file and counts as memory no more.

    Only Linux does it for a shared mapping without losing anything; elsewhere nothing happens.
    """
    mapped = getattr(array, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def _open(file: Path, count: int, width: int, mode: str) -> np.memmap:
    return np.memmap(file, dtype=np.float16, mode=mode, shape=(count, width))


def _unit(block: np.ndarray, texts: list[str]) -> np.ndarray:
    lengths = np.linalg.norm(block, axis=1, keepdims=True)
    wrong = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    if len(wrong):
        text = texts[wrong[0]][:60]
        raise DataError(f"the vector of {text!r} is not a number or 0: run `lusifer doctor` on the model")
    return (block / lengths).astype(np.float16)


def _give_back() -> None:
    """Hand free memory back: batches of many shapes leave gaps that glibc keeps, gigabytes of them in an hour."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
