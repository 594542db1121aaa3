"""Learning curves: read from what a run logged, drawn with gaps where a score is missing."""

import numpy as np
import pytest

from lusifer.errors import DataError, UsageError
from lusifer.evaluation.figures import curves
from lusifer.evaluation.figures.style import Estimate

LINES = """{"stage": "alignment", "step": 5, "loss": 7.1}
{"stage": "alignment", "step": 5, "retrieval": {"sw": 40.5, "te": null}}
{"stage": "alignment", "step": 10, "retrieval": {"sw": 44, "te": 12.5}}
{"stage": "contrastive", "step": 2, "retrieval": {"sw": 50.5}}
"""


@pytest.fixture
def metrics(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(LINES, encoding="utf-8")
    return tmp_path / "metrics.jsonl"


def test_curves_of_a_key_by_stage(metrics):
    found = curves.logged(metrics, "retrieval")
    assert found == {
        "alignment": {
            "sw": [(5, Estimate(40.5)), (10, Estimate(44))],
            "te": [(5, Estimate(None)), (10, Estimate(12.5))],
        },
        "contrastive": {"sw": [(2, Estimate(50.5))]},
    }
    assert curves.logged(metrics, "retrieval.te")["alignment"] == {"retrieval.te": [(10, Estimate(12.5))]}
    assert curves.logged(metrics, "loss") == {"alignment": {"loss": [(5, Estimate(7.1))]}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no readable metrics"),
        ("[1]", "metrics.jsonl:1: not an object"),
        ('{"stage": "a", "step": 1, "x": "many"}', "metrics.jsonl:1: .* x is no number"),
        ('{"stage": "a", "step": 1, "x": NaN}', "metrics.jsonl:1: .* x is no number"),
        ('{"step": 1, "x": 2}', "metrics.jsonl:1: no stage and step"),
        ('{"stage": "a", "step": 1}', "no line has the key x"),
        ("", "no line has the key x"),
    ],
)
def test_damage_is_named(metrics, text, message):
    metrics.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        curves.logged(metrics, "x")
    with pytest.raises(DataError, match="no readable metrics"):
        curves.logged(metrics.with_name("other"), "x")


def test_a_missing_point_is_a_gap(metrics):
    left, right = curves.curves(curves.logged(metrics, "retrieval"), "accuracy (%)").axes
    assert [axis.get_title() for axis in (left, right)] == ["alignment", "contrastive"]
    np.testing.assert_array_equal(left.get_lines()[1].get_ydata(), [np.nan, 12.5])
    looks = {(line.get_color(), line.get_marker()) for line in left.get_lines()}
    assert len(looks) == 2  # levels have their colours
    assert right.get_lines()[0].get_color() == left.get_lines()[0].get_color()  # Swahili in both


def test_intervals_are_bands(metrics):
    points = [(1, Estimate(20, 18, 23)), (2, Estimate(30, 26, 33))]
    axis = curves.curves({"": {"mean": points, "other": [(1, Estimate(5))]}}, "score (%)").axes[0]
    assert len(axis.collections) == 1
    band = axis.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (18, 33)
    with pytest.raises(UsageError, match="no point to draw"):
        curves.curves({"": {"mean": [(1, Estimate(None))]}}, "score (%)")
