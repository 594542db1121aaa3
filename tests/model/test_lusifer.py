import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cosine_similarity

from lusifer.model import adapters
from lusifer.model.config import LusiferConfig
from lusifer.model.lusifer import LusiferModel

CONNECTORS = ("ff", "mlp", "embedding_table", "latent_attention")
POOLINGS = ("mean", "weightedmean", "cls", "lasttoken")


def distance(a, b):
    return float((1 - cosine_similarity(a.double(), b.double(), dim=-1)).max())


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("connector", CONNECTORS)
@settings(max_examples=8)
@given(
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=5),
    padding=st.integers(0, 9),
    soft=st.sampled_from((0, 1, 3)),
    seed=st.integers(0, 99),
)
def test_a_vector_depends_on_nothing_but_its_text(
    connector, pooling, lengths, padding, soft, seed, shared_model, batch
):
    model = shared_model(connector_type=connector, pooling=pooling, num_soft_tokens=soft)
    ids, mask = batch(lengths, padding, seed)
    with torch.no_grad():
        together = model(ids, mask).embedding
        alone = torch.cat([model(row[:n][None]).embedding for row, n in zip(ids, lengths)])
        order = torch.randperm(len(lengths))
        shuffled = model(ids[order], mask[order]).embedding
    assert distance(together, alone) < 1e-5
    assert (together - alone).abs().max() < 1e-5
    assert (together[order] - shuffled).abs().max() < 1e-5


def test_positions_over_padding_do_depend_on_the_batch(shared_model, batch):
    """The published arithmetic, kept for parity, has the fault; the test above would find it."""
    model = shared_model(num_soft_tokens=1, soft_token_position="padding")
    ids, mask = batch([12, 2])
    with torch.no_grad():
        together, alone = model(ids, mask).embedding[1:], model(ids[1:, :2]).embedding
    assert distance(together, alone) > 1e-4


def test_the_llm_attends_both_ways_unless_told_otherwise(new_model, batch):
    model = new_model()
    prompt = model.soft_prompt(*batch([6]))
    embeds = prompt.inputs_embeds.clone()
    embeds[0, -1] += torch.randn(embeds.shape[-1])
    with torch.no_grad():
        for causal, felt in ((False, True), (True, False)):
            model.llm.config.is_causal = causal
            before = model.run_llm(*prompt)[0, 0]
            after = model.run_llm(embeds, prompt.attention_mask, prompt.position_ids)[0, 0]
            assert bool((before - after).abs().max() > 1e-4) == felt


def test_bidirectional_false_is_causal(shared_model, batch):
    model = shared_model(bidirectional=False)
    prompt = model.soft_prompt(*batch([6]))
    embeds = prompt.inputs_embeds.clone()
    embeds[0, -1] += 1
    embeds[0, -1, 0] -= 5
    with torch.no_grad():
        before = model.run_llm(*prompt)[0, 0]
        after = model.run_llm(embeds, prompt.attention_mask, prompt.position_ids)[0, 0]
    assert torch.equal(before, after)


def halve(module):
    """Parameters only, as loading does it: rotary frequencies stay float32."""
    for parameter in module.parameters():
        parameter.data = parameter.data.bfloat16()


def test_a_half_precision_llm_takes_a_float32_connector(new_model, batch):
    model = new_model(num_soft_tokens=1)
    ids, mask = batch([6, 3])
    with torch.no_grad():
        exact = model(ids, mask).embedding
        halve(model.encoder)
        halve(model.llm)
        rough = model(ids, mask).embedding
    assert rough.dtype == torch.float32
    assert distance(exact, rough) < 1e-2


@pytest.mark.parametrize("connector", CONNECTORS)
def test_saved_and_loaded_it_gives_the_same_vectors(connector, shared_model, batch, tmp_path):
    model = shared_model(connector_type=connector, num_soft_tokens=2)
    model.save_pretrained(tmp_path)
    loaded = LusiferModel.from_pretrained(tmp_path).eval()
    ids, mask = batch([6, 3])
    with torch.no_grad():
        assert torch.equal(model(ids, mask).embedding, loaded(ids, mask).embedding)
    assert loaded.config.to_dict().keys() == model.config.to_dict().keys()
    for key in ("connector_type", "connector_kwargs", "num_soft_tokens", "pooling", "max_position_embeddings"):
        assert getattr(loaded.config, key) == getattr(model.config, key)


def test_a_frozen_backbone_is_checkpointed_and_has_no_noise(new_model, batch):
    model = new_model()
    adapters.freeze(model, {"connector": True, "output_projection": True})
    ids, mask = batch([5, 9], 0, 0)
    calls = []
    layer = model.llm.layers[0]
    layer.self_attn.register_forward_hook(lambda *_: calls.append(1))
    gradients = []
    for checkpointed in (False, True):
        if checkpointed:
            model.gradient_checkpointing_enable()
        model.train()
        assert not layer.mlp.training and not layer.self_attn.training
        model.zero_grad()
        model(ids, mask).embedding.sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.connector.parameters()]))
    assert len(calls) == 3  # once without, twice with
    assert torch.allclose(*gradients, atol=1e-6)
    assert not any(module.training for module in model.eval().modules())


def test_a_frozen_backbone_stays_in_evaluation_mode(new_model):
    model = new_model()
    model.requires_grad_(True)
    model.encoder.requires_grad_(False)
    model.train()
    assert model.training and model.connector.training and model.llm.training
    assert not any(module.training for module in model.encoder.modules())
    model.llm.requires_grad_(False)
    adapters.attach(model, "llm", 2, 4, dropout=0.1)
    assert model.train().llm.training
    assert not model.eval().llm.training


def test_half_precision_backbones_are_loaded_as_saved(new_model, batch, tmp_path):
    """One dtype stands in config.json: the connector's float32 must survive it."""
    model = new_model(num_soft_tokens=1)
    halve(model.encoder)
    halve(model.llm)
    model.save_pretrained(tmp_path)
    loaded = LusiferModel.from_pretrained(tmp_path).eval()
    ids, mask = batch([6, 3])
    with torch.no_grad():
        assert torch.equal(model(ids, mask).embedding, loaded(ids, mask).embedding)


@pytest.mark.parametrize(
    ("setting", "message"),
    (
        ({"connector_type": "gru"}, "connector_type='gru' is unknown: use one of ff"),
        ({"pooling": "max"}, "pooling='max' is unknown"),
        ({"soft_token_position": "end"}, "soft_token_position='end' is unknown"),
        ({"num_soft_tokens": -1}, "num_soft_tokens=-1: must be 0 or more"),
        ({"residual": True}, "residual: true: this version cannot add the LLM's input"),
        ({"include_prompt": False}, "include_prompt: false: this version cannot leave the prompt out"),
    ),
)
def test_impossible_settings_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        LusiferConfig(**setting)


def test_the_input_limit_is_what_both_backbones_can_read(shared_model):
    assert shared_model().config.max_position_embeddings == 256
    config = copy.deepcopy(shared_model().config)
    limits = {"ff": 32 - 2, "latent_attention": 256}
    for connector, limit in limits.items():
        config.llm.max_position_embeddings = 32
        made = LusiferConfig(encoder=config.encoder, llm=config.llm, connector_type=connector, num_soft_tokens=2)
        assert made.max_position_embeddings == limit


@pytest.mark.parametrize("length", (1, 256))
def test_shortest_and_longest_text(length, shared_model, batch):
    with torch.no_grad():
        vector = shared_model(num_soft_tokens=1)(*batch([length])).embedding
    assert np.isfinite(vector.numpy()).all()


def test_a_frozen_encoder_computes_no_gradient_under_checkpointing(new_model, batch):
    model = new_model()
    adapters.freeze(model, {"connector": True})
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    asked = []
    model.encoder.register_forward_hook(lambda module, inputs, output: asked.append(output[0].requires_grad))
    model(*batch([5, 3])).embedding.sum().backward()
    assert asked == [False]
    assert all(parameter.grad is not None for parameter in model.connector.parameters())
