"""Checks of a model on its real weights; each takes a tenth of a second on a small model."""

from __future__ import annotations

import torch

from lusifer.errors import Probe
from lusifer.model.lusifer import LusiferModel


def nearly_equal(name: str, one: torch.Tensor, other: torch.Tensor, model: torch.nn.Module, note: str = "") -> Probe:
    """Check that two tensors of vectors are equal except for rounding.

    The limit is a cosine distance of 1e-5 if all weights are float32, else 1e-2.

    Args:
        name: The name of the check.
        one: Vectors (n, d).
        other: Vectors (n, d).
        model: The model that made them, for its dtypes.
        note: The end of the detail.
    """
    worst = distance(one, other)
    limit = 1e-5 if all(p.dtype == torch.float32 for p in model.parameters()) else 1e-2
    return Probe(name, worst < limit, f"largest cosine distance {worst:.1e}{note}")


@torch.no_grad()
def attends_both_ways(model: LusiferModel, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Probe:
    """Check that a change of the last position changes the LLM's first one, with and without padding.

    Args:
        model: The model.
        input_ids: (B, L), int64, padded on the right.
        attention_mask: (B, L).
    """
    prompt = model.soft_prompt(input_ids, attention_mask)
    felt = []
    for rows in (slice(None), slice(0, 1)):
        embeds, mask, position_ids = (part[rows] for part in prompt)
        mask = mask if rows == slice(None) else torch.ones_like(mask)
        changed = embeds.clone()
        last = int(mask[0].nonzero().max())
        # Reverse the vector: a LayerNorm would remove a constant that is added to all dimensions.
        changed[0, last] = -changed[0, last].flip(0) + embeds[0, last].std()
        before = model.run_llm(embeds, mask, position_ids)[0, 0].float()
        after = model.run_llm(changed, mask, position_ids)[0, 0].float()
        felt.append(float((after - before).abs().max() / before.abs().max().clamp(min=1e-12)))
    detail = f"changing the last position moves the first by {min(felt):.1e} of its size"
    return Probe("LLM attends in both directions", min(felt) > 1e-4, detail)


@torch.no_grad()
def ignores_padding(model: LusiferModel, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Probe:
    """Check that a vector is the same alone and in a padded batch.

    Args:
        model: The model.
        input_ids: (B, L), int64, padded on the right.
        attention_mask: (B, L).
    """
    together = model(input_ids, attention_mask).embedding
    lengths = attention_mask.sum(dim=1).tolist()
    alone = [model(input_ids[row : row + 1, :length]).embedding for row, length in enumerate(lengths)]
    return nearly_equal("padding never changes a vector", together, torch.cat(alone), model)


@torch.no_grad()
def ignores_order(model: LusiferModel, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Probe:
    """Check that the order of a batch does not change its vectors.

    Args:
        model: The model.
        input_ids: (B, L), int64.
        attention_mask: (B, L).
    """
    forward = model(input_ids, attention_mask).embedding
    backward = model(input_ids.flip(0), attention_mask.flip(0)).embedding.flip(0)
    return nearly_equal("order never changes a vector", forward, backward, model)


@torch.no_grad()
def is_finite(model: LusiferModel, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Probe:
    """Check that vectors are finite and that different texts get different vectors.

    Args:
        model: The model.
        input_ids: (B, L), int64.
        attention_mask: (B, L).
    """
    vectors = model(input_ids, attention_mask).embedding.float()
    finite = bool(torch.isfinite(vectors).all())
    spread = float(vectors.std(dim=0).max()) if finite else 0.0
    return Probe("vectors are finite and differ", finite and spread > 0, f"finite {finite}, spread {spread:.1e}")


def run_probes(model: LusiferModel, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> list[Probe]:
    """Run all checks of this file on one batch.

    Args:
        model: The model in evaluation mode.
        input_ids: At least two texts of different lengths (B, L), int64, padded on the right.
        attention_mask: (B, L).
    """
    checks = (is_finite, attends_both_ways, ignores_padding, ignores_order)
    return [check(model, input_ids, attention_mask) for check in checks]


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest cosine distance between rows of two tensors (n, d); a NaN counts as 2, the largest distance."""
    similarity = torch.nn.functional.cosine_similarity(one.double().cpu(), other.double().cpu(), dim=-1)
    return float((1 - similarity).nan_to_num(nan=2.0).max())
