"""`layers: N` keeps the first layers of a base, of every architecture in the table."""

import pytest
import torch

from lusifer.errors import UsageError
from lusifer.model.bases import backbones, reading
from support.tiny_bases import tiny_encoder_config, tiny_llm_config

CONFIGS = {"encoder": tiny_encoder_config, "llm": tiny_llm_config}
ALL = [(backbone, kind) for backbone in CONFIGS for kind in backbones.table(backbone)]


@pytest.fixture(params=ALL, ids=lambda pair: "-".join(pair))
def base(request, tmp_path_factory):
    """A backbone, and a base of it on disk."""
    backbone, kind = request.param
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    backbones.from_config(CONFIGS[backbone](kind), backbone).save_pretrained(folder)
    return backbone, str(folder)


def depth(module):
    """How many layers a backbone runs."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return sum(isinstance(part, GradientCheckpointingLayer) for part in module.modules())


def states(module, ids):
    with torch.no_grad():
        return module.eval()(input_ids=ids, output_hidden_states=True)


def test_the_first_layers_are_kept_as_they_are(base):
    backbone, folder = base
    whole = reading.read_backbone(reading.Base(folder), backbone)
    cut = reading.read_backbone(reading.Base(folder, layers=1), backbone)
    assert cut.config.num_hidden_layers == depth(cut) == 1 < depth(whole) == whole.config.num_hidden_layers
    kept = dict(whole.named_parameters())
    for name, parameter in cut.named_parameters():
        assert torch.equal(parameter, kept[name]), name
    # What a layer gives is the same; a norm that stands behind the last layer comes on top.
    ids = torch.arange(8, 14)[None]
    before, after = states(whole, ids).hidden_states[1], states(cut, ids).last_hidden_state
    norms = [part for name, part in cut.named_children() if name in ("norm", "final_norm", "layer_norm")]
    norms += [cut.encoder.final_layer_norm] if hasattr(getattr(cut, "encoder", None), "final_layer_norm") else []
    for norm in norms:
        before = norm(before)
    assert torch.allclose(after, before, atol=1e-5)


def test_lists_with_a_word_for_each_layer_are_cut_too(base):
    backbone, folder = base
    config = reading.read_config(reading.Base(folder, layers=1), backbone)
    words = [value for key, value in config.to_dict().items() if key.endswith("layer_types") and value]
    assert all(len(value) == 1 for value in words)


@pytest.mark.parametrize("layers", [3, 100])
def test_more_layers_than_there_are_are_refused(layers, base):
    backbone, folder = base
    with pytest.raises(UsageError, match=rf"model\.{backbone}\.layers={layers}: .* has 2 layers"):
        reading.read_backbone(reading.Base(folder, layers=layers), backbone)
