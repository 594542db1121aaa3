"""The page of the benchmark shows what the code gives, and the kept results are those of the page."""

import re
from pathlib import Path

import pytest

from lusifer.evaluation.public.show import Asked, as_text, show
from lusifer.evaluation.public.table import table

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "benchmark.md").read_text(encoding="utf-8")
RESULTS = ROOT / "benchmarks" / "results"


def lines(text):
    return [line for line in text.splitlines() if line.startswith("| ")]


@pytest.mark.parametrize(
    ("models", "rows"), [(None, 106), ("e5-mistral,e5-large-instruct,e5-base,LaBSE,paraphrase,all-MiniLM", 208)]
)
def test_the_tables_of_models_are_those_of_the_command(models, rows):
    shown = show(Asked(models=models.split(",") if models else None))
    assert "\n".join(lines(as_text(shown, True))) in PAGE
    assert len(shown.leagues[0].keys) == rows
    assert models is None or models in PAGE


def test_the_page_counts_what_is_there():
    runs = table().runs
    assert f"{sum(run.revision == 'external' for run in runs.values())} of all {len(runs):,}" in " ".join(PAGE.split())
    assert f"29 models share {len(show(Asked(models=['/'])).leagues[0].keys)} rows" in PAGE


def test_numbers_of_the_page_stand_in_the_kept_results():
    tried = (RESULTS / "published-rows.md").read_text(encoding="utf-8")
    for words, apart in (("our rows, mean over tasks", 7.0), ("what is missing counts as 0", 5.7),
                         ("mean over types", 6.5), ("pairs of languages in the same task count in", 5.0)):  # fmt: skip
        assert re.search(rf"^\| {words} \|.* \| {apart} \|$", tried, flags=re.MULTILINE), words
        assert str(apart) in PAGE
    assert "| mean | 52.14 | 65.93 | 53 |" in tried and "65.93" in PAGE
    predicted = (RESULTS / "quick-prediction.md").read_text(encoding="utf-8")
    row = r"^\| \*\*task by task, what gains most\*\* \| 43 \| 151,478 \| 90.4 \| .* \| 78.7 \| 88.6 \| .* \| 70.7 \|$"
    assert re.search(row, predicted, flags=re.MULTILINE)
    assert "| 43 | 151,478 | 90.4 | 78.7 | 88.6 | 70.7 |" in PAGE
