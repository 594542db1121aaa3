"""A stage that is scored on held pairs: training does not notice, and the best weights are kept through everything."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback
from transformers.integrations import integration_utils

import lusifer
from lusifer.errors import LusiferError, RecipeError, UsageError
from lusifer.io import seen
from lusifer.model.build import make_tiny_bases
from lusifer.training.recipe.load import load_recipe
from lusifer.training.stages.measured import Judge
from support.small_run import TEXTS, same, train, unfinish
from support.training import losses, without_dropout

pytestmark = pytest.mark.slow
SCORES = {0: 0.2, 1: 0.3, 2: 0.9, 3: 0.4, 4: 0.5}
STAGE = "02-contrast"


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Held pairs; one of them is trained on."""
    file = tmp_path_factory.mktemp("held") / "held.csv"
    lines = [f"how far is hill {n},Hill {n} lies {n} hours from the village." for n in range(12)]
    file.write_text("\n".join(["query,positive", *lines, "What is a fever good for?,Nothing at all."]))
    return file


def both(rows: Path, **more: object) -> list[str]:
    said = json.dumps({"data": [{"path": str(rows)}], "every": 1, **more})
    return [f"stages.align.evaluate={said}", f"stages.contrast.evaluate={said}"]


def scored(run: Path, stage: str) -> dict[int, float]:
    found = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return {row["step"]: row["eval_ndcg@10"] for row in found if row["stage"] == stage and "eval_ndcg@10" in row}


def watched(run: Path) -> list[dict[str, Any]]:
    return [row for row in map(json.loads, (run / "metrics.jsonl").open()) if "watch" in row]


@pytest.fixture(scope="module")
def followed(recipe: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """The small run, both stages scored and ended with their last weights, and what was said."""
    said: list[dict[str, Any]] = []
    output = tmp_path_factory.mktemp("followed") / "run"
    train(recipe, output, both(rows, keep_best=False), listen=said.append)
    return output, said


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> dict[int, float]:
    """Scores by step in place of the model's own; may be changed."""
    scores = dict(SCORES)
    monkeypatch.setattr(Judge, "scores", lambda self: {"eval_ndcg@10": scores[self.trainer.state.global_step]})
    return scores


@pytest.fixture
def kept(recipe: Path, rows: Path, scripted: dict[int, float], tmp_path: Path) -> Path:
    """The small run, its last stage best at step 2."""
    train(recipe, tmp_path / "kept", [*both(rows)[1:], "stages.contrast.keep_checkpoints=1"])
    return tmp_path / "kept"


def is_step(run: Path, step: int) -> bool:
    """Whether the model of a run is what a checkpoint of its last stage holds."""
    models = [run / "model", run / "checkpoints" / STAGE / f"checkpoint-{step}"]
    one, other = (lusifer.load(model, device="cpu").encode(TEXTS) for model in models)
    return bool(abs(one - other).max() < 1e-6)


def test_training_does_not_notice(finished: Path, followed: tuple[Path, list[dict[str, Any]]]) -> None:
    assert same(finished, followed[0])


def test_scores_go_to_the_log_and_what_is_left_out_is_said(followed: tuple[Path, list[dict[str, Any]]]) -> None:
    run, said = followed
    for stage in ("align", "contrast"):
        assert list(scored(run, stage)) == [0, 1, 2, 3, 4]
        best = next(event for event in said if event["event"] == "best" and event["stage"] == stage)
        scores = scored(run, stage)
        assert best["score"] == max(scores.values()) == scores[best["step"]]
        assert (best["first"], best["last"], best["kept"]) == (scores[0], scores[4], False)
        data = next(event for event in said if event["event"] == "data" and event["stage"] == stage)
        assert data["evaluate"] == {"rows": 12, "queries": 12, "documents": 12, "left_out": 1}
    assert "nDCG@10" in (run / "model" / "README.md").read_text()


@pytest.mark.parametrize("stage", ["01-align", "02-contrast"])
def test_what_is_scored_is_the_model_in_the_checkpoint(followed: tuple[Path, list[dict[str, Any]]], stage: str) -> None:
    model = lusifer.load(followed[0] / "checkpoints" / stage / "checkpoint-4", device="cpu")
    texts = [(f"how far is hill {n}", f"Hill {n} lies {n} hours from the village.") for n in range(12)]
    queries, documents = (torch.tensor(model.encode(list(side))) for side in zip(*texts, strict=True))
    ranks = [int((row > row[n]).sum()) for n, row in enumerate(queries @ documents.T)]
    ndcg = sum(1 / torch.tensor(rank + 2.0).log2() for rank in ranks if rank < 10) / len(ranks)
    assert scored(followed[0], stage[3:])[4] == pytest.approx(float(ndcg), abs=1e-4)


def test_a_stage_ends_with_the_best_weights(finished: Path, kept: Path) -> None:
    assert is_step(kept, 2) and not same(finished, kept)
    folder = kept / "checkpoints" / STAGE
    assert sorted(each.name for each in folder.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4"]
    assert json.loads((folder / "best.json").read_text())["step"] == 2 and not (folder / "start.safetensors").exists()
    assert "0.900 at step 2, whose weights were saved" in (kept / "model" / "README.md").read_text()


@pytest.mark.parametrize("step", [2, 4])
def test_a_resumed_stage_knows_its_best(recipe: Path, rows: Path, kept: Path, tmp_path: Path, step: int) -> None:
    broken = unfinish(kept, tmp_path / "broken", STAGE, step)
    moved = tmp_path / "moved"
    broken.rename(moved)  # the library's own record of the best checkpoint is a path
    train(recipe, moved, [*both(rows)[1:], "stages.contrast.keep_checkpoints=1"], resume=True)
    assert same(kept, moved) and scored(kept, "contrast") == scored(moved, "contrast")


def test_a_stage_killed_before_its_first_checkpoint_logs_its_first_score_once(
    recipe: Path, rows: Path, scripted: dict[int, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Judge.scores

    def fails(self: Judge) -> dict[str, float]:
        if self.trainer.state.global_step:
            raise LusiferError("killed")
        return asked(self)

    monkeypatch.setattr(Judge, "scores", fails)
    with pytest.raises(LusiferError, match="killed"):
        train(recipe, tmp_path / "run", both(rows)[1:])
    monkeypatch.setattr(Judge, "scores", asked)
    train(recipe, tmp_path / "run", both(rows)[1:], resume=True)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [row["step"] for row in map(json.loads, lines) if "eval_ndcg@10" in row] == [0, 1, 2, 3, 4]


def test_what_it_began_with_may_be_the_best(
    recipe: Path, rows: Path, scripted: dict[int, float], tmp_path: Path
) -> None:
    scripted[0] = 0.95
    run = tmp_path / "run"
    train(recipe, run, both(rows)[1:])
    models = [run / "checkpoints" / "01-align" / "model", run / "model"]
    before, after = (lusifer.load(model, device="cpu").encode(TEXTS) for model in models)
    assert abs(before - after).max() < 1e-5
    broken = unfinish(run, tmp_path / "broken", STAGE, 2)
    assert not is_step(run, 4)
    events: list[dict[str, Any]] = []
    train(recipe, broken, both(rows)[1:], resume=True, listen=events.append)  # its start was removed with the first end
    assert [event["step"] for event in events if event["event"] == "best gone"] == [0]
    assert is_step(broken, 4)


def test_a_best_checkpoint_that_was_removed_is_said(recipe: Path, rows: Path, kept: Path, tmp_path: Path) -> None:
    broken = unfinish(kept, tmp_path / "broken", STAGE, 4)
    shutil.rmtree(broken / "checkpoints" / STAGE / "checkpoint-2")
    events: list[dict[str, Any]] = []
    said = [*both(rows)[1:], "stages.contrast.keep_checkpoints=1"]
    train(recipe, broken, said, resume=True, listen=events.append)
    assert [event["step"] for event in events if event["event"] == "best gone"] == [2]
    assert is_step(broken, 4)


def test_rows_held_back_are_not_trained_on(recipe: Path, tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    said = ["stages.contrast.evaluate={held: 0.1, every: 0.5}", "stages.align.max_steps=1"]
    train(recipe, tmp_path / "run", said, listen=events.append)
    data = [event for event in events if event["event"] == "data"][1]
    assert data["evaluate"]["rows"] == 25 and sum(each["rows"] for each in data["sources"]) == 225
    assert data["read_from"][0]["rows"] == 250
    stage = tmp_path / "run" / "checkpoints" / STAGE
    learned = seen.BloomFilter.load(stage / seen.SEEN)
    sample = [json.loads(line) for line in (Path(lusifer.__file__).parent / "data/sample/pairs.jsonl").open()]
    unread = [row for row in sample if row["query"] not in learned]
    assert 23 <= len(unread) <= 25
    assert list(scored(tmp_path / "run", "contrast")) == [0, 2, 4]


def test_reporters_get_the_score(recipe: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[dict] = []

    class Recorder(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs) -> None:  # noqa: ANN001, ANN003
            said.append(logs)

    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "trackio", Recorder)
    monkeypatch.setattr("lusifer.training.stages.trainer.get_available_reporting_integrations", lambda: ["trackio"])
    one = ["stages.align.max_steps=1", "stages.contrast.max_steps=1", "report_to=[trackio]"]
    train(recipe, tmp_path / "run", [*both(rows), *one])
    assert sum("eval_ndcg@10" in row for row in said) == 4


def test_held_pairs_that_training_reads_are_refused(recipe: Path, tmp_path: Path) -> None:
    said = ["stages.contrast.evaluate={data: [{path: 'sample:pairs'}]}", "stages.align.max_steps=1"]
    with pytest.raises(
        UsageError, match=r"evaluate\.data: the stage trains on a text of each of the 250 rows: give other"
    ):
        train(recipe, tmp_path / "run", said)
    assert not list((tmp_path / "run").glob("checkpoints/*/checkpoint-*"))


def test_held_pairs_that_changed_are_refused_by_a_resume(recipe: Path, rows: Path, tmp_path: Path) -> None:
    file = tmp_path / "held.csv"
    shutil.copyfile(rows, file)
    train(recipe, tmp_path / "run", [*both(file)[:1], "stages.contrast.max_steps=1"])
    broken = unfinish(tmp_path / "run", tmp_path / "broken", "01-align", 2)
    file.write_text(file.read_text().replace("hill 3", "hill 33"))
    with pytest.raises(UsageError, match=r"stages\.align\.evaluate\.data\.0: held\.csv has changed since"):
        train(recipe, broken, [*both(file)[:1], "stages.contrast.max_steps=1"], resume=True)


def test_two_processes_are_scored_and_watched_as_one(rows: Path, tmp_path: Path) -> None:
    encoder, llm = make_tiny_bases(tmp_path / "bases", 0)
    without_dropout(encoder)
    command = ["tiny", "--set", f"model.encoder.path={encoder}", "--set", f"model.llm.path={llm}"]
    evaluate = f"evaluate={{data: [{{path: '{rows}'}}], every: 2}}"
    for setting in ["max_steps=4", "lora.encoder.dropout=0.0", "mini_batch_size=4", evaluate, "watch={every: 2}"]:
        command += ["--set", f"stages.0.{setting}"]
    for setting in ["max_steps=2", evaluate, "watch={every: 1}"]:
        command += ["--set", f"stages.1.{setting}"]
    losses(tmp_path, command)
    one, two = (scored(tmp_path / name, "alignment") for name in ("one", "two"))
    assert list(one) == list(two) == [0, 2, 4] and two == pytest.approx(one, abs=0.02)
    files = [next((tmp_path / name).glob("checkpoints/01-*/best.json")) for name in ("one", "two")]
    assert len({json.loads(file.read_text())["step"] for file in files}) == 1
    one, two = (watched(tmp_path / name) for name in ("one", "two"))
    places = [(row["stage"], row["step"]) for row in one]
    assert places == [("alignment", 2), ("alignment", 4), ("contrastive", 1), ("contrastive", 2)]
    assert [(row["stage"], row["step"]) for row in two] == places
    for name in ("shift", "anisotropy"):
        assert two[0]["watch"]["means"][name] == pytest.approx(one[0]["watch"]["means"][name], rel=1e-3)


@pytest.mark.parametrize(
    ("evaluate", "words"),
    [
        ("{every: 3}", "give either data (sources of pairs) or held"),
        ("{held: 0.1, data: [{path: 'sample:pairs'}]}", "give either data (sources of pairs) or held"),
        ("{held: 1.5}", "stages.contrast.evaluate.held"),
        ("{held: 0.1, every: 0}", "stages.contrast.evaluate.every"),
        ("{held: 0.1, evry: 2}", "did you mean every?"),
        ("{data: [{path: nowhere.csv}]}", "nowhere.csv: no such file"),
        ("{data: [{path: 'sample:pairs', language: de}]}", "pairs (de) would choose the weights"),
    ],
)
def test_a_wrong_key_is_refused(recipe: Path, evaluate: str, words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe, [f"stages.contrast.evaluate={evaluate}"])
    assert words in str(caught.value)


def test_alignment_holds_nothing_back(recipe: Path) -> None:
    with pytest.raises(RecipeError, match=r"evaluate\.held: works in a contrastive stage only"):
        load_recipe(recipe, ["stages.align.evaluate={held: 0.1}"])
