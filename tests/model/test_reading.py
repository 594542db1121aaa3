"""Bases are read once, to the device and in the number format that they are held in; a head alone is read alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from lusifer.embedder import folder
from lusifer.errors import LusiferError
from lusifer.io import weights
from lusifer.model import build
from lusifer.model.bases import reading
from lusifer.model.build import Base


@pytest.fixture
def llm(llm_folder: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """An LLM's folder: its head a tensor of its own or the word embeddings, in one file or in several."""
    tied, sharded = request.param
    config = AutoConfig.from_pretrained(llm_folder)
    config.tie_word_embeddings = tied
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(
        tmp_path / "llm", max_shard_size="40KB" if sharded else "5GB"
    )
    assert (tmp_path / "llm" / weights.INDEX).is_file() == sharded
    return tmp_path / "llm"


KINDS = pytest.mark.parametrize("llm", [(True, False), (False, False), (True, True), (False, True)], indirect=True)


@KINDS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_head_is_that_of_the_whole_llm(llm: Path, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    base = Base(str(llm), dtype=dtype)
    whole = AutoModelForCausalLM.from_pretrained(llm, dtype=dtype).get_output_embeddings()
    backbone = build.read_backbone(base, "llm")
    monkeypatch.setattr(reading, "_read_weights", lambda *_, **__: pytest.fail("the LLM was read once more"))
    head = build.read_lm_head(base, backbone)
    assert torch.equal(head.weight, whole.weight) and head.weight.dtype == dtype
    assert not head.weight.requires_grad
    states = torch.randn(2, 3, head.in_features, dtype=dtype)
    assert torch.equal(head(states), whole(states))
    if AutoConfig.from_pretrained(llm).tie_word_embeddings:
        assert head.weight.data_ptr() == backbone.get_input_embeddings().weight.data_ptr()  # no second copy


@pytest.mark.parametrize("llm", [(False, False)], indirect=True)
@pytest.mark.parametrize("damage", ["missing", "truncated", "shape"])
def test_a_head_that_cannot_be_read_alone_is_refused_as_in_the_whole_llm(llm: Path, damage: str) -> None:
    file = llm / weights.WEIGHTS
    tensors = load_file(file)
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-100])
    else:
        head = tensors.pop("lm_head.weight")
        save_file(tensors | ({"lm_head.weight": head[:-1].clone()} if damage == "shape" else {}), file)
    with pytest.raises((LusiferError, RuntimeError)):
        build.read_lm_head(Base(str(llm)))


def test_a_head_of_other_weights_than_safetensors_is_read_with_the_llm(llm_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(llm_folder, tmp_path / "llm")
    tensors = load_file(copy / weights.WEIGHTS)
    (copy / weights.WEIGHTS).unlink()
    torch.save(tensors, copy / "pytorch_model.bin")
    assert torch.equal(build.read_lm_head(Base(str(copy))).weight, build.read_lm_head(Base(str(llm_folder))).weight)


@pytest.mark.parametrize(("device", "asked"), [("cpu", None), ("cuda", {"": "cuda"}), ("cuda:3", {"": "cuda:3"})])
def test_a_base_goes_straight_to_its_device_in_its_number_format(
    llm_folder: Path, monkeypatch: pytest.MonkeyPatch, device: str, asked: dict | None
) -> None:
    calls = []
    monkeypatch.setattr(
        PreTrainedModel, "from_pretrained",
        classmethod(lambda cls, *_, **words: calls.append(words) or (cls, {"missing_keys": []})),
    )  # fmt: skip
    build.read_backbone(Base(str(llm_folder), dtype=torch.bfloat16, device=device), "llm")
    (words,) = calls
    assert words.get("device_map") == asked and words["dtype"] == torch.bfloat16


def test_a_base_placed_by_the_library_is_the_same(
    llm_folder: Path, encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The road of a GPU, with the CPU as its end."""
    plain = build.read_backbone(Base(str(llm_folder)), "llm")
    monkeypatch.setattr(reading, "place", lambda device: {"device_map": {"": str(device)}})
    placed = build.read_backbone(Base(str(llm_folder)), "llm")
    ours = build.join(build.read_backbone(Base(str(encoder_folder)), "encoder"), placed)
    assert all(
        torch.equal(a, b) for a, b in zip(plain.state_dict().values(), placed.state_dict().values(), strict=True)
    )
    assert {p.device.type for p in ours.parameters()} == {"cpu"}
    assert torch.isfinite(ours(torch.tensor([[5, 6, 7]])).embedding).all()


def test_a_model_folder_placed_by_the_library_is_the_same(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain = folder.load(model_folder, "cpu")
    monkeypatch.setattr(reading, "place", lambda device: {"device_map": {"": str(device)}})
    placed = folder.load(model_folder, "cpu")
    texts = ["The river rises in spring.", "water"]
    assert (plain.encode(texts) == placed.encode(texts)).all()
    assert {p.dtype for p in placed.parameters()} == {p.dtype for p in plain.parameters()}
    assert placed.device.type == "cpu" and not caplog.records
