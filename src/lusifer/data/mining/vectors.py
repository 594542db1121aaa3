"""Store vectors of many texts on disk, and search them exactly.

Both work in blocks: one block is in memory at a time, and interrupted work continues after its last complete block.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from lusifer.errors import DataError
from lusifer.extras import need
from lusifer.io.files import write_file

BLOCK = 4096  # texts that are embedded between two points where work can continue
CORPUS_BLOCK = 65_536  # vectors of the corpus in memory at once

Encode = Callable[[list[str]], np.ndarray]
"""Texts (n) -> (n, d) float vectors, like `SentenceTransformer.encode`."""


@dataclass(frozen=True)
class Vectors:
    """Unit vectors on disk, mapped into memory: `array` is (n, d) float16."""

    array: np.ndarray

    def __len__(self) -> int:
        """The number of vectors."""
        return len(self.array)

    def take(self, rows: np.ndarray | slice) -> np.ndarray:
        """Read some rows as a contiguous array, (m, d) float32."""
        return np.ascontiguousarray(self.array[rows], dtype=np.float32)

    def release(self) -> None:
        """Free the memory of the rows that were read."""
        release(self.array)


def embed(
    file: Path,
    texts: Callable[[slice], list[str]],
    count: int,
    encode: Encode,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> Vectors:
    """Embed texts into a .npy file, or continue with the texts that are missing in it.

    Args:
        file: The file.
        texts: Slice -> the texts of that slice.
        count: The number of texts, at least 1.
        encode: Texts -> vectors (n, d).
        progress: Called with (done, count).

    Returns:
        The vectors, (count, d), scaled to length 1.

    Raises:
        DataError: The model returned a vector that is 0 or not finite.
    """
    done = blocks_done(file)
    while done < count:
        some = texts(slice(done, min(done + BLOCK, count)))
        block = _unit(np.asarray(encode(some), dtype=np.float32), some)
        array = array_on_disk(file, np.float16, (count, block.shape[1]))
        array[done : done + len(block)] = block
        done += len(block)
        mark_done(file, done, array)
        _return_free_memory()
        progress(done, count)
    return Vectors(open_memmap(file, "r"))


def nearest(
    queries: np.ndarray, corpus: Vectors, k: int, rows: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Find the vectors of a corpus that are nearest to each query, by exact inner product.

    Args:
        queries: (n, d) float32.
        corpus: The vectors to search.
        k: How many to find for each query.
        rows: The rows of the corpus to search, ascending; None: all.

    Returns:
        Scores (n, k) float32, descending, and rows of the corpus (n, k) int64; -inf and -1 if the corpus has fewer
        than k. Equal scores are in the order of the corpus.
    """
    faiss = need("data", "faiss")
    scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    numbers = np.full((len(queries), k), -1, dtype=np.int64)
    count = len(corpus) if rows is None else len(rows)
    for start in range(0, count, CORPUS_BLOCK):
        part = slice(start, min(start + CORPUS_BLOCK, count))
        block = corpus.take(part if rows is None else rows[part])
        corpus.release()
        index = faiss.IndexFlatIP(block.shape[1])
        index.add(block)
        found, places = index.search(queries, min(k, len(block)))
        places = places + start if rows is None else rows[places + start]
        scores, numbers = np.concatenate([scores, found], axis=1), np.concatenate([numbers, places], axis=1)
        order = np.lexsort((numbers, -scores), axis=1)[:, :k]
        scores, numbers = np.take_along_axis(scores, order, 1), np.take_along_axis(numbers, order, 1)
    return scores, numbers


def blocks_done(file: Path) -> int:
    """Return how much of the work on a file is done, as `mark_done` recorded it; 0 before that."""
    mark = _mark(file)
    return int(mark.read_text("utf-8")) if mark.is_file() else 0


def mark_done(file: Path, done: int, *arrays: np.memmap) -> None:
    """Write mapped arrays to disk, free their memory, and record how much of the work on a file is done.

    Args:
        file: The file that the work belongs to.
        done: How much is done, as `blocks_done` will return it.
        arrays: The mapped arrays.
    """
    for array in arrays:
        array.flush()
        release(array)
    with write_file(_mark(file)) as temporary:
        temporary.write_text(str(done), encoding="utf-8")


def array_on_disk(file: Path, dtype: type, shape: tuple[int, ...]) -> np.memmap:
    """Map a .npy file to read and write; it is created again unless a part of it is marked as done.

    Args:
        file: The file.
        dtype: The dtype of a new file.
        shape: The shape of a new file.
    """
    if blocks_done(file):
        return open_memmap(file, "r+")
    return open_memmap(file, "w+", dtype, shape)


def release(array: np.ndarray) -> None:
    """Free the memory of a mapped array; data that were read or flushed stay in its file.

    Only Linux can do this for a shared mapping without losing data; elsewhere nothing happens.
    """
    mapped = getattr(array, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def _mark(file: Path) -> Path:
    return file.with_name(file.name + ".done")


def _unit(block: np.ndarray, texts: list[str]) -> np.ndarray:
    lengths = np.linalg.norm(block, axis=1, keepdims=True)
    wrong = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    if len(wrong):
        text = texts[wrong[0]][:60]
        raise DataError(f"the vector of {text!r} is 0 or not finite: check the model with `lusifer doctor`")
    return (block / lengths).astype(np.float16)


def _return_free_memory() -> None:
    """Return free memory to the system: glibc would keep gaps from batches of many shapes, gigabytes in an hour."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    if trim is not None:
        trim(0)
