"""Clusters of queries, and batches that hold one of them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding
from tokenizers import Tokenizer

from lusifer.cli import main
from lusifer.data import sources
from lusifer.data.batches import PairBatches, join_small
from lusifer.data.mining.cluster import cluster
from lusifer.data.pairs import PairSet
from lusifer.data.tables import collect
from lusifer.errors import UsageError
from support.words_model import encode


def rows(count: int, themes: int, source: str = "s") -> list[dict]:
    unknown = {"negative": [], "instruction": None, "task": None, "label": None, "cluster": None, "source": source}
    return [
        {"query": f"{source}{n % themes}a {source}{n % themes}b {source}{n % themes}c w{n % 7}", "positive": [f"p{n}"]}
        | unknown
        for n in range(count)
    ]


def test_rows_of_one_theme_come_into_one_cluster_of_their_source() -> None:
    given_rows = [*rows(200, 4), *rows(100, 2, "t"), *rows(5, 1, "few")]
    made, report = cluster(collect(given_rows, "pairs"), encode, clusters=1024, min_points=20)
    made = list(made)
    assert [row["query"] for row in made] == [row["query"] for row in given_rows]
    for source, least in (("s", 4), ("t", 2), ("few", 1)):
        own = [row for row in made if row["source"] == source]
        themes = {}
        for row in own:
            themes.setdefault(row["cluster"], set()).add(row["query"].split()[0])
        assert sorted(themes) == list(range(len(themes))) and len(themes) >= least
        assert all(len(theme) == 1 for theme in themes.values())
    assert report.counts["clusters of few"] == 1


@given(st.integers(1, 400), st.integers(1, 30), st.integers(1, 40), st.integers(0, 3))
def test_no_cluster_has_fewer_rows_than_asked_for(count: int, themes: int, min_points: int, seed: int) -> None:
    made, _ = cluster(collect(rows(count, themes), "pairs"), encode, clusters=16, min_points=min_points, seed=seed)
    sizes = Counter(row["cluster"] for row in made)
    assert len(sizes) <= 16 and (min(sizes.values()) >= min_points or len(sizes) == 1)


def test_cap_draws_from_all_rows_of_a_source() -> None:
    made, report = cluster(collect(rows(400, 4), "pairs"), encode, clusters=4, min_points=20, cap=40)
    made = list(made)
    assert len(made) == 40 == report.counts["rows kept"]
    assert all(4 <= count <= 18 for count in Counter(row["query"].split()[0] for row in made).values())


def test_command_writes_clusters_and_stage_2_reads_them(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, read, once = tmp_path / "c.jsonl", [], sources.read_file
    monkeypatch.setattr(sources, "read_file", lambda *given: read.append(given[0].name) or once(*given))
    call = ["data", "cluster", "sample:pairs", "--model", "mini", "--output", str(output), "--min-points", "10"]
    assert main(call) == 0
    assert read == ["pairs.jsonl"]  # once: the rows are on disk before the model is loaded
    made = [json.loads(line) for line in output.read_text().splitlines()]
    assert all(isinstance(row["cluster"], int) for row in made) and len({row["cluster"] for row in made}) > 1
    capsys.readouterr()
    assert main(["data", "inspect", str(output)]) == 0
    sizes = Counter((row["source"], row["cluster"]) for row in made).values()
    share = sum(size // 32 * 32 for size in sizes) / len(made)
    assert f"rows that fit into batches of one cluster: {share:.0%} at batch_size 32, " in capsys.readouterr().out
    assert main(["data", "cluster", "sample:passages", "--model", "mini", "--output", str(output)]) == 2
    assert "only pairs have queries to cluster" in capsys.readouterr().err


def table(count: int, positives: int | None = None) -> Dataset:
    return Dataset.from_dict(
        {"query": [f"q{n}" for n in range(count)], "positive": [f"p{n % (positives or count)}" for n in range(count)]}
    )


def plan(
    count: int, clusters: np.ndarray, *, steps: int, batch: int = 4, distinct: bool = True, positives=None, seed=0
):
    made = {"a": table(count, positives)}
    settings = {"batch_size": batch, "steps": steps, "seed": seed}
    return PairBatches(made, {"a": distinct}, clusters={"a": clusters}, **settings)


@given(st.lists(st.integers(-1, 5), min_size=12, max_size=80), st.integers(0, 5), st.booleans())
def test_an_epoch_reads_each_row_once_and_few_batches_mix_clusters(known: list[int], seed: int, distinct: bool) -> None:
    clusters = np.array(known)
    whole = len(known) // 4
    steps = list(plan(len(known), clusters, steps=whole, distinct=distinct, seed=seed).make_up())
    read = Counter(row for step in steps for row in step.rows)
    assert max(read.values()) == 1 and len(known) - len(read) < 4  # the remainder is less than a batch
    mixed = [step for step in steps if step.cluster is None]
    sizes = Counter(known)
    over = sum(size % 4 if name >= 0 else size for name, size in sizes.items())
    assert len(mixed) <= over // 4  # rows of one cluster fill their own batches first
    for step in steps:
        if step.cluster is not None:
            assert {known[row] for row in step.rows} == {step.cluster}


def test_what_is_over_comes_in_the_next_epoch() -> None:
    clusters = np.repeat(np.arange(3), 6)  # 18 rows, batches of 4: two are over in each epoch
    steps = list(plan(18, clusters, steps=9).make_up())
    read = Counter(row for step in steps for row in step.rows)
    assert sum(read.values()) == 36 == 2 * 18 and set(read.values()) == {2}


def test_texts_stay_apart_within_a_cluster_as_well() -> None:
    clusters = np.repeat(np.arange(2), 20)
    for step in plan(40, clusters, steps=20, positives=10).make_up():
        assert len({row % 10 for row in step.rows}) == 4
    with pytest.raises(UsageError, match="only 3 of its rows fit into one batch"):
        plan(40, clusters, steps=2, positives=3)


def test_joined_sets_keep_their_clusters_apart() -> None:
    sets = [
        PairSet("f/a", table(3), {"query": ""}, clusters=np.array([0, 1, -1])),
        PairSet("f/b", table(3).map(lambda row: {key: f"b{text}" for key, text in row.items()}), {"query": ""}),
        PairSet(
            "f/c", table(3).map(lambda row: {key: f"c{text}" for key, text in row.items()}), {"query": ""},
            clusters=np.array([0, 0, 2]),
        ),
    ]  # fmt: skip
    made = join_small(sets, 8)
    assert len(made) == 1 and made[0].clusters.tolist() == [0, 1, -1, -1, -1, -1, 2, 2, 4]


def test_any_embedder_of_sentence_transformers_serves(tmp_path: Path, minilm_like_folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(minilm_like_folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    static = StaticEmbedding(tokenizer, embedding_dim=16)
    SentenceTransformer(modules=[static, Normalize()], device="cpu").save_pretrained(str(tmp_path / "static"))
    output = tmp_path / "c.jsonl"
    call = ["data", "cluster", "sample:pairs", "--model", str(tmp_path / "static"), "--output", str(output)]
    assert main([*call, "--min-points", "10", "--dtype", "bfloat16"]) == 0
    assert len(output.read_text().splitlines()) == 250
