"""How time and memory grow: texts to embed, vectors to search, the batch and the text length of a training step.

    lusifer train tiny --output runs/tiny
    python benchmarks/growth.py runs/tiny/model --output benchmarks/results/growth.md

Each row is a process of its own, on one thread. Times are processor time, but those of a search are of the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "speed"))
DIMENSIONS, QUESTIONS = 384, 100
EMBEDDED, SEARCHED = (10_000, 100_000, 1_000_000), (10_000, 100_000, 1_000_000)
BATCHES, LENGTHS, PAIRS = (4, 8, 16, 32), (32, 64, 128, 256), (4, 8, 16, 32)

Row = dict[str, float]


def search(rows: int) -> Row:
    """Search a new index of random vectors, one question at a time."""
    import numpy as np
    from index_speed import filled

    from lusifer.index.index import Index

    chance = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "index"
        whole = chance.standard_normal((rows, DIMENSIONS), dtype=np.float32)
        whole /= np.linalg.norm(whole, axis=1, keepdims=True)
        begun = time.process_time()
        filled(folder, whole, commit=50_000)
        written = time.process_time() - begun
        questions = whole[:QUESTIONS] + 0.1
        del whole
        index, seconds = Index.open(folder), []
        index.search("first", vectors=questions[:1])
        for question in questions:
            begun = time.perf_counter()
            index.search("q", vectors=question[None])
            seconds.append(time.perf_counter() - begun)
    return {"seconds": median(seconds), "written": written}


def alignment(batch: int, length: int) -> Row:
    """A step of stage 1 of the medium model (`speed/medium.py`), four rows at once."""
    import alignment as case

    case.BATCH, case.LENGTH = batch, length
    return timed(case.prepare)


def contrastive(rows: int) -> Row:
    """A step of stage 2 of the medium model: `rows` queries with a positive and seven negatives each."""
    import contrastive as case

    case.ROWS = rows
    return timed(case.prepare)


def timed(prepare: Callable[..., Any]) -> Row:
    """Three steps after a first one."""
    import medium
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as place:
        medium.save(Path(place))
        step, facts = prepare(Path(place), "ours")
        step()
        seconds = []
        for _ in range(3):
            begun = time.process_time()
            step()
            seconds.append(time.process_time() - begun)
    return {"seconds": median(seconds), "tokens": facts["tokens"]}


def embed(model: Path, count: int) -> Row:
    """`lusifer embed` of a file of short texts, as the benchmark of long jobs makes it."""
    import bulk

    with tempfile.TemporaryDirectory() as place:
        rows = Path(place) / "rows.jsonl"
        bulk.write_texts(rows, count)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        peak = bulk.wait(bulk.start(model, rows, Path(place) / "vectors.npy"))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, "peak": peak}


def apart(kind: str, *numbers: int) -> Row:
    """Run one row in a process of its own."""
    command = [sys.executable, __file__, "-", "--one", kind, *map(str, numbers)]
    setting = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    found = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, env=setting).stdout
    sys.stderr.write(f"{kind} {numbers}: {found}")
    return json.loads(found.splitlines()[-1])


def table(title: str, unit: str, header: list[str], rows: list[list[Any]]) -> str:
    """A table with a heading."""
    from lusifer.io.markdown import table as markdown

    return f"## {title}\n\n{unit}\n\n{markdown(header, rows)}\n"


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--largest", type=int, default=1_000_000, help="of texts and vectors")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        from worker import peak_mb

        kind, *numbers = options.one
        found = {"search": search, "alignment": alignment, "contrastive": contrastive}[kind](*map(int, numbers))
        sys.stdout.write(json.dumps(found | {"peak": peak_mb()}) + "\n")
        return
    options.output.write_text(page(options), encoding="utf-8")


def page(options: argparse.Namespace) -> str:
    """Measure the rows of the parts that `--only` names."""
    from bench import processor

    about = ", ".join(f"{each} {version(each)}" for each in ("torch", "transformers", "lancedb"))
    head = f"# Growth\n\nOne thread, {processor()}, {about}. `python benchmarks/growth.py MODEL --output FILE`.\n"
    return "\n".join([head, *(PARTS[part](options) for part in options.only)])


def embedding_part(options: argparse.Namespace) -> str:
    """Texts to embed."""
    rows = []
    for count in (each for each in EMBEDDED if each <= options.largest):
        found = embed(options.model, count)
        rows.append([f"{count:,}", f"{found['seconds']:.0f}", f"{count / found['seconds']:,.0f}", f"{found['peak']:,}"])
    header = ["texts", "processor s, with the start", "texts a second", "peak, MiB"]
    return table("Embedding", "`lusifer embed` with the model of recipe `tiny`, 3 to 12 words a text.", header, rows)


def search_part(options: argparse.Namespace) -> str:
    """Vectors to search."""
    rows = []
    for count in (each for each in SEARCHED if each <= options.largest):
        found = apart("search", count)
        cells = [f"{1000 * found['seconds']:.1f}", f"{found['written']:.1f}", f"{found['peak']:,.0f}"]
        rows.append([f"{count:,}", *cells])
    unit = (
        f"Random vectors of {DIMENSIONS} numbers, {QUESTIONS} questions one by one, the nearest ten with their texts."
    )
    return table("Search", unit, ["vectors", "ms a question", "processor s to write", "peak, MB"], rows)


def alignment_part(_: argparse.Namespace) -> str:
    """Texts, and tokens a text, in a step of stage 1."""
    grid = [(batch, 128) for batch in BATCHES] + [(16, length) for length in LENGTHS]
    rows = [step_row([*numbers], apart("alignment", *numbers)) for numbers in grid]
    header = ["texts a step", "tokens a text", "s a step", "ms a token", "peak, MB"]
    unit = "Medium model, LLM frozen, `mini_batch_size: 4`, as many target tokens as text tokens, median of 3."
    return table("A step of stage 1", unit, header, rows)


def contrastive_part(_: argparse.Namespace) -> str:
    """Queries in a step of stage 2."""
    rows = [step_row([count], apart("contrastive", count)) for count in PAIRS]
    unit = "Medium model, LoRA on both backbones, 8 candidates a query, `mini_batch_tokens: 1024`, median of 3."
    return table("A step of stage 2", unit, ["queries a step", "s a step", "ms a token", "peak, MB"], rows)


PARTS = {
    "embedding": embedding_part, "search": search_part, "alignment": alignment_part, "contrastive": contrastive_part
}  # fmt: skip


def step_row(numbers: list[int], found: Row) -> list[str]:
    """The cells of a training step."""
    seconds, tokens = found["seconds"], found["tokens"]
    return [*map(str, numbers), f"{seconds:.2f}", f"{1000 * seconds / tokens:.2f}", f"{found['peak']:,.0f}"]


if __name__ == "__main__":
    main()
