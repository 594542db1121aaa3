"""Try to make the published averages of the LUSIFER paper out of public results, by many choices of rows and means.

python benchmarks/published_rows.py >benchmarks/results/published-rows.md

Published: table 1 of the paper (`published.toml`). Public: the scores that the package carries. docs/benchmark.md says
what follows.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from statistics import fmean

from lusifer.evaluation.public.table import table
from lusifer.evaluation.suites import benchmark
from lusifer.evaluation.tasks.rows import SuiteRow
from lusifer.io import markdown

MISTRAL, LARGE = "E5-Mistral", "Multilingual-E5-large"
NAMES = {
    MISTRAL: "intfloat/e5-mistral-7b-instruct",
    LARGE: "intfloat/multilingual-e5-large",
    "BGE-M3": "BAAI/bge-m3",
    "mGTE-base": "Alibaba-NLP/gte-multilingual-base",
    "UDEVER-Bloom-7B": "izhx/udever-bloom-7b1",
}
"""Name in the paper -> name on the hub, of the published models that have public results."""
PUBLISHED = benchmark.published("by_language")
CODES = list(PUBLISHED[MISTRAL])
ROWS, CROSS = benchmark.suite("paper"), benchmark.suite("cross-lingual")
TABLE = table()
ORIGINALS = {"HALClusteringS2S.v2", "MLSUMClusteringP2P.v2", "MLSUMClusteringS2S.v2"}

Found = dict[SuiteRow, float | None]
Mean = Callable[[Found], float]


def scores(model: str, rows: Iterable[SuiteRow]) -> Found:
    """What is public of a model, by row; None where it is missing."""
    rows = list(rows)
    entries = TABLE.results(NAMES.get(model, model), rows).scores
    return {row: entry.score for row, entry in zip(rows, entries, strict=True)}


def plain(found: Found) -> float:
    """The mean over what is there."""
    return fmean(score for score in found.values() if score is not None)


def by_type(found: Found) -> float:
    """The mean over types of the means over their tasks."""
    types: dict[str, list[float]] = {}
    for row, score in found.items():
        if score is not None:
            types.setdefault(row.type, []).append(score)
    return fmean(map(fmean, types.values()))


def weighed(weight: Callable[[SuiteRow], float]) -> Mean:
    """The mean in which a row counts by its weight."""

    def mean(found: Found) -> float:
        there = {row: score for row, score in found.items() if score is not None}
        return sum(weight(row) * score for row, score in there.items()) / sum(map(weight, there))

    return mean


def zeros(found: Found) -> float:
    """The mean in which what is missing counts as 0."""
    return fmean(score or 0.0 for score in found.values())


def subsets(row: SuiteRow, split: str | None = None) -> list[str]:
    """All public subsets of the row's task."""
    return [part for task, where, part in TABLE.scores if (task, where) == (row.task, split or row.split)]


def wider(rows: Sequence[SuiteRow], keep: Callable[[SuiteRow, str], bool]) -> list[SuiteRow]:
    """The rows over more of their tasks' subsets."""
    return [replace(row, subsets=(*row.subsets, *(s for s in subsets(row) if s not in row.subsets and keep(row, s))))
            for row in rows]  # fmt: skip


def paired(row: SuiteRow, subset: str) -> bool:
    """Whether a subset is of a pair of languages that counts for the row's language or has it on a side."""
    own = {word for part in row.subsets for word in part.replace("_", "-").split("-")} | {row.language}
    words = subset.replace("_", "-").split("-")
    return subset != "default" and len(words) > 1 and bool(own & set(words)) and len(set(words)) > 1


def other_splits() -> list[SuiteRow]:
    """The rows on another split, where the public results have one for all of their subsets."""
    found = []
    for row in ROWS:
        others = {split for task, split, _ in TABLE.scores if task == row.task and split != row.split}
        fit = [split for split in sorted(others) if set(row.subsets) <= set(subsets(row, split))]
        found.append(replace(row, split=fit[0]) if fit else row)
    return found


def tries() -> dict[str, tuple[list[SuiteRow], Mean]]:
    """Words -> rows and the mean over those of a language."""
    originals = [replace(row, task=row.figure) if row.task in ORIGINALS else row for row in ROWS]
    kinds = sorted({row.type for row in ROWS})
    return {
        "our rows, mean over tasks": (ROWS, plain),
        "the originals in place of three `.v2`": (originals, plain),
        "what is missing counts as 0": (ROWS, zeros),
        "mean over types": (ROWS, by_type),
        "tasks weigh by texts": (ROWS, weighed(lambda row: row.cost or 1)),
        "tasks weigh by the root of texts": (ROWS, weighed(lambda row: (row.cost or 1) ** 0.5)),
        "tasks weigh by subsets": (ROWS, weighed(lambda row: len(row.subsets))),
        "pairs of languages in the same task count in": (wider(ROWS, paired), plain),
        "pairs of languages as further tasks": ([*ROWS, *CROSS], plain),
        "all subsets of a task, whatever the language": (wider(ROWS, lambda row, subset: True), plain),
        "another split where there is one": (other_splits(), plain),
        **{f"without {kind}": ([row for row in ROWS if row.type != kind], plain) for kind in kinds},
    }


def line(model: str, rows: Sequence[SuiteRow], mean: Mean) -> dict[str, float]:
    """The mean of each language that has any score."""
    found = scores(model, rows)
    parts = {code: {row: score for row, score in found.items() if row.language == code} for code in CODES}
    return {code: mean(part) for code, part in parts.items() if any(score is not None for score in part.values())}


def apart(model: str, means: Mapping[str, float], without: str = "en") -> float:
    """How far the means lie from the published ones, on average, English left out."""
    return fmean(abs(means[code] - PUBLISHED[model][code]) for code in means if code != without)


def bounds(model: str) -> list[list[object]]:
    """Between which means a language lies whatever its missing rows are, 0 to 100; whether the published is there."""
    found, lines = scores(model, ROWS), []
    for code in CODES:
        part = [score for row, score in found.items() if row.language == code]
        there = [score for score in part if score is not None]
        low = sum(there) / len(part)
        high = low + 100 * (len(part) - len(there)) / len(part)
        published = PUBLISHED[model][code]
        inside = "yes" if low - 0.005 <= published <= high + 0.005 else "no"
        mean = f"{fmean(there):.2f}" if there else "missing"
        lines.append([model, code, f"{len(there)} of {len(part)}", mean, f"{low:.1f} to {high:.1f}",
                      f"{published:.2f}", inside])  # fmt: skip
    return lines


def against(other: str) -> list[list[object]]:
    """The published difference of E5-Mistral from another model beside the public ones, row by row.

    A mean of differences, however its rows are chosen and weighed, lies between the lowest and the highest of them.
    """
    mine, theirs, lines = scores(MISTRAL, ROWS), scores(other, ROWS), []
    for code in CODES:
        pairs = [(mine[row], theirs[row]) for row in ROWS if row.language == code]
        found = [one - two for one, two in pairs if one is not None and two is not None]
        published = PUBLISHED[MISTRAL][code] - PUBLISHED[other][code]
        cells = [f"{value:+.1f}" for value in (published, fmean(found), min(found), max(found))]
        lines.append([other, code, f"{len(found)} of {len(pairs)}", *cells,
                      "yes" if min(found) <= published <= max(found) else "no"])  # fmt: skip
    return lines


def type_sets(model: str) -> tuple[float, tuple[str, ...], str]:
    """The nearest of all sets of types, by mean over tasks and over types."""
    kinds, best = sorted({row.type for row in ROWS}), (float("inf"), (), "")
    for size in range(1, len(kinds) + 1):
        for chosen in combinations(kinds, size):
            rows = [row for row in ROWS if row.type in chosen]
            for words, mean in (("tasks", plain), ("types", by_type)):
                means = line(model, rows, mean)
                if len(means) == len(CODES):
                    best = min(best, (apart(model, means), chosen, words))
    return best


def dropped(model: str) -> list[tuple[str, float]]:
    """Drop the task that brings the means nearest, then the next, up to eight; no language may lose its last."""
    rows, found = list(ROWS), []
    for _ in range(8):
        options = []
        for task in dict.fromkeys(row.task for row in rows):
            left = [row for row in rows if row.task != task]
            means = line(model, left, plain)
            if len(means) == len(CODES):
                options.append((apart(model, means), task))
        distance, task = min(options)
        rows = [row for row in rows if row.task != task]
        found.append((task, distance))
    return found


def neighbours() -> list[list[str]]:
    """Public models by how near their means are to the published row of E5-Mistral."""
    lines = []
    for name in TABLE.models:
        means = line(name, ROWS, plain)
        there = sum(score is not None for score in scores(name, ROWS).values())
        if len(means) == len(CODES):
            lines.append((apart(MISTRAL, means), name, f"{means['en']:.1f}", there))
    return [[name, str(there), english, f"{distance:.1f}"] for distance, name, english, there in sorted(lines)[:6]]


def across() -> list[list[str]]:
    """Table 2 of the paper beside the public results: a task is the mean over its pairs of languages."""
    published, found = benchmark.published("cross_lingual")[MISTRAL], scores(MISTRAL, CROSS)
    tasks: dict[str, list[float]] = {}
    for row, score in found.items():
        tasks.setdefault(row.task, []).extend([] if score is None else [score] * len(row.subsets))
    public = {task: fmean(each) for task, each in tasks.items()}
    lines = [[task, f"{published[task]:.2f}", f"{public[task]:.2f}", str(len(tasks[task]))] for task in published]
    whole = [f"{fmean(each[task] for task in published):.2f}" for each in (published, public)]
    return [*lines, ["mean", *whole, str(sum(map(len, tasks.values())))]]


def main() -> None:
    """Print the page."""
    out = ["# Published averages and public results", "", f"Public: {TABLE.source}."]
    head = ["", *CODES, "mean", "apart"]
    for model in (MISTRAL, LARGE):
        lines = [["published", *(f"{PUBLISHED[model][code]:.1f}" for code in CODES),
                  f"{fmean(PUBLISHED[model].values()):.2f}", ""]]  # fmt: skip
        for words, (rows, mean) in tries().items():
            means = line(model, rows, mean)
            cells = [f"{means[code]:.1f}" if code in means else "missing" for code in CODES]
            lines.append([words, *cells, f"{fmean(means.values()):.2f}", f"{apart(model, means):.1f}"])
        distance, chosen, how = type_sets(model)
        nearest = f"Nearest of all sets of types: {', '.join(chosen)}, mean over {how}: {distance:.1f} apart."
        out += ["", f"## {model}", "", markdown.table(head, lines), "", nearest]  # fmt: skip
    steps = "; ".join(f"{task} {distance:.1f}" for task, distance in dropped(MISTRAL))
    out += ["", f"{MISTRAL}, tasks dropped one after the other, each the one that brings it nearest: {steps}."]
    out += ["", "Nearest public means to the published row of E5-Mistral, English left out:", "",
            markdown.table(["model", "rows", "English", "apart"], neighbours())]  # fmt: skip
    head = ["against", "language", "rows both have", "published", "public, mean", "lowest row", "highest row", "within"]
    lines = [cells for other in (LARGE, "BGE-M3") for cells in against(other)]
    out += ["", "## The difference of E5-Mistral from models whose rows agree", "", markdown.table(head, lines, 2)]
    out += ["", "## Table 2, pairs of languages", "",
            markdown.table(["E5-Mistral", "published", "public", "pairs"], across())]  # fmt: skip
    lines = [cells for model in NAMES for cells in bounds(model)]
    head = ["model", "language", "public rows", "their mean", "whatever the missing are", "published", "possible"]
    out += ["", "## Can the published average be over our rows with these scores?", "", markdown.table(head, lines, 2)]
    sys.stdout.write("\n".join(out) + "\n")


if __name__ == "__main__":
    main()
