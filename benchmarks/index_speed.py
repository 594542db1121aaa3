"""Exact search of an index beside numpy alone and LanceDB's own scan, one question at a time, in one run.

    python benchmarks/index_speed.py [--rows 100000] [--output benchmarks/results/index-speed.md]

The vectors are random: how long a search takes does not depend on them. They take turns in random order, so that other
work on the machine disturbs them alike.
"""

from __future__ import annotations

import argparse
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import lancedb
import numpy as np

from lusifer.index.index import Index
from lusifer.index.models import IndexModel
from lusifer.index.table import PassageTable

DIMENSIONS = 384
TOP = 10


def filled(folder: Path, vectors: np.ndarray, commit: int = 10_000) -> None:
    """Make an index of vectors (n, 384) of length 1, `commit` of them a commit."""
    model = IndexModel("random", "0" * 12, DIMENSIONS, None, None, None, 512, 0)
    table = PassageTable.create(folder, model.to_dict(), DIMENSIONS)
    for start in range(0, len(vectors), commit):
        part = range(start, min(len(vectors), start + commit))
        columns = {
            "id": [f"d{number}" for number in part], "text": [f"Document {number}." for number in part],
            "chunk": [0] * len(part), "chunk_count": [1] * len(part), "chunk_start": [0] * len(part),
            "chunk_end": [10] * len(part), "digest": ["0"] * len(part),
        }  # fmt: skip
        table.add_fields({"even": "bool"})
        table.write(columns | {"even": [number % 2 == 0 for number in part]}, vectors[part.start : part.stop])
    table.tidy(force=True)


def main() -> int:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    questions = np.random.default_rng(1).standard_normal((arguments.questions, DIMENSIONS), dtype=np.float32)
    questions /= np.linalg.norm(questions, axis=1, keepdims=True)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "index"
        vectors = np.random.default_rng(0).standard_normal((arguments.rows, DIMENSIONS), dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        filled(folder, vectors)
        index = Index.open(folder)
        own = lancedb.connect(str(folder)).open_table("documents")
        begun = time.perf_counter()
        index.search("first", vectors=questions[:1])
        opened = time.perf_counter() - begun

        def by_numpy(question: np.ndarray) -> list[str]:
            scores = vectors @ question
            top = np.argpartition(-scores, TOP)[:TOP]
            return [f"d{row}" for row in top[np.argsort(-scores[top])]]

        def by_lance(question: np.ndarray) -> list[str]:
            found = own.search(question).distance_type("cosine").bypass_vector_index().select(["id", "_distance"])
            return [row["id"] for row in found.limit(TOP).to_list()]

        ways: dict[str, Callable[[np.ndarray], list[str]]] = {
            "numpy: product, ten largest": by_numpy,
            "the index's comparison (`Snapshot.best`)": lambda question: [
                id for id, _ in index._table.snapshot().best(question, TOP)
            ],
            "`Index.search`, which also fetches the texts": lambda question: _ids(
                index.search("q", vectors=question[None])
            ),
            "`Index.search`, half of the rows filtered out, always the same": lambda question: _ids(
                index.search("q", vectors=question[None], where="even")
            ),
            "`Index.search`, hybrid": lambda question: _ids(
                index.search("Document 77", vectors=question[None], mode="hybrid")
            ),
            "LanceDB's scan": by_lance,
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        found: dict[str, list[list[str]]] = {name: [] for name in ways}
        last, chance = list(ways)[-1], random.Random(0)
        for turn in ([name for name in ways if name != last], [last]):  # its scan would push the rest out of all caches
            for question in questions:
                for name in chance.sample(turn, len(turn)):
                    begun = time.perf_counter()
                    ids = ways[name](question)
                    times[name].append(time.perf_counter() - begun)
                    found[name].append(ids)
        exact = [own for name, own in found.items() if "filtered" not in name and "hybrid" not in name]
        same = all(own == exact[0] for own in exact)
    base = statistics.median(times["numpy: product, ten largest"])
    lines = [
        f"| {name} | {1000 * statistics.median(own):.1f} | {statistics.median(own) / base:.2f} | "
        f"{1000 * fast(own):.1f} | {fast(own) / fast(times['numpy: product, ten largest']):.2f} |"
        for name, own in times.items()
    ]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    page = [
        f"{arguments.rows:,} vectors of {DIMENSIONS} numbers, {arguments.questions} questions one by one: the median,",
        "and the time within which the fastest tenth was done. By",
        "`python benchmarks/index_speed.py --output benchmarks/results/index-speed.md`.", "",
        "| | ms a question | times numpy | fastest tenth, ms | times numpy |", "|---|--:|--:|--:|--:|", *lines, "",
        f"The first search, which reads the vectors: {opened:.2f} s. The first three and the last found the same ten: "
        f"{'always' if same else 'NOT always'}. Most memory of the process: {peak:.1f} GiB, the vectors twice.", "",
    ]  # fmt: skip
    sys.stdout.write("\n".join(page))
    if arguments.output:
        arguments.output.write_text("\n".join(page), encoding="utf-8")
    return 0


def fast(times: list[float]) -> float:
    """The time within which the fastest tenth was done."""
    return statistics.quantiles(times, n=10)[0]


def _ids(hits: list) -> list[str]:
    return [hit.id for hit in hits[0]]


if __name__ == "__main__":
    raise SystemExit(main())
