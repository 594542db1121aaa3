"""Batches hold every row once, stay within the budget, and cost as little as any cutting of the sorted rows."""

from __future__ import annotations

import random
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lusifer.batching import BATCH_PRICE, SHARE, cut


def padded(batches: list[list[int]], lengths: list[int]) -> int:
    """Tokens with padding."""
    return sum(len(batch) * max(1, *(lengths[row] for row in batch)) for batch in batches)


def price(budget: int) -> float:
    """Of a batch."""
    return min(BATCH_PRICE, SHARE * budget)


def least(lengths: list[int], budget: int) -> float:
    """The least cost, by trying every cutting."""
    order, found = sorted(max(length, 1) for length in lengths)[::-1], []
    for count in range(len(order)):
        for places in combinations(range(1, len(order)), count):
            ends = [*places, len(order)]
            parts = [order[start:end] for start, end in zip([0, *places], ends, strict=True)]
            if all(len(part) == 1 or len(part) * part[0] <= budget for part in parts):
                found.append(sum(len(part) * part[0] + price(budget) for part in parts))
    return min(found)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=9), st.integers(1, 200))
def test_no_cutting_costs_less(lengths, budget):
    found = cut(lengths, budget)
    assert sorted(row for batch in found for row in batch) == list(range(len(lengths)))
    assert all(len(batch) == 1 or padded([batch], lengths) <= budget for batch in found)
    assert padded(found, lengths) + price(budget) * len(found) == pytest.approx(least(lengths, budget))
    widths = [max(lengths[row] for row in batch) for batch in found]
    assert widths == sorted(widths, reverse=True)


def test_less_padding_than_filling_each_batch():
    chance = random.Random(0)
    lengths = [min(max(round(chance.lognormvariate(3.7, 0.9)), 5), 256) for _ in range(256)]
    filled, order = [[]], sorted(range(256), key=lambda row: -lengths[row])
    for row in order:
        if (len(filled[-1]) + 1) * lengths[(filled[-1] or [row])[0]] > 1024:
            filled.append([])
        filled[-1].append(row)
    assert padded(cut(lengths, 1024), lengths) < 1.05 * sum(lengths) < padded(filled, lengths)


def test_room_alone_makes_no_padding():
    chance = random.Random(0)
    lengths = [min(max(round(chance.lognormvariate(3, 0.9)), 5), 256) for _ in range(8192)]
    for budget in (1024, 8192, 65_536, 10**6):
        assert padded(cut(lengths, budget), lengths) < 1.06 * sum(lengths), budget


def test_a_row_beyond_the_budget_is_alone_and_equal_rows_fill_a_batch():
    assert cut([300, 2], 256) == [[0], [1]]
    assert cut([8] * 64, 256) == [list(range(32)), list(range(32, 64))]
    assert cut([], 256) == []
    with pytest.raises(ValueError, match="must be 1 or more"):
        cut([1], 0)
