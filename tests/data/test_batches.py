"""The plan of stage 2: whole batches of one set, no text twice where texts are negatives, the same for everybody."""

from itertools import islice

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from lusifer.data.batches import PairBatches, join_small
from lusifer.data.pairs import PairSet
from lusifer.errors import UsageError


def rows(count, texts=None, name="a"):
    texts = texts or count
    return Dataset.from_dict(
        {
            "query": [f"{name} query {n}" for n in range(count)],
            "positive": [f"{name} text {n % texts}" for n in range(count)],
        }
    )


def plan(sets, in_batch, steps=20, batch_size=4, seed=0):
    return PairBatches(sets, in_batch, batch_size=batch_size, steps=steps, seed=seed)


SETS = {"a": rows(30), "b": rows(11, 3, "b"), "c": rows(9, 5, "c")}
KINDS = {"a": True, "b": False, "c": True}


def test_every_batch_is_whole_and_of_one_set():
    batches = list(plan(SETS, KINDS))
    assert len(batches) == len(plan(SETS, KINDS)) == 20
    starts = {"a": 0, "b": 30, "c": 41}
    of = {row: name for name, start in starts.items() for row in range(start, start + len(SETS[name]))}
    assert all(len(batch) == 4 and len({of[row] for row in batch}) == 1 for batch in batches)


def test_sets_take_turns_by_their_size_to_the_row():
    starts = [30, 41, 52]  # where a, b and c end; d has two rows, half a batch
    sets, kinds = {**SETS, "c": rows(11, 3, "c"), "d": rows(2, 1, "d")}, {"a": True, "b": False, "c": False, "d": False}
    turns = [sum(batch[0] >= start for start in starts) for batch in plan(sets, kinds, steps=54)]
    assert [turns.count(number) for number in range(4)] == [30, 11, 11, 2]  # four rounds of 30, 11, 11 and 2 rows
    assert set(turns[:15]) == {0, 1, 2, 3}  # each in the first round, the smallest too


@given(st.integers(0, 1000), st.integers(4, 12), st.integers(4, 40))
def test_no_text_is_twice_in_a_batch_of_in_batch_negatives(seed, texts, count):
    table = rows(count, min(texts, count))
    for batch in plan({"a": table}, {"a": True}, seed=seed):
        found = [text for row in batch for text in table[row].values()]
        assert len(found) == len(set(found)) == 8


def test_all_rows_come_in_turn():
    batches = list(plan({"a": rows(30)}, {"a": True}, steps=15))
    first = [row for batch in batches for row in batch][:30]
    assert sorted(first) == list(range(30))
    assert first != sorted(first)


def test_the_plan_is_the_same_each_time_and_another_with_another_seed():
    one = list(plan(SETS, KINDS))
    assert one == list(plan(SETS, KINDS)) == list(islice(plan(SETS, KINDS, steps=50), 20))
    assert one != list(plan(SETS, KINDS, seed=1))


def test_columns_that_a_trainer_adds_are_no_texts():
    table = rows(30)
    made = plan({"a": table}, {"a": True})
    before = list(made)
    table.set_transform(lambda batch: {**batch, "dataset_name": ["a"] * len(batch["query"])})
    assert list(made) == before


def test_labels_may_repeat_where_they_are_no_negatives():
    batches = list(plan({"b": rows(3, 1)}, {"b": False}, batch_size=8))
    assert all(len(batch) == 8 for batch in batches)


def test_a_set_that_cannot_fill_a_batch_is_refused():
    with pytest.raises(UsageError, match=r"b: only 3 of its rows fit into one batch .* lower batch_size to 3"):
        plan({"a": rows(30), "b": rows(11, 3)}, {"a": True, "b": True})
    with pytest.raises(UsageError, match="only 1 of its rows fits into one batch") as caught:
        plan({"b": rows(11, 1)}, {"b": True})
    assert "lower batch_size" not in str(caught.value)  # nothing could be learned from one row
    with pytest.raises(UsageError, match=r"b: has only 2 rows to train on, and a batch needs 4 .*: add rows, or set"):
        plan({"b": rows(2)}, {"b": True})
    with pytest.raises(
        UsageError, match=r"b: has only 1 row to train on, and a batch needs 4 \(batch_size\): add rows$"
    ):
        plan({"b": rows(1)}, {"b": True})


def test_sets_too_small_for_a_batch_are_joined_with_the_next_larger_ones():
    plain, told = {"query": ""}, {"query": "Find: "}
    sets = [
        PairSet("f/large", rows(40, name="l"), plain),
        PairSet("f/middle", rows(9, name="m"), plain),
        PairSet("f/same", rows(30, 2, "s"), plain, dropped=1),
        PairSet("f/small", rows(3, name="t"), plain, dropped=2),
        PairSet("f/other", rows(12, name="o"), told),
    ]
    made = {each.name: each for each in join_small(sets, 8)}
    assert set(made) == {"f/large", "f/same and 2 smaller", "f/other"}
    joined = made["f/same and 2 smaller"]
    assert len(joined.rows) == 9 + 30 + 3 and joined.dropped == 3 and joined.prompts == plain
    kinds = dict.fromkeys(made, True)
    assert len(list(plan({name: each.rows for name, each in made.items()}, kinds, batch_size=8))) == 20
    assert [each.name for each in join_small(sets[:2], 8)] == ["f/middle", "f/large"]


def test_small_sets_of_own_negatives_are_joined_by_their_rows_alone():
    sets = [PairSet(f"f/{name}", rows(count, 1, name), {"query": ""}) for name, count in (("a", 3), ("b", 4), ("c", 9))]
    made = join_small(sets, 6, in_batch_negatives=False)
    assert sorted((each.name, len(each.rows)) for each in made) == [("f/b and 1 smaller", 7), ("f/c", 9)]


def test_rows_may_share_a_negative_but_no_negative_may_be_anothers_positive():
    columns = {
        "query": [f"query {n}" for n in range(12)],
        "positive": [f"text {n}" for n in range(12)],
        "negative_1": ["the same for all"] * 6 + [f"text {n - 1}" for n in range(6, 12)],
    }
    table = Dataset.from_dict(columns)
    shared = set()
    for batch in plan({"a": table}, {"a": True}):
        found = [table[row] for row in batch]
        for row in found:
            assert not {row["query"], row["positive"]} & {other["negative_1"] for other in found}
        shared.add(sum(row["negative_1"] == "the same for all" for row in found))
    assert max(shared) > 1


def test_a_set_that_filled_a_batch_once_goes_on_filling_them():
    """The last row shares texts with two others: met before them, it leaves five rows for a batch of six."""
    table = Dataset.from_dict(
        {
            "query": [f"query {n}" for n in range(7)],
            "positive": [f"text {n}" for n in range(7)],
            "negative_1": [f"no {n}" for n in range(6)] + ["text 0"],
            "negative_2": [f"none {n}" for n in range(6)] + ["text 1"],
        }
    )
    for seed in range(20):
        batches = list(plan({"a": table}, {"a": True}, steps=200, batch_size=6, seed=seed))
        assert len(batches) == 200
        for batch in batches:
            found = [text for row in batch for text in table[row].values()]
            assert len(batch) == 6 and len(found) == len(set(found))
