"""NT-Xent on L2 distance: pairs, miner, gradients (two processes: test_processes.py; published numbers: parity)."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from lusifer.embedder.assemble import lusifer_model
from lusifer.training.stages.losses import NTXentL2, mine, nt_xent, pairs
from support.tiny_folder import tiny_embedder

COLUMNS = [
    ["who bakes bread", "rivers in spring", "a late train", "water"],
    ["My grandmother bakes bread.", "Snow melts and rivers rise.", "The train was late.", "Drink two litres."],
    ["The library closes early.", "It rains.", "Nobody came to the station.", "Tea is hot."],
]


def vectors(rows, width, seed=0):
    return torch.randn(rows, width, 6, generator=torch.Generator().manual_seed(seed))


def by_hand(columns, positives, temperature, own_only):
    """The definition, pair by pair."""
    rows, width, _ = columns.shape
    texts = {(row, column): normalize(columns[row, column], dim=0) for row in range(rows) for column in range(width)}
    losses = []
    for anchor, a in texts.items():
        if anchor[1] > positives:
            continue
        negatives = [
            other for other in texts
            if (other[1] > positives and (not own_only or other[0] == anchor[0]))
            or (other[1] <= positives and other[0] != anchor[0] and not own_only)
        ]  # fmt: skip
        for other, b in texts.items():
            if other != anchor and other[0] == anchor[0] and other[1] <= positives:
                scores = torch.stack([-(a - x).norm() / temperature for x in (b, *(texts[n] for n in negatives))])
                losses.append(-scores.log_softmax(0)[0])
    return torch.stack(losses).mean()


@settings(max_examples=20)
@given(
    rows=st.integers(1, 4), positives=st.integers(1, 2), negatives=st.integers(1, 3),
    own_only=st.booleans(), temperature=st.sampled_from((0.05, 1.0)), seed=st.integers(0, 99),
)  # fmt: skip
def test_equals_the_definition(rows, positives, negatives, own_only, temperature, seed):
    columns = vectors(rows, 1 + positives + negatives, seed)
    loss = NTXentL2(
        torch.nn.Identity(), temperature, in_batch_negatives=not own_only, num_positives=positives
    ).calculate_loss([list(column.split(2)) for column in columns.unbind(1)])
    assert torch.allclose(loss, by_hand(columns, positives, temperature, own_only), atol=1e-4)


def test_no_positive_of_a_row_is_a_negative_of_it():
    texts, positive, negative = pairs(vectors(3, 4), anchors=3)
    assert texts.shape == (12, 6)
    assert positive.shape == negative.shape == (9, 12)
    assert not (positive & negative).any()
    assert positive.sum(1).tolist() == [2] * 9
    assert negative.sum(1).tolist() == [12 - 3] * 9


def test_the_miner_keeps_pairs_near_the_hardest():
    columns = vectors(6, 3)
    texts, positive, negative = pairs(columns, 2)
    anchors = texts[: len(positive)]
    kept_positive, kept_negative = mine(anchors, texts, positive, negative, 0.25)
    assert (kept_positive <= positive).all() and (kept_negative <= negative).all()
    assert kept_positive.sum() < positive.sum() or kept_negative.sum() < negative.sum()
    everything = mine(anchors, texts, positive, negative, 2.1)
    assert torch.equal(everything[0], positive) and torch.equal(everything[1], negative)


@pytest.fixture
def easy():
    """Two rows whose negatives are at a right angle and whose positives have cosine 0.3: no pair is hard."""
    queries, others = torch.eye(6)[:2], torch.eye(6)[2:4]
    return torch.stack([queries, 0.3 * queries + (1 - 0.3**2) ** 0.5 * others], dim=1)


@pytest.mark.parametrize(("when", "loss_is_zero"), (("all_pairs", False), ("zero", True)))
def test_a_miner_that_finds_nothing(when, loss_is_zero, easy):
    columns = easy.clone().requires_grad_()
    loss = NTXentL2(torch.nn.Identity(), miner_epsilon=0.25, when_nothing_mined=when)
    value = loss.calculate_loss([[column] for column in columns.unbind(1)])
    value.backward()
    assert bool(value == 0) == loss_is_zero
    assert bool((columns.grad == 0).all()) == loss_is_zero
    if not loss_is_zero:
        plain = NTXentL2(torch.nn.Identity()).calculate_loss([[column] for column in easy.unbind(1)])
        assert torch.equal(value.detach(), plain)


def test_an_anchor_without_negatives_costs_nothing_and_is_no_nan():
    texts = vectors(1, 3)[0].requires_grad_()
    positive, negative = torch.zeros(1, 3, dtype=torch.bool), torch.zeros(1, 3, dtype=torch.bool)
    positive[0, 1] = True
    loss = nt_xent(texts[:1], texts, positive, negative, 0.05)
    loss.backward()
    assert loss == 0
    assert torch.isfinite(texts.grad).all()


def test_equal_texts_give_finite_gradients():
    """The distance has no derivative at 0."""
    columns = vectors(1, 1).expand(3, 3, 6).clone().requires_grad_()
    loss = NTXentL2(torch.nn.Identity()).calculate_loss([[column] for column in columns.unbind(1)])
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(columns.grad).all()


@pytest.mark.parametrize("own_only", (False, True))
@pytest.mark.parametrize("chunks", ({"mini_batch_size": 1}, {"mini_batch_size": 3}, {"mini_batch_num_tokens": 12}))
def test_the_gradient_cache_changes_no_gradient(own_only, chunks, bases_folder):
    found = []
    for settings_ in ({"mini_batch_size": 100}, chunks):
        embedder = tiny_embedder(bases_folder).eval()
        loss = NTXentL2(embedder, in_batch_negatives=not own_only, miner_epsilon=0.25, **settings_)
        value = loss([embedder.preprocess(column) for column in COLUMNS], None)
        value.backward()
        found.append((value.detach(), {n: p.grad for n, p in lusifer_model(embedder).named_parameters()}))
    (value, gradients), (other_value, others) = found
    assert torch.allclose(value, other_value, atol=1e-5)
    for name, gradient in gradients.items():
        assert (gradient is None) == (others[name] is None), name
        if gradient is not None:
            assert torch.allclose(gradient, others[name], atol=2e-5 * float(gradient.abs().max().clamp(min=1))), name


def test_no_gradient_is_kept_in_evaluation(bases_folder):
    embedder = tiny_embedder(bases_folder).eval()
    loss = NTXentL2(embedder)
    with torch.no_grad():
        value = loss([embedder.preprocess(column) for column in COLUMNS])
    assert not value.requires_grad


def test_too_few_columns_are_refused():
    texts = [[vectors(2, 1)[:, 0]], [vectors(2, 1, 1)[:, 0]]]
    with pytest.raises(ValueError, match="2 columns are too few: give a query, 1 positives and a hard negative"):
        NTXentL2(torch.nn.Identity(), in_batch_negatives=False).calculate_loss(texts)
    with pytest.raises(ValueError, match="1 columns are too few: give a query, 1 positives$"):
        NTXentL2(torch.nn.Identity()).calculate_loss(texts[:1])
