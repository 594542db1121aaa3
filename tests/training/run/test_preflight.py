"""What is refused before anything trains, though only a later stage would meet it."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from accelerate import PartialState

from lusifer.errors import LusiferError, UsageError
from lusifer.model import probes
from lusifer.training.folder import RunFolder
from lusifer.training.recipe.document import Document, write
from lusifer.training.recipe.load import load_recipe
from lusifer.training.run import bases, card
from support.small_run import train

LATER = {
    "stages.contrast.lora.llm.targets=[no_such_layer]": r"stages\.contrast: lora\.llm\.targets.*matches no linear",
    "stages.contrast.matryoshka_dims=[64]": r"stages\.contrast\.matryoshka_dims: 64 .* 48",
    "stages.contrast.data.0.instruction=" + "Find what answers the question asked here " * 9:
        r"stages\.contrast: pairs.*: the prompt .* tokens .* leaves no room for a text in max_length 48",
    "stages.align.objectives={distill: 1}": r"is no embedder \(no modules\.json\): distill needs one",
}  # fmt: skip


@pytest.mark.parametrize("setting", LATER)
def test_what_a_later_stage_would_meet_is_refused_at_once(recipe: Path, tmp_path: Path, setting: str) -> None:
    with pytest.raises(UsageError, match=LATER[setting]):
        train(recipe, tmp_path / "run", overrides=[setting])
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_tokenizer_that_only_a_later_stage_would_miss_is_named_at_once(
    recipe: Path, bases_folder: tuple[Path, Path], tmp_path: Path
) -> None:
    llm = shutil.copytree(bases_folder[1], tmp_path / "llm")
    settings = json.loads((llm / "tokenizer_config.json").read_text())
    del settings["eos_token"]
    (llm / "tokenizer_config.json").write_text(json.dumps(settings))
    value = Document.parse(recipe.read_text(), "x").value
    value["stages"].reverse()  # the stage that needs the token comes last
    turned = tmp_path / "turned.yaml"
    turned.write_text(write(value))
    with pytest.raises(UsageError, match=r"model\.llm: its tokenizer has no eos token: set eos_token"):
        train(turned, tmp_path / "run", overrides=[f"model.llm.path={llm}"])
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.slow
def test_a_prompt_that_fills_the_length_is_refused_in_the_first_stage_too(recipe: Path, tmp_path: Path) -> None:
    long = "Find what answers the question asked here " * 9
    only = [
        "stages=[{name: one, kind: contrastive, train: {encoder: lora}, batch_size: 8, mini_batch_size: 4, max_steps: 1"
        f", learning_rate: 0.001, hard_negatives: 1, data: [{{path: 'sample:pairs', instruction: '{long}'}}]}}]"
    ]
    with pytest.raises(UsageError, match="pairs.*: the prompt"):
        train(recipe, tmp_path / "run", overrides=only)
    train(recipe, tmp_path / "run", overrides=[only[0].replace(long, "Find"), "stages.one.save_steps=1"])


@pytest.mark.parametrize(
    ("processes", "rows", "words"),
    [
        (3, 8, r"stages\.align\.batch_size: 8 is not a multiple of the 3 processes"),
        (2, 12, r"align\.mini_batch_size: 6 rows a process .* of 4"),
    ],
)
def test_a_batch_that_the_processes_cannot_share_is_refused(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int, rows: int, words: str
) -> None:
    monkeypatch.setattr(PartialState(cpu=True), "num_processes", processes)
    with pytest.raises(UsageError, match=words):
        train(recipe, tmp_path / "run", overrides=[f"stages.align.batch_size={rows}"])


def test_a_run_inside_the_folder_of_a_base_is_refused(
    recipe: Path, bases_folder: tuple[Path, Path], tmp_path: Path
) -> None:
    output = bases_folder[1] / "run"
    with pytest.raises(UsageError, match=r"run: is in the folder of model\.llm: choose an --output outside it"):
        train(recipe, output, overrides=[f"model.llm.path={bases_folder[1]}"])
    assert not output.exists()


@pytest.mark.parametrize("wanted", [True, False])
def test_probes_can_be_left_out_and_the_card_says_so(
    recipe: Path, bases_folder: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    both = zip(("encoder", "llm"), bases_folder, strict=True)
    settings = [*(f"model.{backbone}.path={path}" for backbone, path in both), f"model.probes={str(wanted).lower()}"]
    loaded = bases.concrete(load_recipe(recipe, settings))
    embedder = bases.build_model(loaded, torch.float32)
    words = re.sub(r"\s+", " ", card.card(RunFolder(tmp_path, loaded), 1, embedder))
    assert ("The joined bases were not probed before training" in words) is not wanted

    def fails(model: torch.nn.Module, ids: torch.Tensor, mask: torch.Tensor) -> list[probes.Probe]:
        assert ids.device == mask.device == next(model.parameters()).device
        return [probes.Probe("order never changes a vector", False, "distance 1")]

    monkeypatch.setattr(probes, "run_probes", fails)
    if wanted:
        with pytest.raises(LusiferError, match=r"order never changes a vector: no \(distance 1\)"):
            bases.build_model(loaded, torch.float32)
    else:
        bases.build_model(loaded, torch.float32)


def test_a_run_of_an_earlier_version_has_its_probes(recipe: Path) -> None:
    assert load_recipe(recipe).model.probes
    with pytest.raises(UsageError, match=r"model\.probes"):
        load_recipe(recipe, ["model.probes=perhaps"])
