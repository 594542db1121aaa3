"""Pack an extract of public mteb results into the table of the package, and compare the two score by score.

python benchmarks/public_results.py EXTRACT.csv.gz

EXTRACT has the columns model, revision, task, dataset_revision, mteb_version, split, subset, main_score (per cent),
from https://github.com/embeddings-benchmark/results. Its commit stands in `public.toml`, to be changed by hand.
"""

from __future__ import annotations

import csv
import gzip
import io
import sys
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path

from lusifer.evaluation.public.table import CELL, RUN, RUNS, SCORES, PublicRun, table
from lusifer.io.files import write_file


def main(extract: Path) -> None:
    """Write the two files, then read them as the package does; end with an error where a score is not the same."""
    with gzip.open(extract, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    folder = Path(str(resources.files("lusifer.evaluation.public")))
    models = list(dict.fromkeys(row["model"] for row in rows))
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    runs: dict[tuple[str, str], tuple[str, ...]] = {}
    for row in rows:
        cells.setdefault(tuple(row[name] for name in CELL), {})[row["model"]] = row["main_score"]
        run = tuple(plain(row[name]) for name in RUN[2:])
        if runs.setdefault((row["model"], row["task"]), run) != run:
            raise SystemExit(f"{row['model']}, {row['task']}: scored in two ways; runs.csv.gz has one a model and task")
    scores = ([*cell, *(found.get(model, "") for model in models)] for cell, found in sorted(cells.items()))
    pack(folder / SCORES, [*CELL, *models], scores)
    pack(folder / RUNS, RUN, ([*key, *run] for key, run in sorted(runs.items())))
    compare(rows)
    sizes = sum((folder / name).stat().st_size for name in (SCORES, RUNS))
    said = f"{len(rows):,} scores of {len(models)} models on {len(runs):,} tasks of a model: {sizes:,} bytes"
    sys.stdout.write(f"{said}\n")


def pack(file: Path, head: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    """Write lines as packed CSV; the bytes are the same each time."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *lines])
    with write_file(file) as temporary:
        temporary.write_bytes(gzip.compress(text.getvalue().encode("utf-8"), 9, mtime=0))


def plain(word: str) -> str:
    """A revision or version; "None" is how the source writes that it was not said."""
    return "" if word == "None" else word


def compare(rows: Sequence[dict[str, str]]) -> None:
    """Check that the package gives exactly the rows of the extract, no more and no less."""
    packed = table()
    count = sum(len(found) for found in packed.scores.values())
    if not len(rows) == count == packed.facts["rows"]:
        raise SystemExit(f"{len(rows)} rows, {count} packed, {packed.facts['rows']} in public.toml")
    for row in rows:
        score = packed.scores[row["task"], row["split"], row["subset"]][row["model"]]
        run = PublicRun(*(plain(row[name]) for name in RUN[2:]))
        if score != float(row["main_score"]) or packed.runs[row["model"], row["task"]] != run:
            raise SystemExit(f"not as in the extract: {row}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
