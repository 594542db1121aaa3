"""Scores as Markdown: what `lusifer evaluate` shows, and the section of a model card."""

import re
from dataclasses import replace

import numpy as np

from lusifer import language_gap
from lusifer.evaluation.report import card, facts, words
from lusifer.evaluation.report.card import model_card
from lusifer.evaluation.scores.averages import Mean
from lusifer.evaluation.scores.bootstrap import Examples
from lusifer.evaluation.scores.results import Seen
from support.score_folders import entry, results, right

RIGHT = [1.0, 0.0, 1.0, 1.0]
BOTH = results("mini", {(code, task): right(*RIGHT) for code in ("en", "es", "sw") for task in ("A", "B")})
CLOUD = np.random.default_rng(1).normal(size=(30, 16))
GAP = results("raw", {(code, "A"): right(*RIGHT[::-1]) for code in ("en", "es")}, entry("sw", "A", None))
CROSS = entry("hi", "MLQA", 20.0, cross_lingual=True, type="Retrieval", subsets=("hi-en",))


def page(*models):
    return card.markdown(facts.gather(models))


def block(text, title):
    """What stands under this bold title, up to the next title or heading."""
    return re.split(r"\n\n(?:\*\*|## )", text.split(f"**{title}**\n\n", 1)[1])[0]


def averages(*models, kind="language"):
    return block(page(*models), f"Mean by {kind}")


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
    return bool(blocks) and text.strip() == text.rstrip("\n") and "\n\n\n" not in text


def test_one_model_has_its_intervals_beside_its_scores_and_several_have_a_column_each():
    one = block(page(BOTH), "A (accuracy, %, dev)")
    assert cells(one, "language") == ["score", "95 % interval", "examples"]
    score, interval, _ = cells(one, "Swahili (sw)")
    assert score == "75.0" and re.fullmatch(r"\d+\.\d to \d+\.\d", interval)
    several = page(BOTH, GAP)
    assert re.findall(r"^\*\*(\w) \(", several, flags=re.MULTILINE) == ["A", "B"]
    assert cells(block(several, "A (accuracy, %, dev)"), "language") == ["mini", "raw", "examples"]
    mini, raw, _ = cells(block(several, "A (accuracy, %, dev)"), "Swahili (sw)")
    assert mini == f"75.0 ({interval})" and raw == "missing"
    assert well_formed(page(BOTH)) and well_formed(several)


def test_a_mean_says_how_sure_it_is_and_over_how_much():
    mini, raw, results = cells(averages(BOTH, GAP, kind="task"), "A")
    assert all(re.fullmatch(r"75\.0 \(\d+\.\d to 100\.0\)", mean) for mean in (mini, raw))
    assert results == "2 of 3"  # of the results that both have
    assert cells(averages(BOTH, kind="task"), "A")[1] == "3"
    text = block(page(GAP), "A (accuracy, %, dev)")
    assert re.fullmatch(r"\d+\.\d to 100\.0", cells(text, "mean of all languages (2 of 3)")[1])


def test_what_is_missing_stands_beneath_with_its_reason():
    text = page(BOTH, GAP)
    assert "- raw: missing: A (sw): no such file" in block(text, "A (accuracy, %, dev)")
    assert "- raw: missing: B (en, es, sw): not evaluated" in block(text, "B (accuracy, %, dev)")
    assert "a mean is over 12 of the 14 results" in text and "not comparable with one over all" in text
    assert "missing:" not in page(BOTH)


def test_a_language_that_a_task_has_not_is_not_missing():
    text = page(results("mini", {}, entry("en", "A"), entry("en", "B"), entry("es", "B")))
    assert "Spanish (es)" not in block(text, "A (accuracy, %, dev)") and "missing:" not in text
    assert cells(averages(results("mini", {}, entry("en"), entry("es", "B"))), "Spanish (es)") == ["50.0", "1"]
    assert "no interval for scores without examples: A (en), and for means over them" in text
    assert "no interval for scores without examples: B (en, es), and for means over them" in text


def test_means_by_type():
    more = replace(BOTH, scores=(*BOTH.scores, entry("en", "C", 10.0, type="STS"), entry("es", "C", None, type="STS")))
    text = page(more)
    first, size = cells(block(text, "Mean by type of task"), "Classification")
    assert first.startswith("75.0 (") and size == "6"
    assert cells(block(text, "Mean by type of task"), "STS") == ["10.0", "1 of 2"]
    both = block(text, "Mean by language and type of task")
    assert cells(both, "English (en), Classification")[1] == "2" and cells(both, "English (en), STS") == ["10.0", "1"]
    assert "Swahili (sw), STS" not in both and cells(both, "Spanish (es), STS") == ["missing", "0 of 1"]
    assert well_formed(text)


def test_averages_by_language_and_by_resources():
    text = page(BOTH, GAP)
    assert cells(block(text, "Mean by language"), "English (en)")[2] == "1 of 2"
    assert cells(block(text, "Mean by language"), "all")[2] == "2 of 6"
    assert cells(averages(BOTH, kind="group of languages"), "all languages")[1] == "6"
    assert cells(block(text, "Mean by group of languages"), "extremely low resources (sw)")[1:] == ["missing", "2"]
    assert well_formed(text)


def test_averages_of_cross_lingual_scores_go_by_task():
    other = entry("es", "MLQA", 50.0, cross_lingual=True, subsets=("es-en", "en-es"))
    more = entry("es", "STS17", 80.0, cross_lingual=True, subsets=("es-en",))
    text = averages(results("mini", {}, CROSS, other, more), kind="task, cross-lingual")
    assert cells(text, "MLQA") == ["40.0", "2"]
    assert cells(text, "all") == ["60.0", "3"]
    only = block(page(results("mini", {}, CROSS, other)), "MLQA (accuracy, %, dev)")
    assert cells(only, "mean of all languages")[0] == "40.0"


PUBLISHED = {"E5": {"en": 61.25, "es": 50.0, "sw": 40.0}}
COVERS = {(code, task) for code in PUBLISHED["E5"] for task in ("A", "B")}


def beside(*models, published=PUBLISHED, covers=COVERS):
    """The tables of means by language and by group with published rows, and why some have none."""
    found = facts.gather(models)
    scores = replace(found.own, published=published, covers=covers)
    return card.markdown(replace(found, own=scores))


def test_published_rows_stand_beside_ours_where_the_same_tasks_were_run():
    text = block(beside(BOTH), "Mean by language")
    assert cells(text, "language") == ["mini", "E5 (published)", "results"]
    assert cells(text, "English (en)")[1] == "61.2"
    assert cells(text, "all")[1] == "50.4"
    assert "published score for" not in beside(BOTH)
    assert "E5" not in block(beside(BOTH), "Mean by task")


def test_published_rows_are_kept_away_from_other_tasks_with_the_reason():
    whole = beside(BOTH, covers=COVERS - {("es", "B")} | {("sw", "C")})
    text = block(whole, "Mean by language")
    assert cells(text, "Spanish (es)")[1] == cells(text, "all")[1] == "not comparable"
    assert cells(text, "English (en)")[1] == "61.2"
    assert "- no comparable published score for sw: not measured here: C" in whole
    assert "- no comparable published score for es: not in the published mean: B" in whole
    apart = beside(GAP)
    assert "E5" not in apart and "- no comparable published score for sw: not measured here: A, B" in apart
    fewer = block(beside(BOTH, published={"E5": {"en": 61.25}}), "Mean by language")
    assert cells(fewer, "Spanish (es)")[1] == cells(fewer, "all")[1] == "not published"


def test_no_model_has_all_that_a_published_mean_covers_although_all_was_run():
    halves = [results(name, {("en", task): right(*RIGHT)}) for name, task in (("one", "A"), ("two", "B"))]
    assert "no comparable published score for en: not measured by every model: A, B" in beside(*halves)


def test_published_scores_are_those_of_the_suite():
    found = facts.gather([replace(BOTH, suite="paper", scores=(*BOTH.scores, CROSS))])
    assert "LUSIFER" in found.own.published and ("sw", "XNLI") in found.own.covers
    assert "MLQARetrieval" in found.cross.published["LUSIFER"]
    assert not facts.gather([BOTH]).own.published


def test_a_page_keeps_cross_lingual_scores_apart():
    text = page(replace(BOTH, scores=(*BOTH.scores, CROSS)))
    assert re.findall("^## (.*)", text, flags=re.MULTILINE)[1:] == ["Monolingual", "Cross-lingual", "Measured"]
    mono, cross = text.split("## Cross-lingual")
    assert "MLQA" not in mono and "**A (" not in cross
    assert cells(cross, "MLQA") == ["20.0", "1"]
    assert "## Cross-lingual" not in page(BOTH)


def test_names_with_bars_and_line_breaks_do_not_break_a_table():
    odd = replace(BOTH, model=replace(BOTH.model, name="a|b\nc"))
    for text in (page(odd, GAP), page(odd)):
        assert "a\\|b c" in text
        assert well_formed(text)


def test_texts_that_were_met_in_training_are_said():
    met = replace(BOTH, scores=(replace(BOTH.scores[0], seen=Seen(3, 99)), replace(BOTH.scores[1], seen=Seen(0, 99))))
    text = block(page(met), "A (accuracy, %, dev)")
    assert (
        text.endswith("- test texts seen in training: A (en): 3 of 99") and cells(text, "English (en)")[3] == "3 of 99"
    )
    assert "- mini: test texts seen in training: A (en): 3 of 99" in page(met, GAP)
    assert "seen in training" not in page(BOTH)


def test_a_folder_in_which_nothing_was_measured_has_a_page_too():
    assert "0 scores measured, none missing" in page(results("mini", {}))


def test_what_rounds_to_nothing_has_no_minus():
    assert words.score_cell(-0.04) == "0.0"
    assert words.mean_cell(Mean(-0.04, -10.04, 0.04, True)) == "0.0 (-10.0 to 0.0)"
    assert [words.score_cell(value, "+") for value in (-0.04, -10.04, 0.06)] == ["+0.0", "-10.0", "+0.1"]


def test_a_card_has_a_table_a_task_with_the_intervals():
    first = replace(BOTH.scores[0], low=30.0, high=99.0, n=1200, seen=Seen(0, 1200))
    draws = results("mini", {("en", "Clusters"): Examples("draws", ("0", "1"), [0.2, 0.4])})
    scores = (first, *BOTH.scores[1:], *draws.scores, CROSS)
    both = replace(BOTH, scores=scores, examples={**BOTH.examples, **draws.examples})
    text = model_card(both)
    assert re.findall("^### .*", text, flags=re.MULTILINE) == [
        "### Suite offline, within each language", "### Suite offline, from one language to another",
    ]  # fmt: skip
    assert cells(text, "language") == ["score", "95 % interval", "examples", "seen in training"]
    assert cells(text, "English (en)") == ["75.0", "30.0 to 99.0", "1,200", "0 of 1200"]
    assert cells(text, "Spanish (es)")[1].endswith(" to 100.0")
    assert cells(text, "Hindi (hi)") == ["20.0", "", ""]
    assert "| English (en) | 30.0 | none; standard deviation of 2 draws 14.1 |  |" in text
    assert "- missing: A (sw): no such file" in model_card(GAP)
    assert well_formed(text)


def test_the_table_has_a_row_a_language_and_a_dash_for_what_is_not_there() -> None:
    found = language_gap.measure(np.asarray, {"en": CLOUD, "sw": CLOUD, "tlh": -(CLOUD[::-1] ** 2)})
    text = card.markdown(replace(facts.gather([BOTH]), gaps=(found,)))
    assert "mini: 30 sentences in each of 3 languages" in text and "are both 33.3" in text
    lines = re.search(r"\| language \| xx to en.*?\n\n", text, flags=re.DOTALL)[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:6]]
    rows = {row[0]: row[1:] for row in cells}
    assert list(rows) == ["English (en)", "Swahili (sw)", "Klingon (tlh)", "mean"]
    assert all(len(row) == lines[0].count(" | ") for row in rows.values())
    assert rows["English (en)"][:7] == ["-"] * 7
    assert rows["Swahili (sw)"][0] == "100.0" and rows["Swahili (sw)"][3] == "-"
    assert rows["mean"][0] == f"{(100 + found.against['tlh'].to_english) / 2:.1f}"
    assert well_formed(text)


def test_errors_in_the_own_language_stand_with_the_number_that_they_are_of():
    asked = [
        {
            "id": id, "language": "de", "right": ["x"], "languages": ["en"], "ranks": [2], "chance": 0.5,
            "measures": {"ndcg": 0.5, "recall_10": 1.0}, "hits": [{"id": "y", "language": code, "score": 0.7}],
        }
        for id, code in (("a", "de"), ("b", "und"), ("c", "de"))
    ]  # fmt: skip
    details = {"kind": "ranked", "documents": 3, "passages": 3, "cut": 0, "sent": {}, "texts": {}, "questions": asked}
    made = results("mini", {}, entry("de", "MyQuestions", 50.0))
    text = page(replace(made, suite="mine", details={("de", "MyQuestions"): details}))
    row = next(line for line in text.splitlines() if line.startswith("| German (de) |") and "English" in line)
    assert row.endswith("of 2 of 3 | 50.0 |") and "| 50.0 | 0.0 (0.0 to " in row
