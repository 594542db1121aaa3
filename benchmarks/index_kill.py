"""Kill the writer of an index at random moments: is every committed document there, and none a half?

    python benchmarks/index_kill.py [--kills 10] [--output benchmarks/results/index-kill.md]

A process adds documents of one to five passages, replaces earlier ones, joins files and takes new rows into the
full-text index, forever, and says what it has committed. It is killed (SIGKILL) after a random time, a reader opens the
index and compares every document with what was said, and the next writer goes on in the same index. The vectors are
drawn from the text, since what is tested is not the model.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lusifer.index import table, writing
from lusifer.index.documents import TextDocument
from lusifer.index.models import IndexModel
from lusifer.index.passages import joined
from lusifer.index.table import PassageTable
from lusifer.index.writing import put

WINDOW = 40
"""Documents of a commit."""
MODEL = IndexModel("words", "0" * 12, 32, None, None, None, 24, 4)
WORDS = "water fire stone river lamp cloud वर्षा вода 水 نهر maji".split()


class Words:
    """In place of a model: counts words as tokens, and draws a vector from a text."""

    device, prompts, default_prompt_name, max_seq_length = torch.device("cpu"), {}, None, 24

    @staticmethod
    def tokenizer(texts: Sequence[str], **_: Any) -> dict[str, list[list[str]]]:
        """Words of each text, and two more."""
        return {"input_ids": [["<s>", *text.split(), "</s>"] for text in texts]}

    @staticmethod
    def encode(texts: Sequence[str], **_: Any) -> np.ndarray:
        """(n, 32), of length 1."""
        seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") for text in texts]
        drawn = np.stack([np.random.default_rng(seed).standard_normal(32) for seed in seeds]).astype(np.float32)
        return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def say(what: list[Any]) -> None:
    """A line of JSON on standard output, at once."""
    sys.stdout.write(json.dumps(what, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def text_of(number: int, version: int) -> str:
    """The text of a document, of 1 to 5 passages."""
    chance = random.Random(f"{number} {version}")
    sentences = [" ".join(chance.choices(WORDS, k=9)) + "." for _ in range(chance.randint(1, 9))]
    return f"Document {number} version {version}. " + " ".join(sentences)


def write(folder: Path, start: int) -> None:
    """Add and replace documents until the process is killed; a line on standard output follows each commit."""
    table.MANY_FRAGMENTS, table.MANY_UNINDEXED, writing.TIDY_EVERY = 8, 500, 4
    found = PassageTable(folder)
    number = start
    while True:
        added = range(number, number + 5 * WINDOW)
        batches = [[(one, 0) for one in added[at : at + WINDOW]] for at in range(0, len(added), WINDOW)]
        batches += [[(one, 1) for one in range(max(0, number - WINDOW), number)]] if number else []
        for batch in batches:
            documents = (TextDocument(f"d{one}", text_of(one, version), {"version": version}) for one, version in batch)
            say(["begins", batch])
            put(found, MODEL, Words, documents, True, None, "split", None)
            say(["committed", batch])
        number = added.stop


def look(folder: Path, committed: dict[int, int], begun: dict[int, int]) -> tuple[int, list[str]]:
    """Compare an index with what was committed; `begun` may be there or not. What is there is noted as committed.

    Returns:
        How many passages there are, and what is wrong.
    """
    found = PassageTable(folder)
    wrong, seen = [], set()
    for each in joined(found.passages()):
        number = int(each.id[1:])
        versions = {committed.get(number), begun.get(number)} - {None}
        if number in seen or each.text not in [text_of(number, version) for version in versions]:
            wrong.append(f"{each.id} is not what was committed")
        if each.fields.get("version") not in versions:
            wrong.append(f"{each.id} has the fields of another version")
        elif number in begun:
            committed[number] = each.fields["version"]
        seen.add(number)
    parts = {}
    for row in found.passages():
        parts.setdefault(row["id"], [row["chunk_count"]]).append(row["chunk"])
    wrong += [f"{id} is a half" for id, (count, *own) in parts.items() if sorted(own) != list(range(count))]
    wrong += [f"d{number} is missing" for number in committed if number not in seen]
    snapshot = found.snapshot()
    for number in random.Random(len(committed)).sample(sorted(committed), min(40, len(committed))):
        if begun.get(number) is None:
            text = text_of(number, committed[number])
            first = next(joined(row for row in found.passages() if row["id"] == f"d{number}")).text
            part = first[
                : [row["chunk_end"] for row in found.passages() if row["id"] == f"d{number}" and not row["chunk"]][0]
            ]
            if snapshot.best(Words.encode([part.strip()])[0], 1)[0][0] != f"d{number}" or first != text:
                wrong.append(f"d{number} is not found by its vector")
            if f"d{number}" not in [id for id, _ in found.by_words(f"Document {number}", None, 50)]:
                wrong.append(f"d{number} is not found by its words")
    return len(found), wrong


def main() -> int:
    """Write the page; status 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--start", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write:
        write(arguments.write, arguments.start)
    chance, lines, bad = random.Random(arguments.seed), [], 0
    committed: dict[int, int] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "index"
        PassageTable.create(folder, MODEL.to_dict(), 32)
        for kill in range(1, arguments.kills + 1):
            begun = one_writer(folder, committed, chance.uniform(0.05, 4))
            rows, wrong = look(folder, committed, begun)
            bad += len(wrong)
            say(["kill", kill, len(committed), rows, wrong[:3]])
            lines.append(f"| {kill} | {len(committed):,} | {len(begun)} | {rows:,} | {len(wrong)} |")
    page = [
        f"A writer killed at {arguments.kills} random moments (seed {arguments.seed}), each time in the index that the",
        "last one left. By `python benchmarks/index_kill.py --output benchmarks/results/index-kill.md`.", "",
        "| kill | documents committed until then | begun, not said to be committed | passages in the index | missing, "
        "doubled, half or not found |", "|--:|--:|--:|--:|--:|", *lines, "",
    ]  # fmt: skip
    if arguments.output:
        arguments.output.write_text("\n".join(page), encoding="utf-8")
    return int(bad > 0)


def one_writer(folder: Path, committed: dict[int, int], seconds: float) -> dict[int, int]:
    """Let a process write for so many seconds after its first commit began, and kill it.

    Returns:
        What it had begun to commit, document -> version; what it said to be committed is noted in `committed`.
    """
    start = max(committed, default=-1) + 1
    command = [sys.executable, __file__, "--write", str(folder), "--start", str(start)]
    begun: dict[int, int] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        end = None
        for line in process.stdout:
            end = end or time.monotonic() + seconds
            what, batch = json.loads(line)
            if what == "committed":
                committed |= dict(batch)
            begun = dict(batch) if what == "begins" else {}
            if time.monotonic() > end:
                break
        left = (end or 0) - time.monotonic()
        time.sleep(max(0, left) + random.random() * 0.05)
        process.kill()
        for line in process.stdout:  # what it had said before
            what, batch = json.loads(line)
            committed |= dict(batch) if what == "committed" else {}
            begun = dict(batch) if what == "begins" else {}
    return begun


if __name__ == "__main__":
    raise SystemExit(main())
