"""Published scores, and the means that stand beside them."""

from __future__ import annotations

import re
from decimal import ROUND_HALF_UP, Decimal

import pytest

from lusifer import languages
from lusifer.evaluation.report import card, facts
from lusifer.evaluation.scores.averages import LANGUAGE, TASK, boards
from lusifer.evaluation.scores.results import Entry, Model, Results
from lusifer.evaluation.suites import benchmark

FACTS = benchmark.table("published.toml")
ROWS = {table: benchmark.published(table) for table in FACTS}


def results_of(model: str, table: str) -> Results:
    """A published row as if it had been measured: a task a language, or a language with each task."""
    cross = table == "cross_lingual"
    entries = [
        Entry(
            *(("es", name) if cross else (name, "task")),
            title=name, type="STS", metric="m", split="test", subsets=("en-es" if cross else name,),
            cross_lingual=cross, score=score,
        )
        for name, score in ROWS[table][model].items()
    ]  # fmt: skip
    return Results("paper", Model(model), tuple(entries))


def average(model: str, table: str) -> float:
    """The overall mean by the code that makes our tables, half up at two decimals as in the paper."""
    board = boards([results_of(model, table)])[0]
    value = board.mean(board.entries, TASK if table == "cross_lingual" else LANGUAGE).value
    return float(Decimal(str(round(value, 9))).quantize(Decimal("0.01"), ROUND_HALF_UP))


def test_the_tables_are_those_of_the_paper():
    codes = [language.code for language in languages.paper()]
    assert [list(row) for row in ROWS["by_language"].values()] == [codes] * 14
    tasks = ["MLQARetrieval", "BelebeleRetrieval", "STS17", "STS22", "IndicCrosslingualSTS"]
    assert [list(row) for row in ROWS["cross_lingual"].values()] == [tasks] * 9
    assert [model for model, row in FACTS["by_language"]["models"].items() if row["multilingual_data"]] == [
        "Jina-embeddings-v3", "mGTE-base", "BGE-M3", "Multilingual-E5-large", "UDEVER-Bloom-7B"
    ]  # fmt: skip
    assert all("2501.00874" in table["source"] for table in FACTS.values())


@pytest.mark.parametrize(("table", "model"), [(table, model) for table, rows in ROWS.items() for model in rows])
def test_published_averages_come_out_of_the_code_of_our_tables(table, model):
    assert average(model, table) == FACTS[table]["models"][model]["average"]


def test_the_two_averages_that_the_paper_is_about():
    assert (average("LUSIFER", "by_language"), average("E5-Mistral", "by_language")) == (62.63, 59.44)
    # What a mean of a level is, by hand: Bengali and Telugu.
    board = boards([results_of("LUSIFER", "by_language")])[0]
    assert board.mean([("bn", "task"), ("te", "task")]).value == pytest.approx((58.43 + 69.30) / 2)
    text = card.markdown(facts.gather([results_of("LUSIFER", "by_language")]))
    assert re.search(r"^\| all languages \| 62\.6 \|.* 14 \|$", text, flags=re.MULTILINE)
    assert re.search(r"^\| low resources \(bn, te\) \| 63\.9 \|.* 2 \|$", text, flags=re.MULTILINE)


def test_a_published_average_covers_what_mteb_has_no_monolingual_subset_for():
    covers = benchmark.covers("by_language")
    assert {("fr", "STS17"), ("hi", "IndicCrosslingualSTS")} <= covers and ("sw", "XNLI") in covers
    assert {language for language, _ in covers} == {language.code for language in languages.paper()}
    assert all(task in ROWS["cross_lingual"]["LUSIFER"] for _, task in benchmark.covers("cross_lingual"))
