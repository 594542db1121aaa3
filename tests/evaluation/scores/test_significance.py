"""Paired tests between two models, and the correction for many."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import permutation_test

from lusifer.errors import DataError
from lusifer.evaluation.scores import compare
from lusifer.evaluation.scores.bootstrap import Examples
from lusifer.evaluation.scores.compare import differences, holm, why_not
from support.score_folders import right


def pairs(values, gold) -> Examples:
    return Examples("spearman", tuple(map(str, range(len(values)))), values, gold)


def paired(one, other):
    """Two models on one language and task."""
    return differences({("", ""): one}, {("", ""): other})[0]["", ""]


def test_mcnemar_by_hand():
    found = paired(right(*[1] * 9, 0, 1), right(*[0] * 9, 1, 1))  # 9 of 10 coins
    assert found.p == pytest.approx(2 * (1 + 10) / 2**10)
    assert found.value == pytest.approx(100 * 8 / 11)
    assert found.low < found.value < found.high


def test_sign_flips_count_what_listing_all_of_them_counts():
    one, other = right(0.9, 0.7, 0.6, 0.8, 0.5, 0.4), right(0.5, 0.6, 0.5, 0.5, 0.4, 0.6)
    found = paired(one, other)
    exact = permutation_test(
        (one.values, other.values), lambda a, b: a.mean() - b.mean(), permutation_type="samples", n_resamples=np.inf
    )
    assert found.p == pytest.approx(exact.pvalue, abs=0.02)


def test_differences_of_one_size_are_flipped_as_single_ones_are():
    one, other = right(*[0.5] * 14, *[0.1] * 6), right(*[0.25] * 14, *[0.35] * 6)
    spread = right(*(0.25 + np.linspace(0, 1e-6, 14)), *[0.35] * 6)
    assert paired(one, other).p == pytest.approx(paired(one, spread).p, abs=0.02)


def test_a_better_ranking_is_told_from_an_equal_one():
    noise = np.random.default_rng(1).normal(size=(3, 80))
    gold = noise[0]
    good, bad = pairs(gold + 0.2 * noise[1], gold), pairs(gold + 3 * noise[2], gold)
    found = paired(good, bad)
    assert found.p < 0.001 and found.low > 0
    as_good = paired(good, pairs(10 * (gold + 0.2 * noise[2]) ** 3, gold))  # another scale
    assert as_good.p > 0.05 and as_good.low < 0 < as_good.high


def test_no_chance_is_zero():
    values = np.linspace(0.5, 0.9, 30)
    assert paired(right(*values), right(*values - 0.4)).p == 1 / (1 + compare.FLIPS)


def test_equal_models_do_not_differ():
    rows = [right(1, 0, 1), right(0.5, 0.2, 0.9), pairs([1.0, 2, 3], [1.0, 3, 2])]
    assert [paired(row, row).p for row in rows] == [1, 1, 1]


def test_a_true_hypothesis_is_rejected_about_as_often_as_promised(monkeypatch):
    monkeypatch.setattr(compare, "FLIPS", 199)
    generator = np.random.default_rng(0)
    rejected = 0
    for _ in range(200):
        gold, one, other = generator.normal(size=(3, 40))
        test = compare._test(pairs(gold + one, gold), pairs(gold + other, gold), generator)
        rejected += test <= 0.05
    assert 1 <= rejected <= 22  # 10 are expected; more than 22 come up once in 5,000 times


VALUES = st.one_of(
    st.lists(st.tuples(*[st.sampled_from([0.0, 1.0])] * 2), min_size=2, max_size=12),
    st.lists(st.tuples(*[st.floats(0, 1).map(lambda x: round(x, 2))] * 2), min_size=2, max_size=12),
)


@given(VALUES, st.randoms(use_true_random=False))
def test_swapping_the_models_turns_the_sign_and_the_order_of_rows_does_not_matter(rows, random):
    one, other = (right(*column) for column in zip(*rows, strict=True))
    shuffled = list(other.ids)
    random.shuffle(shuffled)
    there, back = paired(one, other), paired(other.ordered(shuffled), one)
    assert there.p == back.p
    ends = (there.value, there.low, there.high)
    assert ends == pytest.approx((-back.value, -back.high, -back.low), abs=1e-9)


@pytest.mark.parametrize(
    ("one", "other", "reason"),
    [
        (right(1, 0), right(1, 0, 1), "different examples: 0 only in the first, 1 only in the second"),
        (right(1, 0), Examples("draws", ("000", "001"), [1, 0]), "of the kind mean, the other of draws"),
        (*[Examples("draws", ("0", "1"), [1, 0])] * 2, "draws of the task"),
        (pairs([1, 2], [1, 2]), pairs([1, 2], [2, 1]), "other gold values"),
    ],
)
def test_what_was_not_measured_on_the_same_examples_is_not_compared(one, other, reason):
    assert reason in why_not(one, other)
    with pytest.raises(DataError, match="not comparable"):
        paired(one, other)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.randoms(use_true_random=False))
def test_the_correction_keeps_the_order_and_never_lowers_a_p(ps, random):
    found = holm(ps)
    assert all(p <= corrected <= 1 for p, corrected in zip(ps, found, strict=True))
    assert [c for _, c in sorted(zip(ps, found, strict=True))] == sorted(found)
    order = list(range(len(ps)))
    random.shuffle(order)
    assert holm([ps[i] for i in order]) == [found[i] for i in order]
