"""The model folder: saved and loaded without a difference, known by its content."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

import lusifer
from lusifer.embedder import contents, folder
from lusifer.embedder.assemble import lusifer_model
from lusifer.embedder.identity import identity
from lusifer.errors import LusiferError, ModelFolderError, UsageError
from lusifer.io.weights import INDEX, WEIGHTS
from lusifer.model import adapters
from lusifer.model.bases import backbones
from support.tiny_bases import make_tiny_base
from support.tiny_folder import tiny_embedder

TEXTS = ["Water.", "The train was late, so we walked home through the park.", "Сколько воды нужно?", "水"]


@pytest.fixture
def copy(model_folder, tmp_path):
    return shutil.copytree(model_folder, tmp_path / "copy")


@pytest.mark.parametrize("connector", ("ff", "embedding_table", "latent_attention"))
@pytest.mark.parametrize("adapted", (False, True))
def test_saved_and_loaded_the_vectors_differ_by_nothing(connector, adapted, bases_folder, tmp_path):
    kwargs = {"num_heads": 4} if connector == "latent_attention" else None
    embedder = tiny_embedder(bases_folder, connector_type=connector, connector_kwargs=kwargs)
    model = lusifer_model(embedder)
    if adapted:
        adapters.attach(model, "llm", 2, 4)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if ".lora_B." in name:
                    parameter.normal_(std=0.1)
    folder.save(embedder, tmp_path / "model")
    adapters.merge(model)
    loaded = lusifer.load(tmp_path / "model", device="cpu")
    for encode in ("encode", "encode_query", "encode_document"):
        assert np.abs(getattr(embedder, encode)(TEXTS) - getattr(loaded, encode)(TEXTS)).max() == 0
    assert loaded.prompts == embedder.prompts
    assert loaded.max_seq_length == embedder.max_seq_length == 64

    # A folder keeps its name when it is loaded, used and saved again.
    folder.save(loaded, tmp_path / "again")
    assert identity(tmp_path / "again") == identity(tmp_path / "model")


@pytest.mark.parametrize("encoder", ("float32", "bfloat16"))
@pytest.mark.parametrize("llm", ("float32", "bfloat16"))
@pytest.mark.parametrize("adapted", (False, True))
def test_each_backbone_keeps_its_dtype(encoder, llm, adapted, bases_folder, tmp_path):
    """config.json holds one dtype; a backbone with adapters is merged in float32."""
    embedder = tiny_embedder(bases_folder)
    model = lusifer_model(embedder)
    dtypes = {"encoder": getattr(torch, encoder), "llm": getattr(torch, llm)}
    for backbone, dtype in dtypes.items():
        backbones.cast_weights(getattr(model, backbone), dtype)
    if adapted:
        adapters.attach(model, "llm", 2, 4)
        dtypes["llm"] = torch.float32
    folder.save(embedder, tmp_path / "model")
    adapters.merge(model)
    loaded = lusifer.load(tmp_path / "model", device="cpu")
    for backbone, dtype in dtypes.items():
        assert {p.dtype for p in getattr(lusifer_model(loaded), backbone).parameters()} == {dtype}
    assert lusifer_model(loaded).connector.mapping.ff[0].weight.dtype == torch.float32
    assert np.abs(embedder.encode(TEXTS) - loaded.encode(TEXTS)).max() == 0
    folder.save(loaded, tmp_path / "again")
    assert identity(tmp_path / "again") == identity(tmp_path / "model")


def test_a_dtype_asked_for_goes_to_both_backbones_and_leaves_what_must_be_precise(model_folder):
    model = lusifer_model(lusifer.load(model_folder, device="cpu", dtype="bfloat16"))
    for backbone in (model.encoder, model.llm):
        assert {p.dtype for p in backbone.parameters()} == {torch.bfloat16}
    assert model.connector.mapping.ff[0].weight.dtype == torch.float32
    assert model.llm.rotary_emb.inv_freq.dtype == torch.float32


@pytest.mark.parametrize("encoder", sorted(backbones.table("encoder")))
def test_every_encoder_has_a_folder_that_loads(encoder, llm_folder, tmp_path):
    """T5 stores its word embeddings under one of two names."""
    bases = (make_tiny_base(tmp_path / "encoder", "encoder", encoder), llm_folder)
    embedder = tiny_embedder(bases)
    folder.save(embedder, tmp_path / "model")
    loaded = lusifer.load(tmp_path / "model", device="cpu")
    assert np.abs(loaded.encode(TEXTS) - embedder.encode(TEXTS)).max() == 0


@pytest.mark.parametrize("llm", sorted(backbones.table("llm")))
def test_every_llm_has_a_folder_that_loads(llm, encoder_folder, tmp_path):
    bases = (encoder_folder, make_tiny_base(tmp_path / "llm", "llm", llm))
    embedder = tiny_embedder(bases)
    folder.save(embedder, tmp_path / "model")
    loaded = lusifer.load(tmp_path / "model", device="cpu")
    assert np.abs(loaded.encode(TEXTS) - embedder.encode(TEXTS)).max() == 0


def test_there_is_no_pickle_and_no_adapter_in_it(model_folder):
    names = {file.suffix for file in model_folder.rglob("*") if file.is_file()}
    assert names <= {".json", ".safetensors", ".md"}
    assert not [key for key in contents.weights(model_folder) if "lora" in key or "lm_head" in key or "pooler" in key]


def test_vectors_have_length_1_in_half_precision_too(bases_folder):
    embedder = tiny_embedder(bases_folder, output_projection=False)
    backbones.cast_weights(lusifer_model(embedder).llm, torch.bfloat16)
    assert abs(np.linalg.norm(embedder.encode(TEXTS), axis=1) - 1).max() < 1e-6


def test_sharded_weights_are_checked_file_by_file(copy):
    tensors = load_file(copy / WEIGHTS)
    keys = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": keys[::2], "model-00002-of-00002.safetensors": keys[1::2]}
    for name, part in parts.items():
        save_file({key: tensors[key] for key in part}, copy / name, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {key: name for name, part in parts.items() for key in part}}
    (copy / INDEX).write_text(json.dumps(index))
    wanted = lusifer.load(copy, device="cpu").encode(TEXTS)
    (copy / WEIGHTS).unlink()
    assert np.array_equal(lusifer.load(copy, device="cpu").encode(TEXTS), wanted)
    (copy / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelFolderError, match=r"model-00002-of-00002\.safetensors: missing"):
        lusifer.load(copy)


@pytest.mark.parametrize("name", ("./nowhere", "/nowhere/at/all", "nowhere", "a/b/c"))
def test_no_such_folder(name):
    said = "no such folder; give a model folder, mini, package:NAME of an installed package, or an id on"
    with pytest.raises(UsageError, match=said):
        lusifer.load(name)


def test_a_model_of_an_unfinished_run_is_named_with_the_call_that_continues(tmp_path):
    run = tmp_path / "a run"
    run.mkdir()
    (run / "recipe.yaml").touch()
    said = f"is not finished: continue it with `lusifer train '{run}/recipe.yaml' --output '{run}' --resume`"
    with pytest.raises(UsageError, match=re.escape(said)):
        lusifer.load(run / "model")


def test_a_folder_of_an_earlier_version_is_loaded_unless_it_leaves_the_prompt_out(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"include_prompt": True}))
    before = identity(copy)
    folder.save(lusifer.load(copy, device="cpu"), copy)
    assert identity(copy) == before
    (copy / "config.json").write_text(json.dumps(config | {"include_prompt": False}))
    with pytest.raises(
        ModelFolderError, match=r"config\.json: include_prompt: false: this version cannot leave the prompt out"
    ):
        lusifer.load(copy, device="cpu")


def test_a_name_that_the_hub_does_not_give():
    with pytest.raises(ModelFolderError, match="someone/model: no such folder, and it cannot be downloaded") as caught:
        lusifer.load("someone/model")
    assert "\n" not in str(caught.value)


def test_a_file_is_no_folder(model_folder):
    with pytest.raises(ModelFolderError, match="is a file; give the model folder that contains modules.json"):
        lusifer.load(model_folder / "config.json")


@pytest.fixture
def other(minilm_like_folder, tmp_path):
    """An embedder of another kind in the older layout: each module in a folder of its own, no config.json on top."""
    modules = [Transformer(str(minilm_like_folder)), Pooling(48), Dense(48, 16)]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(tmp_path / "new"), create_model_card=False)
    old, modules = tmp_path / "old", json.loads((tmp_path / "new" / "modules.json").read_text())
    (old / "0_Transformer").mkdir(parents=True)
    for file in (tmp_path / "new").iterdir():
        place = old if file.is_dir() or file.name in ("modules.json", contents.REQUIRED[2]) else old / "0_Transformer"
        file.rename(place / file.name)
    modules[0]["path"] = "0_Transformer"
    (old / "modules.json").write_text(json.dumps(modules))
    return old


def test_an_embedder_of_another_kind_and_layout_is_loaded(other):
    assert lusifer.load(other, device="cpu").encode(TEXTS).shape == (4, 16)
    shutil.rmtree(other / "1_Pooling")
    with pytest.raises(ModelFolderError, match=r"1_Pooling: missing, and .*modules\.json names it"):
        lusifer.load(other)


def test_a_text_longer_than_the_backbones_is_said_in_numbers(model_folder):
    loaded = lusifer.load(model_folder, device="cpu")
    longest = lusifer_model(loaded).config.max_position_embeddings
    loaded.max_seq_length = longest + 10
    with pytest.raises(UsageError, match=f"text of {longest + 10} tokens: the backbones read at most {longest}: set "):
        loaded.encode("water " * 2 * longest)


def test_an_interrupted_save_leaves_the_old_folder(bases_folder, copy, monkeypatch):
    before = identity(copy)
    embedder = tiny_embedder(bases_folder, num_soft_tokens=2)

    def fail(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr(embedder.tokenizer, "save_pretrained", fail)
    with pytest.raises(LusiferError, match="No space left"):
        folder.save(embedder, copy)
    assert identity(copy) == before
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


class TestIdentity:
    def test_a_copy_has_the_same(self, copy, model_folder):
        assert identity(copy) == identity(model_folder)
        (copy / "README.md").write_text("another card")
        assert identity(copy) == identity(model_folder)

    def test_one_weight_changes_it(self, copy, model_folder):
        tensors = load_file(copy / WEIGHTS)
        tensors["connector.soft_tokens"][0, 0] += 1
        save_file(tensors, copy / WEIGHTS, metadata={"format": "pt"})
        assert identity(copy) != identity(model_folder)

    @pytest.mark.parametrize("name", ["2_Dense/model.safetensors", "0_Transformer/model.safetensors"])
    def test_a_weight_of_any_module_changes_it(self, other, name):
        before = identity(other)
        tensors = load_file(other / name)
        save_file({key: tensor + 1 for key, tensor in tensors.items()}, other / name, metadata={"format": "pt"})
        assert identity(other) != before

    def test_a_prompt_changes_it(self, copy, model_folder):
        file = copy / "config_sentence_transformers.json"
        content = json.loads(file.read_text())
        content["prompts"]["query"] = "another: "
        file.write_text(json.dumps(content))
        assert identity(copy) != identity(model_folder)

    def test_the_limit_changes_it(self, copy, model_folder):
        loaded = lusifer.load(copy, device="cpu")
        loaded.max_seq_length = 32
        folder.save(loaded, copy)
        assert identity(copy) != identity(model_folder)
