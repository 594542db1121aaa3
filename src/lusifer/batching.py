"""Group texts of similar length into batches, so that a model computes little padding.

A batch is as wide as its longest text. Batches that are filled to the budget in order of length need 1.09 times the
tokens of a few hundred texts. Dynamic programming over the sorted lengths finds the batches with the least padding.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BATCH_PRICE, SHARE = 256, 1 / 32
"""The fixed cost of a batch in tokens: `BATCH_PRICE`, or `SHARE` of the budget if that is less. Without a fixed cost
every length would get a batch of its own. Measured at a budget of 1,024 on a CPU (docs/performance.md). With a larger
budget the cost stays the same."""


def cut(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Group rows into batches whose padded size stays within the budget, with the least padding.

    Args:
        lengths: The number of tokens of each row, as the model reads it.
        budget: The most tokens of a batch, padding included. A row that is longer gets a batch of its own.

    Returns:
        Row numbers of each batch, the longest rows first: if memory runs out, it does so in the first batch.

    Raises:
        ValueError: The budget is below 1.
    """
    if budget < 1:
        raise ValueError(f"budget: {budget} tokens: must be 1 or more")
    price = min(BATCH_PRICE, SHARE * budget)
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])  # stable: equal rows keep their order
    sizes = np.array([max(lengths[row], 1) for row in order], dtype=np.float64)
    # best[end]: the least cost of the first `end` rows; came[end]: where their last batch begins.
    best, came = np.zeros(len(order) + 1), np.zeros(len(order) + 1, dtype=np.int64)
    first = 0
    for end in range(1, len(order) + 1):
        while first < end - 1 and (end - first) * sizes[first] > budget:
            first += 1  # a start that is too early for this end is too early for every later one
        starts = np.arange(first, end)
        cost = best[first:end] + (end - starts) * sizes[first:end]
        choice = int(cost.argmin())
        came[end], best[end] = first + choice, cost[choice] + price
    batches, end = [], len(order)
    while end:
        batches.append(order[came[end] : end])
        end = int(came[end])
    return batches[::-1]
