"""How often a mined negative is truly one: labels that the miner does not see tell.

    python benchmarks/mining.py --data DATA/english/labelled.jsonl.gz [--model mini] [--output FILE]

Texts of three intent sets, some of each label. Each is a query whose marked positive is one other text of its label,
and that one has the query; the rest of its label are answers that nobody has marked. A negative is true if its label is
another one. Hardness is the mean similarity of negative and query.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lusifer.data import sources
from lusifer.data.mining import mine as mining
from lusifer.data.mining.negatives import MineSettings
from lusifer.embedder import folder
from lusifer.io import rows as row_files

SOURCES = ("banking77", "clinc150", "nlu-evaluation")
WAYS = {
    "nearest, nothing skipped": MineSettings(skip=0, keep=7),
    "drawn from the nearest 128": MineSettings(skip=0, keep=128),
    "skip 30, drawn from the next 128 (published)": MineSettings(),
    "nothing skipped, at most 0.95 of the positive's similarity": MineSettings(skip=0, keep=128, percentage=0.95),
    "skip 30, at most 0.95 of the positive's similarity": MineSettings(percentage=0.95),
    "by labels: rank 20 to 140 of another label": MineSettings(labels=True),
}


class Encoder:
    """A model that embeds each text once."""

    def __init__(self, model: str) -> None:
        self.embedder = folder.load(model, device="cpu", dtype="bfloat16")
        self.known: dict[str, np.ndarray] = {}

    def __call__(self, texts: list[str]) -> np.ndarray:
        """Texts -> unit vectors, (n, d)."""
        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        if new:
            vectors = self.embedder.encode(new, batch_size=64, normalize_embeddings=True, show_progress_bar=False)
            self.known |= zip(new, np.asarray(vectors, dtype=np.float32), strict=True)
        return np.stack([self.known[text] for text in texts])


def texts_by_label(file: Path, each: int, seed: int) -> dict[str, list[str]]:
    """Label -> `each` distinct texts of it, of the labels that have as many."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for row in row_files.read(file, lambda row, _: row):
        if row["source"] in SOURCES and row["label"] != "oos":  # texts without an intent have nothing in common
            found[f"{row['source']}/{row['label']}"][row["text"]] = None
    generator = random.Random(seed)
    chosen = {label: generator.sample(list(texts), each) for label, texts in found.items() if len(texts) >= each}
    taken: set[str] = set()
    for label, texts in chosen.items():  # a text of two labels is left to the first
        own = [text for text in texts if text not in taken]
        taken.update(texts)
        chosen[label] = own[: len(own) // 2 * 2]
    return chosen


def measure(groups: dict[str, list[str]], encoder: Encoder, folder_: Path) -> list[tuple[str, float, float, float]]:
    """Way, share of true negatives, hardness, negatives a row."""
    label = {text: name for name, texts in groups.items() for text in texts}
    pairs = folder_ / "pairs.jsonl"
    labelled = folder_ / "labelled.jsonl"
    rows = [(one, texts[place ^ 1]) for texts in groups.values() for place, one in enumerate(texts)]
    pairs.write_text("".join(json.dumps({"query": one, "positive": [other]}) + "\n" for one, other in rows))
    labelled.write_text("".join(json.dumps({"text": text, "label": name}) + "\n" for text, name in label.items()))
    generator = random.Random(0)
    everything = list(label)
    encoder(everything)
    found = [("random texts", score([(one, generator.sample(everything, 7)) for one in everything], label, encoder))]
    retriever = mining.Retriever("model", encoder, encoder)
    for name, settings in WAYS.items():
        kind, file = ("labelled", labelled) if settings.labels else ("pairs", pairs)
        output = folder_ / "mined.jsonl"
        rows_of = lambda kind=kind, file=file: sources.read_file(file, kind)  # noqa: E731
        mining.mine(rows_of, kind, [file], output, retriever, settings)
        mined = map(json.loads, output.read_text(encoding="utf-8").splitlines())
        found.append((name, score([(row["query"], row["negative"]) for row in mined], label, encoder)))
    return [(name, *numbers) for name, numbers in found]


def score(rows: Sequence[tuple[str, list[str]]], label: dict[str, str], encoder: Encoder) -> tuple[float, float, float]:
    """Share of true negatives, mean similarity, negatives a row."""
    true = [label[text] != label[query] for query, negatives in rows for text in negatives]
    known = encoder.known
    near = [float(known[text] @ known[query]) for query, negatives in rows for text in negatives]
    return float(np.mean(true)), float(np.mean(near)), len(true) / len(rows)


def main() -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(description="Share of mined negatives that are truly negative.")
    parser.add_argument("--data", type=Path, required=True, help="file with text, label, source")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--each", type=int, nargs="+", default=[6, 20, 80], help="texts of a label")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    encoder, lines = Encoder(options.model), []
    for each in options.each:
        groups = texts_by_label(options.data, each, seed=0)
        lines += [
            f"{len(groups)} labels of {each} texts, retriever {options.model}, seed 0", "",
            "| negatives | truly negative | similarity to the query | negatives a row |", "|---|--:|--:|--:|",
        ]  # fmt: skip
        with tempfile.TemporaryDirectory() as made:
            for name, true, near, count in measure(groups, encoder, Path(made)):
                lines.append(f"| {name} | {100 * true:.1f} % | {near:.3f} | {count:.1f} |")
        lines.append("")
    text = "\n".join(lines)
    sys.stdout.write(text + "\n")
    if options.output:
        options.output.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
