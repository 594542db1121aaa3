"""Checks that prove on the real weights that a model is what it says; a tenth of a second each on a small model."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lusifer.model.lusifer import LusiferModel


@dataclass(frozen=True)
class Probe:
    """One check: its name, whether it holds, and the number behind the verdict in words."""

    name: str
    ok: bool
    detail: str
    error: Exception | None = None
    """What was raised, for a traceback."""


def nearly_equal(name: str, one: torch.Tensor, other: torch.Tensor, model: torch.nn.Module, note: str = "") -> Probe:
    """Whether two lists of vectors (n, d) of a model are the same but for rounding; `note` ends the detail.

    Rounding explains a cosine distance of 1e-5 where all weights are float32, else of 1e-2.
    """
    worst = distance(one, other)
    limit = 1e-5 if all(p.dtype == torch.float32 for p in model.parameters()) else 1e-2
    return Probe(name, worst < limit, f"largest cosine distance {worst:.1e}{note}")


@torch.no_grad()
def attends_both_ways(model: LusiferModel, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Probe:
    """The LLM's first position must feel a change of the last one, with and without padding in the batch."""
    prompt = model.soft_prompt(input_ids, attention_mask)
    felt = []
    for rows in (slice(None), slice(0, 1)):
        embeds, mask, position_ids = (part[rows] for part in prompt)
        mask = mask if rows == slice(None) else torch.ones_like(mask)
        changed = embeds.clone()
        last = int(mask[0].nonzero().max())
        # A reversed vector: a constant added to all dimensions would vanish in a LayerNorm.
        changed[0, last] = -changed[0, last].flip(0) + embeds[0, last].std()
        before = model.run_llm(embeds, mask, position_ids)[0, 0].float()
        after = model.run_llm(changed, mask, position_ids)[0, 0].float()
        felt.append(float((after - before).abs().max() / before.abs().max().clamp(min=1e-12)))
    detail = f"changing the last position moves the first by {min(felt):.1e} of its size"
    return Probe("LLM attends in both directions", min(felt) > 1e-4, detail)


@torch.no_grad()
def ignores_padding(model: LusiferModel, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Probe:
    """A vector must be the same alone and in a padded batch."""
    together = model(input_ids, attention_mask).embedding
    lengths = attention_mask.sum(dim=1).tolist()
    alone = [model(input_ids[row : row + 1, :length]).embedding for row, length in enumerate(lengths)]
    return nearly_equal("padding never changes a vector", together, torch.cat(alone), model)


@torch.no_grad()
def ignores_order(model: LusiferModel, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Probe:
    """The order of a batch must not matter."""
    forward = model(input_ids, attention_mask).embedding
    backward = model(input_ids.flip(0), attention_mask.flip(0)).embedding.flip(0)
    return nearly_equal("order never changes a vector", forward, backward, model)


@torch.no_grad()
def is_finite(model: LusiferModel, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Probe:
    """No NaN, no infinity, and different texts get different vectors."""
    vectors = model(input_ids, attention_mask).embedding.float()
    finite = bool(torch.isfinite(vectors).all())
    spread = float(vectors.std(dim=0).max()) if finite else 0.0
    return Probe("vectors are finite and differ", finite and spread > 0, f"finite {finite}, spread {spread:.1e}")


def run_probes(model: LusiferModel, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> list[Probe]:
    """All probes on one batch (B, L) of at least two texts of different lengths, right-padded, in evaluation mode."""
    checks = (is_finite, attends_both_ways, ignores_padding, ignores_order)
    return [check(model, input_ids, attention_mask) for check in checks]


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest cosine distance of two lists of vectors (n, d); a NaN counts as 2, the largest there is."""
    similarity = torch.nn.functional.cosine_similarity(one.double().cpu(), other.double().cpu(), dim=-1)
    return float((1 - similarity).nan_to_num(nan=2.0).max())
