"""A server that is asked too much, clients that leave, and the end."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import lusifer
from lusifer.server import bodies
from support import http_server
from support.http_server import Slow, counted, error, eventually, some_texts, vectors


@pytest.fixture(scope="module")
def embedder(model_folder: Path) -> Any:
    return lusifer.load(model_folder, device="cpu")


def test_a_full_queue_refuses_one_text_and_a_list_alike(embedder: Any) -> None:
    slow = Slow(embedder)
    app, found = http_server.served(slow, batch_tokens=20, queue_tokens=60)
    with http_server.running(app) as client, ThreadPoolExecutor(4) as pool:
        first = pool.submit(client.post, "/v1/embeddings", json={"input": some_texts(40, seed=3)})  # larger than it all
        assert slow.began.wait(10) and eventually(lambda: found.batcher.tokens > 60)
        for content in ("a", ["a"] * 50):
            answer = client.post("/v1/embeddings", json={"input": content})
            said = error(answer)
            assert (
                answer.status_code == 429
                and said["code"] == "queue_full"
                and "(at most 60, --queue-tokens)" in said["message"]
            )
            assert int(answer.headers["Retry-After"]) >= 1
        slow.free.set()
        assert np.abs(vectors(first.result()) - embedder.encode(some_texts(40, seed=3))).max() < 1e-6
        assert client.post("/v1/embeddings", json={"input": "a"}).status_code == 200


def test_the_work_of_a_client_that_left_is_dropped(embedder: Any) -> None:
    slow = Slow(embedder)
    app, found = http_server.served(slow, batch_tokens=64)
    with http_server.running(app) as client, ThreadPoolExecutor(2) as pool:
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/embeddings", json={"input": ["lost " * 20] * 30}, timeout=0.5)
        assert eventually(lambda: counted(client, "lusifer_dropped_texts_total") >= 29)
        other = pool.submit(client.post, "/v1/embeddings", json={"input": "kept"})
        slow.free.set()
        assert other.result().status_code == 200
    assert sum(text.startswith("lost") for batch in slow.batches for text in batch) <= 1
    assert found.batcher.tokens == 0


def test_tokens_are_shown_within_the_limits_of_the_others(embedder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, free = Slow(embedder), threading.Event()
    app, found = http_server.served(slow, batch_tokens=20, queue_tokens=60)
    shown, began = [], found._tokens
    monkeypatch.setattr(
        found, "_tokens", lambda text, prompt: (shown.append(text), free.wait(30), began(text, prompt))[2]
    )
    with http_server.running(app) as client, ThreadPoolExecutor(1) as pool:
        answer = client.post("/tokenize", json={"input": ["water " * 30_000] * 3})
        said = error(answer)
        assert (answer.status_code, said["param"]) == (413, "input")
        assert "540,000 characters, prompts included (at most 524,288" in said["message"]
        with pytest.raises(httpx.ReadTimeout):
            client.post("/tokenize", json={"input": ["left"] * 30}, timeout=0.5)
        assert eventually(lambda: counted(client, "lusifer_clients_left_total") == 1)
        free.set()
        assert client.post("/tokenize", json={"input": "kept"}).status_code == 200 and shown == ["left", "kept"]
        first = pool.submit(client.post, "/v1/embeddings", json={"input": some_texts(40, seed=3)})
        assert slow.began.wait(10) and eventually(lambda: found.batcher.tokens > 60)
        assert client.post("/tokenize", json={"input": "a"}).status_code == 429
        slow.free.set()
        assert first.result().status_code == 200


def test_few_large_bodies_are_read_at_once(embedder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once, most, read, lock = 0, 0, bodies._parse, threading.Lock()

    def counting(*arguments: Any) -> Any:
        nonlocal at_once, most
        with lock:
            at_once, most = at_once + 1, max(most, at_once + 1)
        time.sleep(0.05)
        with lock:
            at_once -= 1
        return read(*arguments)

    monkeypatch.setattr(bodies, "_parse", counting)
    app, _ = http_server.served(embedder)
    with http_server.running(app) as client, ThreadPoolExecutor(6) as pool:
        content = b'{"input": [' + b"{}," * 100_000 + b"{}]}"
        answers = list(pool.map(lambda _: client.post("/v1/embeddings", content=content), range(6)))
        assert [answer.status_code for answer in answers] == [413] * 6
        assert "100,001 texts" in error(answers[0])["message"] and most == bodies.READ_AT_ONCE


def test_of_a_body_only_the_texts_are_kept() -> None:
    sent: list[Any] = [{"text": "water", "more": [{}] * 1000}, "stone"]
    assert bodies.Intake(1000, 10, 1000).texts(sent, "input") == ["water", "stone"] == sent


def test_a_stop_answers_what_has_begun(embedder: Any) -> None:
    slow = Slow(embedder)
    texts = some_texts(20, seed=8)
    app, found = http_server.served(slow, batch_tokens=64)
    with ThreadPoolExecutor(1) as pool:
        with http_server.running(app) as client:
            waiting = pool.submit(client.post, "/v1/embeddings", json={"input": texts})
            assert slow.began.wait(10)
            threading.Timer(0.3, slow.free.set).start()
        # The server has ended; the client read its answer.
        assert np.abs(vectors(waiting.result()) - embedder.encode(texts)).max() < 1e-6
    assert not found.batcher.alive
