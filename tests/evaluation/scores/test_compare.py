"""Verdicts on two models, language by language."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lusifer.errors import UsageError
from lusifer.evaluation.scores.bootstrap import Examples
from lusifer.evaluation.scores.compare import BETTER, NOISE, WORSE, compare_all, differences
from support.score_folders import entry, results, right

HIGH, LOW, MIXED = [1.0] * 27 + [0.0] * 3, [0.0] * 27 + [1.0] * 3, [1.0, 0.0] * 15


def models(**languages):
    """Two models from pairs of lists by language."""
    return [
        results(name, {(code, "Topics"): right(*pair[i]) for code, pair in languages.items()})
        for i, name in enumerate(("mini", "raw"))
    ]


def compare(one, other, task):
    """Two models on one task."""
    return next(found for found in compare_all([one, other]) if found.task == task)


def test_verdicts_and_their_reasons():
    one, other = models(sw=(MIXED, MIXED[::-1]), es=(LOW, HIGH), en=(HIGH, LOW), fr=(HIGH, LOW))
    gap = entry("fr", "Topics", None)
    other = replace(other, scores=(*(e for e in other.scores if e.language != "fr"), gap))
    found = compare(one, other, "Topics")
    assert [row.language for row in found.rows] == ["en", "es", "fr", "sw"]
    assert [row.verdict for row in found.rows] == [BETTER, WORSE, None, NOISE]
    assert found.rows[2].reason == "raw has no score: no such file"
    assert found.rows[2].scores == (90, None)
    assert found.mean == pytest.approx(0, abs=1e-9)
    assert found.low < 0 < found.high


def test_the_correction_is_over_all_rows_of_the_table():
    rows = [1.0] * 7 + [0.0] * 23, [0.0] * 30  # 7 of 7 coins: p = 2 / 2^7
    single = compare(*models(en=rows), "Topics").rows[0]
    assert (single.p, single.verdict) == (pytest.approx(2 / 128), BETTER)
    many = compare(*models(en=rows, es=(MIXED, MIXED), ru=(MIXED, MIXED), fr=(MIXED, MIXED)), "Topics")
    assert (many.rows[0].p, many.rows[0].verdict) == (pytest.approx(8 / 128), NOISE)
    one, other = models(en=rows)
    found = compare_all([one, other, replace(other, model=replace(other.model, name="third"))])
    assert [(c.names, c.rows[0].p) for c in found] == [
        (("mini", "raw"), pytest.approx(4 / 128)), (("mini", "third"), pytest.approx(4 / 128)),
    ]  # fmt: skip


BITS = st.lists(st.sampled_from([0.0, 1.0]), min_size=12, max_size=12)


@settings(max_examples=20)
@given(st.dictionaries(st.sampled_from(["en", "es", "te", "sw"]), st.tuples(BITS, BITS), min_size=1), st.booleans())
def test_swapping_the_models_swaps_the_verdicts_and_order_does_not_matter(languages, back):
    one, other = models(**languages)
    turned = models(**dict(reversed(languages.items())))[::-1]
    there, back = compare(one, other, "Topics"), compare(*turned, "Topics")
    opposite = {BETTER: WORSE, WORSE: BETTER, NOISE: NOISE}
    assert [(row.language, row.p, opposite[row.verdict]) for row in there.rows] == [
        (row.language, row.p, row.verdict) for row in back.rows
    ]
    ends = (there.mean, there.low, there.high)
    assert ends == pytest.approx((-back.mean, -back.high, -back.low), abs=1e-9)


def test_the_mean_of_parallel_languages_is_no_surer_than_one_of_them():
    found = compare(*models(en=(HIGH, MIXED), es=(HIGH, MIXED), ru=(HIGH, MIXED)), "Topics")
    alone = differences({("en", "Topics"): right(*HIGH)}, {("en", "Topics"): right(*MIXED)})[0]["en", "Topics"]
    assert (found.mean, found.low, found.high) == pytest.approx((alone.value, alone.low, alone.high))


MINI = models(en=(HIGH, HIGH))[0]


def raw(rows=HIGH, **more):
    return results("raw", {("en", "Topics"): right(*rows)}, **more)


def draws(name):
    return results(name, {("en", "Topics"): Examples("draws", ("0", "1"), [0.5, 0.7])})


@pytest.mark.parametrize(
    ("one", "other", "reason"),
    [
        (MINI, results("raw", {}, entry("en", "Topics", 20.0)), "no examples of raw"),
        (MINI, results("raw", {}, entry("es", "Topics", 20.0)), "raw has no score: not evaluated"),
        (MINI, raw([1, 0]), "different examples: 28 only in the first"),
        (MINI, raw(split="test"), "split dev against test"),
        (MINI, raw(metric="f1"), "metric accuracy against f1"),
        (*[results(name, {}, entry("en", "Topics", None)) for name in "ab"], "neither has a score: no such file"),
        (draws("mini"), draws("raw"), "random draws of the task"),
    ],
)
def test_what_is_not_comparable_has_a_reason_and_no_verdict(one, other, reason):
    row = compare(one, other, "Topics").rows[0]
    assert reason in row.reason
    assert (row.verdict, row.p, row.difference) == (None, None, None)


def test_every_task_is_compared_where_one_of_the_two_has_it():
    one, other, third = (results(name, {}) for name in ("a", "b", "c"))
    one = replace(one, scores=(entry("en", "A"),))
    third = replace(third, scores=(entry("en", "B"),))
    assert [(c.task, c.names) for c in compare_all([one, other, third])] == [
        ("A", ("a", "b")), ("A", ("a", "c")), ("B", ("a", "c")),
    ]  # fmt: skip
    with pytest.raises(UsageError, match="two evaluation folders or more"):
        compare_all([one])


def test_a_mean_of_differences_never_mixes_monolingual_and_cross_lingual_scores():
    mixed = []
    for model, rows in zip(models(en=(HIGH, LOW)), ([1.0] * 30, MIXED), strict=True):
        cross = results("x", {("es", "Topics"): right(*rows)}, cross_lingual=True)
        mixed.append(replace(model, scores=model.scores + cross.scores, examples={**model.examples, **cross.examples}))
    mono, cross = compare_all(mixed)
    assert (mono.cross_lingual, cross.cross_lingual) == (False, True)
    assert [[row.language for row in found.rows] for found in (mono, cross)] == [["en"], ["es"]]
    assert (mono.mean, cross.mean) == (80, 50)


def test_rank_correlations_are_compared_as_well():
    noise = np.random.default_rng(0).normal(size=(3, 60))
    ids = [str(i) for i in range(60)]
    one, other = (
        results(name, {("en", "STS"): Examples("spearman", ids, noise[0] + scale * noise[i], noise[0])})
        for i, (name, scale) in enumerate((("mini", 0.1), ("raw", 4.0)), 1)
    )
    row = compare(one, other, "STS").rows[0]
    assert row.verdict == BETTER
