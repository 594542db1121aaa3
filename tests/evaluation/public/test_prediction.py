"""The suite `quick` is the one that the rule gives, and the rule counts pairs of models as it says."""

from __future__ import annotations

import importlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from lusifer.evaluation.suites import benchmark

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def prediction(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("quick_prediction")


def small(prediction, monkeypatch, scores):
    """Three models on the rows A, B, C, D of one language; None is missing."""
    keys = [("sw", task) for task in "ABCD"]
    known = {(model, key): np.nan if value is None else value
             for model, row in scores.items() for key, value in zip(keys, row, strict=True)}  # fmt: skip
    monkeypatch.setattr(prediction, "CODES", ["sw"])
    monkeypatch.setattr(prediction, "KEYS", {"sw": keys})
    monkeypatch.setattr(prediction, "MODELS", tuple(scores))
    monkeypatch.setattr(prediction, "PAIRS", [(0, 1), (0, 2), (1, 2)])
    monkeypatch.setattr(prediction, "SCORES", known)
    return keys


def test_pairs_in_order_by_hand(prediction, monkeypatch):
    keys = small(prediction, monkeypatch, {"x": [1, 50, 50, 50], "y": [2, 40, 40, 40], "z": [3, 38, 38, 38]})
    pairs = prediction.Pairs(np.ones(3, dtype=bool))
    # A orders z, y, x; the others x, y, z, and all of them likewise; only y and z are closer than 5 points.
    assert pairs.agree([keys[0]]).tolist() == [0.0, 0.0, 0.0]
    assert pairs.agree([keys[1]]).tolist() == [1.0, 1.0, 1.0]
    assert pairs.agree([]).tolist() == [0.5, 0.5, 0.5]
    looked = prediction.Pairs(np.array([True, False, False]))
    assert looked.agree([keys[1]])[:2].tolist() == [1.0, 1.0]


def test_a_pair_counts_by_the_rows_that_both_have(prediction, monkeypatch):
    keys = small(prediction, monkeypatch, {"x": [9, 9, 9, 9], "y": [1, 1, 1, 1], "z": [None, None, None, 20]})
    pairs = prediction.Pairs(np.ones(3, dtype=bool))
    assert pairs.agree([keys[0]]).tolist()[:2] == [1.0, 1.0]  # z shares one row with either, too few to count


def test_quick_is_what_the_rule_gives(prediction):
    chosen = prediction.one_by_one(prediction.EVERY)
    tasks = list(dict.fromkeys(task for _, task in chosen))
    assert tasks == benchmark.table()["quick"]["tasks"]
    assert set(chosen) == {row.key for row in benchmark.suite("quick")}
    assert prediction.texts(chosen) <= prediction.TEXTS
    assert min(Counter(code for code, _ in chosen).values()) >= prediction.LEAST


def test_models_of_one_family_are_held_out_together(prediction):
    families = {model: prediction.family(model) for model in prediction.MODELS}
    assert families["Salesforce/SFR-Embedding-2_R"] == families["intfloat/e5-mistral-7b-instruct"] == "mistral"
    assert len(set(families.values())) == 16
    assert families["sentence-transformers/LaBSE"] == "labse"
