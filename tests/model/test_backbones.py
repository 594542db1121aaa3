"""Every architecture in the tables: builds, ignores padding, attends both ways, trains, in sdpa and in eager."""

import pytest
import torch

from lusifer.errors import UsageError
from lusifer.model import adapters
from lusifer.model.bases import backbones
from lusifer.model.probes import run_probes

ATTENTIONS = ("sdpa", "eager")
PAIRS = [(encoder, "mistral") for encoder in backbones.table("encoder")] + [
    ("xlm-roberta", llm) for llm in backbones.table("llm") if llm != "mistral"
]


@pytest.fixture(params=PAIRS, ids=lambda pair: f"{pair[0]}-{pair[1]}")
def pair(request):
    return request.param


@pytest.fixture
def source(batch):
    return batch([9, 3, 1, 6], padding=2)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_probes_hold(pair, attention, shared_model, source):
    model = shared_model(*pair, attention, num_soft_tokens=1)
    assert {model.encoder.config._attn_implementation, model.llm.config._attn_implementation} <= {attention, "eager"}
    ids, mask = source
    pad = model.encoder.config.pad_token_id or 0
    for probe in run_probes(model, ids.masked_fill(mask == 0, pad), mask):
        assert probe.ok, probe


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("encoder", backbones.table("encoder"))
def test_encoders_read_both_ways(encoder, attention, shared_model, batch):
    """The first state feels a change of the last token, and the last state one of the first."""
    model = shared_model(encoder, attention=attention, num_soft_tokens=1).encoder
    ids, mask = batch([9])
    with torch.no_grad():
        states, *changed = (
            model(input_ids=each, attention_mask=mask).last_hidden_state[0]
            for each in (ids, torch.cat([ids[:, :-1], ids[:, -1:] + 1], 1), torch.cat([ids[:, :1] + 1, ids[:, 1:]], 1))
        )
    assert (changed[0][0] - states[0]).abs().max() > 1e-4
    assert (changed[1][-1] - states[-1]).abs().max() > 1e-4


def test_padding_on_the_left_or_inside_gives_the_same_vectors(pair, shared_model, source):
    model = shared_model(*pair, num_soft_tokens=1)
    ids, mask = source
    left = torch.stack([row.roll(int((kept == 0).sum())) for row, kept in zip(ids, mask)])
    inside = ids.clone()
    inside[:, 1:] = ids[:, :-1]  # a hole behind the first token; the last column is padding
    hole = mask.roll(1, dims=1)
    hole[:, 0], hole[:, 1] = 1, 0
    with torch.no_grad():
        wanted = model(ids, mask).embedding
        assert (model(left, mask.flip(1)).embedding - wanted).abs().max() < 1e-5
        assert (model(inside, hole).embedding - wanted).abs().max() < 1e-5


def test_sdpa_and_eager_agree(pair, shared_model, source):
    with torch.no_grad():
        a, b = (shared_model(*pair, attention, num_soft_tokens=1)(*source).embedding for attention in ATTENTIONS)
    assert (a - b).abs().max() < 1e-5


def test_the_probe_of_attention_finds_a_causal_mask(pair, new_model, source):
    model = new_model(*pair, num_soft_tokens=1)
    if not backbones.is_decoder(model.config.llm):
        return
    model.llm.config.is_causal = True
    failed = [probe.name for probe in run_probes(model, *source) if not probe.ok]
    assert failed == ["LLM attends in both directions"]


def test_adapters_fit_and_everything_trains(pair, new_model, source):
    model = new_model(*pair, num_soft_tokens=1)
    adapters.freeze(model, {"connector": True, "output_projection": True})
    for backbone in adapters.BACKBONES:
        adapters.attach(model, backbone, 2, 4)
    model(*source).embedding.square().sum().backward()
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    assert not [name for name in names if model.get_parameter(name).grad is None]
    for backbone in adapters.BACKBONES:
        assert any(name.startswith(backbone) for name in names)


@pytest.mark.parametrize("backbone", adapters.BACKBONES)
def test_adapters_reach_every_linear_layer_of_a_block(backbone, pair, new_model):
    """The table's names of layers are complete: what it does not name is no weight matrix of attention or MLP."""
    model = new_model(*pair)
    module = getattr(model, backbone)
    linear = {name for name, part in module.named_modules() if type(part) is torch.nn.Linear}
    adapters.attach(model, backbone, 2, 4)
    adapted = {name for name, _ in adapters.adapted_layers(module)}
    assert adapted == linear


@pytest.mark.parametrize("backbone", adapters.BACKBONES)
def test_what_was_not_checked_is_refused_with_the_way_to_check_it(backbone):
    with pytest.raises(UsageError, match=f"'gpt2' was never checked as {backbone}.*or add") as caught:
        backbones.find("gpt2", backbone)
    assert caught.value.status == 2


def test_no_backbone_has_a_pooler_or_a_head(pair, shared_model):
    model = shared_model(*pair)
    assert not [name for name, _ in model.named_parameters() if "pooler" in name or "lm_head" in name]


def test_gradient_checkpointing_changes_no_gradient(pair, new_model, source):
    found = []
    for checkpointing in (False, True):
        model = without_dropout(new_model(*pair, num_soft_tokens=1)).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
            assert all(backbone.is_gradient_checkpointing for backbone in (model.encoder, model.llm))
        model(*source).embedding.square().sum().backward()
        found.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, plain in found[0].items():
        assert torch.allclose(plain, found[1][name], rtol=1e-4, atol=1e-5), name


def without_dropout(model):
    """Modules and attributes alike: architectures differ in how they hold the probability."""
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
        for name, value in list(vars(part).items()):
            if "dropout" in name and isinstance(value, float):
                setattr(part, name, 0.0)
    return model
