"""`lusifer embed` of 200,000 texts: memory that does not grow, and the same bytes after kill -9 at any moment.

    lusifer train tiny --output runs/tiny
    python benchmarks/bulk.py runs/tiny/model --output benchmarks/results/bulk.md

Each call runs in a process of its own. The peak of its memory is what the system counted for it (`wait4`).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench import processor

from lusifer.io.markdown import table

WORDS = (
    "river water stone bread ferry вода камень пароход 水 面包 नदी पानी maji mto نهر ماء Straße Fähre naïve 🙂".split()
)
KILLS = 5


def write_texts(file: Path, count: int) -> None:
    """Rows with an id and 3 to 12 words, the same on each call."""
    chance = random.Random(0)
    with file.open("w", encoding="utf-8") as out:
        for number in range(count):
            text = " ".join(chance.choices(WORDS, k=chance.randint(3, 12)))
            out.write(json.dumps({"id": number, "text": text}, ensure_ascii=False) + "\n")


def start(model: Path, rows: Path, output: Path, *more: str) -> subprocess.Popen[bytes]:
    """Begin to embed a file."""
    words = [sys.executable, "-m", "lusifer.cli", "embed", str(model), "--input", str(rows), "--output", str(output)]
    return subprocess.Popen([*words, *more], stderr=subprocess.PIPE)


def wait(process: subprocess.Popen[bytes]) -> int:
    """Wait for a call that must do its work: its peak of memory, in MiB."""
    said = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(said)
    return usage.ru_maxrss // 1024


def digest(place: Path) -> str:
    """Of every byte of a file or a folder, and of the names in it."""
    if place.is_file():
        return hashlib.sha256(place.read_bytes()).hexdigest()
    files = {file.name: digest(file) for file in sorted(place.iterdir())}
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()


def rows_done(place: Path) -> int:
    """Rows of the shards that are in the log."""
    log = place / "_shards.jsonl"
    lines = log.read_bytes().splitlines(keepends=True) if log.is_file() else []
    return sum(json.loads(line)["rows"] for line in lines if line.endswith(b"\n"))


def killed(model: Path, rows: Path, whole: Path, count: int, after: float) -> list[Any]:
    """Kill a call some seconds after it has kept a number of rows, go on, and compare: a row of the table."""
    target = whole.with_name("again-" + whole.name)
    process = start(model, rows, target)
    place = target if whole.is_dir() else target.with_name(target.name + ".unfinished")
    while process.poll() is None and rows_done(place) < count:
        time.sleep(0.05)
    time.sleep(after)
    alive = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = rows_done(place)
    wait(start(model, rows, target))
    same = digest(target) == digest(whole)
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    return [whole.name, f"{after:.2f}", "yes" if alive else "no", f"{done:,}", "yes" if same else "NO"]


def main() -> None:
    """Measure and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--count", type=int, default=200_000)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0, help="Of the moments.")
    options = parser.parse_args()
    chance, sizes = random.Random(options.seed), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = folder / "rows.jsonl"
        for count, target in (
            (options.count // 10, folder / "small.npy"),
            (options.count, folder / "vectors.npy"),
            (options.count, folder / "shards"),
        ):
            write_texts(rows, count)
            began = time.monotonic()
            peak = wait(start(options.model, rows, target))
            sizes.append([f"{count:,}", target.name, f"{time.monotonic() - began:.0f}", f"{peak:,}"])
        moments = [(int(options.count * chance.uniform(0, 0.9)), chance.uniform(0, 5)) for _ in range(KILLS)]
        names = ["vectors.npy", "shards"] * KILLS
        kills = [killed(options.model, rows, folder / name, *moment) for name, moment in zip(names, moments)]
    about = ", ".join(f"{each} {version(each)}" for each in ("torch", "transformers"))
    words = [
        f"One thread, {processor()}, {about}; beside other work.",
        "Made by `python benchmarks/bulk.py MODEL --output FILE`",
        "with the model of `lusifer train tiny` and texts of 3 to 12 words;",
        f"moments drawn with seed {options.seed}.\n",
        table(["texts", "output", "seconds", "peak of memory, MiB"], sizes),
        "\nKilled by `kill -9` and called again:\n",
        table(["output", "seconds after a shard", "was running", "rows kept", "same bytes as without a kill"], kills),
    ]
    options.output.write_text("\n".join(words).rstrip() + "\n", encoding="utf-8")
    if any(row[-1] != "yes" for row in kills):
        raise SystemExit("a call that was killed ended with other bytes")


if __name__ == "__main__":
    main()
