"""Minutes and memory of `lusifer data inspect|dedup|cluster|mine` on a file of pairs, one after the other.

    python benchmarks/data_commands.py --pairs DATA/english/pairs.jsonl.gz --against DATA/eval --output FILE

Each runs as a process of its own; memory is the most that was resident at once, as the system counts it (files that are
mapped into memory included). One thread each.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path


def run(arguments: list[str]) -> tuple[float, float]:
    """Run a command of Lusifer; minutes and GiB of its largest resident size."""
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "lusifer.cli", "data", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    if status != 0:
        raise SystemExit(f"lusifer data {' '.join(arguments)}: status {os.waitstatus_to_exitcode(status)}")
    return (time.monotonic() - started) / 60, used.ru_maxrss / 2**20


def main() -> None:
    """Run them and write a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--against", type=Path, required=True)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    model = ["--model", options.model, "--dtype", "bfloat16"]
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder)
        commands = {
            "inspect": ["inspect", str(options.pairs)],
            "dedup": [
                "dedup",
                str(options.pairs),
                "--against",
                str(options.against),
                "--output",
                str(made / "a.jsonl.gz"),
            ],
            "cluster": ["cluster", str(options.pairs), *model, "--cap", "20000", "--output", str(made / "b.jsonl.gz")],
            "mine": ["mine", str(options.pairs), *model, "--output", str(made / "c.jsonl.gz")],
        }
        rows = []
        for name, arguments in commands.items():
            minutes, memory = run(arguments)
            rows.append(f"| {name} | {minutes:.1f} | {memory:.2f} |")
            sys.stderr.write(rows[-1] + "\n")
    machine = f"{platform.system()}, {platform.machine()}"
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "sentence-transformers", "faiss-cpu"))
    head = f"`{options.pairs.name}`, model `{options.model}` in bfloat16, one thread. {packages}, {machine}."
    lines = [head, "", "| command | minutes | peak GiB |", "|---|--:|--:|", *rows]
    options.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
