"""Stage 2's columns: k negatives in every row, and none that is secretly a positive."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from lusifer.data import batches, tables
from lusifer.data.pairs import columns
from lusifer.data.schema import COLUMNS, check
from lusifer.data.sources import SourceSpec, load
from lusifer.errors import DataError
from lusifer.prompts import table


@dataclass
class Source:
    path: str | None = "folder/toy.jsonl"
    hub: str | None = None
    instruction: str | None = None
    symmetric: bool | None = None
    in_batch_negatives: bool = True
    weight: float = 1.0
    split_by_source: bool = True


def rows(*given_rows: dict) -> Dataset:
    checked = [check("pairs", row, "row") for row in given_rows]
    return Dataset.from_dict({name: [row[name] for row in checked] for name in COLUMNS["pairs"]})


def simple(count: int, **more: object) -> list[dict]:
    return [{"query": f"q{n}", "positive": [f"p{n}"], "negative": [], **more} for n in range(count)]


def test_long_lists_are_cut_and_short_ones_filled_from_other_rows() -> None:
    given_rows = simple(20)
    given_rows[0]["negative"] = ["n1", "n2", "n3", "n4"]
    given_rows[1]["negative"] = ["m1"]
    (made,) = columns(rows(*given_rows), Source(), 3, seed=0)
    assert made.rows.column_names == ["query", "positive", "negative_1", "negative_2", "negative_3"]
    first, second = made.rows[0], made.rows[1]
    assert [first[f"negative_{n}"] for n in (1, 2, 3)] == ["n1", "n2", "n3"]
    assert second["negative_1"] == "m1" and second["negative_2"].startswith("p") and second["negative_2"] != "p1"
    assert columns(rows(*given_rows), Source(), 3, seed=0)[0].rows[:] == made.rows[:]
    assert columns(rows(*given_rows), Source(), 3, seed=1)[0].rows[:] != made.rows[:]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.lists(st.integers(0, 3), max_size=3)), min_size=1, max_size=12),
    st.booleans(),
    st.integers(1, 4),
)
def test_no_negative_is_a_positive_or_shares_the_label(pattern: list, in_batch: bool, negatives: int) -> None:
    given_rows = [
        {
            "query": f"query {n}",
            "positive": [f"text {label} {n}"],
            "negative": [f"other {m}" for m in own],
            "label": label,
        }
        for n, (label, own) in enumerate(pattern)
    ]
    labels = {row["positive"][0]: row["label"] for row in given_rows}
    try:
        (made,) = columns(rows(*given_rows), Source(in_batch_negatives=in_batch), negatives, seed=0)
    except DataError:
        assert len({label for label, _ in pattern}) == 1 and not any(own for _, own in pattern)
        return
    assert len(made.rows) + made.dropped == len(pattern)
    for row in made.rows:
        own = labels[row["positive"]]
        for number in range(1, negatives + 1):
            assert labels.get(row[f"negative_{number}"], -1) != own


def test_a_weight_that_leaves_no_row_is_named() -> None:
    with pytest.raises(DataError, match=r"weight 0\.01 leaves none of its 3 rows: raise it"):
        columns(rows(*simple(3)), Source(weight=0.01), 1, seed=0)


def test_without_labels_own_negatives_repeat_and_rows_without_any_are_dropped() -> None:
    given_rows = simple(3)
    given_rows[0]["negative"] = ["n1", "n2"]
    (made,) = columns(rows(*given_rows), Source(in_batch_negatives=False), 5, seed=0)
    assert [made.rows[0][f"negative_{n}"] for n in range(1, 6)] == ["n1", "n2", "n1", "n2", "n1"]
    assert (len(made.rows), made.dropped) == (1, 2)
    with pytest.raises(DataError, match="no row has a negative"):
        columns(rows(*simple(3)), Source(in_batch_negatives=False), 1, seed=0)


def test_sets_are_split_by_source_and_instruction_and_carry_their_prompts() -> None:
    tasks = table()
    made = columns(
        rows(*simple(2, task="retrieval", source="a"), *simple(2, task="sts", source="a"), *simple(2, source="b")),
        Source(), 0, seed=0,
    )  # fmt: skip
    prompts = {group.name: group.prompts for group in made}
    assert len(made) == 3 and sorted(prompts) == ["toy/a", "toy/a-2", "toy/b"]
    ask, same = f"{tasks['retrieval']['instruction']}\n", f"{tasks['sts']['instruction']}\n"
    found = sorted((p["query"], p["positive"]) for p in prompts.values())
    assert found == sorted([("", ""), (ask, ""), (same, same)])
    (one,) = columns(rows(*simple(2, source="a"), *simple(2, source="b")), Source(split_by_source=False), 1, seed=0)
    assert len(one.rows) == 4 and one.prompts["negative_1"] == ""
    (told,) = columns(rows(*simple(2, task="sts")), Source(instruction="Find it.", symmetric=False), 0, seed=0)
    assert told.prompts == {"query": "Find it.\n", "positive": ""}


def test_unknown_task_is_refused_unless_an_instruction_is_given() -> None:
    with pytest.raises(DataError, match="toy: row 1: task cooking is unknown"):
        columns(rows(*simple(1, task="cooking")), Source(), 0, seed=0)
    assert (
        columns(rows(*simple(1, task="cooking")), Source(instruction="Cook."), 0, seed=0)[0].prompts["query"]
        == "Cook.\n"
    )


@pytest.mark.parametrize("name", ["query", " document\n"])
def test_an_instruction_that_is_the_name_of_a_prompt_is_refused(name: str) -> None:
    words = f"the instruction is '{name.strip()}', the name of a prompt that every model has"
    with pytest.raises(DataError, match=f"toy: row 3: {words}"):
        columns(rows(*simple(2), *simple(1, instruction=name)), Source(), 0, seed=0)
    with pytest.raises(DataError, match=f"toy: row 1: {words}"):
        columns(rows(*simple(2, task="sts")), Source(instruction=name), 0, seed=0)
    told = columns(rows(*simple(2, instruction="Query")), Source(), 0, seed=0)
    assert told[0].prompts["query"] == "Query\n"


def test_a_set_without_a_negative_is_told_what_helps() -> None:
    one = rows({"query": "q", "positive": ["p"], "negative": ["q"]})
    with pytest.raises(DataError, match=r"negative \(1 that.* removed\): set in_batch_negatives: true, or mine"):
        columns(one, Source(in_batch_negatives=False), 1, seed=0)
    with pytest.raises(
        DataError, match=r"negative \(1 that.* removed\): its 1 rows have no other possible text: add rows"
    ):
        columns(one, Source(), 1, seed=0)


@pytest.mark.parametrize("weight", [1.0, 2.0, 3.5])
def test_what_is_taken_out_is_counted_by_rows_of_the_source(weight: float) -> None:
    given_rows = simple(3)
    given_rows[0]["negative"] = ["p0", "n"]
    (made,) = columns(rows(*given_rows), Source(weight=weight, in_batch_negatives=False), 1, seed=0)
    assert (made.removed, made.dropped) == (1, 2)


@pytest.mark.parametrize(("weight", "count"), [(0.5, 5), (1.0, 10), (2.0, 20), (2.5, 25)])
def test_weight_repeats_and_draws_rows(weight: float, count: int) -> None:
    (made,) = columns(rows(*simple(10)), Source(weight=weight), 0, seed=0)
    assert len(made.rows) == count
    assert max(made.rows["query"][:].count(f"q{n}") for n in range(10)) <= -(-weight // 1)


def test_sample_of_the_package_gives_two_sets() -> None:
    made = columns(load(SourceSpec(path="sample:pairs"), "pairs"), Source(path="sample:pairs"), 3, seed=0)
    assert {group.name: len(group.rows) for group in made} == {"pairs/paraphrases": 60, "pairs/questions": 190}


def test_a_text_that_answers_two_queries_is_never_a_negative_of_either() -> None:
    shared = [{"query": f"q{n}", "positive": ["shared"], "negative": ["own"]} for n in range(5)]
    (made,) = columns(rows(*shared, *simple(1)), Source(), 3, seed=0)
    for row in made.rows:
        negatives = [row[f"negative_{n}"] for n in (1, 2, 3)]
        assert row["positive"] not in negatives
        if row["positive"] == "shared":  # one other text exists; then the row's own one again
            assert negatives == ["own", "p0", "own"] or negatives == ["own", "own", "own"]


def test_large_sets_are_filled_by_draws_and_contradictions_are_left_out() -> None:
    given_rows = simple(600)
    given_rows[0]["negative"] = ["p0", "n"]
    (made,) = columns(rows(*given_rows), Source(), 2, seed=0)
    assert len(made.rows) == 600 and made.rows[0]["negative_1"] == "n"
    for row in made.rows:
        assert len({row["positive"], row["negative_1"], row["negative_2"]}) == 3


def test_rows_are_never_all_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of 16 MB in text: as Python objects, or as a pickle of the table, they would take more."""
    monkeypatch.setattr(tables, "CHUNK", 50)
    monkeypatch.setattr(batches, "_SOME", 50)
    count, long = 800, "x" * 4000

    def given_rows() -> Iterator[dict]:
        for n in range(count):
            row = {"query": f"q{n}", "positive": [f"p{n} {long}"], "negative": [f"n{n} {m} {long}" for m in range(4)]}
            yield check("pairs", row, "row")

    tracemalloc.start()
    try:
        table = tables.collect(given_rows(), "pairs")
        (made,) = columns(table, Source(weight=1.5), 5, seed=0)
        found = batches.hashes(made.rows)
        tables.take(table, range(0, count, 2), "pairs")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.shape == (count * 3 // 2, 7)
    assert peak < 6e6


@given(st.lists(st.integers(0, 24), max_size=8), st.integers(1, 30))
def test_values_and_rows_are_those_of_their_numbers(numbers: list[int], chunk: int) -> None:
    given_rows = [check("pairs", row, "row") for row in simple(25)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tables, "CHUNK", chunk)  # blocks of a table
        table = tables.collect(given_rows, "pairs")
    assert tables.values(table, "positive", numbers) == [[f"p{n}"] for n in numbers]
    assert tables.take(table, numbers, "pairs")["query"][:] == [f"q{n}" for n in numbers]
