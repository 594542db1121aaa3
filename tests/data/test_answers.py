"""A known answer of a query is nowhere its negative: not as given, not drawn, not as a text of another row."""

from __future__ import annotations

import json
from itertools import chain, permutations
from pathlib import Path

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from lusifer.data.answers import KnownAnswers, known_answers
from lusifer.data.batches import PairBatches
from lusifer.data.dedup import NEGATIVE, dedup
from lusifer.data.pairs import PairSettings, columns
from lusifer.data.schema import COLUMNS, check, text_hash
from lusifer.errors import DataError, UsageError
from lusifer.training.recipe.load import load_recipe
from lusifer.training.stages import contrastive

CASES = Path(__file__).parents[1] / "cases"

TEXTS = st.integers(0, 7).map("text {}".format)
QUERIES = st.integers(0, 4).map("query {}".format)
ROWS = st.lists(
    st.tuples(QUERIES, st.lists(TEXTS, min_size=1, max_size=3), st.lists(st.one_of(TEXTS, QUERIES), max_size=4)),
    min_size=1,
    max_size=12,
)


class Source(PairSettings):
    path, hub, instruction, symmetric, weight, split_by_source = "toy.jsonl", None, None, None, 1.0, False
    in_batch_negatives = True


def table(*found: tuple[str, list[str], list[str]]) -> Dataset:
    names = ("query", "positive", "negative")
    checked = [check("pairs", dict(zip(names, row, strict=True)), "row") for row in found]
    return Dataset.from_dict({name: [row[name] for row in checked] for name in COLUMNS["pairs"]})


def known(found: list[tuple[str, list[str], list[str]]], query: str) -> set[str]:
    """Written out once more: the query, its answers in all rows, the other queries of these answers."""
    answers = set(chain(*(positive for other, positive, _ in found if other == query)))
    return {query, *answers, *(other for other, positive, _ in found if answers & set(positive))}


@given(ROWS, st.booleans(), st.integers(1, 4))
def test_no_given_or_drawn_negative_is_a_known_answer(found: list, in_batch: bool, negatives: int) -> None:
    source = Source()
    source.in_batch_negatives = in_batch
    try:
        (made,) = columns(table(*found), source, negatives, seed=0)
    except DataError as error:
        assert "no row has a negative" in str(error)
        return
    for row in made.rows:
        assert not known(found, row["query"]) & {row[f"negative_{n}"] for n in range(1, negatives + 1)}
    wrong = [len(set(negative) & known(found, query)) for query, _, negative in found]
    assert made.removed == sum(wrong)


@given(ROWS, st.integers(0, 100), st.integers(0, 2))
def test_no_text_of_a_batch_answers_the_query_of_another_row(found: list, seed: int, negatives: int) -> None:
    rows = table(*found)
    try:
        (made,) = columns(rows, Source(), negatives, seed=0)
        batches = list(PairBatches(
            {"a": made.rows}, {"a": True}, batch_size=2, steps=8, seed=seed, answers=known_answers(rows)
        ))  # fmt: skip
    except (DataError, UsageError):
        return
    names = ["positive", *(f"negative_{number}" for number in range(1, negatives + 1))]
    for batch in batches:
        for row, theirs in permutations([made.rows[row] for row in batch]):
            assert not {theirs[name] for name in names} & known(found, row["query"])


def test_an_answer_that_stands_in_another_source_is_one() -> None:
    here, there = table(("q", ["a"], ["b", "c"])), table(("Q?", ["b"], []))
    (alone,) = columns(here, Source(), 1, seed=0)
    (both,) = columns(here, Source(), 1, seed=0, answers=known_answers(here, there))
    assert (alone.rows[0]["negative_1"], alone.removed) == ("b", 0)
    assert (both.rows[0]["negative_1"], both.removed) == ("c", 1)


@given(ROWS)
def test_dedup_takes_them_out_and_counts_them(found: list) -> None:
    names = ("query", "positive", "negative")
    checked = [check("pairs", dict(zip(names, row, strict=True)), "row") for row in found]
    kept, report = dedup(checked, "pairs", threshold=2)
    for row in list(kept):
        assert not known(found, row["query"]) & set(row["negative"])
        assert len(set(row["negative"])) == len(row["negative"])
    unlike = {(query, frozenset(positive)): negative for query, positive, negative in reversed(found)}  # first of each
    wrong = sum(len(negative) - len(set(negative) - known(found, query)) for (query, _), negative in unlike.items())
    assert report.counts.get(NEGATIVE, 0) == wrong


def test_partners_go_one_step_further() -> None:
    pairs = [("q1", "p"), ("q2", "p"), ("q2", "other"), ("q3", "third")]
    answers = KnownAnswers([(text_hash(query), text_hash(positive)) for query, positive in pairs])
    assert answers.of(text_hash("Q1!")) == {text_hash(text) for text in ("q1", "p", "q2")}
    assert answers.of(text_hash("unknown")) == {text_hash("unknown")}


@pytest.mark.parametrize("file", ["negative-is-answer-elsewhere.jsonl", "negative-is-query.jsonl"])
@pytest.mark.parametrize("in_batch", [True, False])
def test_no_step_of_a_stage_has_one(file: str, in_batch: bool) -> None:
    given_rows = [json.loads(line) for line in (CASES / file).read_text(encoding="utf-8").splitlines()]
    found = [(row["query"], row["positive"], row["negative"]) for row in given_rows]
    changes = (f"path={CASES / file}", f"in_batch_negatives={str(in_batch).lower()}")
    recipe = load_recipe("tiny", [
        "stages.contrastive.batch_size=4", "stages.contrastive.mini_batch_size=4",
        "stages.contrastive.hard_negatives=2",
        *(f"stages.contrastive.data.0.{change}" for change in changes),
    ])  # fmt: skip
    if file == "negative-is-query.jsonl" and not in_batch:
        with pytest.raises(DataError, match=r"no row has a negative \(\d+ that answer their query were removed\)"):
            contrastive.examples(recipe, recipe.stages[1], seed=1)
        return
    rows = contrastive.examples(recipe, recipe.stages[1], seed=1)
    (made, _), *_ = rows.found.values()
    for step in rows.plan:
        batch = [made.rows[row] for row in step.rows]
        for row in batch:
            others = batch if in_batch else [row]
            texts = [other["positive"] for other in others if other is not row]
            texts += [other[name] for other in others for name in ("negative_1", "negative_2")]
            assert not known(found, row["query"]) & set(texts)
    assert made.removed == sum(len(set(negative) & known(found, query)) for query, _, negative in found) > 0


def test_rows_that_differ_in_a_number_are_no_repeats() -> None:
    rows = [{**json.loads(line), "source": None} for line in (CASES / "near-numbers.jsonl").read_text().splitlines()]
    kept, _ = dedup(rows, "passages")
    assert [row["text"] for row in kept] == [row["text"] for row in rows]
    same = [rows[0], {"text": rows[0]["text"].replace("last repaired", "repaired"), "source": None}]
    assert len(list(dedup(same, "passages")[0])) == 1  # words may differ
