"""Any text gets a vector of length 1, or one line that says why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lusifer
from lusifer.errors import LusiferError
from support.fuzzing import any_text, inputs, tried


@pytest.fixture(scope="module")
def embedder(model_folder: Path) -> Any:
    return lusifer.load(model_folder, device="cpu")


REFUSALS = (LusiferError, ValueError, TypeError)
"""Those of sentence-transformers, which refuses what is no text, and those of the tokenizers for a lone surrogate."""
LARGE = st.builds(lambda part, times: (part or "x") * times, any_text(8), st.sampled_from([1000, 100_000]))


@inputs(0.1, 40)
@given(st.lists(any_text() | st.none() | st.integers() | st.binary(max_size=4), max_size=4))
def test_texts_have_vectors_or_a_reason(embedder: Any, texts: list[Any]) -> None:
    with tried("texts, Python", REFUSALS):
        vectors = embedder.encode(texts)
        assert len(vectors) == len(texts)
        if texts:
            assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)


@inputs(0.001, 4)
@given(LARGE)
def test_large_texts_have_vectors_or_a_reason(embedder: Any, text: str) -> None:
    with tried("texts to a megabyte", REFUSALS):
        assert np.isfinite(embedder.encode([text])).all()
