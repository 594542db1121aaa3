import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from lusifer.errors import LusiferError, UsageError
from lusifer.io import names
from lusifer.model import build
from lusifer.model.build import Base
from lusifer.model.probes import run_probes


@pytest.fixture
def read_both(encoder_folder, llm_folder):
    return lambda: (
        build.read_backbone(Base(str(encoder_folder)), "encoder"),
        build.read_backbone(Base(str(llm_folder)), "llm"),
    )


@pytest.mark.parametrize("connector", ("ff", "mlp", "embedding_table", "latent_attention"))
def test_joined_bases_pass_the_probes(connector, read_both, batch):
    settings = {"num_heads": 4} if connector == "latent_attention" else None
    model = build.join(*read_both(), connector_type=connector, connector_kwargs=settings, num_soft_tokens=1)
    assert not model.training
    assert not [name for name, p in model.named_parameters() if p.is_meta]
    assert not [name for name, b in model.named_buffers() if b.is_meta]
    for probe in run_probes(model, *batch([7, 3, 5])):
        assert probe.ok, probe


def test_the_bases_weights_are_those_of_the_folders(read_both, encoder_folder, llm_folder):
    model = build.join(*read_both())
    encoder, llm = (load_file(folder / "model.safetensors") for folder in (encoder_folder, llm_folder))
    for name, tensor in model.encoder.state_dict().items():
        assert torch.equal(tensor, encoder[name]), name
    for name, tensor in model.llm.state_dict().items():
        assert torch.equal(tensor, llm[f"model.{name}"]), name


def test_the_seed_decides_the_new_parts_and_leaves_the_generator_alone(read_both):
    torch.manual_seed(3)
    state = torch.get_rng_state()
    a, b, other = (build.join(*read_both(), seed=seed, num_soft_tokens=1) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    for name, tensor in a.connector.state_dict().items():
        assert torch.equal(tensor, b.connector.state_dict()[name])
        assert not torch.equal(tensor, other.connector.state_dict()[name])


def test_the_embedding_table_starts_as_the_words_of_the_llm(read_both):
    model = build.join(*read_both(), connector_type="embedding_table")
    assert torch.equal(model.connector.mapping.table, model.llm.get_input_embeddings().weight)


def test_each_base_keeps_its_dtype_and_the_new_parts_are_float32(encoder_folder, llm_folder, batch):
    encoder = build.read_backbone(Base(str(encoder_folder)), "encoder")
    llm = build.read_backbone(Base(str(llm_folder), dtype=torch.bfloat16), "llm")
    model = build.join(encoder, llm, num_soft_tokens=1)
    dtypes = {part: {p.dtype for p in getattr(model, part).parameters()} for part in ("encoder", "connector", "llm")}
    assert dtypes == {"encoder": {torch.float32}, "connector": {torch.float32}, "llm": {torch.bfloat16}}
    assert torch.isfinite(model(*batch([5, 2])).embedding).all()


def test_the_lm_head_is_the_llms_own_and_frozen(llm_folder, minilm_like_folder):
    head = build.read_lm_head(Base(str(llm_folder)))
    stored = load_file(llm_folder / "model.safetensors")
    name = "lm_head.weight" if "lm_head.weight" in stored else "model.embed_tokens.weight"
    assert torch.equal(head.weight, stored[name])
    assert not head.weight.requires_grad
    with pytest.raises(UsageError, match=r"\(bert\): has no LM head.*use objectives: \{distill: 1\}"):
        build.read_lm_head(Base(str(minilm_like_folder)))


def test_an_encoder_style_embedder_as_target(encoder_folder, minilm_like_folder, batch):
    model = build.join(
        build.read_backbone(Base(str(encoder_folder)), "encoder"),
        build.read_backbone(Base(str(minilm_like_folder)), "llm"),
    )
    assert all(probe.ok for probe in run_probes(model, *batch([7, 3, 5])))


def test_wrong_bases_are_refused(tmp_path, llm_folder, encoder_folder):
    with pytest.raises(UsageError, match="no config.json there; give a folder saved by save_pretrained"):
        build.read_config(Base(str(tmp_path)), "llm")
    with pytest.raises(UsageError, match=r"model\.llm\.path='someone/model'") as caught:
        build.read_config(Base("someone/model"), "llm")
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="architecture 'mistral' was never checked as encoder"):
        build.read_backbone(Base(str(llm_folder)), "encoder")
    with pytest.raises(UsageError, match="package 'no_such_model' is not installed: correct the name, or install"):
        names.base("package:no_such_model")
    words = "neither a folder with config.json and model.safetensors nor a file with a base in package 'lusifer'"
    with pytest.raises(UsageError, match=words):
        names.base("package:lusifer")


def test_missing_tensors_are_named(encoder_folder, tmp_path):
    folder = shutil.copytree(encoder_folder, tmp_path / "base")
    tensors = load_file(folder / "model.safetensors")
    del tensors["encoder.layer.0.output.dense.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(LusiferError, match=r"1 tensors are missing, such as encoder\.layer\.0\.output\.dense\.weight:"):
        build.read_backbone(Base(str(folder)), "encoder")


def test_truncated_weights_are_named(encoder_folder, tmp_path):
    folder = shutil.copytree(encoder_folder, tmp_path / "base")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(LusiferError, match=r"base: its weights are truncated or damaged \("):
        build.read_backbone(Base(str(folder)), "encoder")


def test_a_missing_lm_head_is_named(llm_folder, tmp_path):
    """Transformers would draw one at random, and alignment would learn to please it."""
    folder = shutil.copytree(llm_folder, tmp_path / "base")
    tensors = load_file(folder / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(LusiferError, match=r"1 tensors are missing, such as lm_head\.weight:"):
        build.read_lm_head(Base(str(folder)))
