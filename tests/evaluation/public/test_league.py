"""Models over the rows that they share: means and ranks by hand, and which models and rows are compared."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lusifer.errors import UsageError
from lusifer.evaluation.public.league import again, league, ranks
from lusifer.evaluation.scores.results import Model, Results
from support.score_folders import entry


def model(name, scores, **more):
    """A model with scores by "language task"."""
    entries = tuple(entry(*key.split(), value, **more) for key, value in scores.items())
    return Results("paper", Model(name), entries)


A = model("a", {"en X": 90.0, "en Y": 70.0, "sw X": 50.0, "sw Y": 30.0})
B = model("b", {"en X": 60.0, "en Y": 60.0, "sw X": 80.0, "sw Y": None})
C = model("c", {"en X": 10.0, "en Y": None, "sw X": None, "sw Y": None})


def test_means_and_ranks_by_hand():
    found = league([A, B, C])
    # a alone: 4 scores; a and b share 3 rows: 6 scores; all three share 1 row: 3 scores.
    assert (found.models, found.apart) == (("a", "b"), {"c": 1})
    assert found.keys == (("en", "X"), ("en", "Y"), ("sw", "X")) and len(found.asked) == 4
    # a: English (90 + 70) / 2 = 80, Swahili 50; b: 60 and 80.
    assert found.means(found.keys) == {"b": 70.0, "a": 65.0}
    assert list(found.means(found.keys)) == ["b", "a"]
    by = {code: found.means(keys) for code, keys in found.group("language").items()}
    assert by == {"en": {"a": 80.0, "b": 60.0}, "sw": {"b": 80.0, "a": 50.0}}
    assert found.group("task") == {"X": [("en", "X"), ("sw", "X")], "Y": [("en", "Y")]}
    assert found.group("type") == {"Classification": list(found.keys)}


def test_all_that_are_asked_for_are_compared_by_the_rows_they_share():
    found = league([A, B, C], keep_all=True)
    assert (found.models, found.keys, found.apart) == (("a", "b", "c"), (("en", "X"),), {})
    assert found.means(found.keys) == {"a": 90.0, "b": 60.0, "c": 10.0}
    nothing = model("d", {"en X": None})
    found = league([A, nothing], keep_all=True)
    assert (found.models, found.apart) == (("a",), {"d": 0})


def test_fewer_rows_may_be_shared_by_more_models():
    found = again(league([A, B, C]), {("en", "X")})
    assert (found.models, found.asked) == (("a", "b", "c"), (("en", "X"),))
    found = again(league([A, B, C]), {("sw", "Y")})
    assert (found.models, found.keys) == (("a",), (("sw", "Y"),))


def test_the_first_takes_part_in_any_case_and_by_its_rows_alone():
    found = league([C, A, B], first=True)
    assert (found.models, found.keys) == (("c", "a", "b"), (("en", "X"),))
    lonely = model("d", {"te Z": 5.0})
    found = league([lonely, A, B], first=True)
    assert (found.models, found.keys) == (("d",), (("te", "Z"),))


def test_another_metric_is_another_row():
    other = model("b", {"en X": 60.0, "en Y": 60.0}, metric="map")
    found = league([A, other], first=True)
    assert found.models == ("a",)
    assert "metric map against accuracy" in found.boards["b"].entries["en", "X"].missing


def test_across_languages_tasks_weigh_the_same():
    cross = dict(cross_lingual=True, subsets=("a-b",))
    one = model("a", {"es X": 90.0, "ru X": 30.0, "es Y": 20.0}, **cross)
    found = league([one, model("b", {"es X": 50.0, "ru X": 50.0, "es Y": 50.0}, **cross)])
    assert found.cross_lingual
    assert found.means(found.keys) == {"b": 50.0, "a": (60 + 20) / 2}
    with pytest.raises(UsageError, match="never in one table"):
        league([one, A])


def test_equal_means_share_the_better_rank():
    assert ranks({"a": 3.0, "b": 2.0, "c": 2.0, "d": 1.0}) == {"a": 1, "b": 2, "c": 2, "d": 4}
    one, other = model("a", {"en X": 50.001}), model("b", {"en X": 50.004})
    found = league([one, other])
    assert set(ranks(found.means(found.keys)).values()) == {1}


NAMES, ROWS = "abcde", ["en X", "en Y", "sw X", "sw Y", "te X"]
SCORES = st.fixed_dictionaries({row: st.none() | st.floats(1, 100) for row in ROWS})


@given(st.lists(SCORES, min_size=1, max_size=5), st.booleans(), st.booleans())
def test_every_compared_model_has_every_shared_row(scores, keep_all, first):
    models = [model(name, each) for name, each in zip(NAMES, scores, strict=False)]
    found = league(models, keep_all=keep_all, first=first)
    has = {each.model.name: {e.key for e in each.scores if e.score is not None} for each in models}
    assert all(set(found.keys) <= has[name] for name in found.models)
    assert set(found.models) | set(found.apart) == set(has)
    assert not first or found.models[0] == "a"
    if not keep_all and not first:
        assert len(found.models) * len(found.keys) >= max(len(rows) for rows in has.values())
    means = found.means(found.keys)
    assert list(means.values()) == sorted(means.values(), reverse=True)
    assert set(means) == (set(found.models) if found.keys else set())
