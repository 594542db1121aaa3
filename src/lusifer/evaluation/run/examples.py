"""What a score is made of, example by example, from the predictions that mteb leaves.

Intervals and paired tests need it. Where a metric is no mean over examples and no rank correlation (average precision,
F1), there is nothing to give.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lusifer.evaluation.suites.rows import SuiteRow

Examples = dict[str, Any]
"""{"kind": "mean" | "spearman" | "draws", "ids": [...], "values": [...], "gold": [...] for "spearman"}."""

AGREEMENT = 1e-4  # mteb rounds its scores to six digits


def of_row(
    row: SuiteRow, scores: Mapping[str, Any], predictions: Mapping[str, Any], data: Mapping[str, Any]
) -> Examples | None:
    """Give the examples of a row.

    The score of several subsets is the mean of theirs: for subsets of unlike size it is no mean over examples.

    Args:
        row: The row.
        scores: What mteb reports, by subset.
        predictions: What it predicted, by subset and split; of some tasks it keeps nothing.
        data: The split that was tested as mteb holds it, by subset.

    Returns:
        The examples, or None where the metric is no mean over examples or they do not give the score.
    """
    parts = []
    for subset in row.subsets:
        predicted = predictions.get(subset, {}).get(row.split)
        made = _made(row.type, row.metric, scores[subset], predicted, data[subset], subset)
        parts.append(made if made is not None and _agrees(made, float(scores[subset][row.metric])) else None)
    if len(parts) == 1:
        return parts[0]
    whole = [part for part in parts if part is not None and part["kind"] == "mean"]
    if len(whole) < len(parts) or len({len(part["values"]) for part in whole}) > 1:
        return None
    ids = [f"{number}:{name}" for number, part in enumerate(whole) for name in part["ids"]]
    return {"kind": "mean", "ids": ids, "values": [value for part in whole for value in part["values"]]}


def _made(
    type_: str, metric: str, scores: Mapping[str, Any], predictions: Any, data: Any, subset: str
) -> Examples | None:
    if type_ == "Clustering":
        draws = scores.get("v_measures")
        levels = list(draws.values()) if isinstance(draws, Mapping) else [draws] if draws else []
        if not levels or metric != "v_measure":
            return None
        values = np.mean(np.array(levels, dtype=float), axis=0).tolist()
        return {"kind": "draws", "ids": [str(number) for number in range(len(values))], "values": values}
    if predictions is None:
        return None
    if type_ == "Classification" and metric == "accuracy":
        labels = list(data["label"]) if "label" in data.column_names else None
        if labels is None or any(len(row) != len(labels) for row in predictions):
            return None
        right = np.mean([[found == label for found, label in zip(row, labels)] for row in predictions], axis=0)
        return _mean(_ids(data, subset), right)
    if type_ == "BitextMining" and metric == "accuracy":
        found = [row["corpus_id"] for row in next(iter(predictions.values()))]
        return _mean(_ids(data, subset), [row == number for number, row in enumerate(found)])
    if type_ == "STS" and metric == "cosine_spearman":
        values = [float(value) for value in predictions["cosine_scores"]]
        gold = [float(score) for score in data["score"]]
        return {"kind": "spearman", "ids": _ids(data, subset), "values": values, "gold": gold}
    if type_ in ("Retrieval", "Reranking"):
        return _ranked(metric, predictions, data["relevant_docs"])
    return None


def _ranked(
    metric: str, predictions: Mapping[str, Mapping[str, float]], relevant: Mapping[str, Any]
) -> Examples | None:
    """The metric of each query, by the library that mteb uses as well."""
    name = "recall_at_1" if metric == "accuracy" else metric
    known = re.fullmatch(r"(ndcg|map|recall)_at_(\d+)", name)
    if known is None:
        return None
    import pytrec_eval

    measure = {"ndcg": "ndcg_cut", "map": "map_cut", "recall": "recall"}[known[1]]
    judged = {query: {doc: int(grade) for doc, grade in grades.items()} for query, grades in relevant.items()}
    evaluator = pytrec_eval.RelevanceEvaluator(judged, {f"{measure}.{known[2]}"})
    found = evaluator.evaluate({query: dict(hits) for query, hits in predictions.items()})
    ids = sorted(found)
    return _mean(ids, [found[query][f"{measure}_{known[2]}"] for query in ids])


def _mean(ids: Sequence[str], values: Any) -> Examples:
    return {"kind": "mean", "ids": list(ids), "values": [round(float(value), 6) for value in values]}


def _ids(data: Any, subset: str) -> list[str]:
    """Ids of the data, else places: those of two subsets have nothing to do with each other."""
    if "id" in data.column_names:
        return [str(number) for number in data["id"]]
    return [f"{subset}:{number}" for number in range(len(data))]


def _agrees(made: Examples, score: float) -> bool:
    if made["kind"] == "spearman":
        from scipy.stats import spearmanr

        return bool(abs(float(spearmanr(made["values"], made["gold"])[0]) - score) < AGREEMENT)
    return bool(made["values"]) and abs(float(np.mean(made["values"])) - score) < AGREEMENT
