"""Cut texts into batches of like length, so that little of what a model computes is padding.

Sorted by length and filled to the budget, a few hundred texts need 1.09 times their tokens: each batch is as wide as
its longest text. Where the cuts lie matters, so they are chosen by dynamic programming over the sorted lengths.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BATCH_PRICE, SHARE = 256, 1 / 32
"""What a batch costs besides its tokens: as many as these, or this share of a full one if that is less. Without a price
every length gets a batch of its own. Measured at a budget of 1,024 on a CPU (docs/performance.md); beyond it the price
stands still, since a batch costs no more for having room."""


def cut(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Cut rows into batches whose padded size stays within the budget, with the least padding.

    Args:
        lengths: Tokens of each row as the model will read it.
        budget: Most tokens of a batch, padding included; a row that is longer alone gets a batch of its own.

    Returns:
        Row numbers of each batch, the longest rows first: if memory runs out, it does so at once.

    Raises:
        ValueError: A budget below 1.
    """
    if budget < 1:
        raise ValueError(f"a budget of {budget} tokens: at least 1")
    price = min(BATCH_PRICE, SHARE * budget)
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])  # stable: equal rows keep their order
    sizes = np.array([max(lengths[row], 1) for row in order], dtype=np.float64)
    # best[end]: least cost of the first `end` rows; came[end]: where their last batch begins.
    best, came = np.zeros(len(order) + 1), np.zeros(len(order) + 1, dtype=np.int64)
    first = 0
    for end in range(1, len(order) + 1):
        while first < end - 1 and (end - first) * sizes[first] > budget:
            first += 1  # what does not fit now fits no later end: its batch would be larger still
        starts = np.arange(first, end)
        cost = best[first:end] + (end - starts) * sizes[first:end]
        choice = int(cost.argmin())
        came[end], best[end] = first + choice, cost[choice] + price
    batches, end = [], len(order)
    while end:
        batches.append(order[came[end] : end])
        end = int(came[end])
    return batches[::-1]
