"""The queue of a model: turns, bounds, a lack of memory, and a text that cannot be embedded."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lusifer.server import batcher as batchers
from lusifer.server.batcher import Batcher, BusyError, OutOfMemoryError, StoppedError, VectorError
from lusifer.server.metrics import Meter, Metrics
from support.http_server import eventually


class Numbers:
    """An embedder of texts that are numbers: the vector is the number and its square."""

    def __init__(self, trouble: Callable[[list[str]], None] = lambda texts: None) -> None:
        self.trouble, self.batches = trouble, []
        self.free = threading.Event()
        self.free.set()

    def encode(self, texts: Sequence[str], prompt: str, **_: Any) -> np.ndarray:
        self.free.wait(30)
        self.batches.append((prompt, list(texts)))
        self.trouble(list(texts))
        return np.array([[float(text), float(text) ** 2] for text in texts], dtype=np.float32)


def started(embedder: Numbers, budget: int = 100, bound: int = 10_000) -> Batcher:
    return Batcher(embedder, budget, bound, Meter(Metrics(), "numbers"))


def right(texts: Sequence[str], found: np.ndarray) -> bool:
    return np.array_equal(found[:, 0], np.array(texts, dtype=np.float32)) and found.shape == (len(texts), 2)


JOBS = st.lists(
    st.tuples(st.lists(st.integers(1, 60), min_size=1, max_size=12), st.sampled_from(["", "a", "b"])), max_size=8
)


@given(JOBS, st.integers(1, 120))
@settings(max_examples=30)
def test_every_job_gets_its_own_vectors_from_batches_within_the_budget(
    jobs: list[tuple[list[int], str]], budget: int
) -> None:
    embedder, number = Numbers(), 0
    lengths: dict[str, int] = {}
    embedder.free.clear()
    batcher = started(embedder, budget)
    sent = []
    for sizes, prompt in jobs:
        texts = [str(number + row) for row in range(len(sizes))]
        number += len(sizes)
        lengths |= dict(zip(texts, sizes, strict=True))
        sent.append((texts, batcher.submit(texts, sizes, prompt)))
    embedder.free.set()
    assert all(right(texts, future.result(10).vectors) for texts, future in sent)
    batcher.close()
    assert batcher.tokens == 0
    for _, texts in embedder.batches:
        assert len(texts) == 1 or len(texts) * max(lengths[text] for text in texts) <= budget
    assert sorted(text for _, texts in embedder.batches for text in texts) == sorted(lengths)


def test_a_short_question_does_not_stand_behind_a_long_list() -> None:
    embedder = Numbers()
    embedder.free.clear()
    batcher = started(embedder)
    many = batcher.submit([str(row) for row in range(200)], [10] * 200, "")
    one = batcher.submit(["1000"], [10], "")
    other = batcher.submit(["2000"], [50], "query")
    embedder.free.set()
    assert right(["1000"], one.result(10).vectors) and right(["2000"], other.result(10).vectors)
    assert many.result(10).vectors.shape == (200, 2)
    batcher.close()
    place = {text: turn for turn, (_, texts) in enumerate(embedder.batches) for text in texts}
    assert place["1000"] <= 2 and place["2000"] <= 3 < place["199"]


def test_texts_of_like_length_share_a_batch() -> None:
    embedder = Numbers()
    embedder.free.clear()
    batcher = started(embedder)
    futures = [batcher.submit([str(row)], [10 if row % 2 else 50], "") for row in range(12)]
    embedder.free.set()
    assert all(future.result(10) for future in futures)
    batcher.close()
    assert all(len({int(text) % 2 for text in texts}) == 1 for _, texts in embedder.batches)


@pytest.mark.parametrize("kind", [torch.OutOfMemoryError, MemoryError, lambda words: RuntimeError(f"x: {words}")])
def test_after_a_lack_of_memory_it_goes_on_with_half_the_budget(
    kind: Callable[[str], Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = []

    def trouble(texts: list[str]) -> None:
        ready.append(batcher.alive)
        if len(texts) > 3:
            raise kind("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")

    monkeypatch.setattr(batchers, "RECOVERED", 5)
    embedder = Numbers(trouble)
    batcher = started(embedder)
    texts = [str(row) for row in range(40)]
    assert right(texts, batcher.submit(texts, [10] * 40, "").result(10).vectors)
    assert batcher.alive and batcher.budget < 100
    assert ready[:2] == [True, False]  # while it recovers it says that it is not ready
    embedder.trouble = lambda texts: None
    for text in texts:
        batcher.submit([text], [10], "").result(10)
    assert batcher.budget == 100
    batcher.close()


def test_a_text_without_memory_or_vector_fails_alone_and_names_its_number() -> None:
    def trouble(texts: list[str]) -> None:
        if "13" in texts:
            raise MemoryError
        if "14" in texts:
            raise ValueError("no such text")

    embedder = Numbers(trouble)
    embedder.free.clear()
    batcher = started(embedder)
    sent = {row: batcher.submit([str(row - 100), str(row)], [10, 10], "") for row in range(11, 17)}
    bad = batcher.submit(["1", "nan"], [10, 10], "")
    embedder.free.set()
    for row, future in sent.items():
        if row in (13, 14):
            with pytest.raises(OutOfMemoryError if row == 13 else VectorError) as caught:
                future.result(10)
            assert caught.value.row == 1
        else:
            assert right([str(row - 100), str(row)], future.result(10).vectors)
    with pytest.raises(VectorError, match="not finite"):
        bad.result(10)
    assert batcher.alive
    batcher.close()
    assert batcher.tokens == 0


def test_an_answer_that_nobody_expects_of_a_model_does_not_end_the_thread() -> None:
    embedder = Numbers()
    batcher = started(embedder)
    embedder.encode = lambda texts, **_: np.zeros((len(texts) - 1, 2))
    with pytest.raises(VectorError, match="IndexError"):
        batcher.submit(["1", "2"], [1, 1], "").result(10)
    del embedder.encode
    assert right(["3"], batcher.submit(["3"], [1], "").result(10).vectors)
    batcher.close()


def test_the_bound_is_one_rule_and_a_cancelled_job_makes_room() -> None:
    embedder = Numbers()
    embedder.free.clear()
    batcher = started(embedder, budget=10, bound=100)
    first = batcher.submit(["1"], [10], "")
    assert eventually(lambda: not batcher._jobs)
    large = batcher.submit(["2"] * 50, [10] * 50, "")  # larger than the bound, but there was room
    for count in (1, 1000):
        with pytest.raises(BusyError, match=r"510 tokens wait \(at most 100"):
            batcher.submit(["3"] * count, [1] * count, "")
    assert large.cancel()
    assert batcher.tokens == 10
    last = batcher.submit(["4"], [10], "")
    embedder.free.set()
    assert first.result(10) and last.result(10)
    batcher.close()
    assert all("2" not in texts for _, texts in embedder.batches)
    with pytest.raises(StoppedError):
        batcher.submit(["5"], [1], "")
