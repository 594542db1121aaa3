"""The packaged public scores: how many there are, cells that are known, and rows made of them."""

import gzip
from collections import Counter
from dataclasses import replace
from importlib import resources

import pytest

from lusifer.evaluation.public import table as tables
from lusifer.evaluation.public.table import PublicRun, PublicTable, table
from lusifer.evaluation.suites import benchmark
from support import score_folders

E5, GEMMA = "intfloat/e5-mistral-7b-instruct", "google/embeddinggemma-300m"
PAPER = {row.key: row for row in benchmark.suite("paper")}
CROSS = {row.key: row for row in benchmark.suite("cross-lingual")}


def test_everything_is_there_with_its_source():
    found = table()
    assert sum(len(row) for row in found.scores.values()) == found.facts["rows"] == 39_231
    assert (len(found.models), len(found.runs), len({task for task, _, _ in found.scores})) == (29, 2620, 123)
    assert all(-100 <= score <= 100 for row in found.scores.values() for score in row.values())
    scored = {(model, task) for (task, _, _), row in found.scores.items() for model in row}
    assert scored == found.runs.keys()
    assert "embeddings-benchmark/results at commit f4cc6c8b365a (2026-08-20), CC0 1.0" in found.source
    counts = Counter(model for row in found.scores.values() for model in row)
    assert (counts[E5], counts["izhx/udever-bloom-7b1"], counts[GEMMA]) == (1975, 1159, 1160)


def test_known_cells():
    scores, runs = table().scores, table().runs
    assert scores["AfriSentiClassification", "test", "amh"][E5] == 35.633
    assert runs[E5, "AfriSentiClassification"] == PublicRun("07163b72af14", "b52e930385cf", "1.12.75")
    assert Counter(run.revision == "external" for run in runs.values())[True] == 263
    assert PublicRun("a", "", "").before_2 and PublicRun("a", "", "1.38.9").before_2
    assert not PublicRun("a", "", "2.16.2-2.18.0").before_2


def test_it_is_small():
    folder = resources.files("lusifer.evaluation.public")
    packed = [folder.joinpath(name).read_bytes() for name in (tables.SCORES, tables.RUNS)]
    assert sum(map(len, packed)) < 160_000
    assert all(b"\r" not in gzip.decompress(each) for each in packed)


def entry(row, model=E5, scores=None):
    """What is public of a model as an entry of a row."""
    found = table() if scores is None else replace(table(), scores=scores)
    return found.results(model, [row]).scores[0]


def test_a_row_is_the_mean_over_its_subsets_and_missing_where_one_is():
    row = next(row for row in CROSS.values() if row.task == "IndicCrosslingualSTS" or len(row.subsets) == 2)
    row = replace(row, subsets=("a", "b"), task="T", split="test")
    both = {("T", "test", "a"): {E5: 40.0}, ("T", "test", "b"): {E5: 70.0, GEMMA: 10.0}}
    assert entry(row, scores=both).score == 55.0
    gone = entry(row, GEMMA, both)
    assert (gone.score, gone.missing) == (None, "no public score for 1 of 2 subsets")
    assert entry(row, "no/such-model", both).missing == "no public score"
    assert entry(replace(row, split="dev"), scores=both).missing == "no public score"


def test_a_main_metric_that_mteb_renamed_goes_by_its_old_name():
    row = PAPER["en", "SciDocsRR"]
    assert row.metric == "map_at_1000" and entry(row).metric == "map"
    wikipedia = PAPER["fi", "WikipediaRerankingMultilingual"]
    assert entry(wikipedia, "intfloat/multilingual-e5-small").metric == "map_at_1000"  # by 2.1.0
    assert entry(PAPER["en", "STS17"]).metric == "cosine_spearman"


def test_the_rows_of_a_summary_are_found_as_those_of_a_suite():
    row = PAPER["es", "STS17"]
    mine = score_folders.entry(
        "es", "STS17", 50.0, type=row.type, metric=row.metric, split=row.split, subsets=row.subsets
    )
    assert entry(mine).score == entry(row).score == table().scores["STS17", "test", "es-es"][E5]


def test_no_row_of_paper_is_lost_but_those_of_later_versions_of_tasks():
    found = table().results(E5, PAPER.values())
    gone = Counter(each.task for each in found.scores if each.score is None)
    assert gone == {"MLSUMClusteringP2P.v2": 2, "MLSUMClusteringS2S.v2": 2, "HALClusteringS2S.v2": 1, "XNLIV2": 1}


@pytest.mark.parametrize("name", ["scores", "runs"])
def test_a_table_of_another_form_is_an_error(name, monkeypatch):
    head = {"scores": "task,split,subset,a/b\nT,test,default\n", "runs": "model,task\na/b,T,1\n"}
    files = {getattr(tables, name.upper()): gzip.compress(head[name].encode(), mtime=0)}
    read = tables._file
    monkeypatch.setattr(tables, "_file", lambda file: files.get(file) or read(file))
    with pytest.raises((ValueError, TypeError)):
        table.__wrapped__()
    assert isinstance(table(), PublicTable)
