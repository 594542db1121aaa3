"""What a perturbation costs, on numbers that can be worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest

from lusifer.errors import DataError
from lusifer.evaluation.report import card, facts
from lusifer.evaluation.scores import perturbed
from support.score_folders import entry, results, right

TEN = right(1, 1, 1, 1, 1, 1, 1, 1, 0, 0)
"""Right in eight of ten."""


def made(examples, changed, *others, **more):
    found = results("mini", examples, *others, cross_lingual=True)
    tasks = {
        "Capitals": {"clean": "Clean", "disguise": "in capitals", "changed": changed},
        "Typed": {"clean": "Clean", "disguise": "mistyped", "changed": {"es": [10, 10]}},
    }
    return replace(found, suite="robust", settings={"disguises": {"least_share": 0.1, "tasks": tasks}}, **more)


@pytest.fixture
def known():
    examples = {
        ("es", "Clean"): TEN,
        ("es", "Capitals"): right(0, 0, 0, 0, 0, 1, 1, 1, 0, 1),
        ("es", "Typed"): TEN,
        ("hi", "Clean"): TEN,
        ("ru", "Clean"): right(1, 1, 1, 1, 1, 1, 1, 1, 1, 1),
        ("ru", "Capitals"): right(1, 1, 1, 1, 1, 1, 1, 1, 0, 0),
    }
    return made(examples, {"es": [10, 10], "hi": [0, 10], "ru": [4, 10]})


def test_a_change_is_the_score_of_perturbed_texts_minus_that_of_the_same_texts(known):
    capitals, typed = perturbed.changes(known)
    assert [(row.language, row.clean, row.perturbed) for row in capitals.languages] == [("es", 80, 40), ("ru", 100, 80)]
    assert [row.change for row in capitals.languages] == pytest.approx([-40, -20])
    assert (capitals.clean, capitals.perturbed, capitals.change) == pytest.approx((90, 60, -30))
    assert (typed.change, typed.low, typed.high, typed.verdict) == (0, None, None, perturbed.NOTHING)


def test_the_interval_of_the_mean_draws_each_text_once_for_all_languages(known):
    """By hand: draw texts, take the mean of both languages' differences of these."""
    differences = np.array([[-1, -1, -1, -1, -1, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0, 0, 0, -1, -1]]).mean(axis=0)
    drawn = differences[np.random.default_rng(5).integers(10, size=(20000, 10))].mean(axis=1)
    capitals = perturbed.changes(known)[0]
    assert (capitals.low, capitals.high) == pytest.approx(100 * np.quantile(drawn, [0.025, 0.975]), abs=2.6)
    spanish = differences_of(-1, -1, -1, -1, -1, 0, 0, 0, 0, 1)
    assert (capitals.languages[0].low, capitals.languages[0].high) == pytest.approx(spanish, abs=5.1)
    assert capitals.verdict == perturbed.BREAKS


def differences_of(*values):
    drawn = np.array(values)[np.random.default_rng(5).integers(10, size=(20000, 10))].mean(axis=1)
    return 100 * np.quantile(drawn, [0.025, 0.975])


def test_where_a_perturbation_does_not_apply_is_neither_a_zero_nor_missing(known):
    capitals = perturbed.changes(known)[0]
    assert capitals.spared == ("hi",) and "hi" not in [row.language for row in capitals.languages]
    text = card.markdown(facts.gather([known]))
    assert "| Hindi (hi) |" not in text  # only one perturbation is in more than one language
    assert "fewer than 10% of the texts of a language does not apply there" in text
    assert "| in capitals | es, ru | 70% | 90.0 | 60.0 | -30.0 (" in text


def test_a_subset_of_the_texts_is_compared_with_the_same_ones():
    some = {("es", "Clean"): TEN, ("es", "Capitals"): right(0, 1, start=7)}
    (row,) = perturbed.changes(made(some, {"es": [2, 2]}))[0].languages
    assert (row.clean, row.perturbed, row.change) == (50, 50, 0)
    other = {("es", "Clean"): TEN, ("es", "Capitals"): right(0, 1, start=9)}
    (row,) = perturbed.changes(made(other, {"es": [2, 2]}))[0].languages
    assert (row.change, row.reason) == (None, "perturbed and unchanged texts have different examples")


def test_a_score_that_is_missing_has_its_reason_and_is_in_no_mean(known):
    gone = [entry("ar", "Clean", 60.0, cross_lingual=True), entry("ar", "Capitals", None, cross_lingual=True)]
    alone = entry("te", "Capitals", 50.0, cross_lingual=True)
    found = replace(known, scores=(*known.scores, *gone, alone))
    capitals = perturbed.changes(found)[0]
    why = {row.language: row.reason for row in capitals.languages if row.reason}
    assert why == {"ar": "no such file", "te": "unchanged texts: not evaluated"}
    assert (capitals.change, len(capitals.compared)) == (pytest.approx(-30), 2)
    text = card.markdown(facts.gather([found]))
    assert "- mini: missing: in capitals (ar): no such file" in text


def test_the_verdict_names_what_breaks_what_costs_and_what_does_not(known):
    words = perturbed.verdict(perturbed.changes(known))
    capitals = perturbed.changes(known)[0]
    ends = f"{capitals.low:+.1f} to {capitals.high:+.1f}"
    assert words == [
        f"Clean: loses 20 points or more: in capitals -30.0 points from 90.0 ({ends}), most in es (-40.0); "
        "no significant change: mistyped."
    ]
    assert card.markdown(facts.gather([known])).splitlines()[3].endswith(words[0])


def test_scores_of_perturbed_texts_are_in_no_mean_with_others(known):
    text = card.markdown(facts.gather([known]))
    assert "Mean by" not in text and "mean over" not in text
    other = results("other", {("es", "Clean"): TEN}, cross_lingual=True)
    assert perturbed.changes(other) == [] and perturbed.least_share(other) is None
    assert "Mean by" in card.markdown(facts.gather([known, other]))


def test_several_models_stand_beside_each_other(known):
    other = replace(known, model=replace(known.model, name="other", identity="x"))
    text = card.markdown(facts.gather([known, other]))
    assert (
        "| perturbation | languages | texts changed | mini: unchanged | mini: perturbed | mini: change | other:" in text
    )
    assert "2 models: 12 scores measured, 0 missing" in text


def test_damaged_settings_are_named(known):
    with pytest.raises(DataError, match=r"summary\.json: settings\.disguises\.tasks: Field required; evaluate again"):
        perturbed.changes(replace(known, settings={"disguises": {"least_share": 0.1}}))


def test_a_model_that_finds_little_has_little_to_lose():
    few = right(1, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    found = perturbed.changes(made({("es", "Clean"): few, ("es", "Typed"): few}, {}))
    assert found[1].verdict == perturbed.LITTLE
    assert perturbed.verdict(found) == ["Clean: unchanged score too low to show a loss: mistyped."]


def test_a_loss_of_all_texts_alike_is_no_nothing():
    examples = {
        ("es", "Clean"): right(*[1] * 10),
        ("es", "Capitals"): right(*[0] * 10),
        ("es", "Typed"): right(*[1] * 10),
    }
    capitals, typed = perturbed.changes(made(examples, {"es": [10, 10]}))
    assert (capitals.change, capitals.low, capitals.verdict) == (-100, None, perturbed.BREAKS)
    assert typed.verdict == perturbed.NOTHING
    assert "-100.0 points from 100.0 (all texts change alike)" in perturbed.verdict([capitals, typed])[0]
    few = {key: right(*rows.values[:5]) for key, rows in examples.items()}
    assert perturbed.changes(made(few, {"es": [5, 5]}))[0].verdict == perturbed.NOTHING  # five coins may fall alike
