"""Intervals by resampling examples."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import binomtest, spearmanr

from lusifer.errors import DataError
from lusifer.evaluation.scores import bootstrap
from lusifer.evaluation.scores.bootstrap import Examples, interval, percentiles, resample, score, spread
from support.score_folders import right

TIED = st.integers(0, 4).map(float)
PAIRS = st.lists(st.tuples(TIED, TIED), min_size=3, max_size=30)


def pairs(rows) -> Examples:
    values, gold = zip(*rows, strict=True)
    return Examples("spearman", tuple(map(str, range(len(rows)))), values, gold)


@given(PAIRS)
def test_the_rank_correlation_is_that_of_scipy_with_any_ties(rows):
    values, gold = zip(*rows, strict=True)
    assume(len(set(values)) > 1 and len(set(gold)) > 1)
    assert score(pairs(rows)) == pytest.approx(100 * spearmanr(values, gold).statistic, abs=1e-9)


@given(PAIRS, st.data())
def test_a_weighted_sample_has_the_correlation_of_the_sample_written_out(rows, data):
    times = data.draw(st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows)))
    values, gold = (np.repeat(row, times) for row in zip(*rows, strict=True))
    assume(len(set(values)) > 1 and len(set(gold)) > 1)
    found = bootstrap._statistic(pairs(rows), np.array([times], dtype=float))
    assert found[0] == pytest.approx(100 * spearmanr(values, gold).statistic, abs=1e-9)


@pytest.mark.parametrize(("rows", "which"), [([(1, 0), (1, 1)], "predictions"), ([(0, 2), (1, 2)], "gold values")])
def test_constant_values_have_no_correlation_and_are_refused(rows, which):
    with pytest.raises(DataError, match=f"all 2 {which} are the same"):
        score(pairs(rows))


@given(st.lists(st.floats(0, 1), min_size=2, max_size=40), st.integers(0, 3))
def test_the_interval_of_a_mean_lies_around_it_within_what_was_measured(values, seed):
    assume(np.ptp(values) > 1e-3)
    low, high = interval(right(*values), seed)
    middle = 100 * np.mean(values)
    assert 100 * min(values) - 1e-9 <= low <= middle + 1e-9
    assert middle - 1e-9 <= high <= 100 * max(values) + 1e-9


def test_the_interval_is_as_wide_as_theory_says():
    half = np.diff(interval(right(*[0, 1] * 100)))[0] / 2
    assert half == pytest.approx(100 * 1.96 * np.sqrt(0.25 / 200), rel=0.1)
    noise = np.random.default_rng(0).normal(size=(2, 400))
    low, high = interval(pairs(list(zip(noise[0], noise[0] + noise[1], strict=True))))
    # Standard error of a rank correlation, Bonett and Wright 2000: of atanh(r), sqrt((1 + r^2 / 2) / (n - 3)).
    middle = score(pairs(list(zip(noise[0], noise[0] + noise[1], strict=True)))) / 100
    error = (1 - middle**2) * np.sqrt((1 + middle**2 / 2) / 397)
    assert (high - low) / 200 == pytest.approx(1.96 * error, rel=0.15)


@given(st.lists(st.lists(st.booleans(), min_size=12, max_size=12), min_size=1, max_size=4), st.integers(0, 9))
def test_parallel_languages_have_the_interval_of_drawing_sentences_once_for_all(rows, seed):
    members = {(f"l{i}", "t"): Examples("mean", tuple("abcdefghijkl"), row) for i, row in enumerate(rows)}
    drawn = np.random.default_rng(seed).multinomial(12, np.full(12, 1 / 12), size=2000) / 12
    low, high = np.quantile(drawn @ np.mean(np.array(rows, dtype=float), axis=0), [0.025, 0.975])
    found = percentiles(np.mean(list(resample(members, seed).values()), axis=0))
    assert found == pytest.approx((100 * low, 100 * high), abs=1e-3)


def test_examples_of_one_value_have_no_interval():
    assert interval(right(0.5, 0.5, 0.5)) is None


def test_all_right_and_none_right_have_the_exact_interval_of_a_proportion():
    for right_ones in (0, 99):
        exact = binomtest(right_ones, 99).proportion_ci(0.95)
        found = interval(right(*[float(i < right_ones) for i in range(99)]))
        assert found == pytest.approx((100 * exact.low, 100 * exact.high))


def test_shared_examples_vary_together_and_others_apart():
    rows = [0.0, 1.0] * 30
    together = resample({("en", "t"): right(*rows), ("es", "t"): right(*rows)})
    assert np.array_equal(together["en", "t"], together["es", "t"])
    for other in ({("es", "t"): right(*rows, start=60)}, {("en", "u"): right(*rows)}):
        (one, two) = resample({("en", "t"): right(*rows)} | other).values()
        assert abs(np.corrcoef(one, two)[0, 1]) < 0.1


def test_tasks_on_the_same_texts_vary_together_and_their_mean_is_less_sure_than_of_tasks_apart():
    rows = np.array([0.0, 1.0] * 30)
    there, back = (right(*rows, texts=name) for name in ("SIB-200", "SIB-200"))
    drawn = resample({("es", "to"): there, ("es", "from"): back})
    assert np.array_equal(drawn["es", "to"], drawn["es", "from"])
    apart = resample({("es", "to"): there, ("es", "from"): right(*rows, texts="XQuAD")})
    assert abs(np.corrcoef(*apart.values())[0, 1]) < 0.1
    width, narrow = (np.diff(percentiles(np.mean(list(each.values()), axis=0)))[0] for each in (drawn, apart))
    assert width == pytest.approx(np.diff(interval(there))[0], rel=0.05)  # two tasks on one text are no second sample
    assert narrow == pytest.approx(width / np.sqrt(2), rel=0.1)


def test_languages_are_drawn_together_over_a_third_that_links_them():
    rows = [0.0, 1.0] * 10
    linked = {("a", "t"): right(*rows), ("b", "t"): right(*rows, start=20), ("c", "t"): right(*rows * 2)}
    drawn = resample(linked)
    assert np.corrcoef(drawn["a", "t"] + drawn["b", "t"], drawn["c", "t"])[0, 1] > 0.95


@given(st.permutations(range(8)), st.booleans())
def test_neither_the_order_of_rows_nor_of_languages_matters(order, swap):
    rows = right(0, 1, 0.5, 0.25, 1, 1, 0, 0.75)
    mixed = rows.ordered([rows.ids[i] for i in order])
    members = [(("en", "t"), rows), (("es", "t"), right(1, 0, 1, 1))]
    other = [(("en", "t"), mixed), (("es", "t"), right(1, 0, 1, 1))]
    one, two = resample(dict(members)), resample(dict(other[::-1] if swap else other))
    assert all(np.array_equal(one[key], two[key], equal_nan=True) for key in one)


def test_blocks_of_draws_change_nothing(monkeypatch):
    whole = resample({("en", "t"): right(0, 1, 1, 0, 0.5)}, 4)["en", "t"]
    monkeypatch.setattr(bootstrap, "CELLS", 35)
    assert np.array_equal(resample({("en", "t"): right(0, 1, 1, 0, 0.5)}, 4)["en", "t"], whole)


def test_many_examples_are_drawn_in_another_way_with_the_same_outcome(monkeypatch):
    values = right(*np.linspace(0, 1, 60) ** 2)
    few = resample({("en", "t"): values})["en", "t"]
    monkeypatch.setattr(bootstrap, "MANY", 60)
    many = resample({("en", "t"): values})["en", "t"]
    assert not np.array_equal(few, many)
    assert (many.mean(), many.std()) == pytest.approx((few.mean(), few.std()), rel=0.05)


def test_what_cannot_vary_has_no_interval():
    assert interval(right(1.0)) is None
    assert np.isnan(resample({("en", "t"): right(0.5)})["en", "t"]).all()  # and none in a mean that it is in
    assert interval(pairs([(0, 0), (1, 1)])) is None  # half of the resamples hold one pair twice
    assert interval(Examples("draws", ("0", "1"), [0.2, 0.3])) is None


def test_draws_have_a_spread_and_are_not_resampled():
    draws = Examples("draws", ("0", "1"), [0.2, 0.4])
    assert score(draws) == pytest.approx(30)
    assert spread(draws) == pytest.approx(100 * np.sqrt(0.02))
    assert spread(Examples("draws", ("0",), [0.2])) is None
    with pytest.raises(DataError, match="T in en: no interval: its values are draws"):
        resample({("en", "T"): draws})
    with pytest.raises(DataError, match="have no spread"):
        spread(right(1, 0))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (("median", ("a",), [1]), "kind 'median' is unknown: use one of"),
        (("mean", ("a", "b"), [1]), "2 ids for 1 values"),
        (("mean", (), []), "0 ids"),
        (("mean", ("a", "a"), [1, 2]), "duplicate id 'a'"),
        (("mean", ("a",), [np.nan]), "not a finite number"),
        (("mean", ("a",), [1], [1]), "needs gold values"),
        (("spearman", ("a",), [1]), "needs gold values"),
        (("spearman", ("a", "b"), [1, 2], [1, np.inf]), "not a finite number"),
        (("spearman", ("a", "b"), [1, 2], [1]), "2 ids for 2 and 1 values"),
    ],
)
def test_examples_that_do_not_fit_together_are_refused(parts, message):
    with pytest.raises(DataError, match=message):
        Examples(*parts)
