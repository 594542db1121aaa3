"""Threads that share an embedder: each gets the vectors that it would get alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from lusifer.embedder import folder
from lusifer.index.index import Index

QUESTIONS = ["water " * 900, "Water is life.", "fire " * 700 + "x", "stone", "The train is late. " * 40]


class OnlyOne:
    """Notices two threads in it."""

    def __init__(self, call: Callable) -> None:
        self.call, self.inside, self.crowded = call, threading.Lock(), False

    def __call__(self, *words, **named):
        if not self.inside.acquire(blocking=False):
            self.crowded = True
            return self.call(*words, **named)
        try:
            time.sleep(0.002)
            return self.call(*words, **named)
        finally:
            self.inside.release()


def test_threads_that_search_and_add_get_the_vectors_of_one(model_folder, tmp_path, monkeypatch):
    own = folder.load(model_folder, device="cpu")
    alone = [own.encode([text], show_progress_bar=False) for text in QUESTIONS]
    first, second = (Index.create(tmp_path / name, model_folder, embedder=own) for name in "ab")
    one = OnlyOne(own.encode)
    monkeypatch.setattr(own, "encode", one)

    def ask(number: int) -> bool:
        index, place = (first, second)[number % 2], number % len(QUESTIONS)
        return np.allclose(index.embed([QUESTIONS[place]]), alone[place], atol=1e-5)

    with ThreadPoolExecutor(4) as threads:
        right = threads.map(ask, range(40))
        for number in range(8):
            first.update([{"id": "new", "text": f"Another text, {number}. " * 30}])
        assert all(right)
    assert not one.crowded


def test_threads_that_ask_first_load_the_model_once(model_folder, tmp_path, embedder, monkeypatch):
    made = Index.create(tmp_path / "i", model_folder, embedder=embedder)
    loaded = []

    def load(*words, **named):
        loaded.append(words)
        time.sleep(0.1)
        return embedder

    monkeypatch.setattr(folder, "load", load)
    index = Index.open(made.folder)
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(index.search, ["water"] * 4)) == [[[]]] * 4
    assert len(loaded) == 1
