"""Scores as Markdown tables."""

import re
from dataclasses import replace

import numpy as np
import pytest

from lusifer import language_gap
from lusifer.errors import UsageError
from lusifer.evaluation.report import tables
from lusifer.evaluation.report.card import model_card
from lusifer.evaluation.scores.bootstrap import Examples
from lusifer.evaluation.scores.results import Seen
from support.score_folders import entry, results, right

RIGHT = [1.0, 0.0, 1.0, 1.0]
BOTH = results("mini", {(code, task): right(*RIGHT) for code in ("en", "es", "sw") for task in ("A", "B")})
CLOUD = np.random.default_rng(1).normal(size=(30, 16))
GAP = results("raw", {(code, "A"): right(*RIGHT[::-1]) for code in ("en", "es")}, entry("sw", "A", None))
CROSS = entry("hi", "MLQA", 20.0, cross_lingual=True, type="Retrieval", subsets=("hi-en",))


def block(title, *args):
    """The tables of the page under the last heading with this title."""
    parts = re.split(r"^## .*: (.*)\n\n", tables.page(*args), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2]))[title].strip()


def by_task(*args):
    return block("by task", *args)


def averages(results, published=None, covers=()):
    return block("averages", results, (published or {}, covers))


def cells(text: str, label: str) -> list[str]:
    """The cells of the first row with this label."""
    row = next(line for line in text.splitlines() if line.startswith(f"| {label} |"))
    return [cell.strip() for cell in row.strip("|").split(" | ")][1:]


def well_formed(text: str) -> bool:
    """Every table has a line of alignment and rows of one width, and nothing ends with white space."""
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    for block in blocks:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block}
        if len(widths) != 1 or not re.fullmatch(r"\| ---( \| ---:)* \|", block[1]):
            return False
    return bool(blocks) and text == text.strip() and "\n\n\n" not in text


def test_one_model_has_a_column_a_task_and_several_have_a_table_a_task():
    one = by_task([BOTH])
    assert cells(one, "language") == ["A (accuracy, %, dev)", "B (accuracy, %, dev)"]
    assert cells(one, "Swahili (sw)") == ["75.0", "75.0"]
    several = by_task([BOTH, GAP])
    assert [line for line in several.splitlines() if line.startswith("**")] == [
        "**A (accuracy, %, dev)**", "**B (accuracy, %, dev)**",
    ]  # fmt: skip
    assert cells(several, "Swahili (sw)") == ["75.0", "missing"]
    assert all(map(well_formed, (one, several)))
    assert "resources" not in one


def test_a_mean_says_how_sure_it_is_and_over_how_much():
    mini, raw = cells(by_task([BOTH, GAP]), "mean of all languages")
    assert re.fullmatch(r"75\.0 \(\d+\.\d to 100\.0\), 3 languages", mini)
    assert re.fullmatch(r"75\.0 \(\d+\.\d to 100\.0\), over fewer: 2 of 3 languages", raw)


def test_what_is_missing_stands_beneath_with_its_reason():
    text = by_task([BOTH, GAP])
    assert "- raw: missing: A (sw): no such file" in text
    assert "- raw: missing: B (en, es, sw): not evaluated" in text
    assert "- a mean over fewer is not comparable with one over all" in text
    assert "fewer" not in by_task([BOTH])


def test_a_language_that_a_task_has_not_is_not_missing():
    text = by_task([results("mini", {}, entry("en", "A"), entry("en", "B"), entry("es", "B"))])
    assert cells(text, "Spanish (es)") == ["-", "50.0"]
    assert "- `-`: the task has no scores in this language" in text and "missing" not in text
    assert "no interval of scores without examples: A (en), B (en, es)" in text


def test_means_by_type():
    more = replace(BOTH, scores=(*BOTH.scores, entry("en", "C", 10.0, type="STS"), entry("es", "C", None, type="STS")))
    text = block("by type of task", [more])
    assert cells(text, "language") == ["Classification", "STS"]
    first, second = cells(text, "English (en)")
    assert first.startswith("75.0 (") and first.endswith("), 2 tasks")
    assert second == "10.0, 1 task"
    assert cells(text, "Swahili (sw)")[1] == "-" and cells(text, "Spanish (es)")[1] == "missing"
    assert cells(text, "mean of all languages")[1] == "10.0, over fewer: 1 of 2 languages"
    assert well_formed(text)


def test_averages_by_language_and_by_resources():
    text = averages([BOTH, GAP])
    assert cells(text, "English (en)")[1].endswith("over fewer: 1 of 2 tasks")
    assert cells(text, "mean of all languages")[0].endswith(", 3 languages, 2 tasks")
    assert cells(text, "mean of all languages")[1].endswith("over fewer: 2 of 3 languages, 1 of 2 tasks, 2 of 6 scores")
    assert cells(text, "mean of extremely low resources (sw)")[1] == "missing"
    assert all(cell.endswith(", 2 languages") for cell in cells(text, "mean of the scores that all models have"))
    assert well_formed(text)


def test_averages_of_cross_lingual_scores_go_by_task():
    other = entry("es", "MLQA", 50.0, cross_lingual=True, subsets=("es-en", "en-es"))
    more = entry("es", "STS17", 80.0, cross_lingual=True, subsets=("es-en",))
    text = averages([results("mini", {}, CROSS, other, more)])
    assert cells(text, "MLQA") == ["40.0, 2 languages"]
    assert cells(text, "mean of all tasks") == ["60.0, 2 languages, 2 tasks"]
    assert cells(by_task([results("mini", {}, CROSS, other)]), "mean of all pairs") == ["40.0, 2 languages"]


PUBLISHED = {"E5": {"en": 61.25, "es": 50.0, "sw": 40.0}}
COVERS = {(code, task) for code in PUBLISHED["E5"] for task in ("A", "B")}


def test_published_rows_stand_beside_ours_where_the_same_tasks_were_run():
    text = averages([BOTH], PUBLISHED, COVERS)
    assert cells(text, "language") == ["mini", "E5 (published)"]
    assert cells(text, "English (en)")[1] == "61.2"
    assert cells(text, "mean of all languages")[1] == "50.4"
    assert "no published score" not in text


def test_published_rows_are_kept_away_from_other_tasks_with_the_reason():
    text = averages([BOTH], PUBLISHED, COVERS - {("es", "B")} | {("sw", "C")})
    assert cells(text, "Spanish (es)")[1] == cells(text, "mean of all languages")[1] == "not comparable"
    assert cells(text, "English (en)")[1] == "61.2"
    assert "- no published score beside sw: not run here: C" in text
    assert "- no published score beside es: not under the published mean: B" in text
    apart = averages([GAP], PUBLISHED, COVERS)
    assert "E5" not in apart and "- no published score beside sw: not run here: A, B" in apart
    fewer = averages([BOTH], {"E5": {"en": 61.25}}, COVERS)
    assert cells(fewer, "Spanish (es)")[1] == cells(fewer, "mean of all languages")[1] == "not published"


def test_no_model_has_all_that_a_published_mean_covers_although_all_was_run():
    halves = [results(name, {("en", task): right(*RIGHT)}) for name, task in (("one", "A"), ("two", "B"))]
    text = averages(halves, PUBLISHED, COVERS)
    assert "no published score beside en: no model has all of its tasks" in text


def test_a_page_keeps_cross_lingual_scores_apart():
    both = replace(BOTH, scores=(*BOTH.scores, CROSS))
    text = tables.page([both], (PUBLISHED, COVERS), ({"E5": {"MLQA": 31.54}}, {("hi", "MLQA")}))
    blocks = ("averages", "by type of task", "by task")
    headings = [f"## {kind}: {block}" for kind in ("Monolingual", "Cross-lingual") for block in blocks]
    assert re.findall("^## .*", text, flags=re.MULTILINE) == headings
    mono, cross = text.split("## Cross-lingual: averages")
    assert "MLQA" not in mono and "**A (" not in cross
    assert cells(cross, "MLQA") == ["20.0, 1 task", "31.5"]
    assert "Cross-lingual" not in tables.page([BOTH])


def test_names_with_bars_and_line_breaks_do_not_break_a_table():
    odd = replace(BOTH, model=replace(BOTH.model, name="a|b\nc"))
    for text in (by_task([odd, GAP]), averages([odd])):
        assert "a\\|b c" in text
        assert well_formed(text)


def test_texts_that_were_met_in_training_are_said():
    met = replace(BOTH, scores=(replace(BOTH.scores[0], seen=Seen(3, 99)), replace(BOTH.scores[1], seen=Seen(0, 99))))
    assert by_task([met]).endswith("- texts met in training: A (en): 3 of 99")
    assert "met in training" not in by_task([BOTH])


def test_what_rounds_to_nothing_has_no_minus():
    assert tables.score_cell(-0.04) == "0.0"
    assert tables.with_interval(-0.04, -10.04, 0.04) == "0.0 (-10.0 to 0.0)"
    assert [tables.score_cell(value, "+") for value in (-0.04, -10.04, 0.06)] == ["+0.0", "-10.0", "+0.1"]


def test_a_card_has_a_table_a_task_with_the_intervals():
    first = replace(BOTH.scores[0], low=30.0, high=99.0, n=1200, seen=Seen(0, 1200))
    draws = results("mini", {("en", "Clusters"): Examples("draws", ("0", "1"), [0.2, 0.4])})
    scores = (first, *BOTH.scores[1:], *draws.scores, CROSS)
    both = replace(BOTH, scores=scores, examples={**BOTH.examples, **draws.examples})
    text = model_card([both, replace(GAP, model=both.model, suite="quick")])
    assert re.findall("^### .*", text, flags=re.MULTILINE) == [
        "### Suite offline, within each language", "### Suite offline, from one language to another",
        "### Suite quick, within each language",
    ]  # fmt: skip
    assert cells(text, "language") == ["score", "95 % interval", "examples", "met in training"]
    assert cells(text, "English (en)") == ["75.0", "30.0 to 99.0", "1,200", "0 of 1200"]
    assert cells(text, "Spanish (es)")[1].endswith(" to 100.0")
    assert cells(text, "Hindi (hi)") == ["20.0", "", ""]
    assert "| English (en) | 30.0 | none; standard deviation of 2 draws 14.1 |  |" in text
    assert "- missing: A (sw): no such file" in text
    assert well_formed(text)


def test_a_card_is_of_one_model():
    with pytest.raises(UsageError, match="raw is of another model than mini"):
        model_card([BOTH, GAP])
    with pytest.raises(UsageError, match="needs an evaluation folder"):
        model_card([])


def test_the_table_has_a_row_a_language_and_a_dash_for_what_is_not_there() -> None:
    found = language_gap.measure(np.asarray, {"en": CLOUD, "sw": CLOUD, "tlh": -(CLOUD[::-1] ** 2)})
    lines = tables.language_gap(found).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:6]]
    rows = {row[0]: row[1:] for row in cells}
    assert list(rows) == ["English", "Swahili", "tlh", "mean"]
    assert all(len(row) == lines[0].count(" | ") for row in rows.values())
    assert rows["English"][:7] == ["-"] * 7 and rows["Swahili"][0] == "100.0" and rows["Swahili"][3] == "-"
    assert rows["mean"][0] == f"{(100 + found.against['tlh'].to_english) / 2:.1f}"
    assert "30 sentences in each of 3 languages" in lines[-1] and "by chance both are 33.3" in lines[-1]
