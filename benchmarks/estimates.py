"""What `lusifer check` says of some recipes, beside what their training takes.

    python benchmarks/estimates.py [--recipes full distill] [--output benchmarks/results/estimates]

Rows of recipes that are not run again stay in the table; each is of one machine.

Memory: `check`'s total for this machine, and what the process held while the steps of `lusifer train` ran, beyond what
it held before the model was built and what reading the rows added (`speed/stage_clock.py`). On a CPU it is measured
twice: with glibc made to give every freed array back (MALLOC_MMAP_THRESHOLD_=65536), which is what the estimate is of,
and as it is by default, where freed arrays stay in its heap. Time: seconds a step in 2 steps, and the mean
of 4 steps of another process, both in processor time of one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "speed"))
import estimate_recipes

GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "131072"}
PREDICT, WHOLE, ONE = 2, 4, 1
PACKAGES = ("torch", "transformers", "sentence-transformers", "peft")


def one(recipe: str, steps: int) -> dict[str, Any]:
    """Measure the stage of a recipe in this process, and ask for the estimate."""
    import torch
    from stage_clock import measure

    from lusifer.training.estimate.cost import estimate
    from lusifer.training.recipe.load import load_recipe

    torch.set_num_threads(1)
    loaded = load_recipe(recipe)
    measured = measure(loaded, steps)[0]
    stage = estimate(loaded)[0]
    return {"estimate": stage.here.total, "measured": measured.memory, "processor": measured.processor}


def child(recipe: Path, steps: int, **environment: str) -> dict[str, Any]:
    """The same in a process of its own."""
    found = subprocess.run(
        [sys.executable, __file__, "--one", str(recipe), str(steps)], stdout=subprocess.PIPE, check=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **environment},
    ).stdout  # fmt: skip
    return json.loads(found.splitlines()[-1])


def row(recipe: Path) -> dict[str, float]:
    """One line of the table; bytes and seconds."""
    exact, short, long = child(recipe, ONE, **GIVE_BACK), child(recipe, PREDICT), child(recipe, WHOLE)
    return {
        "estimate": exact["estimate"],
        "memory": exact["measured"],
        "memory_default": long["measured"],
        "step_predicted": sum(short["processor"]) / PREDICT,
        "step": sum(long["processor"]) / WHOLE,
    }


def table(found: dict[str, dict[str, float]]) -> list[str]:
    """Lines of Markdown."""
    lines = [
        "| recipe | memory, estimate, MiB | measured, MiB | estimate is off by | measured, default allocator, MiB | "
        "s a step, 2 steps | s a step, 4 others | they differ by |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, made in found.items():
        mib = {key: made[key] / 2**20 for key in ("estimate", "memory", "memory_default")}
        lines.append(
            f"| {name} | {mib['estimate']:,.0f} | {mib['memory']:,.0f} | "
            f"{made['estimate'] / made['memory'] - 1:+.1%} | {mib['memory_default']:,.0f} | "
            f"{made['step_predicted']:.2f} | {made['step']:.2f} | "
            f"{made['step_predicted'] / made['step'] - 1:+.1%} |"
        )
    return lines


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = estimate_recipes.NAMES
    parser.add_argument("--recipes", nargs="+", choices=names, default=list(names))
    parser.add_argument("--one", nargs=2, metavar=("RECIPE", "STEPS"), help="measure in this process and print JSON")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "estimates")
    options = parser.parse_args()
    if options.one:
        sys.stdout.write(json.dumps(one(options.one[0], int(options.one[1]))) + "\n")
        return
    file = options.output.with_suffix(".json")
    found: dict[str, dict[str, float]] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    with tempfile.TemporaryDirectory() as made:
        estimate_recipes.write(Path(made))
        for name in options.recipes:
            found[name] = row(Path(made) / f"{name}.yaml")
            packages = ", ".join(f"{each} {version(each)}" for each in PACKAGES)
            head = f"`python benchmarks/estimates.py`. One thread, CPU, {packages}, {platform.machine()}."
            found = {each: found[each] for each in names if each in found}
            lines = [head, "", *table(found)]
            options.output.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")
            options.output.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
