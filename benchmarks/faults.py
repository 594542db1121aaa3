"""Break training runs at random and resume them: does each end with the weights of a run that was never broken?

    python benchmarks/faults.py --work faults [--faults 1000] [--seed 0] [--only kill,nan] [--output FILE.md]

A run of two short stages on tiny bases is killed, stopped, robbed of its disk, given NaNs, other data or another
recipe, or finds its files damaged. Then it is resumed. What must come out: the same weights to the bit, or one line
that says what is wrong and what to do, after which it does. A traceback, a hang, other weights or a checkpoint that is
half are faults of ours. Each attempt is a fork of one process that has imported the libraries. The same call goes on
where one was stopped: what has been tried stands in WORK/faults.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import time
from collections import Counter
from pathlib import Path

import torch
from breaking.bench import Bench, WrongError, may_mount
from breaking.faults import FAULTS


def inject(bench: Bench, name: str, seed: str) -> dict[str, str | float]:
    """One fault: what was done, and what came of it; `wrong` is empty where all is as it must be."""
    shutil.rmtree(bench.run, ignore_errors=True)
    started = time.monotonic()
    result, wrong = "", ""
    try:
        result = FAULTS[name][1](bench, random.Random(seed))
    except WrongError as error:
        wrong = str(error)
        shutil.rmtree(bench.work / f"wrong-{seed}", ignore_errors=True)
        if bench.run.is_dir():
            shutil.copytree(bench.run, bench.work / f"wrong-{seed}")
    return {"fault": name, "result": result, "wrong": wrong, "seconds": round(time.monotonic() - started, 2)}


def table(rows: list[dict]) -> str:
    """Count by fault, as Markdown."""
    lines = ["| fault | tried | same weights | wrong or lost |", "|---|--:|--:|--:|"]
    for name, (_, function) in FAULTS.items():
        mine = [row for row in rows if row["fault"] == name]
        if mine:
            wrong = sum(bool(row["wrong"]) for row in mine)
            what = function.__doc__.strip().splitlines()[0]
            lines.append(f"| {name}: {what} | {len(mine):,} | {len(mine) - wrong:,} | {wrong:,} |")
    wrong = sum(bool(row["wrong"]) for row in rows)
    lines.append(f"| all | {len(rows):,} | {len(rows) - wrong:,} | {wrong:,} |")
    stops = Counter(row["result"].partition(", ")[2] for row in rows if row["fault"] == "term" and not row["wrong"])
    return "\n".join(lines) + "\n\nSIGTERM: " + ", ".join(f"{count:,} {name}" for name, count in stops.items()) + ".\n"


def main() -> int:
    """Run the command; returns its exit status: 1 where a run did what it must not."""
    parser = argparse.ArgumentParser(description="Break training runs and resume them.")
    parser.add_argument("--work", type=Path, required=True, help="a folder for what is tried")
    parser.add_argument("--faults", type=int, default=1000, help="how many in all (1000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="some faults, as in kill,nan")
    parser.add_argument("--one-of-each", action="store_true", help="begin with each fault once")
    parser.add_argument("--output", type=Path, help="a file for the table")
    options = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1"}
    torch.set_num_threads(1)
    log = options.work.resolve() / "faults.jsonl"
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.is_file() else []
    names = options.only.split(",") if options.only else list(FAULTS)
    if not may_mount(options.work.resolve() / "disk") and "full-disk" in names:
        sys.stderr.write("full-disk is left out: it needs root\n")
        names.remove("full-disk")
    bench = Bench(options.work.resolve())
    weights = [FAULTS[name][0] for name in names]
    for number in range(len(rows), options.faults):
        seed = f"{options.seed}-{number}"
        (name,) = random.Random(seed).choices(names, weights)
        if options.one_of_each and number < len(names):
            name = names[number]
        rows.append({"number": number, **inject(bench, name, seed)})
        with log.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(rows[-1]) + "\n")
        sys.stderr.write(f"{number + 1} of {options.faults}: {name}: {rows[-1]['wrong'] or rows[-1]['result']}\n")
    text = table(rows)
    sys.stdout.write(text)
    if options.output:
        options.output.write_text(
            f"# Faults in training\n\n`{' '.join(['python', *sys.argv])}`\n\n{text}", encoding="utf-8"
        )
    return int(any(row["wrong"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
