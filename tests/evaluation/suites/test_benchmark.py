"""The benchmark suites: what they hold, how rows are chosen, and that they agree with the mteb that is installed."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from lusifer import languages
from lusifer.errors import UsageError
from lusifer.evaluation.suites import benchmark, suite
from lusifer.evaluation.tasks.rows import select
from support import suite_table

SUITES = {name: benchmark.suite(name) for name in benchmark.names()}
PAPER = SUITES["paper"]
CROSS = SUITES["cross-lingual"]
CODES = [language.code for language in languages.paper()]
PAGE = (Path(__file__).parents[3] / "docs" / "benchmark.md").read_text(encoding="utf-8")


def row_of(language, task, suite="paper"):
    """The one row of a language and a task."""
    (row,) = select(SUITES[suite], [language], [task])
    return row


def test_agrees_with_the_installed_mteb():
    assert suite_table.check([row for rows in SUITES.values() for row in rows]) == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"task": "STS18"}, "STS18: mteb .* has no such task"),
        ({"type": "Retrieval"}, "STS17: type 'Retrieval' here is 'STS' in mteb"),
        ({"metric": "accuracy"}, "STS17: metric 'accuracy' here is 'cosine_spearman' in mteb"),
        ({"split": "dev"}, "STS17: mteb .* has no split 'dev', only test"),
        ({"subsets": ("es-ar",)}, "STS17, es: mteb .* has no subset 'es-ar'"),
        ({"subsets": ("ko-ko",), "cost": 5692}, "STS17, es: subset 'ko-ko' is in kor-Hang in mteb"),
        ({"subsets": ("es-en",)}, "STS17, es: subset 'es-en' is in spa-Latn and eng-Latn in mteb"),
        ({"language": "en", "subsets": ("es-en",), "cross_lingual": True}, "STS17, en: subset 'es-en' is in"),
        ({"cross_lingual": True}, "STS17, es: subset 'es-es' is in spa-Latn in mteb"),
        ({"cost": None}, "STS17, es: None texts here are 500 by the statistics of mteb"),
    ],
)
def test_each_disagreement_has_its_sentence(change, sentence):
    row = row_of("es", "STS17")
    assert (row.subsets, row.cost) == (("es-es",), 500)
    problems = suite_table.check([replace(row, **change)])
    assert any(re.match(sentence, problem) for problem in problems), problems


def test_a_language_in_another_script_is_another_subset():
    row = row_of("hi", "BelebeleRetrieval")
    assert row.subsets == ("hin_Deva-hin_Deva",)
    latin = replace(row, subsets=("hin_Latn-hin_Latn",))
    assert "is in hin-Latn and hin-Latn" in suite_table.check([latin])[0]


def test_paper_holds_the_figure_for_the_languages_of_the_lists():
    counts = Counter(row.language for row in PAPER)
    assert counts == {
        "en": 55, "es": 19, "ru": 17, "fr": 24, "vi": 10, "fa": 6, "id": 8, "ar": 7, "fi": 10, "ko": 13, "hi": 15,
        "bn": 11, "te": 11, "sw": 8,
    }  # fmt: skip
    figure = {row.figure for row in PAPER}
    assert len(figure) == 121
    # The 122nd has no subset of one language.
    assert {row.figure for row in CROSS} - figure == {"IndicCrosslingualSTS"}
    later = {row.task: row.figure for row in PAPER if row.task != row.figure}
    assert later == {
        "STS22.v2": "STS22",
        "XNLIV2": "XNLI",
        "HALClusteringS2S.v2": "HALClusteringS2S",
        "MLSUMClusteringP2P.v2": "MLSUMClusteringP2P",
        "MLSUMClusteringS2S.v2": "MLSUMClusteringS2S",
    }
    assert len({(row.language, row.task) for row in PAPER}) == len(PAPER)


def test_what_only_the_lists_name_is_apart():
    rows = SUITES["lists-only"]
    assert {row.figure for row in rows} == {None}
    assert None not in {row.figure for name in ("paper", "cross-lingual", "quick") for row in SUITES[name]}
    assert not {row.task for row in rows} & {row.task for row in PAPER}
    assert {row.language for row in rows if row.task == "PublicHealthQA"} == {"fr", "vi", "ko"}


def test_each_pair_of_languages_counts_once_and_in_no_other_suite():
    pairs = [(row.task, subset) for row in CROSS for subset in row.subsets]
    assert len(pairs) == len(set(pairs)) == 53
    single = {(row.task, subset) for name in ("paper", "lists-only") for row in SUITES[name] for subset in row.subsets}
    assert not single & set(pairs)
    assert {row.cross_lingual for row in CROSS} == {True}
    assert {row.cross_lingual for name in SUITES if name not in benchmark.PAIRED for row in SUITES[name]} == {False}
    assert row_of("ar", "STS17", "cross-lingual").subsets == ("en-ar",)
    # A pair without English counts for the language that comes later in table 1.
    assert "spa-vie" in row_of("vi", "MLQARetrieval", "cross-lingual").subsets
    assert "ara-hin" in row_of("hi", "MLQARetrieval", "cross-lingual").subsets
    assert [row.task for row in CROSS if row.language == "en"] == []


def test_texts_that_people_romanised_stand_beside_those_in_their_own_script():
    rows = SUITES["robust-hub"]
    asked = {row.language: row.subsets for row in rows if row.task == "BelebeleRetrieval"}
    latin = {code.removesuffix("_Latn") for code in asked if code.endswith("_Latn")}
    assert latin == {"hi", "ar", "bn", "ur", "ne", "si"} == {code for code in asked if "_" not in code}
    assert asked["hi_Latn"] == ("eng_Latn-hin_Latn",)  # before the pair stands the language of the paragraphs
    mixed = [row.key for row in rows if row.task != "BelebeleRetrieval"]
    assert mixed == [("hi_Latn", "LinceMTBitextMining"), ("hi_Latn", "PhincBitextMining")]
    assert not {row.figure for row in rows if row.type == "BitextMining"} - {None}


@pytest.mark.parametrize("name", ["paper", "cross-lingual", "lists-only", "robust-hub", "quick"])
def test_a_suite_has_all_of_its_languages_where_none_is_named(name):
    assert len(suite.choose(name).rows) == len(suite.choose(name, languages=["all"]).rows) == len(SUITES[name])


def test_quick_is_small_and_has_every_language():
    quick = SUITES["quick"]
    assert set(quick) < set(PAPER)
    assert {row.language for row in quick} == set(CODES)
    assert max(row.cost for row in quick) <= benchmark.QUICK_TEXTS
    assert min(Counter(row.language for row in quick).values()) == 2
    tasks = benchmark.table()["quick"]["tasks"]
    assert {row.task for row in quick} == set(tasks) and len(tasks) == len(set(tasks)) == 12
    small = [row for row in PAPER if row.task in tasks and row.cost is not None and row.cost <= benchmark.QUICK_TEXTS]
    assert sorted(row.key for row in quick) == sorted(row.key for row in small)
    assert sum(row.cost for row in quick) < sum(row.cost or 0 for row in PAPER) / 200


@pytest.mark.parametrize("rows", SUITES.values(), ids=SUITES)
def test_rows_come_cheapest_first(rows):
    known = [row.cost for row in rows if row.cost is not None]
    assert known == sorted(known)
    assert [row.cost for row in rows[len(known) :]] == [None] * (len(rows) - len(known))


def test_select_by_language_and_task():
    rows = select(PAPER, ["bn", "te"], ["IndicQARetrieval", "XNLIV2"])
    assert {(row.language, row.task) for row in rows} == {
        ("bn", "IndicQARetrieval"), ("te", "IndicQARetrieval"), ("bn", "XNLIV2")
    }  # fmt: skip
    assert select(PAPER[::-1]) == sorted(PAPER[::-1], key=lambda row: row.cost or float("inf"))
    assert select(PAPER, ["sw"], ["STS12"]) == []
    with pytest.raises(UsageError, match="language 'de' is not in this suite: use one of .*sw"):
        select(PAPER, ["sw", "de"])
    with pytest.raises(UsageError, match="task 'STS22.v3' .*STS22.v2"):
        select(PAPER, tasks=["STS22.v3"])
    with pytest.raises(UsageError, match="use one of paper, cross-lingual, robust-hub, lists-only, quick"):
        benchmark.suite("all")


def test_prompts_go_to_the_sides_that_carry_them():
    question = row_of("vi", "VieQuADRetrieval").prompts()
    assert question == {"query": "Given a question, retrieve passages that answer the question.\n", "document": ""}
    similar = row_of("en", "QuoraRetrieval").prompts()
    assert similar["query"] == similar["document"] == "Retrieve semantically similar text.\n"
    one_sided = {row.type for rows in SUITES.values() for row in rows if not row.symmetric}
    assert one_sided == {"Retrieval", "Reranking"}


@pytest.mark.slow
def test_reading_the_table_imports_no_mteb():
    code = "import sys; from lusifer.evaluation.suites import benchmark; benchmark.suite('quick')"
    code += "; assert 'mteb' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


class Mteb:
    """A task as mteb describes it."""

    train_split = "train"

    def __init__(self, kind, statistics, **limits):
        self.metadata = type("Metadata", (), {"type": kind, "descriptive_stats": statistics})
        vars(self).update(limits)


def test_costs_count_what_the_model_reads():
    parts = {"num_samples": 9, "hf_subset_descriptive_stats": {"es": {"num_samples": 4}, "fr": {"num_samples": 5}}}
    pairs = Mteb("STS", {"test": parts})
    assert suite_table.texts(pairs, "test", ["es", "fr"]) == 18
    assert suite_table.texts(pairs, "test", ["es", "xx"]) is None
    assert suite_table.texts(pairs, "test", ["default"]) is None
    assert suite_table.texts(pairs, "dev", ["es"]) is None
    assert suite_table.texts(Mteb("STS", None), "test", ["default"]) is None
    drawn = {"test": {"num_samples": 5000}}
    assert suite_table.texts(Mteb("Clustering", drawn, max_document_to_embed=2048), "test", ["default"]) == 2048
    share = Mteb("Clustering", drawn, max_document_to_embed=None, max_fraction_of_documents_to_embed=0.04)
    assert suite_table.texts(share, "test", ["default"]) == 200
    train = {"num_samples": 1000, "label_statistics": {"labels": {"a": {"count": 990}, "b": {"count": 10}}}}
    taught = Mteb("Classification", {"test": {"num_samples": 7}, "train": train}, samples_per_label=8, n_experiments=10)
    assert suite_table.texts(taught, "test", ["default"]) == 7 + 80 + 10


def test_the_page_has_the_numbers_of_the_table():
    for name, rows in SUITES.items():
        texts = sum(row.cost or 0 for row in rows)
        assert f"| `{name}` | {len(rows)} | {len({row.task for row in rows})} | {texts:,} |" in PAGE
    for code in CODES:
        cells = (sum(row.language == code for row in SUITES[name]) for name in benchmark.names())
        assert f"| {languages.language(code).name} ({code}) | {' | '.join(map(str, cells))} |" in PAGE
    taught_and_tested = sorted({row.task for row in PAPER if row.type == "Classification" and row.split == "train"})
    assert len(taught_and_tested) == 7
    assert all(f"`{task}`" in PAGE for task in taught_and_tested)
    one_sided_prompts = {row.instruction for row in PAPER if not row.symmetric}
    assert all(f'"{instruction}"' in PAGE for instruction in one_sided_prompts)
