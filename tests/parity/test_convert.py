"""Converting the authors' checkpoints: every layout is read, every kind of damage is named, nothing is half written."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import lusifer
from lusifer.errors import ModelFolderError, UsageError
from lusifer.model import adapters
from lusifer.model.published import published_prompt, read
from lusifer.sharing.convert import convert
from support.small_run import recipe_of, train

TEXTS = ["A person needs water.", "Сколько воды нужно человеку каждый день?", "</s> is text"]


@pytest.fixture
def named_bases(checkpoints):
    backbones = checkpoints / "backbones"
    return {"encoder": str(backbones / "tiny-xlm-roberta"), "llm": str(backbones / "tiny-mistral")}


def test_the_default_is_the_right_behaviour(checkpoints, tmp_path):
    embedder = convert(checkpoints / "lusifer-lora", tmp_path / "out")
    loaded = lusifer.load(tmp_path / "out", device="cpu")
    together = loaded.encode(TEXTS)
    assert np.abs(embedder.encode(TEXTS) - together).max() == 0
    alone = np.concatenate([loaded.encode([text]) for text in TEXTS])
    assert np.abs(alone - together).max() < 1e-6
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    tokenizer = loaded.tokenizer
    assert tokenizer(TEXTS[2])["input_ids"].count(tokenizer.eos_token_id) == 1
    assert loaded.prompts["query"] == loaded.prompts["document"] == ""
    config = loaded[0].model.config
    assert (config.soft_token_position, config.pad_to_multiple_of) == ("text", None)


@pytest.mark.parametrize("compat", (True, False))
def test_the_card_says_from_what_and_by_whose_arithmetic(compat, checkpoints, copy_checkpoint, named_bases, tmp_path):
    source = copy_checkpoint("lusifer-lora")
    convert(source, tmp_path / "out", compat=compat, **named_bases)
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert f"from the checkpoint `{source.name}`" in card
    assert ("It reproduces the arithmetic of the published code" in card) == compat
    assert ("`'retrieval-query'`" in card) == compat
    assert "`tiny-mistral`" in card
    assert str(tmp_path) not in card and str(checkpoints) not in card
    assert "\nbase_model" not in card and "\nlanguage" not in card  # nothing is known of either


@pytest.mark.slow
@pytest.mark.parametrize("compat", (True, False))
def test_a_converted_checkpoint_can_be_trained_further(compat, checkpoints, tmp_path):
    before = convert(checkpoints / "lusifer-lora", tmp_path / "out", compat=compat).encode(TEXTS)
    changes = ["max_length=64", "stages.0.learning_rate=1.0e-4", f"model.probes={'false' if compat else 'true'}"]
    run = train(recipe_of(tmp_path, tmp_path / "out"), tmp_path / "run", changes).parent
    whole, delta = (lusifer.load(run / name, device="cpu") for name in ("model", "delta"))
    after = whole.encode(TEXTS)
    assert (after == delta.encode(TEXTS)).all()
    assert 1e-6 < np.abs(after - before).max() < 0.1  # 4 steps away, and not at new numbers
    assert whole[0].model.config.soft_token_position == ("padding" if compat else "text")


def test_published_prompts():
    assert published_prompt("Find.", "query") == "<s>Find..\n"
    assert published_prompt("Find.", "document") == "<s>Find.. Candidate:\n"
    assert published_prompt(None, "query") == "<s>.\n"
    assert published_prompt(None, "document", bos="") == ". Candidate:\n"


def test_tasks_have_their_published_prompts_in_a_compat_folder(checkpoints, tmp_path):
    from lusifer import prompts

    embedder = convert(checkpoints / "lusifer-nolora", tmp_path / "out", compat=True)
    for name, task in prompts.table().items():
        assert embedder.prompts[f"{name}-query"] == f"<s>{task['instruction']}.\n"
        assert embedder.prompts[f"{name}-document"] == f"<s>{task['instruction']}. Candidate:\n"


def test_a_text_may_hold_special_tokens_in_a_compat_folder(checkpoints):
    tokenizer = read(checkpoints / "lusifer-nolora", compat=True).tokenizer
    assert tokenizer("a </s> b")["input_ids"].count(tokenizer.eos_token_id) == 2


@pytest.mark.parametrize("merged", (True, False))
def test_mixed_dtypes(merged, checkpoints, copy_checkpoint, named_bases, tmp_path):
    folder = copy_checkpoint("lusifer-lora")
    tensors = load_file(folder / "model.safetensors")
    backbone = ("encoder.", "universal_learner.")
    mixed = {
        key: tensor.bfloat16() if key.startswith(backbone) and ".lora_" not in key else tensor
        for key, tensor in tensors.items()
    }
    save_file(mixed, folder / "model.safetensors")
    model = read(folder, **named_bases).model
    if merged:
        adapters.merge(model)
    weight = "llm.layers.0.self_attn.q_proj" + (".weight" if merged else ".base_layer.weight")
    assert model.get_parameter(weight).dtype == (torch.float32 if merged else torch.bfloat16)
    assert all(p.dtype == torch.float32 for p in model.connector.parameters())
    assert all(p.dtype == torch.float32 for name, p in model.named_parameters() if ".lora_" in name)
    if merged:
        embedder = convert(folder, tmp_path / "out", **named_bases)
        assert np.abs(embedder.encode(TEXTS) - lusifer.load(tmp_path / "out", device="cpu").encode(TEXTS)).max() == 0


def test_adapters_are_merged_in_float32(checkpoints, copy_checkpoint, named_bases):
    """bf16 would lose an update that is small beside its weight."""
    folder = copy_checkpoint("lusifer-lora")
    tensors = load_file(folder / "model.safetensors")
    name = "encoder.base_model.model.model.layers.0.mlp.up_proj"
    tensors = {k: t.bfloat16() for k, t in tensors.items()}
    save_file(tensors, folder / "model.safetensors")
    model = read(folder, **named_bases).model
    adapters.merge(model)
    found = model.llm.layers[0].mlp.up_proj.weight
    up, down = (tensors[f"{name}.lora_{side}.encoder_lora.weight"].float() for side in "BA")
    wanted = tensors[f"{name}.base_layer.weight"].float() + 2 * up @ down
    assert (found - wanted).abs().max() < 1e-6


def test_sharded_weights(checkpoints, copy_checkpoint, named_bases):
    folder = copy_checkpoint("lusifer-nolora")
    tensors = load_file(folder / "model.safetensors")
    keys = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": keys[::2], "model-00002-of-00002.safetensors": keys[1::2]}
    for name, part in parts.items():
        save_file({key: tensors[key] for key in part}, folder / name)
    index = {"weight_map": {key: name for name, part in parts.items() for key in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()
    whole, sharded = read(checkpoints / "lusifer-nolora"), read(folder, **named_bases)
    for key, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, sharded.model.state_dict()[key]), key

    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelFolderError, match=r"model-00002-of-00002\.safetensors: missing"):
        read(folder, **named_bases)


def test_word_embeddings_tied_to_the_lm_head_are_found_again(checkpoints, copy_checkpoint, named_bases):
    folder = copy_checkpoint("lusifer-nolora")
    tensors = load_file(folder / "model.safetensors")
    del tensors["encoder.model.embed_tokens.weight"]
    save_file(tensors, folder / "model.safetensors")
    words = read(folder, **named_bases).model.llm.embed_tokens.weight
    assert torch.equal(words, tensors["encoder.lm_head.weight"])


def test_no_soft_token(checkpoints, copy_checkpoint, change_json, named_bases):
    folder = copy_checkpoint("lusifer-nolora")
    change_json(folder / "config.json", num_added_tokens=0)
    tensors = load_file(folder / "model.safetensors")
    del tensors["connection_module.added_tokens"]
    save_file(tensors, folder / "model.safetensors")
    assert read(folder, **named_bases).model.connector.soft_tokens is None


def test_unreadable_backbones_ask_for_the_option(checkpoints, copy_checkpoint, change_json, named_bases):
    folder = copy_checkpoint("lusifer-nolora")
    change_json(folder / "config.json", encoder_name_or_path="someone/private", universal_learner_name_or_path="gone")
    with pytest.raises(UsageError, match="'gone'.*pass --encoder") as caught:
        read(folder)
    assert caught.value.status == 2
    with pytest.raises(UsageError, match="'someone/private'.*pass --llm"):
        read(folder, encoder=named_bases["encoder"])
    assert read(folder, **named_bases).model


DAMAGES = {
    "missing": (lambda t: t.pop("encoder.model.norm.weight"), "1 missing .llm.norm.weight"),
    "unknown": (lambda t: t.update({"encoder.model.extra": torch.ones(1)}), "1 unknown .llm.extra"),
    "unknown part": (lambda t: t.update({"head.weight": torch.ones(1)}), "1 unknown .head.weight"),
    "shape": (
        lambda t: t.update({"output_projection.0.bias": torch.ones(3)}),
        "1 of another shape .output_projection.0.bias",
    ),
    "no encoder": (
        lambda t: [t.pop(k) for k in list(t) if k.startswith("universal_learner.")],
        "weights of the encoder are missing",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_tensors_are_named_and_nothing_is_written(damage, copy_checkpoint, named_bases, tmp_path):
    folder = copy_checkpoint("lusifer-nolora")
    tensors = load_file(folder / "model.safetensors")
    change, message = DAMAGES[damage]
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ModelFolderError, match=message):
        convert(folder, tmp_path / "out", **named_bases)
    assert not (tmp_path / "out").exists()


def test_half_an_adapter_is_refused(copy_checkpoint, named_bases):
    folder = copy_checkpoint("lusifer-lora")
    tensors = load_file(folder / "model.safetensors")
    del tensors["encoder.base_model.model.model.layers.0.mlp.up_proj.lora_A.encoder_lora.weight"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ModelFolderError, match=r"1 unknown .llm\.layers\.0\.mlp\.up_proj\.lora_B"):
        read(folder, **named_bases)


def test_an_adapter_of_another_rank_is_refused(copy_checkpoint, change_json, named_bases):
    folder = copy_checkpoint("lusifer-lora")
    change_json(folder / "config.json", loar_r=8)
    with pytest.raises(ModelFolderError, match="rank 16, and config.json has loar_r=8"):
        read(folder, **named_bases)


def test_damaged_files_are_named(copy_checkpoint, named_bases, change_json):
    folder = copy_checkpoint("lusifer-nolora")
    weights, config = folder / "model.safetensors", folder / "config.json"
    whole, text = weights.read_bytes(), config.read_text()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelFolderError, match=r"model\.safetensors: truncated or damaged"):
        read(folder, **named_bases)
    weights.unlink()
    with pytest.raises(ModelFolderError, match=r"model\.safetensors: missing"):
        read(folder, **named_bases)
    config.write_text(text[:50])
    with pytest.raises(ModelFolderError, match=r"config\.json: damaged"):
        read(folder, **named_bases)
    config.write_text("[]")
    with pytest.raises(ModelFolderError, match=r"config\.json: damaged, not a JSON object"):
        read(folder, **named_bases)
    config.write_text("{}")
    with pytest.raises(ModelFolderError, match="give a checkpoint in the authors' format"):
        read(folder, **named_bases)
    config.write_text(text)
    change_json(config, connection_type="gate")
    with pytest.raises(ModelFolderError, match="connection_type='gate' cannot be converted"):
        read(folder, **named_bases)
    shutil.rmtree(folder)
    with pytest.raises(UsageError, match="no such folder"):
        read(folder, **named_bases)


def test_no_checkpoint_of_that_name():
    with pytest.raises(
        ModelFolderError, match="someone/model: no such folder, and it cannot be downloaded from the Hub"
    ):
        read("someone/model")
    with pytest.raises(UsageError, match="nowhere: no such folder; give a model folder"):
        read("nowhere")


def test_the_checkpoint_itself_is_not_overwritten(checkpoints):
    with pytest.raises(UsageError, match="is the checkpoint itself"):
        convert(checkpoints / "lusifer-nolora", checkpoints / "lusifer-nolora")


def test_an_mt5_encoder_and_a_tied_llama(tmp_path, change_json, copy_checkpoint):
    """Another pair of architectures: tied tensors are stored once, T5 has no first token."""
    from lusifer.model.config import LusiferConfig
    from lusifer.model.lusifer import LusiferModel
    from support.tiny_bases import make_tiny_base, tiny_encoder_config, tiny_llm_config

    config = LusiferConfig(encoder=tiny_encoder_config("mt5"), llm=tiny_llm_config("llama"), num_soft_tokens=1)
    model = LusiferModel(config).eval()
    names = {
        "encoder.": "universal_learner.",
        "llm.": "encoder.model.",
        "connector.soft_tokens": "connection_module.added_tokens",
        "connector.mapping.": "connection_module.",
        "output_projection.": "output_projection.",
    }
    tensors = {
        next(theirs + key.removeprefix(ours) for ours, theirs in names.items() if key.startswith(ours)): tensor
        for key, tensor in model.state_dict().items()
        if key != "encoder.encoder.embed_tokens.weight"
    }
    folder = copy_checkpoint("lusifer-nolora")
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / "model.safetensors")
    change_json(folder / "config.json", universal_learner_backbone_type="t5", encoder_backbone_type="llama")
    bases = {
        "encoder": str(make_tiny_base(tmp_path / "mt5", "encoder", "mt5")),
        "llm": str(make_tiny_base(tmp_path / "llama", "llm", "llama")),
    }
    read_back = read(folder, **bases)
    ids = torch.tensor([[5, 6, 7, 1]])
    with torch.no_grad():
        assert torch.equal(read_back.model(ids).embedding, model(ids).embedding)
    embedder = convert(folder, tmp_path / "out", compat=True, **bases)
    assert embedder.prompts["query"] == ".\n"
    loaded = lusifer.load(tmp_path / "out", device="cpu")
    assert np.abs(loaded.encode(TEXTS) - embedder.encode(TEXTS)).max() == 0
