"""Above a million passages an approximate index names the candidates: what it misses, and what it takes.

    python benchmarks/index_large.py [--rows 1100000] [--output benchmarks/results/index-large.md]

The vectors lie in clusters, as those of texts do: centres drawn at random, and of each some hundred neighbours. A
question is a neighbour of one of them. What it should find is what numpy finds among all vectors.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from index_speed import DIMENSIONS, TOP, filled

from lusifer.index.index import Index

AROUND = 300
"""Vectors of a cluster."""
SPREAD = 1.0
"""Length of what is drawn for each vector, beside its centre's, which is 1."""


def clustered(chance: np.random.Generator, centres: np.ndarray, rows: int) -> np.ndarray:
    """Vectors of length 1 around centres drawn for each (n, 384)."""
    made = centres[chance.integers(len(centres), size=rows)]
    made += chance.standard_normal(made.shape, dtype=np.float32) * np.float32(SPREAD / DIMENSIONS**0.5)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return made


def memory() -> float:
    """The peak so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> int:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_100_000)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    chance = np.random.default_rng(0)
    centres = chance.standard_normal((arguments.rows // AROUND, DIMENSIONS), dtype=np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    vectors = clustered(chance, centres, arguments.rows)
    questions = clustered(chance, centres, arguments.questions)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "index"
        begun = time.perf_counter()
        filled(folder, vectors, commit=50_000)
        made, index = time.perf_counter() - begun, Index.open(folder)
        lines = []
        for name, where, kept in (("all", None, slice(None)), ("half filtered out", "even", slice(None, None, 2))):
            times, recall = [], []
            for question in questions:
                begun = time.perf_counter()
                (hits,) = index.search("q", vectors=question[None], where=where, top_k=TOP)
                times.append(time.perf_counter() - begun)
                scores = vectors[kept] @ question
                right = np.argpartition(-scores, TOP)[:TOP] * (kept.step or 1)
                recall.append(len({f"d{row}" for row in right} & {hit.id for hit in hits}) / TOP)
            milliseconds = 1000 * statistics.median(times)
            lines.append(f"| {name} | {milliseconds:.0f} | {100 * np.mean(recall):.1f} | {100 * min(recall):.0f} |")
        approximate = index._table.approximate
    page = [
        f"{arguments.rows:,} vectors of {DIMENSIONS} numbers in {len(centres):,} clusters, {arguments.questions} "
        "questions one by one. By",
        "`python benchmarks/index_large.py --output benchmarks/results/index-large.md`.", "",
        f"| search | ms a question, median | of the {TOP} nearest found, per cent | the worst question |",
        "|---|--:|--:|--:|", *lines, "",
        f"The approximate index was {'used' if approximate else 'NOT used'}. Writing all and making the indexes took "
        f"{made:.0f} s; most memory of the process {memory():.1f} GiB, of which the vectors of the comparison have "
        f"{vectors.nbytes / 2**30:.1f}.", "",
    ]  # fmt: skip
    sys.stdout.write("\n".join(page))
    if arguments.output:
        arguments.output.write_text("\n".join(page), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
