"""Published scores, and the means that stand beside them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lusifer import languages
from lusifer.errors import DataError, UsageError
from lusifer.evaluation import published

ROWS = {table: published.rows(table) for table in published.tables()}


def entry(language, task, score, *, cross_lingual=False, subsets=("default",)):
    """One score as an evaluation writes it."""
    return {
        "language": language, "task": task, "score": score, "cross_lingual": cross_lingual, "subsets": list(subsets)
    }  # fmt: skip


def test_the_tables_are_those_of_the_paper():
    codes = [language.code for language in languages.paper()]
    assert [list(row.scores) for row in ROWS["by_language"]] == [codes] * 14
    tasks = ["MLQARetrieval", "BelebeleRetrieval", "STS17", "STS22", "IndicCrosslingualSTS"]
    assert [list(row.scores) for row in ROWS["cross_lingual"]] == [tasks] * 9
    assert [row.model for row in ROWS["by_language"] if row.multilingual_data] == [
        "Jina-embeddings-v3", "mGTE-base", "BGE-M3", "Multilingual-E5-large", "UDEVER-Bloom-7B"
    ]  # fmt: skip
    assert all("2501.00874" in row.source for table in ROWS.values() for row in table)
    with pytest.raises(UsageError, match="by_language, cross_lingual"):
        published.rows("table1")


@pytest.mark.parametrize("row", [row for table in ROWS.values() for row in table], ids=lambda row: row.model)
def test_published_averages_come_out_exactly(row):
    mean = published.average(row.scores)
    assert published.rounded(mean.value) == row.average
    assert (mean.of, mean.missing) == (len(row.scores), ())


def test_the_two_averages_that_the_paper_is_about():
    averages = {row.model: published.rounded(published.average(row.scores).value) for row in ROWS["by_language"]}
    assert (averages["LUSIFER"], averages["E5-Mistral"]) == (62.63, 59.44)
    # What a mean of a level is, by hand: Bengali and Telugu.
    scores = next(row.scores for row in ROWS["by_language"] if row.model == "LUSIFER")
    levels = published.average_by_level(scores)
    assert published.rounded(levels["low"].value) == published.rounded((58.43 + 69.30) / 2) == 63.87
    assert levels["extremely_low"] == published.Mean(53.12, 1)
    assert {level: mean.of for level, mean in levels.items()} == {"high": 5, "medium": 6, "low": 2, "extremely_low": 1}


def test_what_is_missing_is_listed_and_not_counted():
    entries = [entry("es", "A", 50.0), entry("es", "B", None), entry("es", "C", 60.0), entry("sw", "A", None)]
    means = published.average_by_language(entries)
    assert means == {"es": published.Mean(55.0, 2, ("B",)), "sw": published.Mean(None, 0, ("A",))}
    levels = published.average_by_level({code: mean.value for code, mean in means.items()})
    assert levels["high"] == published.Mean(55.0, 1, ("en", "ru", "fr", "vi"))
    assert levels["extremely_low"].value is None


def test_pairs_of_languages_are_in_no_mean_of_single_ones():
    entries = [
        entry("ar", "STS17", 80.0),
        entry("ar", "STS17", 20.0, cross_lingual=True, subsets=["en-ar"]),
        entry("ar", "MLQARetrieval", 10.0, cross_lingual=True, subsets=["ara-eng", "eng-ara"]),
        entry("es", "MLQARetrieval", 40.0, cross_lingual=True, subsets=["eng-spa"]),
    ]
    assert published.average_by_language(entries)["ar"].value == 80.0
    assert published.average_by_language(entries, cross_lingual=True)["ar"].value == 15.0
    by_task = published.average_by_task(entries)
    # The Arabic score stands for two pairs, the Spanish for one.
    assert {task: mean.value for task, mean in by_task.items()} == {"STS17": 20.0, "MLQARetrieval": 20.0}
    assert list(published.average_by_task(entries, cross_lingual=False)) == ["STS17"]


def test_languages_come_in_the_order_of_the_paper():
    entries = [entry(code, "A", 1.0) for code in ("xx", "yo", "sw", "en", "ko")]
    assert list(published.average_by_language(entries)) == ["en", "ko", "sw", "yo", "xx"]


def test_refuses_what_would_spoil_a_mean():
    with pytest.raises(DataError, match="A, es: two scores"):
        published.average_by_language([entry("es", "A", 1.0), entry("es", "A", 2.0)])
    for score in (math.nan, math.inf):
        with pytest.raises(DataError, match="es: the score is"):
            published.average({"es": score})
    assert published.average({}) == published.Mean(None, 0)


@given(st.integers(0, 10_000), st.integers(1, 14))
def test_a_half_goes_up_however_it_was_summed(hundredths, count):
    half = hundredths / 100 + 0.005
    assert published.rounded(math.fsum([half] * count) / count) == (hundredths + 1) / 100
    assert published.rounded(sum([half] * count) / count) == (hundredths + 1) / 100
    assert published.rounded(hundredths / 100) == hundredths / 100
