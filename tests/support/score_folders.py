"""Evaluation folders and results for tests, made from plain numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lusifer.evaluation.scores.bootstrap import Examples, score
from lusifer.evaluation.scores.results import Entry, Model, Results


def right(*values: float, start: int = 0, texts: str | None = None) -> Examples:
    """Examples of a mean; their ids count up from `start`."""
    return Examples("mean", tuple(f"{start + i:03}" for i in range(len(values))), values, texts=texts)


def entry(language: str, task: str = "Topics", value: float | None = 50.0, **more: Any) -> Entry:
    plain = dict(title=task, type="Classification", metric="accuracy", split="dev", subsets=(language,))
    plain |= dict(cross_lingual=False, missing=None if value is not None else "no such file")
    return Entry(language=language, task=task, score=value, **(plain | more))


def results(name: str, examples: Mapping[tuple[str, str], Examples], *others: Entry, **more: Any) -> Results:
    """One model: entries with the scores of the examples, and others without examples."""
    entries = tuple(entry(*key, score(rows), **more) for key, rows in examples.items())
    return Results("offline", Model(name, f"hash of {name}"), (*entries, *others), examples=dict(examples))


def write(folder: Path, found: Results) -> Path:
    """The folder that `lusifer evaluate` would write."""
    summary = {
        "format": 2, "suite": found.suite, "model": vars(found.model), "settings": {"seed": 0},
        "versions": {"lusifer": "1"}, "command": "lusifer evaluate mini", "data": {"a.jsonl": "0f"}, "seconds": 1.5,
        "scores": [vars(one) for one in found.scores],
    }  # fmt: skip
    (folder / "examples").mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    for task in {task for _, task in found.examples}:
        rows = {code: _row(rows) for (code, name), rows in found.examples.items() if name == task}
        (folder / "examples" / f"{task}.json").write_text(json.dumps(rows), encoding="utf-8")
    return folder


def _row(rows: Examples) -> dict[str, Any]:
    gold = {} if rows.gold is None else {"gold": rows.gold.tolist()}
    texts = {} if rows.texts is None else {"texts": rows.texts}
    return {"kind": rows.kind, "ids": rows.ids, "values": rows.values.tolist(), **gold, **texts}
