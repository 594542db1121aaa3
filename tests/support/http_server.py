"""A server of tests: an application on a free port of this machine, in a thread, and an embedder that waits."""

from __future__ import annotations

import base64
import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np

from lusifer.server import run
from lusifer.server.connections import Patience, listen
from lusifer.server.metrics import Metrics
from lusifer.server.served import Served

WORDS = "river воды 水 नदी maji نهر stone Straße 🙂 </s> <mask> naïve".split()


@contextmanager
def running(app: Any, patience: Patience | None = None, **settings: Any) -> Iterator[httpx.Client]:
    """A client of the application while it runs; `settings` are the client's."""
    server = run.server(app, patience)
    with listen("127.0.0.1", 0) as found:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [found]})
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.005)
        address = f"http://127.0.0.1:{found.getsockname()[1]}"
        with httpx.Client(base_url=address, timeout=30, trust_env=False, **settings) as client:
            try:
                yield client
            finally:
                server.should_exit = True
                thread.join()


def served(embedder: Any, name: str = "tiny", **limits: Any) -> tuple[Any, Served]:
    """An application around an embedder, and the model in it."""
    metrics, bounds = Metrics(), run.Limits(**limits)
    found = run.start(name, "0123", embedder, metrics, bounds)
    return run.assemble([found], metrics, bounds), found


class Slow:
    """An embedder that works when it is let, and remembers its batches; all else is the one that it is around."""

    def __init__(self, embedder: Any) -> None:
        self._embedder, self.free, self.began = embedder, threading.Event(), threading.Event()
        self.batches: list[list[str]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._embedder, name)

    def __getitem__(self, place: int) -> Any:
        return self._embedder[place]

    def encode(self, texts: Sequence[str], **settings: Any) -> np.ndarray:
        """As the embedder's, once `free` is set."""
        self.batches.append(list(texts))
        self.began.set()
        assert self.free.wait(30)
        return self._embedder.encode(texts, **settings)


def counted(client: httpx.Client, name: str) -> float:
    """The sum of a metric over its labels."""
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.partition("{")[0].partition(" ")[0] == name)


def eventually(holds: Any, seconds: float = 10) -> bool:
    """Whether something becomes true in time."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def some_texts(count: int, seed: int, longest: int = 40) -> list[str]:
    """Texts of 1 to `longest` words, scripts mixed within each."""
    chance = random.Random(seed)
    return [" ".join(chance.choices(WORDS, k=chance.randint(1, longest))) for _ in range(count)]


def vectors(answer: httpx.Response) -> np.ndarray:
    """The vectors of an answer, in either form."""
    assert answer.status_code == 200, answer.text
    data = answer.json()["data"]
    assert [row["index"] for row in data] == list(range(len(data)))
    if isinstance(data[0]["embedding"], str):
        return np.stack([np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in data])
    return np.array([row["embedding"] for row in data], dtype=np.float32)


def error(answer: httpx.Response) -> dict[str, Any]:
    """What an answer says of an error, in OpenAI's form."""
    body = answer.json()
    assert answer.status_code >= 400 and set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"} and "\n" not in body["error"]["message"]
    return body["error"]
