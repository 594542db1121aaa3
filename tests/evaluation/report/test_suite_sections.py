"""Sections that only some suites have: perturbations, one's own questions, public models."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from lusifer.evaluation.report import facts, page
from lusifer.evaluation.run.evaluate import Options, evaluate
from lusifer.evaluation.scores import perturbed
from support.score_folders import entry, results, right
from support.words import Words


class Cells(HTMLParser):
    """The rows of all tables: caption -> lists of words."""

    def __init__(self, html: str):
        super().__init__()
        self.tables, self._words, self.open = {}, None, []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "br", "use", "path"):
            self.open.append(tag)
        if tag in ("caption", "td", "th"):
            self._words = []
        if tag == "tr" and self.tables:
            self.tables[next(reversed(self.tables))].append([])

    def handle_endtag(self, tag):
        if self.open and self.open[-1] == tag:
            self.open.pop()
        if tag == "caption":
            self.tables["".join(self._words)] = []
        if tag in ("td", "th") and self.tables:
            self.tables[next(reversed(self.tables))][-1].append(" ".join("".join(self._words).split()))

    def handle_data(self, data):
        if self._words is not None:
            self._words.append(data)


def robust(name, spanish):
    examples = {
        ("es", "Clean"): right(1, 1, 1, 1, 1, 1, 1, 1, 0, 0),
        ("es", "Capitals"): right(*spanish),
        ("hi", "Clean"): right(1, 1, 1, 1, 1, 1, 1, 1, 0, 0),
        ("ru", "Clean"): right(*[1] * 10),
        ("ru", "Capitals"): right(1, 1, 1, 1, 1, 1, 1, 1, 0, 0),
    }
    changed = {"es": [10, 10], "hi": [0, 10], "ru": [4, 10]}
    tasks = {"Capitals": {"clean": "Clean", "disguise": "in capitals", "changed": changed}}
    tasks["Digits"] = {"clean": "Clean", "disguise": "in other digits", "changed": {"es": [0, 10]}}
    settings = {"disguises": {"least_share": 0.1, "tasks": tasks}}
    return replace(results(name, examples, cross_lingual=True, type="Retrieval"), suite="robust", settings=settings)


def test_what_perturbations_cost_is_shown_for_each_model_and_language():
    models = [robust("mini", [0, 0, 0, 0, 0, 1, 1, 1, 0, 1]), robust("e5", [1, 1, 1, 1, 1, 1, 1, 1, 0, 1])]
    html = page.page([facts.gather(models)])
    assert re.findall(r'<section id="([^"]*)"', html) == [
        "verdict", "perturbations", "comparison", "measured", "missing", "seen", "reading",
    ]  # fmt: skip
    found = Cells(html).tables
    row = found["Change by perturbation, mean over the languages: Clean"][1]
    assert row[:4] == ["in capitals", "es, ru", "90.0", "60.0"] and row[4].startswith("-30.0 ")
    assert row[5:7] == ["90.0", "85.0"] and row[7].startswith("-5.0 ")
    digits = found["Change by perturbation, mean over the languages: Clean"][2]
    assert digits[:2] == ["in other digits", "in none"] and digits[4] == "does not apply"
    languages = dict(row[:2] for row in found["mini, change in each language (points): Clean"][1:])
    assert languages["Spanish (es)"].startswith("-40.0") and "Hindi (hi)" not in languages
    assert "<li>mini. Clean: loses 20 points or more: in capitals -30.0 points" in html


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    rows = [{"id": f"d{n}", "text": f"en p {n} <b>&", "language": "en"} for n in range(6)]
    rows += [{"id": "f0", "text": "es p 0", "language": "es"}]
    rows += [{"id": f"q{n}", "question": f"es q {n} <i>", "right": f"d{n}", "language": "es"} for n in range(5)]
    rows += [{"id": "none", "question": "es q 9", "right": [], "language": "es"}]
    (folder / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for name, model in (("one", Words(seed=2)), ("words", Words(seed=1))):
        evaluate(model, Options("mine", folder / "own.jsonl"), folder / name, name=name)
    return [folder / "one", folder / "words"]


def test_ones_own_questions_have_what_a_mean_hides_and_the_texts_of_the_worst(own):
    html = page.page(facts.read(own))
    assert re.findall(r'<section id="([^"]*)"', html)[:3] == ["verdict", "questions", "comparison"]
    assert "<b>" not in html and "<i>" not in html and "es q 0 &lt;i&gt;" in html
    read = Cells(html)
    assert read.open == []
    for name in ("one", "words"):
        row = read.tables[f"{name}: questions by language"][1]
        assert row[:2] == ["Spanish (es)", "5"]
        told = next(rows for caption, rows in read.tables.items() if caption.startswith(f"{name}: questions without"))
        assert told[1][:3] == ["Spanish (es)", "5", "1"]
    assert re.search(r"<summary>words: the \d worst questions?, with what was found instead", html)
    assert "Questions for documents in another language, one against words: of 1 result on the same examples" in html
    assert "5 questions: an accuracy near" in html


def against(folder, result):
    """The same folder as of queries against another embedder's documents."""
    summary = json.loads((folder / "summary.json").read_text())
    summary["model"] |= {"against": {"name": "other", "identity": "another"}}
    scores = [each for each in summary["scores"] if each["language"] in result]
    (folder / "summary.json").write_text(json.dumps(summary | {"scores": scores}))
    for kind in ("examples", "details"):
        for file in (folder / kind).glob("*.json"):
            kept = {code: each for code, each in json.loads(file.read_text()).items() if code in result}
            file.write_text(json.dumps(kept))
    return folder


def test_beside_scores_against_other_documents_stands_what_they_have_of_the_model_alone_and_no_more(own, tmp_path):
    rows = [json.loads(line) for line in (own[0].parent / "own.jsonl").read_text().splitlines()]
    rows.append({"id": "more", "question": "en q 1", "right": "d1", "language": "en"})
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for name in ("alone", "beside"):
        evaluate(Words(seed=2), Options("mine", tmp_path / "own.jsonl"), tmp_path / name, name=name)
    alone, beside = facts.read([tmp_path / "alone", against(tmp_path / "beside", ["es"])])
    assert {code for code, _ in alone.evaluations[0].details} == {"en", "es"}
    for each in beside.evaluations:
        assert set(each.details) == set(each.examples) == {("es", "MyQuestions")}
    assert page.page([alone, beside])
    # Nothing in common: no empty evaluation stands there.
    against(tmp_path / "beside", ["es"])
    other = against(tmp_path / "beside", ["fr"])
    assert [len(part.evaluations) for part in facts.read([tmp_path / "alone", other])] == [1, 1]


def test_of_perturbations_those_of_the_scores_against_other_documents_are_kept_beside_them(tmp_path):
    full = robust("mini", [0, 0, 0, 0, 0, 1, 1, 1, 0, 1])
    part = facts._only(full, {("es", "Clean"), ("es", "Capitals")})
    assert part.settings["disguises"]["tasks"].keys() == {"Capitals"}
    found = perturbed.changes(part)
    assert [[row.language for row in each.languages] for each in found] == [["es"]] and not found[0].spared


def test_public_models_stand_beside_those_whose_tasks_they_have():
    from lusifer.evaluation.suites import benchmark

    rows = [row for row in benchmark.suite("quick") if row.language == "en"]
    mine = [
        entry(
            "en", row.task, 50.0, title=row.task, type=row.type, metric=row.metric, split=row.split, subsets=row.subsets
        )
        for row in rows
    ]
    html = page.page([facts.gather([replace(results("mine", {}, *mine), suite="quick")])])
    assert '<section id="public">' in html
    found = Cells(html).tables["mine among public models, within languages"]
    assert [row[0] for row in found[1:]] == ["all", "English (en)"]
    rank, of, shared = (int(cell) for cell in found[1][1:4])
    assert 1 <= rank <= of and of > 3 and 0 < shared <= len(rows) and found[1][5].startswith("50.0")
    assert "embeddings-benchmark/results" in html
    other = page.page([facts.gather([results("mine", {("en", "Topics"): right(1, 0, 1)})])])
    assert '<section id="public">' not in other


def test_long_texts_are_shown_by_length_and_place():
    rows = [(1, 0, 90.0, 0.0), (8, 0, 80.0, 0.0), (8, 7, 10.0, 700.0)]
    entries, details = [], {}
    for paragraphs, place, value, before in rows:
        task = f"Long{paragraphs}{place}"
        entries.append(entry("en", task, value, low=value - 5, high=value + 5, type="Retrieval"))
        details["en", task] = {
            "kind": "long", "paragraphs": paragraphs, "place": place, "in_passages": False, "documents": 120,
            "passages": 120, "words": 100.0 * paragraphs, "before": before, "cut": 120 * (paragraphs > 1),
        }  # fmt: skip
    made = replace(results("mini", {}, *entries), suite="long", details=details)
    html = page.page([facts.gather([made])])
    assert re.findall(r'<section id="([^"]*)"', html) == [
        "verdict",
        "lengths",
        "measured",
        "missing",
        "seen",
        "reading",
    ]
    (table,) = (rows for caption, rows in Cells(html).tables.items() if caption.startswith("mini: accuracy by length"))
    assert [row[:6] for row in table[1:]] == [
        ["complete", "1", "100", "alone", "0", "0"],
        ["complete", "8", "800", "start", "0", "120"],
        ["complete", "8", "800", "end", "700", "120"],
    ]
    assert table[3][6] == "10.0 5.0 to 15.0" and table[3][7] == "10.0"
    assert "less than half. The model reads about 100 words." in html
