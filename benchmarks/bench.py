"""Speed and memory of Lusifer beside what a user would run otherwise, in one table.

    python benchmarks/bench.py [--cases embedding alignment] [--rounds 3] [--output benchmarks/results/bench-avx2]

Each way runs in a process of its own, one way after the other, `--rounds` times round (A B C A B C); the table has
medians. Time is processor time of one thread, since other work on a machine changes it less than time on a clock. What
cannot be kept away is memory traffic of others: the rate of a matrix product, measured in the same process before and
after, is in the table, and shares are of that rate. Operations are counted on real tokens only. Processors differ in
what they are good at, so each kind has its table, named by its widest instructions.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from lusifer.io.files import write_file

ROOM = Path(__file__).parent / "speed"
sys.path.insert(0, str(ROOM))
CASES = (
    "embedding", "embedding_bf16", "embedding_int8", "mini", "alternatives", "alignment", "alignment_lengths",
    "distill_lengths",
    "contrastive", "tokenizing", "loading",
)  # fmt: skip
PACKAGES = ("torch", "transformers", "sentence-transformers", "peft", "openvino", "nncf")


def run(folder: Path, case: str, way: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one way once."""
    command = [sys.executable, str(ROOM / "worker.py"), str(folder), case, way, "--times", str(options.times)]
    found = subprocess.run(
        command + ["--cold"] * options.cold, stdout=subprocess.PIPE, check=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
    ).stdout  # fmt: skip
    return json.loads(found.splitlines()[-1])


def row(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of what rounds gave."""
    seconds = median(second for one in runs for second in one["seconds"])
    every = [second for one in runs for second in one["seconds"]]
    made = {"seconds": seconds, "runs": len(every), "every": every, "cold": runs[0].get("cold", False)}
    made["peak_mb"] = median(one["peak_mb"] for one in runs)
    if "texts" in runs[0]:
        made["texts_per_second"] = runs[0]["texts"] / seconds
    if "tokens" in runs[0]:
        made["tokens_per_second"] = runs[0]["tokens"] / seconds
    if "flops" in runs[0]:
        made["of_gemm"] = median(one["flops"] / second / one["gemm"] for one in runs for second in one["seconds"])
        made["gemm_gflops"] = median(one["gemm"] for one in runs) / 1e9
    return made


def table(found: dict[str, dict[str, dict[str, Any]]]) -> list[str]:
    """Lines of Markdown."""
    lines = [
        "| case | way | s | least to most | texts/s | tokens/s | of GEMM | GFLOP/s | peak MB | to the first | runs |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for case, ways in found.items():
        ours = next(iter(ways.values()))
        for way, made in ways.items():
            share = f"{100 * made['of_gemm']:.0f} %" if "of_gemm" in made else ""
            cells = [case, way, f"{made['seconds']:.2f}", f"{min(made['every']):.2f} to {max(made['every']):.2f}"]
            for key in ("texts_per_second", "tokens_per_second"):
                cells.append(f"{made[key]:,.1f}" if key in made else "")
            cells += [share, f"{made['gemm_gflops']:.0f}" if share else ""]
            cells.append(f"{made['peak_mb']:,.0f}" if "peak_mb" in made else "")
            cells += [
                "" if made is ours else f"{made['seconds'] / ours['seconds']:.2f}",
                f"{made['runs']}{', first calls' * made['cold']}",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--ways", nargs="+", help="only these ways; the rows of others stay, not in turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--times", type=int, default=1, help="runs of a process")
    parser.add_argument(
        "--cold", action="store_true", help="no run before the measured ones: half the time, less exact"
    )
    parser.add_argument("--output", type=Path, help="without suffix; by default results/bench-INSTRUCTIONS")
    options = parser.parse_args()
    options.output = options.output or Path(__file__).parent / "results" / f"bench-{instructions()}"
    import medium

    known = {way for case in options.cases for way in importlib.import_module(case).ways()}
    if unknown := set(options.ways or ()) - known:
        parser.error(f"--ways {', '.join(sorted(unknown))}: these cases have {', '.join(sorted(known))}")
    packages = {name: version(name) for name in PACKAGES}
    found = kept(options.output, packages)
    with tempfile.TemporaryDirectory() as made:
        medium.save(Path(made))
        for case in options.cases:
            found[case] = in_order(case, found.get(case, {}) | measure(Path(made), case, options))
            write(options.output, packages, found)
    sys.stdout.write("\n".join(table(found)) + "\n")


def in_order(case: str, ways: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Ours first, as the case names them."""
    return {way: ways[way] for way in importlib.import_module(case).ways() if way in ways}


def processor() -> str:
    """System and processor: rows of two machines do not belong into one table."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith(("model name", "model\t", "stepping"))]
    return f"{platform.system()} {platform.machine()} {' / '.join(dict.fromkeys(names))}".strip()


def instructions() -> str:
    """The widest instructions of the processor."""
    import torch

    has = torch.cpu.get_capabilities()
    kinds = {"amx_tile": "amx", "avx512_f": "avx512", "avx2": "avx2"}
    return next((name for flag, name in kinds.items() if has.get(flag)), platform.machine())


def definition(case: str) -> str:
    """A hash of what a case is: its own file, the one that runs it, and those beside them that they import."""
    files, left = {}, [case, "worker"]
    while left:
        name = left.pop()
        files[name] = (ROOM / f"{name}.py").read_text(encoding="utf-8")
        imported = re.findall(r"^(?:from|import) (\w+)", files[name], re.MULTILINE)
        left += [each for each in imported if each not in files and (ROOM / f"{each}.py").exists()]
    return hashlib.sha256("".join(files[name] for name in sorted(files)).encode()).hexdigest()[:16]


def kept(output: Path, packages: dict[str, str]) -> dict[str, dict[str, dict[str, Any]]]:
    """Cases of an earlier run, as they are defined now, with the same packages on the same processor.

    What is not run now stays. A file of another processor or other packages is not written over: it is refused.
    """
    file = output.with_suffix(".json")
    if not file.exists():
        return {}
    before = json.loads(file.read_text(encoding="utf-8"))
    if before["versions"] != packages or before["machine"] != processor():
        raise SystemExit(
            f"{file} is of {before['machine']}, {before['versions']}: choose another --output, or remove it"
        )
    defined = before.get("definitions", {})
    return {case: ways for case, ways in before["cases"].items() if defined.get(case) == definition(case)}


def measure(folder: Path, case: str, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Every way of a case, in turn, `rounds` times: way -> its row."""
    ways = [w for w in importlib.import_module(case).ways() if not options.ways or w in options.ways]
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    for _ in range(options.rounds):
        for way in ways:
            runs[way].append(run(folder, case, way, options))
            sys.stderr.write(f"{case}, {way}: {runs[way][-1]}\n")
    return {way: row(of_way) for way, of_way in runs.items()}


def write(output: Path, packages: dict[str, str], found: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Write the table (.md) and what stands behind it (.json)."""
    machine = processor()
    named = ", ".join(f"{name} {number}" for name, number in packages.items())
    lines = [f"One thread, processor time, medians. {named}, {machine}.", "", *table(found)]
    defined = {case: definition(case) for case in found}
    made = {"versions": packages, "machine": machine, "definitions": defined, "cases": found}
    for suffix, text in ((".md", "\n".join(lines)), (".json", json.dumps(made, indent=1))):
        with write_file(output.with_suffix(suffix)) as file:
            file.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
