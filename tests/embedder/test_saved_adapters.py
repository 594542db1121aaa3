"""Whichever road put adapters in: what is saved loads, with the vectors in memory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from huggingface_hub import HfApi
from peft import IA3Config, LoHaConfig, LoraConfig, PeftModel, PromptTuningConfig, VeraConfig, get_peft_model
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
    losses,
)
from transformers import PreTrainedModel

import lusifer
from lusifer.embedder.doctor import examine
from lusifer.errors import LusiferError, ModelFolderError
from lusifer.model import adapters
from support.tiny_folder import tiny_embedder

TEXTS = ["Where is the station?", "Bread rises slowly."]


def config(**more: object) -> LoraConfig:
    return LoraConfig(r=2, target_modules=["query", "value", "q_proj"], init_lora_weights=False, **more)


def of_sentence_transformers(model: SentenceTransformer) -> None:
    model.add_adapter(config())


def of_transformers(model: SentenceTransformer) -> None:
    model[0].model.add_adapter(config())


def with_whole_modules(model: SentenceTransformer) -> None:
    model[0].model.add_adapter(config(modules_to_save=["connector"]))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "modules_to_save" in name:
                parameter.add_(0.1)


def with_a_whole_projection(model: SentenceTransformer) -> None:
    model[0].model.add_adapter(config(modules_to_save=["output_projection"]))
    with torch.no_grad():
        for parameter in model[0].model.output_projection.modules_to_save.parameters():
            parameter.add_(0.1)


def around_the_projection(model: SentenceTransformer) -> None:
    lora = LoraConfig(r=2, target_modules=["0", "2"], init_lora_weights=False)
    model[0].model.output_projection = get_peft_model(model[0].model.output_projection, lora)


def dora(model: SentenceTransformer) -> None:
    model[0].model.add_adapter(config(use_dora=True))


def peft_in_place(model: SentenceTransformer) -> None:
    get_peft_model(model[0].model, config())


def peft_around(model: SentenceTransformer) -> None:
    model[0].model = get_peft_model(model[0].model, config())


def around_a_backbone(model: SentenceTransformer) -> None:
    model[0].model.encoder = get_peft_model(model[0].model.encoder, config())


def around_each_part(model: SentenceTransformer) -> None:
    whole = model[0].model
    for part in (*adapters.BACKBONES, "connector"):
        targets = r"(.*\.)?(query|q_proj|ff\.[02])"
        lora = LoraConfig(r=2, target_modules=targets, init_lora_weights=False)
        setattr(whole, part, get_peft_model(getattr(whole, part), lora))


def in_the_connector(model: SentenceTransformer) -> None:
    model[0].model.add_adapter(LoraConfig(r=2, target_modules=r"connector\..*ff\.[02]", init_lora_weights=False))


def ia3(model: SentenceTransformer) -> None:
    targets = ["query", "q_proj", "up_proj"]
    settings = IA3Config(target_modules=targets, feedforward_modules=["up_proj"], init_ia3_weights=False)
    model[0].model.add_adapter(settings)


def vera(model: SentenceTransformer) -> None:
    """Its layers share two matrices, which lie beside them."""
    settings = VeraConfig(r=2, target_modules=["query", "value"], init_weights=False, save_projection=True)
    model[0].model.encoder = get_peft_model(model[0].model.encoder, settings)


def loha(model: SentenceTransformer) -> None:
    model[0].model.add_adapter(LoHaConfig(r=2, target_modules=["query", "q_proj"], init_weights=False))


def trainable_tokens(model: SentenceTransformer) -> None:
    ids = model.tokenizer(TEXTS[0])["input_ids"]
    model[0].model.encoder.add_adapter(config(trainable_token_indices=ids))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "trainable_tokens_delta" in name:
                parameter.add_(0.5)


def our_own(model: SentenceTransformer) -> None:
    for backbone in adapters.BACKBONES:
        adapters.attach(model[0].model, backbone, 2, 4.0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.1)


ROADS = (
    of_sentence_transformers, of_transformers, with_whole_modules, with_a_whole_projection, around_the_projection,
    trainable_tokens, dora, ia3, loha, vera,
    in_the_connector,
    peft_in_place, peft_around, around_a_backbone, around_each_part, our_own,
)  # fmt: skip


def vectors(model: SentenceTransformer) -> np.ndarray:
    return model.eval().encode(TEXTS, show_progress_bar=False)


def save(model: SentenceTransformer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    model.save_pretrained(str(folder))
    return folder


def checkpoint(model: SentenceTransformer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rows = Dataset.from_dict({"anchor": TEXTS * 2, "positive": TEXTS[::-1] * 2})
    settings = SentenceTransformerTrainingArguments(
        output_dir=str(folder), max_steps=1, save_steps=1, report_to="none", use_cpu=True, disable_tqdm=True
    )
    SentenceTransformerTrainer(
        model=model, args=settings, train_dataset=rows, loss=losses.MultipleNegativesRankingLoss(model)
    ).train()
    return folder / "checkpoint-1"


def push(model: SentenceTransformer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As far as the hub: what would be uploaded."""
    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo_id, **_: type("Url", (), {"repo_id": repo_id}))
    monkeypatch.setattr(HfApi, "create_branch", lambda self, **_: None)

    def upload(self: HfApi, *, folder_path: str, **_: object) -> object:
        shutil.copytree(folder_path, folder, dirs_exist_ok=True)
        return type("Url", (), {"commit_url": "somewhere"})

    monkeypatch.setattr(HfApi, "upload_folder", upload)
    model.push_to_hub("somebody/something", private=True)
    return folder


@pytest.mark.parametrize("way", [save, pytest.param(checkpoint, marks=pytest.mark.slow), push])
@pytest.mark.parametrize("road", ROADS)
def test_what_is_saved_loads_with_the_vectors_in_memory(
    road: Callable, way: Callable, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = lusifer.load(model_folder, device="cpu")
    plain = vectors(model)
    road(model)
    written = way(model, tmp_path / "out", monkeypatch)
    wanted = vectors(model)
    assert np.abs(wanted - plain).max() > 1e-3
    for loaded in (SentenceTransformer(str(written), device="cpu"), lusifer.load(written, device="cpu")):
        assert np.abs(vectors(loaded) - wanted).max() < 1e-5


def test_merged_in_place_nothing_of_peft_is_left(model_folder: Path) -> None:
    model, plain = (lusifer.load(model_folder, device="cpu") for _ in range(2))
    around_each_part(model)
    wanted = vectors(model)
    assert adapters.merge(model[0].model) > 3
    assert model[0].model.state_dict().keys() == plain[0].model.state_dict().keys()
    assert np.abs(vectors(model) - wanted).max() < 1e-5


def test_adapters_of_a_part_inside_an_adapted_whole_are_refused_where_they_would_not_be_loaded(
    model_folder: Path, tmp_path: Path
) -> None:
    model = lusifer.load(model_folder, device="cpu")
    around_a_backbone(model)
    model[0].model = get_peft_model(model[0].model, LoraConfig(r=2, target_modules=["q_proj"]))
    model.save_pretrained(str(tmp_path / "out"))
    with pytest.raises(
        ModelFolderError, match=r"adapters on a part that has its own adapters .*save the complete model"
    ):
        lusifer.load(tmp_path / "out", device="cpu")


def test_a_bias_of_an_adapter_that_its_layer_has_no_place_for_is_said(model_folder: Path, tmp_path: Path) -> None:
    model = lusifer.load(model_folder, device="cpu")
    model[0].model.add_adapter(LoraConfig(r=2, target_modules=["q_proj"], lora_bias=True, init_lora_weights=False))
    with pytest.raises(LusiferError, match=r"q_proj: its adapter cannot be merged .*remove it first"):
        model.save_pretrained(str(tmp_path / "out"))


def prompt_tuning(model: torch.nn.Module) -> None:
    model.llm = get_peft_model(model.llm, PromptTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=2))


def a_layer_more(model: torch.nn.Module) -> None:
    model.connector = torch.nn.Sequential(model.connector)


def another_shape(model: torch.nn.Module) -> None:
    model.output_projection[0] = torch.nn.Linear(3, 3)


@pytest.mark.parametrize("change", [prompt_tuning, a_layer_more, another_shape])
def test_nothing_is_written_that_could_not_be_loaded(change: Callable, model_folder: Path, tmp_path: Path) -> None:
    model = lusifer.load(model_folder, device="cpu")
    change(model[0].model)
    with pytest.raises(LusiferError, match=r"could not be loaded: tensors .*(unknown|shape)"):
        model[0].model.save_pretrained(str(tmp_path / "out"))
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.fixture
def latent_attention(bases_folder: tuple[Path, Path]) -> torch.nn.Module:
    kwargs = {"num_latents": 3, "num_heads": 2}
    return tiny_embedder(bases_folder, connector_type="latent_attention", connector_kwargs=kwargs)[0].model.eval()


ATTENTION = "connector.mapping.attention"


@pytest.mark.parametrize("targets", [["out_proj"], ["query", "out_proj"]])
def test_an_adapter_that_attention_reads_past_is_refused(
    targets: list[str], latent_attention: torch.nn.Module, tmp_path: Path
) -> None:
    latent_attention.add_adapter(LoraConfig(r=2, target_modules=targets, init_lora_weights=False))
    for work in (lambda: latent_attention.save_pretrained(tmp_path / "out"), lambda: adapters.merge(latent_attention)):
        with pytest.raises(LusiferError, match=rf"{ATTENTION}\.out_proj: .*adapt all of {ATTENTION}, or take"):
            work()
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize("disabled", [False, True])
def test_an_adapter_around_the_whole_attention_is_merged(
    disabled: bool, latent_attention: torch.nn.Module, tmp_path: Path
) -> None:
    ids = torch.arange(5, 13).view(2, 4)
    plain = latent_attention(ids, torch.ones_like(ids)).embedding
    latent_attention.add_adapter(LoraConfig(r=2, target_modules=[ATTENTION], init_lora_weights=False))
    if disabled:
        latent_attention.disable_adapters()
    wanted = latent_attention(ids, torch.ones_like(ids)).embedding
    assert bool((wanted - plain).abs().max() < 1e-6) is disabled
    latent_attention.save_pretrained(tmp_path / "out")
    loaded = type(latent_attention).from_pretrained(tmp_path / "out").eval()
    assert (loaded(ids, torch.ones_like(ids)).embedding - wanted).abs().max() < 1e-5


def test_adapters_whose_base_is_gone_are_named(model_folder: Path, tmp_path: Path) -> None:
    base = shutil.copytree(model_folder, tmp_path / "base")
    model = lusifer.load(base, device="cpu")
    peft_around(model)
    model.save_pretrained(str(tmp_path / "out"))
    shutil.rmtree(base)
    with pytest.raises(
        ModelFolderError, match=r"adapter_config\.json: .*base, the base of these adapters, is not there"
    ):
        lusifer.load(tmp_path / "out")


def test_a_save_that_writes_no_weights_is_an_error(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PreTrainedModel, "save_pretrained", lambda *_, **__: None)
    with pytest.raises(LusiferError, match="no weights were written"):
        lusifer.load(model_folder, device="cpu").save_pretrained(str(tmp_path / "out"))


def test_a_process_that_is_not_to_write_writes_no_weights(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trainers save on every process, and the library lets the first one write."""
    monkeypatch.setattr("transformers.distributed.mixin._is_torch_distributed_initialized", lambda: True)
    monkeypatch.setattr("transformers.distributed.mixin._get_torch_distributed_rank", lambda: 1)
    lusifer.load(model_folder, device="cpu").save_pretrained(str(tmp_path / "out"))
    assert not list((tmp_path / "out").glob("*.safetensors"))


def test_adapters_that_peft_cannot_put_into_a_model_are_said_with_the_mend(model_folder: Path, tmp_path: Path) -> None:
    model = lusifer.load(model_folder, device="cpu")
    settings = VeraConfig(r=2, target_modules=["query", "value"], init_weights=False, save_projection=True)
    model[0].model = get_peft_model(model[0].model, settings)
    wanted = vectors(model)
    model.save_pretrained(str(tmp_path / "out"))
    with pytest.raises(
        ModelFolderError, match=r"adapter_config\.json: these .*VERA.*: merge them into the model"
    ) as said:
        lusifer.load(tmp_path / "out", device="cpu")
    assert "\n" not in str(said.value)
    model = lusifer.load(model_folder, device="cpu")
    model[0].model = PeftModel.from_pretrained(model[0].model, tmp_path / "out").merge_and_unload()
    assert np.abs(vectors(model) - wanted).max() < 1e-5


@pytest.fixture
def adapters_alone(model_folder: Path, tmp_path: Path) -> Path:
    model = lusifer.load(model_folder, device="cpu")
    peft_around(model)
    model.save_pretrained(str(tmp_path / "out"))
    return tmp_path / "out"


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("tokenizer.json", "{}", r"damaged, no tokenizer \(Model missing"),
        ("tokenizer.json", None, "missing"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"7": 3}}, "damaged, added_tokens_decoder.7=3: expected an"),
        ("tokenizer_config.json", {"padding_side": "up"}, "damaged, padding_side='up': expected"),
        ("sentence_bert_config.json", "{", "damaged"),
        ("sentence_bert_config.json", {"modality_config": 3}, "damaged, modality_config=3: expected an object"),
        ("config_sentence_transformers.json", {"default_prompt_name": "a"}, "damaged, default_prompt_name='a': expec"),
        ("1_Normalize/config.json", "[]", "damaged, not a JSON object"),
        ("modules.json", "3", "damaged, not a JSON list"),
        ("adapter_config.json", {"peft_type": "A"}, r"damaged, or adapters of another model \(KeyError: 'A'\)"),
        ("adapter_config.json", {"r": 4}, "damaged, or adapters of another model"),
        ("adapter_config.json", {"base_model_name_or_path": "no/such"}, "no/such, the base of .* cannot be loaded"),
        ("adapter_config.json", {"base_model_name_or_path": 3}, "names no base model"),
    ],
)  # fmt: skip
def test_what_is_damaged_beside_adapters_is_named_without_a_word_on_merging(
    name: str, change: str | dict | None, words: str, adapters_alone: Path
) -> None:
    file = adapters_alone / name
    if change is None:
        file.unlink()
    else:
        text = change if isinstance(change, str) else json.dumps(json.loads(file.read_text()) | change)
        file.write_text(text)
    with pytest.raises(ModelFolderError, match=rf"^{file}: {words}") as said:
        lusifer.load(adapters_alone, device="cpu")
    assert "merge" not in str(said.value) and "\n" not in str(said.value)


def test_doctor_takes_adapters_alone(model_folder: Path, tmp_path: Path) -> None:
    model = lusifer.load(model_folder, device="cpu")
    peft_around(model)
    model.save_pretrained(str(tmp_path / "out"))
    first, *others = examine(tmp_path / "out", "cpu")
    assert first.ok and first.detail.startswith("adapters alone, identity ") and all(each.ok for each in others)
