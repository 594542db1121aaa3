"""What a run reads: said, kept beside it, and the same for every process."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from sentence_transformers.base.model_card import BaseModelCardData

from lusifer.cli import main
from lusifer.cli.train import say
from lusifer.data import sources
from lusifer.data.sources import published_page
from lusifer.errors import DataError, UsageError
from lusifer.io import seen as record
from lusifer.training.recipe.load import load_recipe
from lusifer.training.run import bases, card
from lusifer.training.stages import alignment, contrastive
from lusifer.training.stages.measured import read_held
from lusifer.training.stages.trainer import arguments
from support import processes, rows_read
from support.small_run import train
from support.training import free_port

ROOT = Path(__file__).parents[3]


def stage_folder(run: Path, stage: str) -> Path:
    return next((run / "checkpoints").glob(f"*-{stage}"))


@pytest.mark.slow
def test_a_run_keeps_what_each_stage_has_read(finished: Path) -> None:
    said = json.loads((stage_folder(finished, "contrast") / "data.json").read_text())
    (sample,) = sources.files("sample:pairs")
    digest = hashlib.sha256(sample.read_bytes()).hexdigest()
    assert said["read_from"] == [{"name": "pairs", "rows": 250, "sha256": {"pairs.jsonl": digest}}]
    first = json.loads((stage_folder(finished, "align") / "data.json").read_text())["read_from"]
    assert [(each["rows"], len(each["sha256"])) for each in first] == [(260, 1), (250, 1)]
    assert said["skipped"] == []
    assert sum(source["steps"] for source in said["sources"]) == said["steps"] == 4
    assert all(source["most"] <= 1 for source in said["sources"])
    unread = sum(source["unread"] for source in said["sources"])
    assert unread == sum(source["rows"] for source in said["sources"]) - 4 * 8
    steps = [json.loads(line) for line in (stage_folder(finished, "contrast") / "steps.jsonl").read_text().splitlines()]
    assert [row["step"] for row in steps] == [1, 2, 3, 4] and {row["rows"] for row in steps} == {8}
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    logged = [row["made_of"] for row in lines if row["stage"] == "contrast" and "loss" in row]
    assert logged == [{row["source"]: 1} for row in steps]


def test_nothing_is_made_for_the_librarys_model_card(
    bases_folder: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    for name in ("set_widget_examples", "extract_dataset_metadata", "set_losses"):
        monkeypatch.setattr(BaseModelCardData, name, lambda *args, name=name, **keywords: made.append(name))
    overrides = [
        f"model.{backbone}.path={path}" for backbone, path in zip(("encoder", "llm"), bases_folder, strict=True)
    ]
    recipe = load_recipe("tiny", overrides, variant="contrastive-only")
    (stage,) = recipe.stages
    rows = contrastive.examples(recipe, stage, seed=1)
    settings = arguments(recipe, stage, tmp_path, rows.steps, 1, bf16=False)
    contrastive.trainer(recipe, stage, bases.build_model(recipe, torch.float32), rows, settings)
    assert made == []


@pytest.mark.slow
def test_texts_that_training_has_seen_are_known_again(finished: Path, tmp_path: Path, capsys) -> None:
    seen = record.of_run(finished)
    passage = sources.load(sources.SourceSpec(path="sample:passages"), "passages")["text"][0]
    pair = sources.load(sources.SourceSpec(path="sample:pairs"), "pairs")[0]
    assert passage.upper() in seen and pair["query"] in seen and pair["positive"][0] in seen
    strangers = [f"A sentence about the number {number} that nobody wrote." for number in range(1000)]
    assert sum(text in seen for text in strangers) < 10
    file = tmp_path / "test.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in [passage, *strangers[:9]]))
    assert main(["data", "inspect", str(file), "--seen", str(finished)]) == 0
    assert "texts that the training run has seen: 1 of 10" in capsys.readouterr().out
    assert main(["data", "inspect", str(file), "--seen", str(tmp_path)]) == 2
    assert "no seen.safetensors there: name the folder of a training run" in capsys.readouterr().err


BAD = """
name: bad
max_length: 32
model: {encoder: {path: "tiny:encoder"}, llm: {path: "tiny:llm"}}
stages:
  - name: contrast
    kind: contrastive
    train: {encoder: frozen, llm: lora, connector: true}
    data: [{path: rows.jsonl, skip_bad: 2}]
    hard_negatives: 1
    batch_size: 4
    mini_batch_size: 4
    max_steps: 1
    learning_rate: 1.0e-3
"""


def write_rows(folder: Path, bad: int) -> Path:
    rows = [{"query": f"question {n}", "positive": [f"answer {n}"]} for n in range(12)]
    lines = [json.dumps(row) for row in rows] + ['{"query": "no answer"}'] * bad
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "bad.yaml").write_text(BAD)
    return folder / "bad.yaml"


def test_a_column_that_is_missing_is_told_with_the_key_of_the_recipe(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    file = write_rows(tmp_path, bad=3)
    recipe = load_recipe(file)
    key = f"stages.{recipe.stages[0].name}.data.0.fields.positive"
    with pytest.raises(DataError, match=rf"give its name: --set {key}=NAME "):
        contrastive.examples(recipe, recipe.stages[0], 0)
    assert load_recipe(file, [f"{key}=answer"]).stages[0].data[0].fields == {"positive": "answer"}
    assert main(["data", "inspect", str(tmp_path / "rows.jsonl")]) == 1
    assert "give its name: --field positive=NAME" in capsys.readouterr().err


@pytest.mark.slow
def test_skipped_rows_are_said_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = write_rows(tmp_path, bad=2)
    assert main(["train", str(file), "--output", str(tmp_path / "run")]) == 0
    error = capsys.readouterr().err
    assert error.count("contrast: bad row left out: ") == 2 and "line 13: column positive is missing" in error
    said = json.loads((stage_folder(tmp_path / "run", "contrast") / "data.json").read_text())
    assert len(said["skipped"]) == 2
    assert "bad rows left out: 2" in (tmp_path / "run" / "model" / "README.md").read_text()
    with pytest.raises(DataError, match=r"line 15: .* at most 2 may be skipped"):
        train(write_rows(tmp_path, bad=3), tmp_path / "other")


def test_small_sets_that_are_joined_are_counted_by_source(tmp_path: Path) -> None:
    file = write_rows(tmp_path, bad=0)
    rows = [{"query": f"q{n}", "positive": [f"p{n}"], "source": "abbccc"[n % 6]} for n in range(12)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    read = load_recipe(file, ["stages.contrast.data.0.split_by_source=true"])
    said = card.data(read, read.stages[0], contrastive.examples(read, read.stages[0], 0))
    parts = {source["name"]: source.get("parts") for source in said["sources"]}
    assert parts == {"rows/c and 2 smaller": {"rows/a": 2, "rows/b": 4, "rows/c": 6}}


@pytest.mark.parametrize(("size", "mixed"), [(3, 3), (5, 1), (4, 0)])
def test_steps_that_mix_clusters_are_counted(size: int, mixed: int, tmp_path: Path, capsys) -> None:
    file = write_rows(tmp_path, bad=0)
    rows = [{"query": f"q{n}", "positive": [f"p{n}"], "negative": [f"n{n}"], "cluster": n // size} for n in range(12)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    read = load_recipe(file, ["stages.contrast.max_steps=3"])
    said = card.data(read, read.stages[0], contrastive.examples(read, read.stages[0], 0))
    assert [source["mixed"] for source in said["sources"]] == [mixed]
    say({"event": "data", "stage": "contrast", **said})
    error = capsys.readouterr().err
    assert (f"rows: {mixed} of 3 steps mix clusters" in error) == bool(mixed)
    assert ("--min-points" in error) == (mixed > 1)


def test_streaming_is_for_the_hub(tmp_path: Path) -> None:
    file = write_rows(tmp_path, bad=0)
    with pytest.raises(UsageError, match="streaming works only with hub, and this source is a local file"):
        load_recipe(file, ["stages.contrast.data.0.streaming=true"])


def test_what_would_be_fetched_is_said_without_the_hub(capsys: pytest.CaptureFixture) -> None:
    assert main(["data", "fetch", "paper-mistral", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    sets = [line.split(": ")[0] for line in lines[:-1]]
    assert len(sets) == len(set(sets)) == 39  # one line a set, however many stages read it
    squad = "hf://datasets/Hieuman/SQuAD@newest: fetched completely, 97,400 rows at most, for "
    assert f"{squad}retrieval, all-sets" in lines
    loaded = load_recipe("paper-mistral")
    read = [source for stage in loaded.stages for source in loaded.sources(stage)]
    rows = sum(source.limit for source in read)
    assert lines[-1] == (
        f"total: 39 datasets to fetch, 0 to stream, 0 local; {len(read)} sources of stages read {rows:,} rows at most"
    )
    assert main(["data", "fetch", "tiny", "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "sample:pairs: local, all rows, for alignment, contrastive",
        "total: 0 datasets to fetch, 0 to stream, 2 local; 3 sources of stages read all rows of 3",
    ]
    chinese = "stages.alignment-completion.data=[{hub: Hieuman/MSMarco}, {hub: Hieuman/dureader}]"
    call = ["data", "fetch", "paper-mistral", "--dry-run", "--set", chinese]
    assert main(call) == 0
    assert "left out by english_only: Hieuman/dureader (zh)" in capsys.readouterr().out.splitlines()
    assert main([*call, "--set", "english_only=false"]) == 0
    assert "left out" not in capsys.readouterr().out


def test_fetching_reads_every_row(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["data", "fetch", "tiny"]) == 0
    assert "contrastive: pairs: " in capsys.readouterr().out
    assert main(["data", "fetch", str(write_rows(tmp_path, bad=3))]) == 1
    assert "at most 2 may be skipped" in capsys.readouterr().err


def test_the_page_of_published_sets_is_the_table() -> None:
    page = (ROOT / "docs" / "published-sets.md").read_text()
    assert published_page() in page
    assert "Left out by english_only: Hieuman/dureader, Hieuman/t2ranking, Hieuman/zh_MIRACL" in published_page(True)


CLUSTERS = """
seed: 0
max_length: 32
model: {encoder: {path: ENCODER}, llm: {path: LLM}}
stages:
  - name: contrast
    kind: contrastive
    train: {encoder: frozen, llm: lora, connector: true}
    hard_negatives: 1
    batch_size: 8
    mini_batch_size: 4
    epochs: 1
    learning_rate: 1.0e-3
    data: [{path: a.jsonl}, {path: b.jsonl, in_batch_negatives: false}, {path: c.jsonl}]
"""


@pytest.mark.slow
def test_two_processes_read_one_source_and_cluster_a_step_and_each_row_once(
    tmp_path: Path, bases_folder: tuple[Path, Path]
) -> None:
    sizes = {"a": 83, "b": 40, "c": 37}
    for name, count in sizes.items():
        rows = [
            {"query": f"{name} question {n}", "positive": [f"{name} text {n}"], "negative": [f"{name} no {n}"]}
            | ({"cluster": n % 4} if name == "a" else {})
            for n in range(count)
        ]  # fmt: skip
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = tmp_path / "clusters.yaml"
    recipe.write_text(CLUSTERS.replace("ENCODER", str(bases_folder[0])).replace("LLM", str(bases_folder[1])))
    processes.run_ranks(rows_read.main, (str(recipe), str(tmp_path)), tmp_path, free_port())
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    plan = ranks[0]["plan"]
    assert ranks[1]["plan"] == plan and [rank["steps"] for rank in ranks] == [20, 20] == [len(plan)] * 2
    read: Counter[str] = Counter()
    mixed = 0
    for (name, rows, cluster), one, other in zip(plan, ranks[0]["seen"], ranks[1]["seen"], strict=True):
        assert len(one) == len(other) == rows // 2  # equal parts
        assert {query.split()[0] for query in (*one, *other)} == {name}  # the same source on both
        if name == "a":
            clusters = {int(query.split()[2]) % 4 for query in (*one, *other)}
            assert clusters == {cluster} or cluster is None
            mixed += cluster is None
        read.update((*one, *other))
    # 160 rows make 20 steps of 8. A source whose rows fill no whole batch leaves a remainder, which is stated.
    said = ranks[0]["reads"]
    for name, count in sizes.items():
        own = {query: often for query, often in read.items() if query.startswith(name)}
        rows = said[name]["steps"] * 8
        assert said[name]["unread"] == count - len(own) and said[name]["most"] == max(own.values())
        if rows <= count:  # within its first pass no row comes twice, and what is missing is what no step had room for
            assert said[name]["most"] == 1 and said[name]["unread"] == count - rows
        else:  # its last step is of a second pass
            assert said[name]["most"] == 2 and said[name]["unread"] < 8
    assert mixed <= 2


@pytest.mark.parametrize("limit", [1, 7, 60])
def test_the_record_is_of_the_texts_that_are_read_and_of_no_others(limit: int) -> None:
    """Of rows that `limit` draws, and without negatives, which no objective of an alignment stage reads."""
    recipe = load_recipe("tiny", [f"stages.alignment.data.{place}.limit={limit}" for place in (0, 1)])
    rows = alignment.examples(recipe, recipe.stages[0], seed=1)
    read = set()
    for number in range(len(rows)):
        example = rows[number]
        read |= {example["source_text"], example["target_text"]}
    recorded = set(rows.texts())
    drawn = [sources.load(source.spec(recipe.seed), source.row_kind) for source in recipe.sources(recipe.stages[0])]
    assert read <= recorded
    assert recorded == {*drawn[0]["text"], *drawn[1]["query"], *(text for row in drawn[1]["positive"] for text in row)}
    whole = sources.load(sources.SourceSpec(path="sample:passages"), "passages")
    assert set(drawn[0]["text"]) != set(whole["text"][:limit])


def test_the_record_of_a_stage_of_pairs_has_the_negatives_that_it_trains_on() -> None:
    changes = ["batch_size=4", "mini_batch_size=4", "hard_negatives=2", "data.0.limit=40"]
    recipe = load_recipe("tiny", [f"stages.contrastive.{change}" for change in changes])
    rows = contrastive.examples(recipe, recipe.stages[1], seed=1)
    assert sum(map(len, rows.sets.values())) == 40
    assert set(rows.texts()) == {text for table in rows.sets.values() for row in table for text in row.values()}


def test_rows_that_an_objective_never_reads_are_said(capsys) -> None:
    recipe = load_recipe("tiny", ["stages.alignment.max_steps=10"])
    stage = recipe.stages[0]
    rows = alignment.examples(recipe, stage, seed=1)
    said = card.data(recipe, stage, rows)
    assert set(said["objectives"]) == {"reconstruction", "completion"}
    for reads in said["objectives"].values():
        assert reads["unread"] == max(0, reads["rows"] - 16 * reads["steps"]) > 0
    assert sum(reads["steps"] for reads in said["objectives"].values()) == 10
    say({"event": "data", "stage": "alignment", **said})
    told = capsys.readouterr().err
    assert all(f"{name}: " in told and "rows are never read" in told for name in said["objectives"])
    longer = load_recipe("tiny", ["stages.alignment.max_steps=100"])
    whole = alignment.examples(longer, longer.stages[0], seed=1).reads()
    assert all(reads["unread"] == 0 and reads["most"] > 1 for reads in whole.values())


def test_pairs_that_every_model_answers_choose_no_weights(tmp_path):
    """One row, or many with one answer: each query finds it among nothing else."""
    file = tmp_path / "held.csv"
    recipe = load_recipe("tiny", [f"stages.contrastive.evaluate={{data: [{{path: '{file}'}}]}}"], check_files=False)
    for rows in (["a,the answer"], ["a,the answer", "b,the answer"]):
        file.write_text("\n".join(["query,positive", *rows]))
        with pytest.raises(UsageError, match=r"evaluate\.data: all texts are answers .* 1 texts .*give more rows"):
            read_held(recipe, recipe.stages[1], [], [])
    file.write_text("query,positive\na,one answer\nb,another answer")
    assert read_held(recipe, recipe.stages[1], [], []).rows == 2


def test_a_stage_without_a_row_to_train_on_is_refused():
    """Without a word its plan of steps would never be made."""
    recipe = load_recipe("tiny", ["stages.contrastive.evaluate={held: 0.999}"])
    with pytest.raises(UsageError, match=r"stages\.contrastive: no row is left to train on: 250 are held out"):
        contrastive.examples(recipe, recipe.stages[1], 1)
