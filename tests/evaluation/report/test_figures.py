"""Heat map and bars: what is missing is never drawn as a score."""

import numpy as np
import pytest

from lusifer.errors import UsageError
from lusifer.evaluation.report import figures


def words(axis):
    return [text.get_text() for text in axis.texts]


def test_a_heat_map_tells_missing_from_low_and_from_not_asked():
    scores = {"en": {"STS": 0.0, "Clustering": 90.0}, "te": {"STS": None}}
    axis = figures.heat_map(scores, "mini").axes[0]
    assert sorted(words(axis)) == ["0.0", "90.0", "missing"]
    filled = [patch for patch in axis.patches if patch.get_fill()]
    hatched = [patch for patch in axis.patches if patch.get_hatch()]
    assert (len(filled), len(hatched)) == (2, 1)  # nothing at all for Telugu clustering
    assert hatched[0].get_y() > 0.5 > hatched[0].get_x()  # Telugu, STS
    with pytest.raises(UsageError, match="nothing to draw"):
        figures.heat_map({"en": {}}, "mini")


def test_numbers_in_cells_can_be_read_on_their_colour():
    axis = figures.heat_map({"en": {str(value): float(value) for value in range(0, 101, 10)}}, "m").axes[0]
    for patch, text in zip(axis.patches, axis.texts, strict=True):
        assert contrast(patch.get_facecolor()[:3], (1, 1, 1) if text.get_color() == "#ffffff" else (0, 0, 0)) >= 4.5


def contrast(one, other):
    """WCAG 2, 1.4.3."""

    def luminance(colour):
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour]
        return float(np.dot((0.2126, 0.7152, 0.0722), linear))

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_models_that_are_compared_share_a_scale():
    limits = figures.span([12.0, 88.0])
    for value in (12.0, 88.0):
        figure = figures.heat_map({"en": {"STS": value}}, "m", limits)
        assert figure.axes[1].get_ylim() == (10, 90)


def test_bars_begin_at_zero_and_have_their_intervals():
    scores = {"full": {"a": (60, 55, 66), "b": (20, None, None)}, "less": {"a": (None, None, None)}}
    left, right = figures.bars(scores, "Ablation").axes
    assert [patch.get_width() for patch in left.patches] == [60]
    assert words(left) == ["60.0", "missing"] and words(right) == ["20.0", "missing"]
    assert left.get_xlim()[0] == right.get_xlim()[0] == 0 and left.get_xlim() == right.get_xlim()
    segment = left.containers[1].lines[2][0].get_segments()[0]
    np.testing.assert_allclose(segment[:, 0], [55, 66])
    with pytest.raises(UsageError, match="nothing to draw"):
        figures.bars({}, "Ablation")
