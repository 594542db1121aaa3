"""Whose space a model's vectors stand in: what its folder says after stages that keep to an embedder, and others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer, models

import lusifer
from lusifer.embedder import folder
from lusifer.embedder.identity import identity
from lusifer.embedder.info import describe
from lusifer.training.stages.measured import Judge
from support.small_run import RECIPE, recipe_of, train

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def embedder(minilm_like_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny embedder, to be the LLM."""
    word = models.Transformer(str(minilm_like_folder), max_seq_length=32)
    target = tmp_path_factory.mktemp("embedder") / "little"
    SentenceTransformer(modules=[word, models.Pooling(word.get_word_embedding_dimension())]).save(str(target))
    return target


@pytest.fixture(scope="module")
def run(embedder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stage that has the embedder's vectors as its target, then one of pairs that moves away."""
    text = RECIPE.replace("tiny:llm", str(embedder)).replace("{reconstruction: 1, completion: 1}", "{distill: 1}")
    text = text.replace("max_steps: 4", "max_steps: 1").replace("save_steps: 2", "save_steps: 1")
    output = tmp_path_factory.mktemp("space")
    (output / "recipe.yaml").write_text(text)
    train(output / "recipe.yaml", output / "run", ["stages.contrast.matryoshka_dims=[8]"])
    return output / "run"


def space(model: Path) -> dict[str, str] | None:
    return json.loads((model / "config.json").read_text()).get("space")


def test_a_model_says_whose_vectors_were_its_target_until_a_stage_leaves_them(run: Path, embedder: Path) -> None:
    stages = sorted((run / "checkpoints").iterdir())
    assert space(stages[0] / "model") == {"name": "little", "identity": identity(embedder)}
    assert space(stages[0] / "checkpoint-1") == space(stages[0] / "model")
    assert space(stages[1] / "model") is space(run / "model") is space(run / "delta") is None
    assert "space" not in (run / "model" / "README.md").read_text()


def test_the_last_stage_says_where_its_vectors_may_be_cut(run: Path) -> None:
    stages = sorted((run / "checkpoints").iterdir())
    said = [json.loads((model / "config.json").read_text()) for model in (stages[0] / "model", run / "model")]
    assert "matryoshka_dims" not in said[0] and said[1]["matryoshka_dims"] == [8]
    assert describe(run / "model")["shorter"] == "trained to be shortened to 8 dimensions"


def test_it_is_kept_in_copies_said_to_readers_and_makes_no_other_model(
    run: Path, embedder: Path, tmp_path: Path
) -> None:
    delta = min((run / "checkpoints").iterdir()) / "model"
    folder.export(delta, tmp_path / "whole")
    lusifer.load(tmp_path / "whole", device="cpu").save_pretrained(str(tmp_path / "copy"), create_model_card=False)
    for model in (delta, tmp_path / "whole", tmp_path / "copy"):
        assert space(model) == {"name": "little", "identity": identity(embedder)}
        assert describe(model)["space"].startswith(f"that of little (identity {identity(embedder)}): documents")
    words = f"give the vectors of `little` (identity {identity(embedder)}). Queries can search documents"
    assert words in (delta / "README.md").read_text() and words in (tmp_path / "whole" / "README.md").read_text()
    before = identity(tmp_path / "copy")
    config = json.loads((tmp_path / "copy" / "config.json").read_text())
    del config["space"]
    (tmp_path / "copy" / "config.json").write_text(json.dumps(config))
    assert identity(tmp_path / "copy") == before


def test_a_run_that_starts_from_one_claims_it_only_by_a_stage_of_its_own(
    run: Path, embedder: Path, tmp_path: Path
) -> None:
    recipe = recipe_of(tmp_path, min((run / "checkpoints").iterdir()) / "model")  # a delta
    for weight, claim in ((0, None), (1, {"name": "little", "identity": identity(embedder)})):
        train(recipe, tmp_path / str(weight), [f"stages.contrast.distill={weight}", "stages.contrast.max_steps=1"])
        assert space(tmp_path / str(weight) / "model") == claim


def test_weights_that_were_best_before_a_stage_stand_where_they_stood(
    run: Path, embedder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Judge, "scores", lambda self: {"eval_ndcg@10": 1.0 - self.trainer.state.global_step})
    held = tmp_path / "held.csv"
    held.write_text("query,positive\n" + "".join(f"question {n},answer {n}\n" for n in range(12)))
    stages = sorted((run / "checkpoints").iterdir())
    for number, model in enumerate(each / "model" for each in stages):  # in the embedder's space, and in its own
        folder = tmp_path / str(number)
        folder.mkdir()
        said = [f"stages.contrast.evaluate={{data: [{{path: '{held}'}}]}}", f"stages.contrast.distill={number}"]
        train(recipe_of(folder, model), folder / "run", [*said, "stages.contrast.max_steps=1"])
        assert space(folder / "run" / "model") == space(folder / "run" / "delta") == space(model)
    assert space(stages[0] / "model") and not space(stages[1] / "model")
