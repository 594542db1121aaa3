"""What a report says of questions: every figure by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from lusifer.errors import DataError
from lusifer.evaluation.scores import power, questions
from lusifer.evaluation.scores.questions import AnsweredQuestion, QuestionHit
from lusifer.evaluation.scores.results import Entry, Model, Results
from lusifer.evaluation.search.collection import judged
from lusifer.evaluation.search.ranked import DETAILED


def asked(id: str, ranks: tuple[int, ...], languages: tuple[str, ...], first: str, chance=0.25, top=0.5):
    made = judged([ranks], list(DETAILED.values()))
    measures = {name: made[measure][0] for name, measure in DETAILED.items()}
    right = tuple(f"right {n}" for n in range(len(ranks)))
    return AnsweredQuestion(id, "de", right, ranks, languages, measures, chance, (QuestionHit("d", first, top),))


FOUR = (
    asked("a", (1, 9), ("en", "de"), "de"),
    asked("b", (2,), ("en",), "de", chance=0.2),
    asked("c", (5,), ("en",), "de", chance=0.4),
    asked("d", (3,), ("en",), "en", chance=0.6),
)


def test_max_at_r_is_the_place_of_the_needed_document_that_is_furthest_behind():
    row = questions.row(FOUR, "de", None)
    assert row.worst_place.value == 4 and row.last == 9  # of 9, 2, 5, 3
    assert row.worst_place.low >= 2 and row.worst_place.high <= 9
    # The mean over first places does not show it: that of the first question is 1.
    assert row.mrr.value == pytest.approx(100 * (1 + 1 / 2 + 1 / 5 + 1 / 3) / 4)


def test_the_first_document_is_right_if_it_is_one_of_several_that_are_needed():
    perfect = [asked(id, (1, 2), ("en", "en"), "en") for id in "abc"]
    row = questions.row([*perfect, asked("d", (3, 2), ("en", "en"), "de")], "de", None)
    assert row.first.value == 75 and row.errors == 1 and row.ten.value == 100
    report = questions.reports([results(part(right=["x", "y"], languages=["en", "de"], ranks=[2, 1]))], ["m"])[0]
    assert report.languages[0].first.value == 100 and "near 100 %" in report.reach[0]


def test_where_no_resample_differs_there_is_no_interval_but_the_exact_one_of_all_right():
    row = questions.row([asked(id, (2,), ("en",), "en") for id in "ab"], "de", None)
    assert (row.mrr.value, row.mrr.low) == (50, None) and (row.worst_place.value, row.worst_place.low) == (2, None)
    assert (row.first.low, row.ten.high) == (0, 100) and row.first.high == pytest.approx(84.19, abs=0.01)


def test_errors_in_the_own_language_are_of_those_where_it_is_known():
    row = questions.row([*FOUR, asked("e", (2,), ("en",), "und", chance=0.5)], "de", None)
    assert (row.errors, row.told) == (4, 3) and row.own.value == pytest.approx(200 / 3)
    assert row.chance == pytest.approx(40)


def test_errors_in_the_own_language_stand_beside_what_chance_gives():
    row = questions.row(FOUR, "de", None)
    assert row.errors == 3 and row.own.value == pytest.approx(200 / 3)
    assert row.chance == pytest.approx(100 * (0.2 + 0.4 + 0.6) / 3)


def test_where_no_wrong_document_is_in_the_language_nothing_is_said_of_it():
    row = questions.row([replace(each, chance=0.0) for each in FOUR], "de", None)
    assert row.errors == 3 and row.own is None and row.chance is None
    unknown = questions.row([replace(each, chance=None) for each in FOUR], "und", None)
    assert unknown.own is None


def test_controls_are_told_apart_as_often_as_pairs_say():
    # Of 3 x 2 pairs one with an answer is above in 0.9 > 0.5, 0.9 > 0.3, 0.5 > 0.3, 0.4 > 0.3, and equal in one.
    found = questions.auc(np.array([0.9, 0.5, 0.4]), np.array([0.5, 0.3]))
    assert found.value == pytest.approx(100 * 4.5 / 6) and found.low < found.value < found.high
    by_scipy = stats.mannwhitneyu([0.9, 0.5, 0.4], [0.5, 0.3]).statistic / 6
    assert found.value == pytest.approx(100 * by_scipy)


def test_the_threshold_lets_nine_of_ten_through_and_says_what_else_it_does():
    answered = [asked(f"q{n}", (1,), ("en",), "en", top=(n + 1) / 10) for n in range(10)]
    bare = AnsweredQuestion("n", "de", (), (), (), None, 0.2, (QuestionHit("d", "en", 0.15),))
    row = questions.control([*answered, bare, replace(bare, id="m", hits=(QuestionHit("d", "en", 0.35),))], "de")
    assert (row.answered, row.controls, row.threshold) == (10, 2, 0.1)
    assert row.passed == 100 and row.auc.value == pytest.approx(100 * (9 + 7) / 20)
    assert questions.control(answered, "de") is None


@pytest.mark.parametrize("rows", [1, 2, 5, 13, 14, 40])
def test_the_fewest_wins_are_what_mcnemars_test_asks_for(rows):
    wins = power.fewest_wins(rows)
    p = [stats.binomtest(n, n, 0.5).pvalue * rows for n in (wins - 1, wins)]
    assert p[0] >= 0.05 > p[1]


def test_what_thirty_questions_show():
    first, second, third, fourth = power.reach(30, 70, 5)
    assert "30 questions" in first and "±16 points" in first  # 1.96 * sqrt(0.7 * 0.3 / 30) = 0.164
    assert "at least 6 more" in second and "20 points" in second
    assert "157 questions" in third  # 2.8016^2 * 0.2 / 0.1^2
    assert "8 questions" in fourth
    assert "at least 6 questions" in power.reach(4, 50)[1]
    assert "±1.2 points" in power.reach(5950, 63)[0] and "0.1 points" in power.reach(5950, 63)[1]
    assert "1 question:" in power.reach(1, 100)[0]


def results(details: dict) -> Results:
    entry = Entry("de", "MyQuestions", "own", "Retrieval", "ndcg_at_10", "all", ("de",), False, 50.0)
    return Results("mine", Model("m"), (entry,), folder=Path("scores"), details={("de", "MyQuestions"): details})


def part(**changes) -> dict:
    question = {
        "id": "a", "language": "de", "right": ["x"], "languages": ["en"], "ranks": [3],
        "measures": {"ndcg": 0.5, "first": 0.0, "recall_10": 1.0}, "chance": 0.5,
        "hits": [{"id": "y", "language": "de", "score": 0.7}],
    }  # fmt: skip
    made = {"kind": "ranked", "documents": 3, "passages": 3, "cut": 1, "sent": {"a": "query: Wo?"}}
    return made | {"texts": {"x": "here", "y": None}, "questions": [question | changes]}


def test_the_worst_questions_have_the_texts_of_what_was_needed_and_found():
    report = questions.reports([results(part())], ["m"])[0]
    worst = report.worst[0]
    assert (worst.sent, worst.place) == ("query: Wo?", 3)
    assert worst.right == (("x", 3, "here"),) and worst.found == (("y", "de", 0.7, None),)
    assert [(row.language, row.documents) for row in report.pairs] == [("de", "en")]
    assert (report.documents, report.cut) == (3, 1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ranks": [1, 2]}, "each needed document needs an id"),
        ({"measures": None}, "each needed document needs an id"),
        ({"hits": 3}, r"questions\.0\.hits"),
    ],
)
def test_damaged_details_are_named(changes, words):
    with pytest.raises(DataError, match=rf"scores/details/MyQuestions\.json: de: .*{words}.*evaluate again"):
        questions.reports([results(part(**changes))], ["m"])


def test_details_of_other_tasks_are_left_aside():
    assert questions.reports([results({"kind": "other"})], ["m"]) == []
