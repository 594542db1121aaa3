"""The gap between languages along a run: every checkpoint looks at the parallel sentences that come with the package.

    python examples/mini/curve.py RUN --output curve.png

RUN is a folder of `lusifer train mini`, which keeps all its checkpoints.

Writes the picture and, beside it, the numbers as JSON. The sentences are no benchmark: training may be stopped by them.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from statistics import mean

import numpy as np
from matplotlib.figure import Figure

import lusifer
from lusifer.errors import LusiferError, UsageError
from lusifer.evaluation.report import look as compare
from lusifer.io import parallel_text
from lusifer.io.files import write_file

LINES = {
    "translation found, %": "#0072b2",
    "topic found, %": "#009e73",
    "similarity of a translation": "#d55e00",
    "similarity of another English sentence": "#cc79a7",
}


def checkpoints(run: Path) -> list[tuple[str, int, Path]]:
    """Stage, step and folder of each checkpoint, in the order of training.

    Raises:
        UsageError: there is none.
    """
    found = []
    for folder in run.glob("checkpoints/*/checkpoint-*"):
        stage, step = re.fullmatch(r"\d+-(.*)", folder.parent.name), folder.name.removeprefix("checkpoint-")
        if stage and step.isdigit():
            found.append((folder.parent.name, int(step), folder))
    if not found:
        raise UsageError(f"{run}: no checkpoints there; name the folder of a run that kept some")
    return sorted(found)


def look(folder: Path, texts: parallel_text.Parallel) -> dict[str, float]:
    """The gap of one checkpoint, means over languages without English."""
    model = lusifer.load(folder, device="cpu", dtype="float32")

    def embed(rows: object) -> np.ndarray:
        return model.encode(list(rows), normalize_embeddings=True, show_progress_bar=False)

    seen = compare.look(embed, texts)
    english = seen.vectors[parallel_text.ENGLISH]
    similar = [vectors @ english.T for code, vectors in seen.vectors.items() if code != parallel_text.ENGLISH]
    size = len(english)
    own = mean(float(np.trace(table)) / size for table in similar)
    other = mean(float(table.sum() - np.trace(table)) / (size * size - size) for table in similar)
    return dict(zip(LINES, (mean(seen.found.values()), mean(seen.topic.values()), own, other), strict=True))


def draw(rows: list[dict], picture: Path) -> None:
    """Two panels: accuracies and similarities, over the steps of all stages."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    axes = figure.subplots(1, 2)
    at = range(len(rows))
    for name, colour in LINES.items():
        axis = axes[0 if name.endswith("%") else 1]
        axis.plot(at, [row[name] for row in rows], color=colour, linewidth=2, marker="o", markersize=4, label=name)
    for axis in axes:
        names = [f"{row['stage'].split('-', 1)[1]} {row['step']}" for row in rows]
        axis.set_xticks(list(at), names, rotation=60, ha="right")
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=8)
    with write_file(picture) as temporary:
        figure.savefig(temporary, dpi=150)


def main() -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(description="The gap between languages along a run.")
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("--output", type=Path, default=Path("curve.png"), help="picture to write (default curve.png)")
    options = parser.parse_args()
    texts = parallel_text.sample()
    try:
        rows = [
            {"stage": stage, "step": step} | look(folder, texts) for stage, step, folder in checkpoints(options.run)
        ]
    except LusiferError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.status
    draw(rows, options.output)
    with write_file(options.output.with_suffix(".json")) as file:
        file.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(f"{options.output} and {options.output.with_suffix('.json')}: {len(rows)} checkpoints\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
