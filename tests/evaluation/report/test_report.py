"""The report: its numbers, and a page that is whole, asks for nothing and takes no word for markup."""

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

import support.example_evaluations as example
from lusifer import language_gap as gap
from lusifer import languages
from lusifer.errors import DataError, UsageError
from lusifer.evaluation.report import card as report_card
from lusifer.evaluation.report import facts as report_facts
from lusifer.evaluation.report import page as report
from lusifer.evaluation.report import verdict
from lusifer.evaluation.scores.folder import EvaluationFolder

EVIL = "<script>alert('$x$')</script> & \"q\" | *b* `c`"
FEW = ["en", "es", "te"]


def of_one_suite(folders):
    """Folders of one suite."""
    (facts,) = report_facts.read(folders)
    return facts


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    return of_one_suite(example.two(tmp_path_factory.mktemp("two")))


@pytest.fixture(scope="module")
def page(facts):
    return report.page([facts])


class Reader(HTMLParser):
    """Whether tags close in order, which ids there are, and what the page would ask for."""

    VOID = {"meta", "br", "img", "link", "input"}

    def __init__(self, page: str):
        super().__init__()
        self.open, self.ids, self.asked, self.links, self.words = [], [], [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        self._look(tag, dict(attrs))

    def handle_startendtag(self, tag, attrs):
        self._look(tag, dict(attrs))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data):
        self.words.append(data)

    def _look(self, tag, attributes):
        if "id" in attributes:
            self.ids.append(attributes["id"])
        reference = attributes.get("href") or attributes.get("xlink:href") or ""
        self.links += [reference[1:]] if reference.startswith("#") else []
        self.asked += [reference] if reference and not reference.startswith("#") else []
        self.asked += [attributes["src"]] if "src" in attributes else []
        self.asked += [tag] if tag in ("link", "img", "image", "iframe", "object", "embed") else []


def test_the_page_is_whole_and_asks_for_nothing(page):
    read = Reader(page)
    assert read.open == []
    assert len(read.ids) == len(set(read.ids))
    assert read.links and set(read.links) <= set(read.ids)
    assert read.asked == []
    assert "http:" not in page and "https:" not in page and "@import" not in page
    assert not re.search(r"url\((?!#)", page)


def test_texts_in_the_plane_are_drawn_where_the_folders_have_their_vectors(tmp_path):
    folders = example.two(tmp_path)
    noise = np.random.default_rng(0)
    for folder in folders:
        vectors = {code: noise.normal(size=(12, 6)) for code in ("te", "en")}
        EvaluationFolder(folder).write_gap(gap.measure(np.asarray, vectors), vectors)
    found = of_one_suite(folders)
    assert [list(each) for each in found.islands] == [["en", "te"]] * 2  # in the paper's order
    page = report.page([found])
    assert "24 texts in 2 languages by t-SNE" in page and Reader(page).asked == []
    (folders[1] / "islands.safetensors").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"islands\.safetensors: damaged"):
        report_facts.read(folders)


def test_only_its_own_script_may_run(page):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    script = re.search(r"<script>(.*?)</script>", page, flags=re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    assert page.count("<script") == 1


def test_every_section_is_there_and_linked(page):
    sections = re.findall(r'<section id="([^"]*)"', page)
    assert sections == re.findall(r'<li><a href="#([^"]*)"', page)
    assert sections == [
        "verdict", "choice", "averages", "cross-lingual", "comparison", "measured", "missing", "seen", "reading",
    ]  # fmt: skip
    for figure in re.findall(r"<figure.*?</figure>", page, flags=re.DOTALL):
        assert re.search(r'<svg role="img" aria-label="[^"]{20,}"', figure) and "<figcaption>" in figure
    assert len(re.findall(r"<figure", page)) == 1 + 2 + 2  # bars, heat maps, cross-lingual heat maps
    for language in languages.paper():
        assert f'<bdi lang="{language.code}">' in page


def test_the_same_folders_give_the_same_bytes(facts, page, tmp_path):
    assert report.page([report_facts.gather(facts.evaluations)]) == page
    assert not re.search(r"\b20[23]\d-\d\d", page)


def test_no_word_is_taken_for_markup(tmp_path):
    folder = example.write(
        tmp_path / "evil", EVIL, codes=FEW, missing={("te", "Topics"): EVIL}, command=EVIL, settings={EVIL: EVIL},
        versions={EVIL: EVIL}, data={EVIL: EVIL}, suite=EVIL,
    )  # fmt: skip
    facts = of_one_suite([folder])
    page = report.page([facts])
    assert page.count("<script") == page.count("</script") == 1
    read = Reader(page)
    assert read.open == [] and read.asked == []
    assert EVIL in " ".join(read.words)
    card = report_card.markdown(facts)
    assert "<script" not in card
    assert "&lt;script&gt;" in card and r"\| \*b\* \`c\`" in card
    one = of_one_suite([example.write(tmp_path / str(n), f"<b>{n}", codes=FEW) for n in range(2)])
    assert "<b" not in report_card.markdown(one)


def test_models_are_averaged_over_what_they_share(facts):
    rows = {row.label: row for row in facts.own.rows(lambda key: key[0])}
    assert (rows["en"].shared, rows["en"].of) == (3, 3)
    assert (rows["te"].shared, rows["te"].of) == (2, 3)
    for place, each in enumerate(facts.evaluations):
        scores = [
            entry.score for entry in each.scores if entry.language == "te" and entry.task in ("Topics", "Clusters")
        ]
        assert rows["te"].means[place].value == pytest.approx(sum(scores) / 2)
    keys = [("te", task) for task in ("Topics", "Clusters")]
    assert facts.own.row("a", keys).means is facts.own.row("b", keys).means  # each mean is computed once
    crossing = {row.label: row for row in facts.cross.rows(lambda key: key[0])}
    assert crossing["ko"].means[0].value is not None and crossing["ko"].means[1].value is None
    whole = facts.cross.row("all", facts.cross.keys)
    assert (whole.shared, whole.of) == (12, 13)
    assert {code for code, _ in facts.cross.shared(facts.cross.keys)} == set(example.CODES) - {"en", "ko"}


def test_published_scores_stand_beside_means_over_the_same_results(facts):
    covers = facts.own.shared(facts.own.keys)
    published = {"E5": {code: 50.0 for code, _ in covers if code != "sw"}}
    page = report.page([replace(facts, own=replace(facts.own, published=published, covers=covers))])
    assert page.count('<th scope="col" class="number">E5 (published)</th>') == 2  # by language and by group
    page = page[page.index('id="averages"') :]
    row = re.search(r"<bdi>English \(en\)</bdi>.*?</tr>", page, flags=re.DOTALL)[0]
    assert '<td class="number" data-value="50.0"><bdi>50.0</bdi></td>' in row
    assert "not published" in re.search(r"<bdi>Swahili \(sw\)</bdi>.*?</tr>", page, flags=re.DOTALL)[0]
    lacking = facts.own.keys[0]
    other = replace(facts.own, published=published, covers=[key for key in covers if key != lacking])
    why = f"no comparable published score for {lacking[0]}: not in the published mean: {lacking[1]}"
    assert f'<p class="note">{why}</p>' in report.page([replace(facts, own=other)])


def test_the_verdict_counts_what_the_comparisons_say(facts):
    words = next(words for words in verdict.sentences(facts) if words.startswith("Cross-lingual, mini against"))
    found = [each for each in facts.comparisons if each.cross_lingual]
    assert len(found) == 1 and len(found[0].languages(None)) == 1  # Korean, which MiniLM lacks
    rows = [row for row in found[0].rows if row.difference]
    better = sum(row.p < 0.05 and row.difference.value > 0 for row in rows)
    assert f"of 12 results on the same examples (paired tests), {better} are significantly better, 0 sig" in words
    assert found[0].low > 0 and words.endswith("is above 0 in 1 of 1 task, and below 0 in 0.")


def test_cross_lingual_and_monolingual_scores_stay_apart(facts):
    assert {key[1] for key in facts.own.keys} == {"Topics", "Clusters", "Similar"}
    assert {key[1] for key in facts.cross.keys} == {"ToEnglish"}


def test_languages_are_ranked_in_tasks_that_all_have(facts):
    assert {task for _, task in report_facts.in_all_languages(facts.own)} == {"Topics", "Clusters"}
    means, *counts = report_facts.english_lead(facts.own)
    one = facts.evaluations[0]
    by_task = {}
    for entry in one.part(False).scores:
        if entry.score is not None:
            by_task.setdefault(entry.task, {})[entry.language] = entry.score
    english = sum(row["en"] for row in by_task.values()) / 3
    others = sum((sum(row.values()) - row["en"]) / (len(row) - 1) for row in by_task.values()) / 3
    assert means["mini"] == pytest.approx((english, others))
    assert counts == [13, 3]


def test_what_is_missing_is_told_with_its_reason(facts, page):
    gaps = {key: codes for scores in facts.sets for key, codes in scores.missing().items()}
    assert gaps["MiniLM", "ToEnglish", "the model gave vectors that are not finite"] == ["ko"]
    assert len(gaps) == 5
    card = report_card.markdown(facts)
    assert all(reason in page and reason in card for _, _, reason in gaps)


def test_the_hub_gets_each_score_that_is_there_once(facts):
    second = facts.evaluations[1]
    found = report_card.eval_results(second)
    there = [entry for entry in second.scores if entry.score is not None]
    assert 0 < len(found) == len(there) < len(second.scores)
    assert len({each.unique_identifier for each in found}) == len(found)
    assert [each.metric_value for each in found] == [round(entry.score, 2) for entry in there]


def test_the_page_tells_the_command_and_the_card_no_path(facts, page):
    for each in facts.evaluations:
        assert f"<pre>{each.command}</pre>" in page
    card = report_card.markdown(facts)
    assert "lusifer evaluate" not in card and "- mini: identity 000000000000; lusifer 0.1.0, mteb 2.26.24" in card


def test_what_training_has_seen_is_told(facts, page):
    said = verdict.sentences(facts)
    assert sum("training has seen 1 of 3," in words and "(Similar in en)" in words for words in said) == 2
    assert '<td class="number" data-value="1">1 of 60</td>' in page


def test_a_model_whose_training_nobody_knows_is_not_called_clean(tmp_path):
    folder = example.write(tmp_path / "a", codes=FEW, tasks=["Topics"], seen=None)
    facts = of_one_suite([folder])
    assert verdict.sentences(facts)[-1] == "mini: it is not known whether training has seen the test texts."
    page = report.page([facts])
    assert "<p>mini: not known. Only a model in the folder of its training run has this information.</p>" in page
    assert "comparison" not in re.findall(r'<section id="([^"]*)"', page)


def test_other_settings_and_data_are_told(tmp_path):
    one = example.write(tmp_path / "a", "a", codes=FEW, tasks=["Topics"])
    other = example.write(tmp_path / "b", "b", codes=FEW, tasks=["Topics"], settings={"seed": 1}, data={"x": "0"})
    page = report.page(report_facts.read([one, other]))
    assert "The models were not measured with the same settings: seed, classifier." in page
    assert "The models did not read the same files: sib200-en-dev.jsonl.gz" in page
    assert "All models were measured with the same versions." in page
    none = [example.write(tmp_path / name, name, codes=FEW, tasks=["Topics"], data={}) for name in ("c", "d")]
    assert "same files" not in report.page(report_facts.read(none))
    assert "Prompts: those of a." in page and "Data files: those of a" not in page


def test_folders_that_cannot_be_told_apart_or_compared_are_refused(tmp_path):
    one = example.write(tmp_path / "a", codes=FEW, tasks=["Topics"])
    with pytest.raises(UsageError, match="given twice"):
        report_facts.read([one, one / ".." / "a"])
    twin = example.write(tmp_path / "more" / "a", codes=FEW, tasks=["Topics"])
    with pytest.raises(UsageError, match="same model .*: rename"):
        report_facts.read([one, twin])
    with pytest.raises(UsageError, match="no evaluation folder"):
        report_facts.read([])
    with pytest.raises(UsageError, match="nothing was evaluated"):
        of_one_suite([example.write(tmp_path / "c", codes=[])])
    with pytest.raises(DataError, match="summary.json: no such file"):
        report_facts.read([tmp_path])
    same_name = example.write(tmp_path / "d", codes=FEW, tasks=["Topics"])
    assert of_one_suite([one, same_name]).names == ("mini (a)", "mini (d)")


def test_a_single_model_with_one_language_is_reported(tmp_path):
    folder = example.write(tmp_path / "a", codes=["sw"], tasks=["ToEnglish"])
    facts = of_one_suite([folder])
    assert facts.own is None and "Monolingual" not in report.page([facts])
    assert "| Swahili (sw) |" in report_card.markdown(facts)


def test_where_nothing_can_be_measured_or_compared_the_verdict_says_so(tmp_path):
    gone = {(code, "Topics"): "the model is broken" for code in FEW}
    none = example.write(tmp_path / "none", "none", codes=FEW, tasks=["Topics"], missing=gone)
    said = verdict.sentences(of_one_suite([none]))
    assert said[:2] == ["1 model, 1 task, 3 languages: 0 scores measured, 3 missing.",
                        "Monolingual: nothing could be measured."]  # fmt: skip
    other = example.write(tmp_path / "other", "other", codes=["fr", "qaa"], tasks=["Topics"])
    facts = of_one_suite([example.write(tmp_path / "some", "some", codes=FEW, tasks=["Topics"]), other])
    said = verdict.sentences(facts)
    assert "Monolingual: the models share no result, so no mean can be compared." in said
    assert "Monolingual, some against other: no result is comparable example by example." in said
    page = report.page(report_facts.read([none, other]))
    missing = page[page.index('<section id="missing"') : page.index('<section id="seen"')]
    assert missing.count("the model is broken</bdi>") == 1  # the three languages in one row
    assert "English (en), Spanish (es), Telugu (te)" in missing


def test_the_language_gap_is_shown_where_it_was_measured(tmp_path):
    generator = np.random.default_rng(0)
    found = gap.measure(np.asarray, {code: generator.normal(size=(12, 8)) for code in FEW})
    folders = [example.write(tmp_path / name, name, codes=FEW, tasks=["Topics"]) for name in ("a", "b")]
    EvaluationFolder(folders[0]).write_gap(found)
    page = report.page(report_facts.read(folders))
    section = page[page.index('<section id="gap"') : page.index('<section id="comparison"')]
    assert "12 sentences in each of 3 languages, by chance 33.3. Not measured for b." in section
    assert f">{found.mean('predicted'):.1f}</td>" in section and f">{found.against['te'].retrieval:.1f}</td>" in section
    (folders[0] / "gap.json").write_text(
        (folders[0] / "gap.json").read_text().replace('"hubness": ', '"hubness": "x",\n"y": ')
    )
    with pytest.raises(DataError, match="gap.json: against.*hubness: Input should be a valid number"):
        report_facts.read(folders)
    EvaluationFolder(folders[0]).write_gap(found)
    broken = (
        (folders[0] / "gap.json")
        .read_text()
        .replace(f'"anisotropy": {found.within["te"].anisotropy}', '"anisotropy": "<b>"')
    )
    (folders[0] / "gap.json").write_text(broken)
    with pytest.raises(DataError, match="gap.json: within.te.anisotropy: Input should be a valid number"):
        report_facts.read(folders)


def test_notes_stand_behind_the_verdict(facts):
    html = report.page([facts], ["warm: align copied from <full>"])
    part = html.partition('id="verdict"')[2].partition("</ul>")[0]
    assert part.rstrip().endswith("<li>warm: align copied from &lt;full&gt;</li>")


def test_suites_are_parts_of_one_page(tmp_path):
    folders = [
        example.write(tmp_path / suite / name, name, skill, codes=FEW, tasks=[task], suite=suite)
        for suite, task in (("offline", "ToEnglish"), ("sample", "Topics"))
        for name, skill in (("mini", 0.9), ("MiniLM", 0.5))
    ]
    page = report.page(report_facts.read(folders))
    found = Reader(page)
    assert found.open == [] and len(found.ids) == len(set(found.ids)) and set(found.links) <= set(found.ids)
    assert "<h2>Verdict: suite offline</h2>" in page and '<section id="part-2-comparison">' in page
    assert "<title>Evaluation: mini, MiniLM</title>" in page  # a model of two suites is one
    assert page.index("Verdict: suite sample") < page.index("What was measured: suite offline")
    assert report.page(report_facts.read(folders[:2])).count("suite sample") == 0
