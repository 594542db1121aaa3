"""Evaluation folders as `lusifer evaluate` writes them, with made-up numbers: 14 languages, three types, gaps."""

import json
from pathlib import Path

import numpy as np

from lusifer import languages
from lusifer.evaluation.scores import bootstrap
from lusifer.evaluation.scores.bootstrap import Examples

TASKS = {  # name: title, type, metric, split, examples, cross-lingual, kind
    "Topics": ("topics, learned in the language", "Classification", "accuracy", "dev", 99, False, "mean"),
    "Clusters": ("topics, found by k-means", "Clustering", "v_measure", "all", 10, False, "draws"),
    "Similar": ("similar sentences", "STS", "cosine_spearman", "all", 60, False, "spearman"),
    "ToEnglish": ("the English translation among 99", "BitextMining", "accuracy", "dev", 99, True, "mean"),
}
CODES = [language.code for language in languages.paper()]


def write(
    folder: Path,
    name: str = "mini",
    skill: float = 0.7,
    *,
    codes: list[str] = CODES,
    tasks: list[str] | None = None,
    missing: dict[tuple[str, str], str] | None = None,
    seen: int | None = 1,
    **changes: object,
) -> Path:
    """Write one folder.

    Args:
        folder: Where.
        name: Of the model.
        skill: About the part that is right in English; every further language has a little less.
        codes: Languages.
        tasks: Names out of `TASKS`.
        missing: (language, task) -> why there is no score.
        seen: English texts of "Similar" that training has seen (of all others none); None: nobody knows.
        changes: Keys of the summary to put in the place of the usual ones.
    """
    generator = np.random.default_rng(7)  # the same texts are easy for every model, but not quite
    own = np.random.default_rng(len(name))
    scores, examples = [], {task: {} for task in tasks or TASKS}
    for task in examples:
        for place, code in enumerate(codes):
            hard = generator.random(TASKS[task][4])
            if TASKS[task][5] and code == "en":
                continue
            entry = _entry(task, code)
            reason = (missing or {}).get((code, task))
            if reason is None:
                rows = _examples(TASKS[task][6], hard, skill - 0.025 * place, own)
                ends = bootstrap.interval(rows) or (None, None)
                met = 0 if (task, code) != ("Similar", "en") else seen
                entry |= {"score": round(bootstrap.score(rows), 4), "low": ends[0], "high": ends[1], "n": len(hard)}
                entry |= {"seconds": 1.5, "seen": None if seen is None else {"seen": met, "of": len(hard)}}
                gold = {} if rows.gold is None else {"gold": rows.gold.tolist()}
                examples[task][code] = {"kind": rows.kind, "ids": list(rows.ids), "values": rows.values.tolist()} | gold
            scores.append(entry | {"missing": reason})
    _save(folder, _about(folder, name, codes) | {"scores": scores} | changes, examples)
    return folder


def _entry(task: str, code: str) -> dict[str, object]:
    """An entry without a score."""
    title, kind_of_task, metric, split, _, cross, _ = TASKS[task]
    return {
        "language": code, "task": task, "title": title, "type": kind_of_task, "metric": metric, "split": split,
        "subsets": [f"{code}-en" if cross else code], "cross_lingual": cross,
        "prompt": {"query": "Identify the topic:\n", "document": None}, "score": None, "low": None, "high": None,
        "n": None, "seconds": None, "seen": None,
    }  # fmt: skip


def _about(folder: Path, name: str, codes: list[str]) -> dict[str, object]:
    """The summary but for its scores."""
    return {
        "format": 2,
        "suite": "offline",
        "model": {"name": name, "identity": f"{len(name):064x}", "dimension": 384, "max_tokens": 512},
        "settings": {"seed": 0, "classifier": {"kind": "logistic regression", "C": 1.0}},
        "versions": {"lusifer": "0.1.0", "mteb": "2.26.24"},
        "command": f"lusifer evaluate {name} --suite offline --data data --output {folder.name}",
        "data": {f"sib200-{code}-dev.jsonl.gz": f"{place:064x}" for place, code in enumerate(codes)},
        "seconds": 61.4,
    }


def _save(folder: Path, summary: dict[str, object], examples: dict[str, dict]) -> None:
    (folder / "examples").mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    for task, rows in examples.items():
        (folder / "examples" / f"{task}.json").write_text(json.dumps(rows), encoding="utf-8")


def two(parent: Path, **changes: object) -> tuple[Path, Path]:
    """A better and a weaker model; both lack something."""
    gone = {("te", "Similar"): "no sts-te.jsonl: no such file", ("sw", "Similar"): "no sts-sw.jsonl: no such file"}
    weaker = gone | {("ko", "ToEnglish"): "the model gave vectors that are not finite"}
    one = write(parent / "mini", "mini", 0.85, missing=gone, **changes)
    return one, write(parent / "minilm", "MiniLM", 0.77, missing=weaker, **changes)


def _examples(kind: str, hard: np.ndarray, skill: float, own: np.random.Generator) -> Examples:
    ids, noise = tuple(map(str, range(len(hard)))), own.random(len(hard))
    if kind == "spearman":
        return Examples(kind, ids, skill * hard + (1 - skill) * noise, np.round(5 * hard, 1))
    if kind == "draws":
        return Examples(kind, ids, np.clip(skill - 0.3 + 0.05 * noise, 0, 1))
    return Examples(kind, ids, ((hard + noise) / 2 < skill).astype(float))
