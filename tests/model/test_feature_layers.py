"""`feature_layers`: the connector reads the states of several layers of the encoder side by side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lusifer.cli import main
from lusifer.errors import UsageError
from lusifer.model import build
from lusifer.model.build import Base
from lusifer.model.lusifer import LusiferModel
from lusifer.model.probes import run_probes
from lusifer.training.estimate.memory import Estimator, skeleton
from lusifer.training.estimate.rehearsal import rehearse
from lusifer.training.recipe.load import load_recipe


def joined(folders: tuple[Path, Path], **settings: object) -> LusiferModel:
    bases = [build.read_backbone(Base(str(path)), tower) for path, tower in zip(folders, ("encoder", "llm"))]
    return build.join(*bases, **settings)


@pytest.mark.parametrize("connector", ("ff", "mlp", "embedding_table", "latent_attention"))
def test_a_connector_reads_the_chosen_layers_side_by_side(connector, bases_folder, batch):
    settings = {"num_heads": 4} if connector == "latent_attention" else None
    model = joined(bases_folder, connector_type=connector, connector_kwargs=settings, feature_layers=[1, 2])
    ids, mask = batch([5, 3])
    found = model.encoder_states(ids, mask)
    layers = model.encoder(ids, mask, output_hidden_states=True)
    assert torch.equal(found, torch.cat([layers.hidden_states[1], layers.last_hidden_state], dim=-1))
    assert found.shape[-1] == model.config.state_size == 64
    for probe in run_probes(model, *batch([7, 3, 5])):
        assert probe.ok, probe


@pytest.mark.parametrize("encoder", ("modernbert", "t5"))
def test_of_the_last_layer_the_states_are_those_behind_the_final_norm(encoder, shared_model, batch):
    model = shared_model(encoder=encoder)
    ids, mask = batch([5, 3])
    assert torch.equal(model.encoder_states(ids, mask), model.encoder(ids, mask).last_hidden_state)
    model.config.feature_layers = [1, 2]
    try:
        both = model.encoder_states(ids, mask)
    finally:
        model.config.feature_layers = None
    assert torch.equal(both[..., both.shape[-1] // 2 :], model.encoder(ids, mask).last_hidden_state)


def test_a_folder_says_which_layers_and_gives_the_same_vectors(bases_folder, batch, tmp_path):
    model = joined(bases_folder, feature_layers=[1, 2])
    model.save_pretrained(tmp_path / "two")
    assert json.loads((tmp_path / "two" / "config.json").read_text())["feature_layers"] == [1, 2]
    again = LusiferModel.from_pretrained(tmp_path / "two")
    assert torch.equal(again(*batch([5, 3])).embedding, model(*batch([5, 3])).embedding)
    joined(bases_folder).save_pretrained(tmp_path / "one")
    assert "feature_layers" not in json.loads((tmp_path / "one" / "config.json").read_text())


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ([2, 1], "in order, each once"),
        ([2, 2], "in order, each once"),
        ([0, 2], "numbers from 1 on"),
        ([True, 2], "numbers from 1 on"),
        ([], "numbers from 1 on"),
        ("last", "numbers from 1 on"),
        ([1], "must end with the encoder's last layer, 2; to use 1, keep as many with encoder.layers"),
        ([1, 9], "must end with the encoder's last layer, 2$"),
    ],
)
def test_layers_that_cannot_be_are_refused(layers, words, bases_folder):
    with pytest.raises(UsageError, match=f"model.feature_layers=.*{words}"):
        joined(bases_folder, feature_layers=layers)


@pytest.mark.parametrize("value", ("[1,9]", "[0,2]", "[]", "2", "[1,1]"))
def test_a_recipe_with_such_layers_ends_in_one_line(value, capsys):
    assert main(["check", "tiny", "--set", f"model.feature_layers={value}"]) == 2
    error = capsys.readouterr().err
    assert "model.feature_layers" in error and "Error:" not in error and len(error.splitlines()) == 1


def test_memory_and_work_of_many_layers_are_those_of_a_full_rehearsal(bases_folder):
    """Layers are alike also where some are read: what few of them take gives what all of them do."""
    recipe = load_recipe("tiny", ["model.feature_layers=[2, 4, 6]"])
    configs = [build.read_config(Base(str(path)), tower) for path, tower in zip(bases_folder, ("encoder", "llm"))]
    configs[0].num_hidden_layers = 6
    estimator = Estimator(recipe, *configs)
    for stage in recipe.stages:
        part = stage.passes[0]
        counted = estimator._count(stage, part, 24, "cpu")
        setting = next(key[0] for key in estimator._rehearsed)
        whole = rehearse(lambda stage=stage: skeleton(recipe, stage, *configs), setting, "cpu")
        assert counted.flops == pytest.approx(whole.flops, rel=0.01)
        assert counted.bytes == pytest.approx(whole.bytes, rel=0.03)
        estimator._rehearsed.clear()
