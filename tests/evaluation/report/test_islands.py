"""Whether neighbours tell the language of a text, and the picture above that number."""

import numpy as np
import pytest

from lusifer import language_gap
from lusifer.errors import DataError, UsageError
from lusifer.evaluation.report import figures

CODES = ("en", "ko", "te")


def islands(texts=8, dimension=6):
    """Each language around a direction of its own."""
    generator = np.random.default_rng(0)
    return {
        code: np.eye(dimension)[place] + 0.05 * generator.normal(size=(texts, dimension))
        for place, code in enumerate(CODES)
    }


def translations(texts=8, dimension=32):
    """Each text near its translations, and equally near in every language."""
    meanings = np.random.default_rng(0).normal(size=(texts, dimension))
    return dict.fromkeys(CODES, meanings)


def test_islands_are_told_and_translations_are_not():
    assert figures.language_told(islands(), 5) == (100, 5)
    assert figures.language_told(translations(), 7)[0] == pytest.approx(100 / 3)


def test_it_is_the_number_of_the_language_gap():
    generator = np.random.default_rng(1)
    vectors = {code: rows + 0.4 * generator.normal(size=rows.shape) for code, rows in islands(30).items()}
    accuracy, _ = figures.language_told(vectors)
    assert accuracy == pytest.approx(language_gap.measure(np.asarray, vectors).mean("predicted"), abs=0.1)
    assert 40 < accuracy < 100
    assert figures.language_told({code: 7 * rows for code, rows in vectors.items()})[0] == accuracy


@pytest.mark.parametrize(
    "vectors", [{}, {"en": np.eye(3)}, {"en": np.eye(3), "ko": np.eye(3)[:2]}, dict.fromkeys(CODES, np.eye(3)[:1])]
)
def test_nobody_can_tell_from_one_text_or_one_language(vectors):
    with pytest.raises(DataError, match="give en and at least one other|in every language|for 1 nearest neighbors"):
        figures.language_told(vectors)


def test_models_stand_side_by_side_with_their_numbers(tmp_path):
    models = {"before": islands(), "after": translations(dimension=6)}
    figure = figures.islands(models, seed=3)
    shown = [(axis.get_title(), axis.get_xlabel()) for axis in figure.axes]
    assert [title for title, _ in shown] == ["before", "after"]
    assert all("(by chance 33 %)" in label for _, label in shown)
    accuracy, _ = figures.language_told(models["before"])
    assert f"the 7 nearest:\n{accuracy:.0f} % right" in shown[0][1]
    points = [sum(len(part.get_offsets()) for part in axis.collections) for axis in figure.axes]
    assert points == [24, 24]
    again = figures.islands(models, seed=3)
    assert figures.svg(figure, "a", "t") == figures.svg(again, "a", "t")
    assert figures.svg(figures.islands(models, seed=4), "a", "t") != figures.svg(again, "a", "t")


def test_models_on_other_languages_are_refused():
    with pytest.raises(UsageError, match="different languages"):
        figures.islands({"a": islands(), "b": {"en": np.eye(6), "ko": np.eye(6)}})
    with pytest.raises(UsageError, match="different languages"):
        figures.islands({})
