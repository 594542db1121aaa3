"""The tables of `rows.sh`: each row's mean over languages, and how far it is from one of them.

    python examples/bridge/table.py runs/bridge --first full

A mean is over the languages other than English (of a task in English alone: its score), its 95 % interval by bootstrap
over sentences, of the mean over the row's seeds. A difference is paired, on the seeds that both rows have. It counts as
one where its interval leaves out 0 and two seeds or more agree on the sign; each seed's own stands beside it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lusifer.errors import DataError, LusiferError
from lusifer.evaluation.scores import results
from lusifer.evaluation.scores.averages import ENGLISH
from lusifer.evaluation.scores.bootstrap import percentiles, resample, score
from lusifer.evaluation.scores.results import Results

Row = dict[str, Results]
"""Seed -> scores."""


def read(folder: Path, scores: str) -> dict[str, Row]:
    """Row -> seed -> scores, of all that are there.

    Raises:
        DataError: There are none, or one cannot be read.
    """
    rows: dict[str, Row] = {}
    for file in sorted(folder.glob(f"seed-*/*/{scores}/summary.json")):
        seed, row = file.parts[-4].removeprefix("seed-"), file.parts[-3]
        rows.setdefault(row, {})[seed] = results.read(file.parent)
    if not rows:
        raise DataError(f"{folder}: no seed-*/*/{scores}/summary.json in it: make it with rows.sh")
    return rows


def drawn(scores: Results, task: str) -> np.ndarray:
    """The mean over the languages other than English, and that of 2,000 resamples, in per cent, (2001,).

    Resamples of the same sentences are the same in every row and seed. A task in English alone has that score.

    Raises:
        DataError: A score is missing.
    """
    entries = [entry for entry in scores.scores if entry.task == task]
    for entry in entries:
        if entry.score is None or entry.key not in scores.examples:
            raise DataError(f"{scores.folder}: {task} in {entry.language}: {entry.missing or 'no examples'}")
    kept = [entry for entry in entries if entry.language != ENGLISH] or entries
    samples = resample({entry.key: scores.examples[entry.key] for entry in kept})
    whole = np.mean([score(scores.examples[entry.key]) for entry in kept])
    return np.concatenate([[whole], np.mean([samples[key] for key in sorted(samples)], axis=0)])


def cell(found: np.ndarray, sign: str = "") -> str:
    """A number with its interval."""
    low, high = percentiles(found[1:]) or (np.nan, np.nan)
    return f"{found[0]:{sign}.1f} ({low:{sign}.1f} to {high:{sign}.1f})"


def verdict(pooled: np.ndarray, each: list[float]) -> str:
    """What the difference is worth."""
    low, high = percentiles(pooled[1:]) or (np.nan, np.nan)
    if not (low > 0 or high < 0):
        return "open"
    if len(each) < 2:
        return "one seed"
    return "open" if min(each) < 0 < max(each) else "better" if low > 0 else "worse"


def table(rows: Mapping[str, Row], task: str, first: str) -> str:
    """Lay one task out as Markdown, a row a model."""
    head = f"| {task} | seeds | per cent | less {first} | by seed | |"
    lines = [head, "|---|---|--:|--:|--:|---|"]
    having = {
        name: [seed for seed, each in row.items() if any(entry.task == task for entry in each.scores)]
        for name, row in rows.items()
    }
    _same_languages(rows, task, having)
    theirs = {seed: drawn(rows[first][seed], task) for seed in having[first]}
    for name, row in rows.items():
        seeds = having[name]
        if not seeds:
            continue
        mine = {seed: drawn(row[seed], task) for seed in seeds}
        words = [name, ", ".join(seeds), cell(np.mean(list(mine.values()), axis=0))]
        apart = [mine[seed] - theirs[seed] for seed in seeds if seed in theirs and name != first]
        if apart:
            each = [float(one[0]) for one in apart]
            pooled = np.mean(apart, axis=0)
            words += [cell(pooled, "+"), ", ".join(f"{one:+.1f}" for one in each), verdict(pooled, each)]
        lines.append("| " + " | ".join([*words, *[""] * (6 - len(words))]) + " |")
    return "\n".join(lines)


def _same_languages(rows: Mapping[str, Row], task: str, having: Mapping[str, list[str]]) -> None:
    """Refuse means over other languages.

    Raises:
        DataError: Some scores of the task have other languages.
    """
    seen: dict[frozenset[str], Path | None] = {}
    for name, seeds in having.items():
        for each in (rows[name][seed] for seed in seeds):
            seen.setdefault(frozenset(entry.language for entry in each.scores if entry.task == task), each.folder)
    if len(seen) > 1:
        raise DataError(f"{task}: {' and '.join(map(str, seen.values()))} have other languages: score them alike")


def main() -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(description="The tables of rows.sh.")
    parser.add_argument("folder", type=Path, help="OUTPUT of rows.sh")
    parser.add_argument("--first", default="full", metavar="ROW", help="the row that all others are compared with")
    parser.add_argument("--scores", default="scores", metavar="NAME", help="folder of the scores in each row's")
    parser.add_argument("--tasks", help="names with commas between; all without it")
    options = parser.parse_args()
    try:
        rows = read(options.folder, options.scores)
        if options.first not in rows:
            raise DataError(f"--first {options.first}: no such row: use one of {', '.join(rows)}")
        tasks = dict.fromkeys(entry.task for row in rows.values() for each in row.values() for entry in each.scores)
        wanted = options.tasks.split(",") if options.tasks else list(tasks)
        if unknown := [task for task in wanted if task not in tasks]:
            raise DataError(f"--tasks {unknown[0]}: not scored in {options.folder}: use {', '.join(tasks)}")
        text = "\n\n".join(table(rows, task, options.first) for task in wanted)
    except LusiferError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.status
    sys.stdout.write(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
