"""The loss of distill: how far vectors are from the LLM's own."""

from types import SimpleNamespace

import torch
from hypothesis import given
from hypothesis import strategies as st

from lusifer.training.objectives import OBJECTIVES
from lusifer.training.objectives.distill import by_length, distill_loss


def losses(contrast):
    """The loss as a function of the teacher's vectors, and the model's own vectors."""
    own = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    network = SimpleNamespace(model=lambda ids, mask: SimpleNamespace(embedding=own))
    stage, batch = (
        SimpleNamespace(distill_contrast=contrast),
        {"input_ids": torch.ones(2, 1), "attention_mask": torch.ones(2, 1, dtype=torch.long)},
    )
    return lambda teacher: OBJECTIVES["distill"].loss(network, batch | {"teacher": teacher}, stage), own


def test_distill_pulls_vectors_to_the_teacher():
    loss, own = losses(contrast=0.0)
    assert loss(own * 3).abs() < 1e-6
    assert abs(loss(-own) - 2) < 1e-6
    assert abs(distill_loss(torch.eye(2), torch.eye(2).flip(0)) - 1) < 1e-6


def test_distill_contrast_tells_a_text_from_the_others_of_the_batch():
    teacher = torch.nn.functional.normalize(torch.randn(6, 8), dim=-1)
    plain, told = distill_loss(teacher, teacher), distill_loss(teacher, teacher, contrast=0.5)
    scores = teacher @ teacher.T / 0.05
    wanted = torch.nn.functional.cross_entropy(scores, torch.arange(6))
    assert torch.isclose(told, plain + 0.5 * wanted)
    assert distill_loss(teacher.flip(0), teacher, 0.5) > 5  # every vector nearest to another text's
    twice = teacher[[0, 0, 1]]
    assert distill_loss(twice, twice, 1.0) < torch.tensor(2.0).log()  # the same text again is no wrong answer
    loss, own = losses(contrast=1.0)
    assert loss(own.flip(0)) > loss(own)


def test_repeated_texts_are_known_under_mixed_precision():
    vectors = torch.nn.functional.normalize(torch.randn(32, 64, generator=torch.Generator().manual_seed(0)), dim=-1)
    twice = torch.cat([vectors, vectors])
    wanted = distill_loss(twice, twice, 1.0)
    with torch.autocast("cpu", torch.bfloat16):
        found = distill_loss(twice, twice, 1.0)
    assert abs(found - wanted) < 1e-5
    assert wanted < torch.tensor(2.0).log()


@given(st.lists(st.integers(1, 40), min_size=1, max_size=80))
def test_texts_are_read_in_groups_of_like_length_and_come_back_in_order(lengths: list[int]) -> None:
    longest = max(lengths)
    mask = torch.tensor([[1] * length + [0] * (longest - length) for length in lengths])
    ids = torch.arange(len(lengths)).unsqueeze(1).expand_as(mask) * mask
    read: list[tuple[int, int]] = []

    def vectors(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        read.append(tuple(ids.shape))
        return torch.stack([ids.amax(1), mask.sum(1)], dim=1).float()

    found = by_length(vectors, ids, mask)
    assert found.tolist() == [[number, length] for number, length in enumerate(lengths)]
    assert sum(rows for rows, _ in read) == len(lengths)
    assert sum(rows * width for rows, width in read) <= mask.numel()
    assert len(read) <= max(1, len(lengths) // 16)
