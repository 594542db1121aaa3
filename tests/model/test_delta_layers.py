"""Which layers the adapters of a delta are on: those that peft chooses, by name in the folder."""

from __future__ import annotations

import json

import pytest

import lusifer
from lusifer.embedder import folder
from lusifer.embedder.assemble import lusifer_model
from lusifer.errors import ModelFolderError
from lusifer.io import bases as known_bases
from lusifer.model import adapters
from lusifer.model.delta import Delta
from lusifer.training.recipe.parts import LoRA
from support.tiny_folder import tiny_delta, tiny_embedder


@pytest.mark.parametrize(
    "targets", (["q_proj", "down_proj"], r".*layers\.0\..*_proj", "all-linear", ["self_attn.v_proj"])
)
def test_adapters_are_on_the_layers_that_peft_chooses(targets, bases_folder):
    model = lusifer_model(tiny_embedder(bases_folder))
    about = {"name": "stage-x", "tower": "llm", "r": 2, "alpha": 4, "targets": targets}
    told = adapters.shapes(model, about)
    before = set(model.state_dict())
    adapters.attach(model, "llm", 2, 4, targets=targets, name="stage-x")
    put = {n: tuple(t.shape) for n, t in model.state_dict().items() if n not in before and adapters.is_adapter(n)}
    assert told == put and put


def test_layers_that_an_expression_chose_are_named_in_the_folder(bases_folder, tmp_path):
    chosen = LoRA(r=2, alpha=4, dropout=0.0, targets=r".*layers\.(0|1)\..*(q|v)_proj")
    embedder = tiny_embedder(bases_folder)
    model = lusifer_model(embedder)
    where = dict(zip(adapters.BACKBONES, map(str, bases_folder), strict=True))
    records = {backbone: known_bases.record(base, known_bases.fingerprint(base)) for backbone, base in where.items()}
    model.delta = Delta(records)
    adapters.attach(model, "llm", 2, 4, name="stage-before")  # on all layers, and no part of what is named
    adapters.attach(model, "llm", 2, 4, targets=chosen.targets)
    lora = {"encoder": None, "llm": chosen}
    model.delta = model.delta.during(model, "one", {"encoder": "frozen", "llm": "lora"}, lora)
    named = [f"layers.{number}.self_attn.{part}_proj" for number in (0, 1) for part in "qv"]
    assert sorted(model.delta.new[0]["targets"]) == named
    folder.save(embedder, tmp_path / "one")
    config = json.loads((tmp_path / "one" / "config.json").read_text())
    vectors = lusifer.load(tmp_path / "one", "cpu").encode(["The river rises in spring."])
    config["adapters"][0]["targets"] = chosen.targets  # as an older version wrote it
    (tmp_path / "one" / "config.json").write_text(json.dumps(config))
    assert (lusifer.load(tmp_path / "one", "cpu").encode(["The river rises in spring."]) == vectors).all()


@pytest.mark.parametrize("quick", (False, True))
@pytest.mark.parametrize("targets", (
    "([a-z0-9_.]+)+!", "(a|a)(a|a)", "(a|b)*", "[9-0]",
    ".*.*.*.*.*", "(q|v)_proj.*.*.*.*", "(?=a)b", r"(\w+)\1", "x{9}{9}{9}", "[",
))  # fmt: skip
def test_an_expression_that_may_take_without_end_is_refused(targets, quick, bases_folder, tmp_path):
    delta = tiny_delta(bases_folder, tmp_path / "delta")
    config = json.loads((delta / "config.json").read_text())
    config["adapters"][0]["targets"] = targets
    (delta / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelFolderError, match="config.json: adapters: '[^']+': targets=.* give the names of the"):
        folder.load(delta, "cpu", vectors_only=quick)
