"""One way of one case in a process of its own: seconds, GEMM rate and peak memory as one line of JSON.

Time is the processor time of the process with one thread: other work on the machine then changes it little.
"""

from __future__ import annotations

import argparse
import importlib
import json
import resource
import sys
import time
from pathlib import Path
from statistics import median

import torch


def gemm(size: int = 2048, times: int = 7) -> float:
    """Operations a second of a float32 matrix product: the median of some, as the work beside it has no best second."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    seconds = []
    for _ in range(times + 1):
        start = time.process_time()
        a @ b
        seconds.append(time.process_time() - start)
    return 2 * size**3 / median(seconds[1:])


def peak_mb() -> float:
    """Most memory that this process held.

    Linux hands `ru_maxrss` on from the process that started this one, so a small way would have the starter's peak.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("case")
    parser.add_argument("way")
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--cold", action="store_true", help="no run before the measured ones")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    started = time.process_time()
    case = importlib.import_module(options.case)
    work, facts = case.prepare(options.folder, options.way)
    loading = time.process_time() - started
    compiled = options.way.endswith("compiled")  # at the first run, for the sizes of its batches
    cold = options.cold and not compiled
    if not cold:
        getattr(case, "warm_up", lambda whole: whole())(work)
        if compiled:
            work()
    rates, seconds = [gemm()], []
    for _ in range(options.times):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
        rates.append(gemm())
    found = facts | {
        "cold": cold,
        "seconds": seconds,
        "gemm": sum(rates) / len(rates),
        "peak_mb": peak_mb(),
        "loading": loading,
    }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
