import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lusifer.model.lusifer import pool

METHODS = ("mean", "weightedmean", "cls", "lasttoken")
masks = st.integers(1, 8).flatmap(
    lambda width: st.lists(
        st.lists(st.integers(0, 1), min_size=width, max_size=width).filter(any), min_size=1, max_size=4
    )
)


def by_hand(states: torch.Tensor, method: str) -> torch.Tensor:
    """The definition, on the real states (n, d) of one row."""
    if method == "cls":
        return states[0]
    if method == "lasttoken":
        return states[-1]
    weights = torch.ones(len(states)) if method == "mean" else torch.arange(1, len(states) + 1).float()
    return (states * weights[:, None]).sum(0) / weights.sum()


@pytest.mark.parametrize("method", METHODS)
@given(mask=masks)
def test_equals_the_definition(method, mask):
    mask = torch.tensor(mask)
    states = torch.randn(*mask.shape, 5, generator=torch.Generator().manual_seed(0))
    before = mask.clone()
    found = pool(states, mask, method)
    assert torch.equal(mask, before), "the caller's mask was changed"
    for row in range(len(mask)):
        wanted = by_hand(states[row][mask[row].bool()], method)
        assert torch.allclose(found[row], wanted, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16))
def test_keeps_the_dtype(method, dtype):
    states = torch.randn(2, 3, 4).to(dtype)
    assert pool(states, torch.ones(2, 3), method).dtype == dtype


def test_refuses_an_unknown_method():
    with pytest.raises(ValueError, match="pooling='max' is unknown: use mean"):
        pool(torch.zeros(1, 1, 1), torch.ones(1, 1), "max")
