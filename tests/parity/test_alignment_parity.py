"""Alignment losses, losses of each token and gradients equal those of the published code."""

import numpy as np
import pytest
import torch

from lusifer.model.alignment import LusiferForAlignment
from lusifer.model.published import read

TOLERANCE = 2e-5
BATCHES = ("mask0", "mask50", "mask50_nobos")
COLUMNS = (
    "universal_learner_input_ids", "universal_learner_attention_mask", "lm_input_ids", "lm_attention_mask", "lm_labels",
)  # fmt: skip


@pytest.fixture(params=("lora", "nolora"))
def kind(request):
    return request.param


@pytest.fixture
def aligned(checkpoints, kind, lm_head):
    folder = checkpoints / f"lusifer-{kind}"
    model = read(folder, compat=True).model
    return LusiferForAlignment(model.config, model, lm_head(folder)).eval()


def run(aligned, arrays, batch, ids):
    aligned.config.alignment_bos = batch != "mask50_nobos"
    return aligned(*(ids(arrays[f"{batch}/{column}"]) for column in COLUMNS), attention="bidirectional")


@pytest.mark.parametrize("batch", BATCHES)
def test_loss_and_gradients(aligned, kind, batch, numbers, ids, gradient):
    arrays = numbers("alignment", kind)
    out = run(aligned, arrays, batch, ids)
    assert abs(out.loss.item() - arrays[f"{batch}/loss"]) < TOLERANCE
    stored = arrays[f"{batch}/token_loss"][arrays[f"{batch}/token_valid"]]
    assert np.abs(out.token_loss.numpy() - stored).max() < TOLERANCE

    out.loss.backward()
    keys = [key for key in arrays if key.startswith(f"{batch}/grad/")]
    assert len(keys) == (7 if kind == "lora" else 3)
    for key in keys:
        assert np.abs(gradient(aligned.model, key).numpy() - arrays[key]).max() < TOLERANCE, key
    assert aligned.lm_head.weight.grad is None


@pytest.mark.parametrize("batch", BATCHES)
def test_loss_with_the_zero_attention_of_flash_attention(aligned, kind, batch, numbers, ids):
    """Flash attention gives hidden positions a zero output where sdpa lets them attend; the loss follows."""
    arrays = numbers("alignment", kind)
    kept = ids(arrays[f"{batch}/llm_attention_mask"]).unsqueeze(-1)
    for layer in aligned.model.llm.layers:
        layer.self_attn.o_proj.register_forward_pre_hook(lambda module, args: (args[0] * kept,))
    with torch.no_grad():
        loss = run(aligned, arrays, batch, ids).loss.item()
    assert abs(loss - arrays[f"{batch}/loss_flash_emulated"]) < TOLERANCE


def test_the_prefix_attention_is_another_loss(aligned, kind, numbers, ids):
    arrays = numbers("alignment", kind)
    with torch.no_grad():
        columns = [ids(arrays[f"mask0/{column}"]) for column in COLUMNS]
        loss = aligned(*columns, attention="prefix").loss.item()
    assert abs(loss - arrays["mask0/loss"]) > 1e-3
