"""Measure rows with mteb or with Lusifer's own tasks, cheapest first, within a time budget."""

from __future__ import annotations

import json
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from lusifer.errors import DataError, LusiferError
from lusifer.evaluation.run.encoder import ScoredModel, WorkerError
from lusifer.evaluation.scores import bootstrap
from lusifer.evaluation.scores.folder import EvaluationFolder
from lusifer.evaluation.scores.results import Entry
from lusifer.evaluation.search.ranked import Measured, RankedTask
from lusifer.evaluation.suites.suite import Selection
from lusifer.evaluation.tasks.rows import SuiteRow
from lusifer.io import hub

Result = dict[str, Any]
"""An entry of `summary.json`: the fields of `Entry`."""

UNKNOWN_COST = 5_000  # number of texts to assume if it is not known, between small and large tasks
AGREEMENT = 1e-4  # mteb rounds its scores to six digits
LATE = "the time budget ended before this task"


class Pace:
    """Reports progress, and estimates the remaining time from the texts per second so far.

    Args:
        chosen: The rows; each is a step.
        later: Numbers of texts that are embedded after the rows; each is a step.
        tell: Function that is called after each step: steps done, steps in all, and the remaining seconds (None before
            anything was measured).
    """

    def __init__(
        self,
        chosen: Selection,
        later: Sequence[int] = (),
        tell: Callable[[int, int, float | None], None] | None = None,
    ) -> None:
        self._tell, self._started = tell, time.monotonic()
        self._steps, self._of = 0, len(chosen.rows) + len(later)
        self._left, self._done = sum(map(_cost, chosen.rows)) + sum(later), 0

    def step(self, texts: int, measured: bool = True) -> None:
        """Count a step.

        Args:
            texts: Number of texts of the step.
            measured: Whether the texts were embedded now; only then does the step count for the speed.
        """
        self._steps += 1
        self._left -= texts
        self._done += texts if measured else 0
        if self._tell is not None:
            seconds = (time.monotonic() - self._started) / self._done * self._left if self._done else None
            self._tell(self._steps, self._of, seconds)


def run(
    chosen: Selection,
    model: ScoredModel,
    folder: EvaluationFolder,
    deadline: float | None = None,
    pace: Pace | None = None,
) -> list[Result]:
    """Measure rows and store them in the folder; finished rows are read from it.

    The cheapest task comes first, and within a task the cheapest language. If the Hub cannot be reached, only its cache
    is used from then on.

    Args:
        chosen: The rows.
        model: The model.
        folder: The evaluation folder, after `claim`.
        deadline: Time of `time.monotonic()` after which no row begins; None for no limit.
        pace: Gets a step for each row, also for finished rows and those that cannot be run.

    Returns:
        One entry for each row, as in `summary.json`, in the order of `chosen.rows`. Missing scores have a reason.

    Raises:
        WorkerError: A worker process of one of several devices has died.
    """
    found: dict[tuple[str, str], Result] = {}
    pace = pace or Pace(chosen)
    for row, entry, measured in _results(chosen, model, folder, deadline):
        found[row.key] = entry
        pace.step(_cost(row), measured)
    return [found[row.key] for row in chosen.rows]


def by_task(rows: Iterable[SuiteRow]) -> list[list[SuiteRow]]:
    """Group rows by task; the cheapest task comes first, and within a task the cheapest language."""
    groups: dict[str, list[SuiteRow]] = {}
    for row in sorted(rows, key=_cost):
        groups.setdefault(row.task, []).append(row)
    return sorted(groups.values(), key=lambda group: (sum(map(_cost, group)), group[0].task))


def _cost(row: SuiteRow) -> int:
    """Give the number of texts to embed, or a guess."""
    return row.cost if row.cost is not None else UNKNOWN_COST


def _results(
    chosen: Selection, model: ScoredModel, folder: EvaluationFolder, deadline: float | None
) -> Iterator[tuple[SuiteRow, Result, bool]]:
    """Yield each row, its entry, and whether it was measured now."""
    with ExitStack() as offline:
        cut = unreachable = False
        for group in by_task(chosen.rows):
            if unreachable and not cut:
                offline.enter_context(hub.offline())
                cut = True
            done, _ = folder.finished(group[0].task)
            yield from ((row, done[row.language], False) for row in group if row.language in done)
            left = [row for row in group if row.language not in done]
            for row, entry in _task(left, chosen, model, folder, deadline):
                if cut and entry["missing"]:  # offline mode was set here, not by the user
                    entry["missing"] = entry["missing"].replace(hub.OFFLINE, hub.UNREACHABLE)
                unreachable = unreachable or hub.UNREACHABLE in (entry["missing"] or "")
                yield row, entry, entry["missing"] is None


def _task(
    rows: list[SuiteRow], chosen: Selection, model: ScoredModel, folder: EvaluationFolder, deadline: float | None
) -> Iterator[tuple[SuiteRow, Result]]:
    """Measure rows of one task; its data are loaded once."""
    instructed = model.instructed
    absent = chosen.absent
    runnable = [row for row in rows if row.key not in absent]
    yield from ((row, _entry(row, instructed, missing=absent[row.key])) for row in rows if row.key in absent)
    loaded = None
    for row in runnable:
        if deadline is not None and time.monotonic() >= deadline:
            yield row, _entry(row, instructed, missing=LATE)
            continue
        if loaded is None:
            try:
                loaded = chosen.make(runnable)
                loaded.hf_subsets = list(dict.fromkeys(subset for row in runnable for subset in row.subsets))
                loaded._eval_splits = list(dict.fromkeys(row.split for row in runnable))
                loaded.load_data()
            except Exception as error:
                if isinstance(error, DataError) and len(runnable) > 1:  # other languages may still be measured
                    for each in runnable:
                        yield from _task([each], chosen, model, folder, deadline)
                    return
                # The Hub is down, a dataset is gated, or this version of mteb lacks the task: report it and continue.
                reason = f"cannot be loaded: {_short(error)}"
                yield from ((row, _entry(row, instructed, missing=reason)) for row in runnable)
                return
        try:
            entry, made, details = _row(row, loaded, model, folder)
        except WorkerError:
            raise
        except Exception as error:  # an error in one row must not end a long evaluation
            yield row, _entry(row, instructed, missing=f"failed: {_short(error)}")
            continue
        folder.keep(row.task, row.language, entry, made, details)
        yield row, entry
    if loaded is not None:
        loaded.unload_data()


def _row(
    row: SuiteRow, loaded: Any, model: ScoredModel, folder: EvaluationFolder
) -> tuple[Result, Mapping[str, Any] | None, Mapping[str, Any] | None]:
    """Measure one row: its entry, its examples and its details."""
    started = time.monotonic()
    model.use(row)
    made = loaded.measure(row, model) if isinstance(loaded, RankedTask) else _scored(row, loaded, model, folder)
    seconds = round(time.monotonic() - started, 3)
    more = {"score": made.score, "n": made.n, "seconds": seconds, "prompt": dict(made.prompt)}
    return _entry(row, model.instructed, **more, seen=model.seen_in_training()), made.examples, made.details


def _scored(row: SuiteRow, loaded: Any, model: ScoredModel, folder: EvaluationFolder) -> Measured:
    """Measure one row with mteb."""
    # A new task has a fresh random generator, so that the score of a row does not depend on earlier rows.
    task = type(loaded)()
    task.dataset, task.data_loaded = loaded.dataset, True
    task.hf_subsets, task._eval_splits = list(row.subsets), [row.split]
    found, predictions = _by_mteb(row, task, model, folder)
    scores = {part["hf_subset"]: part for part in found.task_results[0].scores[row.split]}
    lost = [subset for subset in row.subsets if subset not in scores]
    if lost:
        raise LusiferError(f"mteb gave no score for {', '.join(lost)}")
    values = [float(scores[subset][row.metric]) for subset in row.subsets]
    if not all(value == value for value in values):
        equal = row.metric.endswith(("spearman", "pearson"))
        raise LusiferError(f"{row.metric} is {'undefined: all scores are equal' if equal else 'not a number'}")
    data = task.dataset
    parts = {subset: (data[subset] if subset in data else data)[row.split] for subset in row.subsets}
    made = examples_of(row, scores, predictions, parts)
    count = len(made["values"]) if made is not None and made["kind"] != "draws" else _size(parts.values())
    return Measured(round(100 * sum(values) / len(values), 4), made, None, count, model.prompts)


def _by_mteb(row: SuiteRow, task: Any, model: ScoredModel, folder: EvaluationFolder) -> tuple[Any, dict[str, Any]]:
    """Evaluate a row with mteb; give its result, and predictions by subset and split, which some tasks lack."""
    import mteb
    from mteb.cache import ResultCache

    cache = ResultCache(folder.path)
    folder.forget(cache.get_task_result_path(row.task, model.mteb_model_meta), row.split, row.subsets)
    quiet = warnings.catch_warnings(action="ignore", category=RuntimeWarning)  # the caller reports undefined metrics
    with tempfile.TemporaryDirectory() as predicted, quiet:
        found = mteb.evaluate(
            model,
            task,
            co2_tracker=False,
            cache=cache,
            prediction_folder=predicted,
            encode_kwargs={"batch_size": 32, "show_progress_bar": False},
            show_progress_bar=False,
        )
        file = task._predictions_path(Path(predicted))
        return found, json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _size(parts: Iterable[Any]) -> int | None:
    """Count the tested examples or queries."""
    try:
        return sum(len(part["queries"]) if isinstance(part, dict) else len(part) for part in parts)
    except (KeyError, TypeError):
        return None


def _entry(row: SuiteRow, instructed: bool, **more: Any) -> Result:
    """Make the entry of a row, with a score or the reason why it is missing."""
    plain = {each.name: getattr(row, each.name, None) for each in fields(Entry)}
    made = {"title": row.title or row.task, "subsets": list(row.subsets), "prompt": row.prompts(instructed)}
    return {**plain, **made, **more}


def _short(error: Exception) -> str:
    """Give the first line of an error, with its type if it is not Lusifer's; for an error of the Hub the reason."""
    line = (str(error).strip().splitlines() or ["no message"])[0][:300]
    if isinstance(error, LusiferError):
        return line
    reason = hub.why(error)
    return f"{type(error).__name__}: {line}" if reason[:300] == line or not line else reason


def examples_of(
    row: SuiteRow, scores: Mapping[str, Any], predictions: Mapping[str, Any], data: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Compute the examples behind a score from mteb's predictions, for intervals and paired tests.

    The score of several subsets is the mean of their scores. If the subsets have different sizes, this is no mean over
    examples.

    Args:
        row: The row.
        scores: Subset -> mteb's scores.
        predictions: Subset -> split -> predictions; some tasks have none.
        data: Subset -> the tested split in mteb's form.

    Returns:
        kind, ids, values and gold; None if the score is no mean over examples, or the examples do not give it.
    """
    parts = []
    for subset in row.subsets:
        made = _made(row, scores[subset], predictions.get(subset, {}).get(row.split), data[subset], subset)
        parts.append(made if made is not None and _agrees(made, float(scores[subset][row.metric])) else None)
    if len(parts) == 1:
        return parts[0] and parts[0] | ({"texts": row.texts} if row.texts else {})
    whole = [part for part in parts if part is not None and part["kind"] == "mean"]
    if len(whole) < len(parts) or len({len(part["values"]) for part in whole}) > 1:
        return None
    ids = [f"{number}:{name}" for number, part in enumerate(whole) for name in part["ids"]]
    return {"kind": "mean", "ids": ids, "values": [value for part in whole for value in part["values"]]}


def _made(row: SuiteRow, scores: Mapping[str, Any], predictions: Any, data: Any, subset: str) -> dict[str, Any] | None:
    kind = row.type, row.metric
    if kind == ("Clustering", "v_measure"):
        draws = scores.get("v_measures")
        levels = list(draws.values()) if isinstance(draws, Mapping) else [draws]
        if not draws:
            return None
        values = np.mean(np.array(levels, dtype=float), axis=0).tolist()
        return {"kind": "draws", "ids": [str(number) for number in range(len(values))], "values": values}
    if predictions is None:
        return None
    if row.type in ("Retrieval", "Reranking"):
        return _ranked(row.metric, predictions, data["relevant_docs"])
    if kind == ("Classification", "accuracy"):
        labels = list(data["label"]) if "label" in data.column_names else None
        if labels is None or any(len(each) != len(labels) for each in predictions):
            return None
        right = np.mean([[found == label for found, label in zip(each, labels)] for each in predictions], axis=0)
        return _mean(_ids(data, subset), right)
    if kind == ("BitextMining", "accuracy"):
        found = [each["corpus_id"] for each in next(iter(predictions.values()))]
        return _mean(_ids(data, subset), [each == number for number, each in enumerate(found)])
    if kind == ("STS", "cosine_spearman"):
        values, gold = ([float(value) for value in each] for each in (predictions["cosine_scores"], data["score"]))
        return {"kind": "spearman", "ids": _ids(data, subset), "values": values, "gold": gold}
    return None


def _ranked(
    metric: str, predictions: Mapping[str, Mapping[str, float]], relevant: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Compute the metric of each query with pytrec_eval, which mteb uses too."""
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


def _mean(ids: Sequence[str], values: Any) -> dict[str, Any]:
    return {"kind": "mean", "ids": list(ids), "values": [round(float(value), 6) for value in values]}


def _ids(data: Any, subset: str) -> list[str]:
    """Give the ids in the data; without ids, positions with the name of the subset, because subsets share no texts."""
    if "id" in data.column_names:
        return [str(number) for number in data["id"]]
    return [f"{subset}:{number}" for number in range(len(data))]


def _agrees(made: dict[str, Any], score: float) -> bool:
    try:
        return abs(bootstrap.score(bootstrap.Examples(**made)) / 100 - score) < AGREEMENT
    except DataError:
        return False
