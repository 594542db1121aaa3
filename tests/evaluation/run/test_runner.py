"""Rows through mteb: every type of task, resuming, budgets, and what cannot be measured."""

import json
import time
from functools import cache
from pathlib import Path

import mteb
import numpy as np
import pytest
from mteb import mocks

from lusifer.evaluation.run import encoder
from lusifer.evaluation.run.encoder import ScoredModel
from lusifer.evaluation.run.runner import Pace, by_task, run
from lusifer.evaluation.scores.folder import EvaluationFolder
from lusifer.evaluation.suites.suite import Selection
from lusifer.evaluation.tasks.rows import SuiteRow
from support.words import Words

MOCKS = (
    mocks.MockBitextMiningTask,
    mocks.MockClassificationTask,
    mocks.MockMultilingualClassificationTask,
    mocks.MockMultilabelClassification,
    mocks.LegacyMockClusteringFastTask,
    mocks.MockMultilingualClusteringFastTask,
    mocks.MockPairClassificationTask,
    mocks.MockMultilingualPairClassificationTask,
    mocks.MockRetrievalTask,
    mocks.MockMultilingualRetrievalTask,
    mocks.MockRerankingTask,
    mocks.MockMultilingualRerankingTask,
    mocks.MockSTSTask,
    mocks.MockMultilingualSTSTask,
    mocks.MockSummarizationTask,
    mocks.MockMultilingualSummarizationTask,
)


@cache
def by_name() -> dict:
    return {mock.metadata.name: mock for mock in MOCKS}


def row_of(mock: type, **changes) -> SuiteRow:
    metadata = mock.metadata
    made = {
        "language": "en",
        "task": metadata.name,
        "type": metadata.type,
        "subsets": (metadata.hf_subsets[0],),
        "split": metadata.eval_splits[-1],
        "metric": metadata.main_score,
        "instruction": "Do it.",
        "cost": 10,
    }
    return SuiteRow(**{**made, **changes})


def make(rows: list[SuiteRow]):
    task = by_name()[rows[0].task]()
    task.hf_subsets = [subset for row in rows for subset in row.subsets]
    return task


def scored(identity: str = "a", **options) -> ScoredModel:
    return ScoredModel(Words(), "words", identity, **{"instructed": False, **options})


def measure(path: Path, rows: list[SuiteRow], make=make, model: ScoredModel | None = None, notes=None, deadline=None):
    folder = EvaluationFolder(path, (notes if notes is not None else []).append)
    folder.claim({"suite": "mocks"})
    return run(Selection("mocks", rows, make), model or scored(), folder, deadline)


@pytest.mark.parametrize("mock", MOCKS, ids=lambda mock: mock.__name__)
def test_every_type_of_task_runs_and_its_score_is_that_of_mteb(mock, tmp_path):
    row = row_of(mock)
    entry = measure(tmp_path, [row])[0]
    task = mock()
    task.hf_subsets, task._eval_splits = list(row.subsets), [row.split]
    found = mteb.evaluate(scored(), task, cache=None, show_progress_bar=False, co2_tracker=False)
    theirs = found.task_results[0].scores[row.split][0][row.metric]
    assert entry["missing"] is None and entry["n"] and entry["score"] == pytest.approx(100 * theirs, abs=1e-3)


@pytest.mark.parametrize(
    ("mock", "kind"),
    [
        (mocks.MockClassificationTask, "mean"),
        (mocks.MockRetrievalTask, "mean"),
        (mocks.MockRerankingTask, "mean"),
        (mocks.MockSTSTask, "spearman"),
        (mocks.LegacyMockClusteringFastTask, "draws"),
        (mocks.MockPairClassificationTask, None),
    ],
)
def test_examples_are_those_that_the_score_is_made_of(mock, kind, tmp_path):
    row = row_of(mock)
    score = measure(tmp_path, [row])[0]["score"]
    made = EvaluationFolder(tmp_path).finished(row.task)[1].get("en")
    assert (made and made["kind"]) == kind
    if kind in ("mean", "draws"):
        assert 100 * np.mean(made["values"]) == pytest.approx(score, abs=0.01)


def test_a_run_that_was_stopped_measures_only_what_is_left(tmp_path):
    rows = [row_of(mock, cost=place) for place, mock in enumerate(MOCKS[:6])]
    made = []

    def stops(group):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(group[0].task)
        return make(group)

    with pytest.raises(KeyboardInterrupt):
        measure(tmp_path, rows, stops)
    first = list(made)
    again = measure(tmp_path, rows, lambda group: made.append(group[0].task) or make(group))
    assert sorted(made) == sorted(row.task for row in rows) and len(first) == 3
    whole = measure(tmp_path / "whole", rows)
    assert [entry["score"] for entry in again] == [entry["score"] for entry in whole]


def test_a_damaged_file_is_named_and_its_task_measured_again(tmp_path):
    row = row_of(mocks.MockSTSTask)
    score = measure(tmp_path, [row])[0]["score"]
    for file in (tmp_path / "scores" / f"{row.task}.json", *tmp_path.glob(f"results/*/*/{row.task}.json")):
        file.write_text(file.read_text()[:30])
    notes = []
    assert measure(tmp_path, [row], notes=notes)[0]["score"] == score
    assert sum(row.task in note and "damaged" in note for note in notes) >= 2


def test_what_cannot_be_loaded_is_missing_with_the_reason_and_tried_again_next_time(tmp_path):
    rows = [row_of(mocks.MockSTSTask), row_of(mocks.MockRetrievalTask)]

    def down(group):
        if group[0].type == "STS":
            raise KeyError("no such task")
        return make(group)

    lost, kept = measure(tmp_path, rows, down)
    assert lost["score"] is None and lost["missing"] == "cannot be loaded: KeyError: 'no such task'"
    assert kept["missing"] is None
    assert measure(tmp_path, rows)[0]["missing"] is None


def test_once_the_hub_was_not_reached_the_other_tasks_are_looked_for_in_the_cache_alone(tmp_path):
    import datasets.config
    import huggingface_hub.constants

    rows = [row_of(mock, cost=place) for place, mock in enumerate(MOCKS[:3])]
    offline = []

    def down(group):
        offline.append((datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE))
        if len(offline) == 1:
            raise ConnectionError("Couldn't reach 'mteb/x' on the Hub")
        return make(group)

    before = (datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE)
    lost, *kept = measure(tmp_path, rows, down)
    assert lost["missing"] == "cannot be loaded: not in the cache of this machine, and the Hub cannot be reached"
    assert offline == [before, (True, True), (True, True)] and all(entry["missing"] is None for entry in kept)
    assert (datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE) == before


def test_a_model_that_fails_in_a_task_leaves_the_others_their_scores(tmp_path, monkeypatch):
    rows = [row_of(mocks.MockSTSTask, cost=1), row_of(mocks.MockRetrievalTask, cost=2)]
    model = scored()
    monkeypatch.setattr(model, "similarity_pairwise", lambda *_: 1 / 0)
    failed, kept = measure(tmp_path, rows, model=model)
    assert failed["missing"].startswith("failed: ZeroDivisionError") and kept["score"] is not None


def test_after_the_time_budget_nothing_is_begun(tmp_path):
    rows = [row_of(mock) for mock in MOCKS[:3]]
    entries = measure(tmp_path, rows, deadline=time.monotonic() - 1)
    assert {entry["missing"] for entry in entries} == {"the time budget ended before this task"}
    assert all(entry["missing"] is None for entry in measure(tmp_path, rows))


def test_cheap_tasks_come_first_and_the_time_left_shrinks_to_nothing(tmp_path):
    rows = [row_of(mock, cost=cost) for mock, cost in zip(MOCKS[:3], (500, None, 20))]
    assert [group[0].cost for group in by_task(rows)] == [20, 500, None]
    told = []
    folder = EvaluationFolder(tmp_path)
    chosen = Selection("mocks", rows, make)
    run(chosen, scored(), folder, pace=Pace(chosen, tell=lambda *words: told.append(words)))
    assert [done for done, _, _ in told] == [1, 2, 3] and told[-1] == (3, 3, 0)


def test_each_text_is_embedded_once_across_tasks(tmp_path):
    model = scored()
    measure(tmp_path, [row_of(mocks.MockRetrievalTask), row_of(mocks.MockRerankingTask)], model=model)
    assert len(model.embedder.read) == len(set(model.embedder.read)) > 0


def test_vectors_in_memory_are_bounded_and_the_oldest_go_first(monkeypatch):
    monkeypatch.setattr(encoder, "CACHE_BYTES", 3 * 8 * 4 + 1)
    model = scored()
    first = model.vectors(["one", "two", "one"], "")
    assert np.array_equal(first, np.stack([Words().vector(word) for word in ("one", "two", "one")]))
    for words in (["three", "four"], ["two", "four"], ["one"]):
        assert np.array_equal(model.vectors(words, ""), np.stack([Words().vector(word) for word in words]))
    assert model.embedder.read == ["one", "two", "three", "four", "one"]
    assert len(model.vectors([f"word {number}" for number in range(9)], "")) == 9 and len(model._cache) == 3


def test_vectors_with_another_prompt_are_not_reused(tmp_path):
    row = row_of(mocks.MockRetrievalTask)
    model = scored(instructed=True)
    model.vectors(["This is a test sentence"], "")
    measure(tmp_path, [row], model=model)
    assert (
        model.embedder.read[0] == "This is a test sentence" and "Do it.\nThis is a test sentence" in model.embedder.read
    )
    plain = scored()
    measure(tmp_path / "plain", [row], model=plain)
    assert set(plain.embedder.read) == {"This is a test sentence", "This is another test sentence"} | {
        f"Title of d{2 if 'another' in text else 1} {text}"
        for text in ("This is a positive sentence", "This is another positive sentence")
    }


def test_prompts_stand_in_the_entry_as_they_stood_before_the_texts(tmp_path):
    row = row_of(mocks.MockRetrievalTask)
    assert measure(tmp_path, [row])[0]["prompt"] == {"query": "", "document": ""}
    instructed = measure(tmp_path / "b", [row], model=scored(instructed=True))
    assert instructed[0]["prompt"] == {"query": "Do it.\n", "document": ""}


def test_texts_met_in_training_are_counted(tmp_path):
    row = row_of(mocks.MockRetrievalTask)
    entry = measure(tmp_path, [row], model=scored(seen={"This is a test sentence"}))[0]
    assert entry["seen"]["seen"] == 1 and entry["seen"]["of"] > 1
    assert measure(tmp_path / "b", [row])[0]["seen"] is None


def test_a_vector_that_is_not_finite_is_no_score(tmp_path):
    model = scored()
    model.embedder.vector = lambda text: np.full(8, np.nan, np.float32)
    entry = measure(tmp_path, [row_of(mocks.MockSTSTask)], model=model)[0]
    assert entry["score"] is None and "not finite" in entry["missing"]


def test_the_score_of_several_subsets_is_their_mean(tmp_path):
    mock = mocks.MockMultilingualSTSTask
    both = row_of(mock, subsets=tuple(mock.metadata.hf_subsets[:2]))
    one = [row_of(mock, subsets=(subset,), language=code) for subset, code in zip(both.subsets, ("en", "fr"))]
    scores = [entry["score"] for entry in measure(tmp_path / "one", one)]
    assert measure(tmp_path / "both", [both])[0]["score"] == pytest.approx(np.mean(scores), abs=1e-3)


def test_mteb_keeps_its_own_files_in_the_folder(tmp_path):
    row = row_of(mocks.MockSTSTask)
    measure(tmp_path, [row])
    file = next(tmp_path.glob(f"results/*/*/{row.task}.json"))
    assert "a" == file.parent.name and json.loads(file.read_text())["task_name"] == row.task
