"""Tiny models of every connector, and batches for them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch

CONNECTORS = {
    "ff": {},
    "mlp": {"expansion": 2},
    "embedding_table": {},
    "latent_attention": {"num_latents": 4, "num_heads": 4},
}


@functools.cache
def _model(encoder: str, llm: str, attention: str, settings: tuple) -> Any:
    from lusifer.model.config import LusiferConfig
    from lusifer.model.lusifer import LusiferModel
    from support.tiny_bases import tiny_encoder_config, tiny_llm_config

    settings = dict(settings)
    connector = settings.get("connector_type", "ff")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = LusiferConfig(
            encoder=tiny_encoder_config(encoder),
            llm=tiny_llm_config(llm),
            connector_kwargs=CONNECTORS[connector],
            **settings,
        )
        config._attn_implementation = attention
        return LusiferModel(config).eval()


@pytest.fixture(scope="session")
def shared_model() -> Callable[..., Any]:
    """`shared_model(num_soft_tokens=2, ...)`: a model of random weights, the same one at every call. Read only."""

    def make(encoder: str = "xlm-roberta", llm: str = "mistral", attention: str = "sdpa", **settings: Any) -> Any:
        return _model(encoder, llm, attention, tuple(sorted(settings.items())))

    return make


@pytest.fixture
def new_model(shared_model: Callable[..., Any]) -> Callable[..., Any]:
    """The same, but a copy that a test may change."""
    import copy

    return lambda *args, **settings: copy.deepcopy(shared_model(*args, **settings))


@pytest.fixture(scope="session")
def batch() -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """`batch([5, 2], padding=3)`: random ids and mask (2, 8), right-padded."""

    def make(lengths: list[int], padding: int = 0, seed: int = 0, pad_id: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        width = max(lengths) + padding
        mask = (torch.arange(width) < torch.tensor(lengths)[:, None]).long()
        ids = torch.randint(8, 500, mask.shape, generator=generator)
        return ids.masked_fill(mask == 0, pad_id), mask

    return make
