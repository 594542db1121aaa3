from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lusifer.model.connector import positions
from lusifer.model.connector_settings import ConnectorSettings

CONNECTORS = ("ff", "mlp", "embedding_table", "latent_attention")


@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=4))
def test_positions_count_real_places_only(rows):
    mask = torch.tensor(rows, dtype=torch.long)
    found = positions(mask)
    for row, counted in zip(mask, found):
        assert counted[row == 1].tolist() == list(range(int(row.sum())))
    assert (found >= 0).all()


@pytest.mark.parametrize("soft", (0, 2))
@pytest.mark.parametrize("connector", CONNECTORS)
def test_shapes_mask_and_positions(connector, soft, shared_model, batch):
    model = shared_model(connector_type=connector, num_soft_tokens=soft)
    lengths = [5, 7, 1]
    out = model.soft_prompt(*batch(lengths, padding=2))
    real = {"latent_attention": [4, 4, 4]}.get(connector, lengths)
    assert out.attention_mask.sum(1).tolist() == [count + soft for count in real]
    assert out.inputs_embeds.shape == (*out.attention_mask.shape, model.config.llm.hidden_size)
    for mask, place in zip(out.attention_mask.bool(), out.position_ids):
        assert place[mask].tolist() == list(range(int(mask.sum())))


def test_soft_tokens_stand_at_the_end_and_are_the_same_for_all(shared_model, batch):
    model = shared_model(num_soft_tokens=2)
    out = model.soft_prompt(*batch([5, 3]))
    assert torch.equal(out.inputs_embeds[0, -2:], out.inputs_embeds[1, -2:])
    assert torch.equal(out.inputs_embeds[0, -2:], model.connector.soft_tokens)


def test_positions_of_the_published_code_count_padding(shared_model, batch):
    model = shared_model(num_soft_tokens=1, soft_token_position="padding")
    out = model.soft_prompt(*batch([5, 2]), 8)
    assert out.position_ids.tolist() == [list(range(9))] * 2


@pytest.mark.parametrize("count", (0, -1))
def test_a_setting_out_of_bounds_is_refused(count):
    from lusifer.model.config import LusiferConfig

    words = "connector_kwargs of latent_attention: num_latents: Input should be greater than or equal"
    with pytest.raises(ValueError, match=words):
        LusiferConfig(connector_type="latent_attention", connector_kwargs={"num_latents": count})


def test_a_switch_that_is_on_by_default_can_be_turned_off():
    class Switched(ConnectorSettings):
        type: Literal["switched"] = "switched"
        on: bool = True
        off: bool = False

    assert Switched(on=False).kwargs() == {"on": False}
    assert Switched(off=True).kwargs() == {"on": True, "off": True}
