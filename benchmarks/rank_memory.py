"""Host memory of two processes that train on one machine, by the rows of a later stage.

    python benchmarks/rank_memory.py [--rows 200000] [--output FILE]

Two processes under gloo run `lusifer train` with tiny bases: a stage of one step on the samples, then two steps on made
rows, each a query, a positive and seven negatives, as MS MARCO has them. What is sampled ten times a second of each
process: its resident memory, and the part of it that is no page of a file (the system can drop pages of files).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NEGATIVES = 7
WORDS = 55  # of a passage: about 350 characters
RECIPE = """\
name: memory
max_length: 32
model: {encoder: {path: "tiny:encoder"}, llm: {path: "tiny:llm"}}
stages:
  - {name: first, kind: alignment, train: {encoder: lora}, objectives: {distill: 0, reconstruction: 1},
     batch_size: 8, mini_batch_size: 8, max_steps: 1, learning_rate: 1e-4, data: [{path: "sample:passages"}]}
  - {name: second, kind: contrastive, train: {llm: lora, output_projection: true}, hard_negatives: 7,
     batch_size: 8, mini_batch_size: 8, max_steps: 2, learning_rate: 1e-4, data: [{path: rows.jsonl}]}
"""


def write_rows(file: Path, count: int) -> None:
    """Write rows of random words; every text is another one."""
    generator = random.Random(0)
    words = ["".join(generator.choices("abcdefghijklmnopqrstuvwxyz", k=generator.randint(2, 9))) for _ in range(30_000)]

    def text(length: int) -> str:
        return " ".join(generator.choices(words, k=length))

    with file.open("w", encoding="utf-8") as stream:
        for _ in range(count):
            row = {"query": text(8), "positive": [text(WORDS)], "negative": [text(WORDS) for _ in range(NEGATIVES)]}
            stream.write(json.dumps(row) + "\n")


def resident(process: int) -> tuple[float, float]:
    """Resident memory of a process and the part that is of no file, in MiB."""
    try:
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
        return tuple(int(lines[key].split()[0]) / 1024 for key in ("VmRSS", "RssAnon"))
    except (OSError, KeyError):  # it has ended
        return 0.0, 0.0


def measure(folder: Path) -> tuple[list[tuple[float, float]], float]:
    """Train in a folder with two processes; give the peaks of each and the seconds of the run."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-m", "lusifer.cli", "train", "recipe.yaml", "--output", "run"]
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    started, begun = [], time.perf_counter()
    for rank in "01":
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **shared, "RANK": rank, "LOCAL_RANK": rank}
        started.append(subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL))
    peaks = [(0.0, 0.0)] * len(started)
    while any(each.poll() is None for each in started):
        now = [resident(each.pid) for each in started]
        peaks = [(max(a, c), max(b, d)) for (a, b), (c, d) in zip(peaks, now, strict=True)]
        time.sleep(0.1)
    if any(each.returncode for each in started):
        raise SystemExit("a process failed; see above")
    return peaks, time.perf_counter() - begun


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(folder / "rows.jsonl", options.rows)
        (folder / "recipe.yaml").write_text(RECIPE)
        size = (folder / "rows.jsonl").stat().st_size / 2**20
        peaks, seconds = measure(folder)
    lines = [
        f"{options.rows:,} rows of {NEGATIVES + 2} texts, {size:,.0f} MiB as JSON lines; {seconds:.0f} s in all", "",
        "| process | peak resident, MiB | of it not from files, MiB |", "|---|--:|--:|",
        *(f"| {rank} | {most:,.0f} | {own:,.0f} |" for rank, (most, own) in enumerate(peaks)),
    ]  # fmt: skip
    text = "\n".join(lines) + "\n"
    sys.stdout.write(text)
    if options.output is not None:
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
