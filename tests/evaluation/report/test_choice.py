"""Which model for which use: means, paired intervals, and a verdict in words."""

import numpy as np
import pytest

from lusifer.evaluation.report import choice, facts
from lusifer.evaluation.scores.averages import Mean
from support.score_folders import entry, results, right

TO_ENGLISH = dict(type="Retrieval", cross_lingual=True)


def model(name, share, **more):
    values = [float(place < 100 * share) for place in range(100)]
    found = results(name, {("sw", "Search"): right(*values)}, **TO_ENGLISH)
    return found if not more else found


def with_subsets(found, subset):
    from dataclasses import replace

    return replace(found, scores=tuple(replace(each, subsets=(subset,)) for each in found.scores))


def made(*shares, subset="sw-en"):
    return facts.gather([with_subsets(model(f"m{place}", share), subset) for place, share in enumerate(shares)])


def test_the_better_model_is_named_where_the_same_texts_show_it():
    found = choice.choices(made(0.5, 0.9))["sw"]["questions in the language over English documents"]
    assert [mean.value for mean in found.means] == pytest.approx([50, 90])
    assert found.best == ("m1",) and found.words(("m0", "m1")) == "m1"


def test_models_that_the_texts_cannot_tell_apart_are_both_named():
    near = choice.choices(made(0.5, 0.9, 0.89))["sw"]["questions in the language over English documents"]
    # One question in a hundred: the interval of the difference begins at 0.
    assert near.best == ("m1", "m2") and near.words(("m0", "m1", "m2")) == "m1 or m2"
    equal = choice.choices(made(0.7, 0.7))["sw"]["questions in the language over English documents"]
    assert equal.words(("m0", "m1")) == "no significant difference"


def test_the_direction_decides_what_a_score_tells_of():
    assert list(choice.choices(made(0.5, subset="en-sw"))["sw"]) == ["English questions over documents in the language"]
    assert choice.choices(made(0.5, subset="sw-fr")) == {}


def test_what_was_not_measured_is_said_and_no_zero():
    one = with_subsets(model("m0", 0.9), "sw-en")
    other = results("m0", {("fr", "Search"): right(*[1.0] * 60, 0.0)}, **TO_ENGLISH)
    both = results("m0", {}, *one.scores, *with_subsets(other, "en-fr").scores)
    rows = choice.choices(facts.gather([both]))
    assert rows[choice.OTHERS]["questions in the language over English documents"].means[0].value == pytest.approx(90)
    assert rows["fr"]["questions in the language over English documents"].words(("m0",)) == "not measured"
    assert rows["sw"]["questions in the language over English documents"].means[0].value == pytest.approx(90)


def test_the_verdict_says_who_is_ahead_where_a_model_may_be_used_and_where_not():
    use = "Questions in the language over English documents"
    assert choice.sentences(made(0.95, 0.2)) == [
        f"{use}: m0 is ahead in 1 of 1 language; m0 is good in Swahili (sw) 95.0; m1 is poor in Swahili (sw) 20.0."
    ]
    neither = "neither clearly good nor clearly poor in any language"
    assert choice.sentences(made(0.85)) == [f"{use}: {neither}."]  # from 77: may be under 80
    assert choice.sentences(made(1.0)) == [f"{use}: m0 is good in Swahili (sw) 100.0."]  # its interval begins at 96


def test_the_verdict_says_where_a_use_was_not_measured():
    one = with_subsets(model("m0", 0.9), "sw-en")
    other = results("m0", {("fr", "Topics"): right(*[1.0] * 60, 0.0)}, cross_lingual=True)
    said = choice.sentences(facts.gather([results("m0", {}, *one.scores, *other.scores)]))
    assert "not measured in French (fr), so its quality there is unknown." in said[0]


def test_many_languages_are_counted():
    codes = ["es", "ru", "fr", "vi", "fa", "id", "ar", "fi"]
    means = dict.fromkeys(codes, Mean(90.0, 85.0, 95.0, True))
    assert choice._named(codes, means) == "all 8 measured languages"
    words = choice._named(codes[:7], means)
    assert words.startswith("Spanish (es) 90.0, ") and words.endswith(" and 1 more")
    assert np.isfinite(means["es"].value) and entry("sw").language == "sw"
