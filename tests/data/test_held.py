"""Pairs that are held back from training: which are drawn, and what a model is scored on."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from lusifer.data import held, tables
from lusifer.data.schema import text_hash

ROW = {"negative": [], "instruction": None, "task": None, "label": None, "cluster": None, "source": None}


def table(rows: list[dict]) -> Dataset:
    return tables.collect((ROW | row for row in rows), "pairs")


def pair(query: str, *positives: str, **more: object) -> dict:
    return {"query": query, "positive": list(positives), **more}


def source(instruction: str | None = None, symmetric: bool | None = None) -> SimpleNamespace:
    return SimpleNamespace(path="rows.csv", hub=None, instruction=instruction, symmetric=symmetric)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=90), st.integers(0, 5))
def test_no_text_stands_on_both_sides(numbers: list[tuple[int, int]], seed: int) -> None:
    rows = [pair(f"Text {one}.", f"text {other}", f"answer {one}") for one, other in numbers]
    sets = [table(rows[: len(rows) // 2]), table(rows[len(rows) // 2 :])]
    chosen = held.draw(sets, 0.4, seed)
    assert [len(each) for each in chosen] == [len(each) for each in sets]
    mask = np.concatenate(chosen)
    assert mask.sum() == 0 or held.FEWEST <= mask.sum() <= round(0.4 * len(rows))
    sides = [
        {text_hash(text) for row, side in zip(rows, mask, strict=True) if side == wanted
         for text in (row["query"], *row["positive"])}
        for wanted in (False, True)
    ]  # fmt: skip
    assert sides[0].isdisjoint(sides[1])


def test_the_share_is_met_by_the_seed_and_a_large_group_stays_in_training() -> None:
    rows = [pair(f"question {number}", f"answer {number}") for number in range(100)]
    rows += [pair(f"which class is {number}", "a label that many have") for number in range(60)]
    one, again, other = (held.draw([table(rows)], 0.2, seed)[0] for seed in (1, 1, 2))
    assert (one == again).all() and (one != other).any()
    assert one.sum() == 32 and not one[100:].any()


def test_few_rows_are_not_drawn() -> None:
    rows = [pair(f"question {number}", f"answer {number}") for number in range(94)]
    assert held.draw([table(rows)], 0.1, 0)[0].sum() == 0
    assert held.draw([table(rows)], 0.11, 0)[0].sum() == 10


def test_what_is_scored_on() -> None:
    rows = [
        pair("Where is it?", "In the north.", "Up there.", negative=["In the south."]),
        pair("Where is it?", "Beyond the hill."),
        pair("Who sings?", "An owl.", negative=["In the north."]),
        pair("What trains?", "This one."),
        pair("Is a positive enough?", "Trained on!", "Other."),
    ]
    learned = ["WHAT TRAINS", "trained on", "Up there, they say.", "in the SOUTH"]
    found = held.collect([(table(rows), source())], learned)
    assert found.counts() == {"rows": 3, "queries": 2, "documents": 5, "left_out": 2}
    answers = {
        found.queries[query]: {found.corpus[each] for each in relevant} for query, relevant in found.relevant.items()
    }
    assert answers == {"Where is it?": {"In the north.", "Up there.", "Beyond the hill."}, "Who sings?": {"An owl."}}
    assert set(found.corpus.values()) == {"In the north.", "Up there.", "In the south.", "Beyond the hill.", "An owl."}


@pytest.mark.parametrize(
    ("said", "row", "query", "document"),
    [
        (source("Find it"), {}, "Find it\nq", "d"),
        (source("Find it", symmetric=True), {}, "Find it\nq", "Find it\nd"),
        (source(), {"instruction": "Look"}, "Look\nq", "d"),
        (source(), {}, "q", "d"),
    ],
)
def test_prompts_stand_before_texts_as_in_training(said: SimpleNamespace, row: dict, query: str, document: str) -> None:
    found = held.collect([(table([pair("q", "d", **row)]), said)])
    assert list(found.queries.values()) == [query] and list(found.corpus.values()) == [document]
