"""From the LLM's hidden states to one vector a text."""

from __future__ import annotations

import torch


def pool(
    hidden_states: torch.Tensor, attention_mask: torch.Tensor, method: str, skip: int | torch.Tensor = 0
) -> torch.Tensor:
    """Pool hidden states over the real positions.

    Args:
        hidden_states: (B, L, d), finite everywhere.
        attention_mask: (B, L), 1 for a real position; at least one a row.
        method: "mean"; "weightedmean" (position i weighs i, after SGPT, arXiv 2202.08904); "cls" (the first real
            position); "lasttoken" (the last one).
        skip: leading positions left out of the means (the prompt's), an int or a tensor (B,). A row that would have
            nothing left keeps all its positions.

    Returns:
        (B, d) in the dtype of `hidden_states`.

    Raises:
        ValueError: an unknown method.
    """
    mask = attention_mask.to(torch.bool)
    if method in ("cls", "lasttoken"):
        order = torch.arange(mask.shape[1], device=mask.device)
        index = (
            torch.where(mask, order, mask.shape[1]).amin(1) if method == "cls" else torch.where(mask, order, -1).amax(1)
        )
        return hidden_states[torch.arange(len(index), device=mask.device), index]
    if method not in ("mean", "weightedmean"):
        raise ValueError(f"pooling={method!r} is unknown: use mean, weightedmean, cls or lasttoken")
    rank = mask.long().cumsum(dim=1)
    if not isinstance(skip, int) or skip > 0:
        skip = torch.as_tensor(skip, device=mask.device).reshape(-1, 1)
        kept = mask & (rank > skip)
        mask = torch.where(kept.any(dim=1, keepdim=True), kept, mask)
    weights = mask.float()
    if method == "weightedmean":
        weights = weights * rank
    weights = weights / weights.sum(dim=1, keepdim=True)
    # A product with the weights: no float32 copy of the states, and masked positions cost no branch.
    return torch.bmm(weights.unsqueeze(1).to(hidden_states.dtype), hidden_states).squeeze(1)
