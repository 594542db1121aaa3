"""A connector that starts near the LLM's word embeddings: which tokens belong together, the map, and a run with it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

import lusifer
from lusifer.embedder.assemble import lusifer_model
from lusifer.errors import UsageError
from lusifer.model import build, words
from support.small_run import train

ENDS = st.lists(st.integers(min_value=1, max_value=30), unique=True, max_size=8).map(sorted)


def cut(ends: list[int]) -> list[words.Span | str]:
    return ["first", *zip([0, *ends], ends, strict=False), "last"]


@given(ENDS, ENDS)
def test_tokens_belong_together_where_they_share_characters(ours: list[int], theirs: list[int]) -> None:
    spans, known = cut(ours), cut(theirs)

    def shares(one: words.Span | str, other: words.Span | str) -> bool:
        if isinstance(one, str) or isinstance(other, str):
            return one == other
        return max(one[0], other[0]) < min(one[1], other[1])

    wanted = {place: [n for n, there in enumerate(known) if shares(span, there)] for place, span in enumerate(spans)}
    assert dict(words.together(spans, known)) == {place: found for place, found in wanted.items() if found}


def test_the_map_is_that_of_ridge_regression_on_standardised_states() -> None:
    draw = np.random.default_rng(0)
    states = draw.normal(size=(400, 6)) * [1, 2, 3, 10, 0.1, 1] + [0, 5, -40, 3, 0, 1]
    known = states @ draw.normal(size=(6, 4)) + draw.normal(size=(400, 4)) + 7
    found = words.Moments(0, torch.zeros(6), torch.zeros(4), torch.zeros(6, 6), torch.zeros(6, 4))
    for part in (slice(0, 150), slice(150, None)):
        words._add(found, torch.tensor(states[part]), torch.tensor(known[part]))
    scaled = (states - states.mean(0)) / states.std(0)
    wanted = Ridge(alpha=words.RIDGE * 400).fit(scaled, known)
    assert np.allclose(found.deviation, states.std(0), rtol=1e-4)
    assert np.allclose(found.map(1 / found.deviation).T, wanted.coef_, rtol=1e-3, atol=1e-4)
    assert np.allclose(found.word_mean, wanted.intercept_, rtol=1e-4)


def test_a_connector_that_starts_from_words_is_the_map(bases_folder: tuple[Path, Path]) -> None:
    encoder, llm = (build.Base(str(path)) for path in bases_folder)
    model = build.join(
        build.read_backbone(encoder, "encoder"), build.read_backbone(llm, "llm"), 0,
        connector_type="mlp", connector_kwargs={"start_from_words": True},
    ).eval()  # fmt: skip
    texts = ["The river rises in spring.", "An owl sings at night, far from the lake."] * 20
    tokenizers = [build.read_tokenizer(base.path) for base in (encoder, llm)]
    found = words.moments(model.encoder, model.llm, *tokenizers, texts, 32, batch_size=7)
    assert found.count > 2 * len(texts)
    mapping = model.connector.mapping
    mapping.start_from_words(found)
    states = torch.randn(3, 5, model.config.encoder.hidden_size)
    scale = 1 / found.deviation.clamp(min=1e-3)
    wanted = (states.double() - found.mean) * scale @ found.map(scale) + found.word_mean
    made, _ = mapping(states, torch.ones(3, 5))
    assert torch.allclose(made.double(), wanted, rtol=1e-3, atol=1e-3)
    # What it was fitted to: nearer to the LLM's embeddings than their own mean is.
    cross = scale[:, None] * (found.products / found.count - torch.outer(found.mean, found.word_mean))
    assert (found.map(scale) * cross).sum() > 0


def test_a_slow_tokenizer_is_refused_by_its_backbone() -> None:
    with pytest.raises(UsageError, match="start_from_words: the tokenizer of the llm is a slow one"):
        words.refuse_slow(encoder=SimpleNamespace(is_fast=True), llm=SimpleNamespace(is_fast=False))


def test_a_run_refuses_it_before_its_folder_is_there(
    recipe: Path, bases_folder: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [
        f"model.{backbone}.path={path}" for backbone, path in zip(("encoder", "llm"), bases_folder, strict=True)
    ]
    slow = SimpleNamespace(is_fast=False)
    monkeypatch.setattr("lusifer.training.run.bases.read_tokenizer", lambda *args: slow)
    with pytest.raises(UsageError, match="start_from_words: the tokenizer of the encoder is a slow one"):
        train(recipe, tmp_path / "run", overrides=[*settings, "model.connector={type: mlp, start_from_words: true}"])
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_starts_from_words_and_goes_on_from_what_it_trained(recipe: Path, tmp_path: Path) -> None:
    settings = ["model.connector={type: mlp, start_from_words: true}", "stages.align.learning_rate=1e-5",
                "stages.align.max_steps=1", "stages.contrast.max_steps=1"]  # fmt: skip
    train(recipe, tmp_path / "run", overrides=settings)
    model = lusifer_model(lusifer.load(tmp_path / "run" / "model", device="cpu"))
    mapping = model.connector.mapping
    assert model.config.connector_kwargs["start_from_words"] is True
    assert mapping.norm.weight.min() > 0 and not torch.allclose(mapping.norm.weight, torch.ones(1))
    assert mapping.block[-1].weight.abs().max() < 1e-3  # it began at 0, and two steps were small
