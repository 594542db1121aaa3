"""Many languages: their groups, and one picture of them all."""

import re

import pytest

from lusifer import languages
from lusifer.errors import UsageError
from lusifer.evaluation.report import atlas, card, facts, figures, page, verdict
from lusifer.evaluation.scores.averages import groups
from support.score_folders import entry, results, right

CODES = [code for code in languages.resource_classes() if code != "en"]


def model(name: str, missing: str = "sat"):
    examples = {(code, "Found"): right(float(code != "nqo"), 0.0, 1.0) for code in CODES if code != missing}
    gone = entry(missing, "Found", None, cross_lingual=True)
    more = {(code, "Asked"): right(1.0, 0.0) for code in CODES[:40]}
    return results(name, examples | more, gone, cross_lingual=True)


def test_many_languages_are_grouped_by_published_facts():
    found = groups(["en", *CODES])
    assert [len(found[f"resource class {number}"]) for number in (5, 4, 3, 2, 1)] == [8, 18, 27, 17, 96]
    assert len(found["resource class 0 or none"]) == 39
    assert len(found["seen by XLM-R"]) == 91 and len(found["not seen by XLM-R"]) == 114
    assert found["the paper's languages"] == [row.code for row in languages.paper()]
    scripts = {label: codes for label, codes in found.items() if "script" in label}
    assert sum(map(len, scripts.values())) == 205 and list(scripts)[0] == "script Latn"
    assert all(len(codes) > 2 for codes in scripts.values())


def test_groups_are_compared_in_the_tasks_that_every_language_was_asked():
    scores = facts.gather([model("mini")]).cross
    assert scores.many and scores.everywhere == ["Found"]
    words = "Found, of 204 languages: mini at least 80 in 0, under 50 in 1, missing in 1."
    assert words in verdict.sentences(facts.gather([model("mini")]))
    tables = scores.tables()
    assert tables[0].caption == "Mean by group of languages: Found"
    row = next(row for row in tables[0].rows if row.label == "resource class 1")
    assert (row.shared, row.of) == (95, 96) and row.means[0].low < row.means[0].value  # one is missing, and is no 0
    assert "languages" not in [table.what for table in tables[1:]]
    text = card.model_card(model("mini"))
    assert (
        "| resource class 0 or none |" in text and "Joshi et al. 2020" in text and "| Santali (sat) | missing |" in text
    )


def test_each_language_is_a_line_of_the_picture_and_a_missing_score_is_hatched():
    found = atlas.lines(CODES)
    assert [name for name, code in found if code is None] == [
        "class 5", "class 4", "class 3", "class 2", "class 1", "class 0 or in none",
    ]  # fmt: skip
    assert sorted(code for _, code in found if code) == sorted(CODES)
    placed = atlas._continued(found, 60)
    assert [placed[top][1] for top in range(0, len(placed), 60)] == [None] * 4
    assert placed[120] == ("class 1, continued", None) and 0 < len(placed) - len(found) < 4
    drawn = atlas.atlas({"sw": {"a": 5.0, "b": None}, "nqo": {"a": 95.0}}, "two")
    texts = [text.get_text() for text in drawn.axes[0].texts]
    assert {"Swahili", "N’Ko", "5.0", "95.0", "●", "○", "Nkoo"} <= set(texts)
    hatched = [patch for patch in drawn.axes[0].patches if patch.get_hatch()]
    assert len(drawn.axes[0].patches) == 3 and len(hatched) == 1
    with pytest.raises(UsageError, match="nothing to draw"):
        atlas.atlas({}, "none")


def test_a_page_of_many_languages_has_one_picture_of_all_models():
    several = facts.gather([model("mini"), model("MiniLM", missing="zu")])
    maps = page._heat_maps(several.cross, "cross")
    assert len(maps) == 1 and maps[0]["wide"]
    assert "204 languages" in maps[0]["caption"] and "2 hatched cells are missing" in maps[0]["caption"]
    svg = str(maps[0]["svg"])
    assert len(re.findall("Found: mini", svg)) == len(re.findall("Found: MiniLM", svg)) > 0
    assert svg == str(page._heat_maps(several.cross, "cross")[0]["svg"]) and figures.INK not in svg
