"""Means over tasks and languages: what is in them, what is missing, and when they have an interval."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lusifer.errors import UsageError
from lusifer.evaluation.scores.averages import TASK, boards, groups
from lusifer.evaluation.scores.bootstrap import Examples, interval
from lusifer.evaluation.scores.results import Results
from support.score_folders import entry, results, right

CODES = ("en", "es", "sw", "te")


def board(*entries, examples=None):
    return boards([results("mini", examples or {}, *entries)])[0]


def test_a_language_is_the_mean_over_its_tasks_and_weighs_as_much_as_any_other():
    found = board(entry("en", "A", 90.0), entry("en", "B", 60.0), entry("en", "C", 30.0), entry("es", "A", 20.0))
    mean = found.mean(found.entries)
    assert mean.value == pytest.approx((60 + 20) / 2)
    assert mean.complete and (mean.low, mean.high) == (None, None)


def test_a_cross_lingual_task_is_the_mean_over_its_pairs():
    found = board(
        entry("es", "A", 30.0, cross_lingual=True, subsets=("es-en", "en-es")),
        entry("hi", "A", 60.0, cross_lingual=True, subsets=("hi-en",)),
        entry("hi", "B", 80.0, cross_lingual=True, subsets=("hi-en",)),
    )
    assert found.mean(found.entries, TASK).value == pytest.approx(((2 * 30 + 60) / 3 + 80) / 2)


SCORES = st.dictionaries(
    st.tuples(st.sampled_from(CODES), st.sampled_from("ABC")), st.none() | st.floats(1, 100), min_size=1
)


@given(SCORES, st.randoms(use_true_random=False))
def test_what_is_missing_is_said_and_changes_no_mean(scores, random):
    entries = [entry(*key, value) for key, value in scores.items()]
    random.shuffle(entries)
    mean = board(*entries).mean(scores)
    there = {key: value for key, value in scores.items() if value is not None}
    assert mean.complete == (len(there) == len(scores))
    if not there:
        assert mean.value is None
        return
    assert mean.value == board(*[entry(*key, value) for key, value in there.items()]).mean(there).value
    assert min(there.values()) - 1e-9 <= mean.value <= max(there.values()) + 1e-9


def test_one_member_without_examples_takes_the_interval_away():
    examples = {("en", "A"): right(1, 0, 1, 0), ("es", "A"): right(1, 1, 0, 0)}
    assert board(examples=examples).mean(examples).low is not None
    draws = Examples("draws", ("0", "1"), [0.2, 0.4])
    for other, more in ((entry("sw", "A", 50.0), {}), (None, {("sw", "B"): draws}), (None, {("sw", "A"): right(1)})):
        found = board(*[other] if other else [], examples=examples | more)
        mean = found.mean(found.entries)
        assert (mean.low, mean.high) == (None, None) and mean.value is not None
    gap = board(entry("sw", "A", None), examples=examples)
    assert gap.mean(gap.entries).low is not None  # a missing score is no member


def test_tasks_narrow_the_interval_and_parallel_languages_do_not():
    rows = [0.0, 1.0] * 40
    alone = np.diff(interval(right(*rows)))[0]
    languages = {(code, "A"): right(*rows) for code in CODES}
    tasks = {("en", task): right(*rows) for task in "ABCD"}
    for examples, width in ((languages, alone), (tasks, alone / 2)):
        mean = board(examples=examples).mean(examples)
        assert mean.high - mean.low == pytest.approx(width, rel=0.1)


def test_cross_lingual_and_monolingual_scores_are_never_in_one_mean():
    mixed = results("mini", {}, entry("es"), entry("hi", "MLQA", cross_lingual=True))
    with pytest.raises(UsageError, match="never in one table or mean"):
        boards([mixed])
    with pytest.raises(UsageError, match="never in one table or mean"):
        boards([mixed.part(True), mixed.part(False)])
    assert list(boards([mixed.part(True)])[0].entries) == [("hi", "MLQA")]


def test_models_stand_beside_each_other_only_where_the_same_was_run():
    one = results("one", {("es", "A"): right(1, 0)}, entry("en", "A", None))
    other = results("other", {("es", "A"): right(1, 1)}, entry("en", "A", 70.0), entry("fr", "A", 10.0), split="test")
    first, second = boards([one, other])
    assert list(first.entries) == list(second.entries) == [("en", "A"), ("es", "A"), ("fr", "A")]
    assert first.entries["fr", "A"].missing == "not evaluated"
    assert second.entries["es", "A"].missing == "not comparable: split test against dev"
    assert ("es", "A") not in second.samples
    assert second.entries["en", "A"].score == 70


def test_nothing_gives_nothing():
    assert boards([]) == []
    assert boards([Results("offline", results("mini", {}).model, ())])[0].entries == {}


def test_groups_are_those_of_the_paper_and_none_stands_there_twice():
    found = groups(["sw", "es", "bn", "fa", "en", "xx"])
    assert list(found) == [
        "all languages", "all but English", "high resources", "medium resources", "low resources",
        "extremely low resources", "resource level unknown",
    ]  # fmt: skip
    assert found["resource level unknown"] == ["xx"]
    assert found["all languages"] == ["en", "es", "fa", "bn", "sw", "xx"]
    assert found["high resources"] == ["en", "es"]
    assert groups(["es", "ru"]) == {"all languages": ["es", "ru"]}
