"""The NT-Xent loss and its gradients, on given vectors and through the gradient cache, equal the published ones."""

import numpy as np
import pytest
import torch

from lusifer.model.published import read
from lusifer.sharing.convert import assemble_published
from lusifer.training.stages.losses import NTXentL2

TOLERANCE = 2e-5
MODES = {
    "per_row": {"in_batch_negatives": False},
    # Asked for without a process group, the published code takes the row's own negatives and mines nothing.
    "cross_requested_no_dist": {"in_batch_negatives": False, "miner_epsilon": 0.25},
    "cross": {},
    "cross_miner": {"miner_epsilon": 0.25, "when_nothing_mined": "zero"},
}


@pytest.mark.parametrize("similarity", ("l2", "cosine"))
@pytest.mark.parametrize("mode", MODES)
def test_loss_and_gradients_of_vectors(mode, similarity, contrastive):
    short = {"l2": "l2", "cosine": "cos"}[similarity]
    key = {"cross_miner": f"cross_{short}_miner", "cross_requested_no_dist": f"per_row_{short}"}.get(
        mode, f"{mode}_{short}"
    )
    vectors = {name: torch.from_numpy(contrastive[name]).requires_grad_() for name in ("q", "pos", "neg")}
    columns = [vectors["q"], *vectors["pos"].unbind(1), *vectors["neg"].unbind(1)]
    loss = NTXentL2(torch.nn.Identity(), similarity=similarity, num_positives=2, **MODES[mode])
    value = loss.calculate_loss([list(column.split(4)) for column in columns])
    value.backward()
    assert abs(value.item() - contrastive[f"{key}/loss"]) < TOLERANCE
    for name, tensor in vectors.items():
        assert np.abs(tensor.grad.numpy() - contrastive[f"{key}/grad_{name}"]).max() < TOLERANCE


@pytest.mark.parametrize("kind", ("lora", "nolora"))
@pytest.mark.parametrize("mode", ("per_row", "cross"))
def test_gradients_through_the_gradient_cache(kind, mode, checkpoints, numbers, ids, gradient):
    arrays = numbers("gradcache", kind)
    embedder = assemble_published(read(checkpoints / f"lusifer-{kind}", compat=True)).eval()
    model = embedder[0].model
    keys = ("input_ids", "attention_mask")
    columns = [
        {key: ids(arrays[f"batch/{name}_{key}"]).reshape(4, -1, 96)[:, place] for key in keys}
        for name, place in (("query", 0), ("pos", 0), ("neg", 0), ("neg", 1))
    ]
    # The library's cache cuts shared padding off; the published code pads all columns to the longest text (96).
    model.config.pad_to_multiple_of = 96
    loss = NTXentL2(embedder, mini_batch_size=2, in_batch_negatives=mode == "cross")
    value = loss(columns)
    value.backward()
    assert abs(value.item() - arrays[f"{mode}/loss"]) < TOLERANCE
    keys = [key for key in arrays if key.startswith(f"{mode}/grad/")]
    assert len(keys) == (8 if kind == "lora" else 4)
    for key in keys:
        assert np.abs(gradient(model, key).numpy() - arrays[key]).max() < TOLERANCE, key
