"""The published embedding table: a checkpoint with one is read, and gives the vectors that plain arithmetic gives."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel

import lusifer
from lusifer.errors import ModelFolderError
from lusifer.model import adapters
from lusifer.model.published import published_prompt, read
from lusifer.sharing.convert import convert

TEXTS = ["A person needs water.", "Сколько воды нужно человеку каждый день?", "水"]
TABLE, WORDS = "connection_module.embedding.weight", "embed_tokens.weight"


@pytest.fixture(scope="module", params=("lora", "nolora"))
def table_checkpoint(request, checkpoints, tmp_path_factory):
    """A checkpoint whose feed-forward connector was exchanged for a table of random weights."""
    folder = tmp_path_factory.mktemp("table") / f"table-{request.param}"
    shutil.copytree(checkpoints / f"lusifer-{request.param}", folder)
    tensors = load_file(folder / "model.safetensors")
    tensors = {key: tensor for key, tensor in tensors.items() if not key.startswith("connection_module.")}
    words = next(tensor for key, tensor in tensors.items() if key.startswith("encoder.") and key.endswith(WORDS))
    width = tensors[next(key for key in tensors if key.endswith("word_embeddings.weight"))].shape[1]
    with torch.random.fork_rng():
        torch.manual_seed(5)
        tensors["connection_module.ff.0.weight"] = torch.randn(len(words), width)
        tensors["connection_module.ff.0.bias"] = torch.randn(len(words))
        tensors[TABLE] = words + torch.randn(words.shape)
    save_file(tensors, folder / "model.safetensors")
    settings = json.loads((folder / "config.json").read_text())
    # Their constructor sets the added tokens of a table to none, and saves what it was asked for.
    settings |= {"connection_type": "embedding_table", "num_added_tokens": 3}
    (folder / "config.json").write_text(json.dumps(settings))
    shutil.copytree(checkpoints / "backbones", folder.parent / "backbones")
    return folder


def plain_weights(folder, prefix):
    """The weights of one backbone with its adapters added in, by the names of transformers."""
    tensors = {
        key.removeprefix(prefix).removeprefix("base_model.model.").removeprefix("model."): tensor
        for key, tensor in load_file(folder / "model.safetensors").items()
        if key.startswith(prefix)
    }
    weights = {k.replace(".base_layer", ""): t.clone() for k, t in tensors.items() if ".lora_" not in k}
    for key, down in tensors.items():
        if ".lora_A." in key:
            up = tensors[key.replace(".lora_A.", ".lora_B.")]
            weights[key.split(".lora_A.")[0] + ".weight"] += 32 / 16 * up @ down
    return weights


def restated(folder, ids, mask):
    """What the published code does with a table: softmax over the words of the LLM, times the table."""
    models = []
    for prefix, name in (("universal_learner.", "tiny-xlm-roberta"), ("encoder.", "tiny-mistral")):
        config = AutoConfig.from_pretrained(folder.parent / "backbones" / name)
        weights = plain_weights(folder, prefix)
        config.vocab_size = next(len(t) for k, t in weights.items() if k.endswith(("word_embeddings.weight", WORDS)))
        model = AutoModel.from_config(config, attn_implementation="eager").eval()
        assert model.load_state_dict(weights, strict=False).missing_keys == []
        models.append(model)
    own = load_file(folder / "model.safetensors")
    with torch.no_grad():
        states = models[0](input_ids=ids, attention_mask=mask).last_hidden_state
        scores = states @ own["connection_module.ff.0.weight"].T + own["connection_module.ff.0.bias"]
        words = scores.softmax(-1) @ own[TABLE]
        both_ways = torch.where(mask.bool(), 0.0, torch.finfo(torch.float32).min)[:, None, None, :]
        both_ways = both_ways.expand(-1, 1, ids.shape[1], -1)
        states = models[1](inputs_embeds=words, attention_mask=both_ways).last_hidden_state
        vectors = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        hidden = (vectors @ own["output_projection.0.weight"].T + own["output_projection.0.bias"]).relu()
        return (hidden @ own["output_projection.2.weight"].T + own["output_projection.2.bias"]).numpy()


def test_ours_is_the_arithmetic_with_length_one(table_checkpoint, tmp_path):
    convert(table_checkpoint, tmp_path / "out")
    loaded = lusifer.load(tmp_path / "out", device="cpu")
    batch = loaded.tokenizer(TEXTS, padding=True, return_tensors="pt")
    wanted = restated(table_checkpoint, batch["input_ids"], batch["attention_mask"])
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    assert np.abs(wanted @ wanted.T - np.eye(len(TEXTS))).max() < 0.999  # the texts do differ
    assert np.abs(loaded.encode(TEXTS) - wanted).max() < 2e-5


def test_compat_is_the_arithmetic_on_the_published_format(table_checkpoint, tmp_path):
    convert(table_checkpoint, tmp_path / "out", compat=True)
    loaded = lusifer.load(tmp_path / "out", device="cpu")
    texts = [published_prompt("Find.", "query") + text for text in TEXTS]
    batch = loaded.tokenizer(texts, padding=True, pad_to_multiple_of=8, return_tensors="pt")
    wanted = restated(table_checkpoint, batch["input_ids"], batch["attention_mask"])
    found = loaded.encode(TEXTS, prompt=published_prompt("Find.", "query"))
    assert np.abs(found - wanted).max() < 2e-5
    assert np.abs(np.linalg.norm(found, axis=1) - 1).max() > 1e-3


def test_adapters_may_stay_attached(table_checkpoint):
    merged, attached = (read(table_checkpoint).model for _ in range(2))
    adapters.merge(merged)
    ids = torch.tensor([[0, 5, 6, 7, 2]])
    with torch.no_grad():
        assert torch.allclose(merged(ids).embedding, attached(ids).embedding, atol=2e-5)
    assert any(".lora_" in name for name, _ in attached.named_parameters()) == table_checkpoint.name.endswith("-lora")


def test_a_table_in_the_memory_of_the_word_embeddings(table_checkpoint, tmp_path):
    """Shared memory is stored once, under the first name; read back, they are two weights again."""
    shutil.copytree(table_checkpoint.parent, tmp_path / "copy")
    folder = tmp_path / "copy" / table_checkpoint.name
    tensors = load_file(folder / "model.safetensors")
    tensors.pop(next(key for key in tensors if key.startswith("encoder.") and key.endswith(WORDS)))
    save_file(tensors, folder / "model.safetensors")
    convert(folder, tmp_path / "out")
    model = lusifer.load(tmp_path / "out", device="cpu")[0].model
    assert torch.equal(model.connector.mapping.table, tensors[TABLE])
    assert torch.equal(model.llm.embed_tokens.weight, tensors[TABLE])


def test_a_table_of_another_vocabulary_is_refused(table_checkpoint, tmp_path):
    shutil.copytree(table_checkpoint.parent, tmp_path / "copy")
    folder = tmp_path / "copy" / table_checkpoint.name
    tensors = load_file(folder / "model.safetensors")
    tensors[TABLE] = tensors[TABLE][:-1].clone()
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ModelFolderError, match=r"1 of another shape .connector\.mapping\.table"):
        read(folder)


def test_attention_without_added_tokens_is_feed_forward(checkpoints, copy_checkpoint, change_json):
    """So does their constructor; with added tokens it builds nothing."""
    bases = {
        "encoder": str(checkpoints / "backbones" / "tiny-xlm-roberta"),
        "llm": str(checkpoints / "backbones" / "tiny-mistral"),
    }
    folder = copy_checkpoint("lusifer-nolora")
    change_json(folder / "config.json", connection_type="attn")
    with pytest.raises(ModelFolderError, match="connection_type='attn' cannot be converted.*ff and embedding_table"):
        read(folder, **bases)
    change_json(folder / "config.json", num_added_tokens=0)
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("connection_module.added_tokens")
    save_file(tensors, folder / "model.safetensors")
    assert read(folder, **bases).model.config.connector_type == "ff"
