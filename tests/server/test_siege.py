"""The server under siege, in small: hostile clients get what is promised, honest ones their vectors."""

from __future__ import annotations

import asyncio
import importlib
import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import lusifer
from lusifer.index.index import Index
from lusifer.server import run
from lusifer.server.connections import Patience
from support import http_server
from support.http_server import eventually

PATIENCE = Patience(headers=1, body=1, rate=2**22, connections=30)
ATTACKS = [
    "slow_headers", "slow_bodies", "half_requests", "silent_connections", "giant_headers", "tiny_chunks",
    "giant_bodies", "wrong_bodies", "no_http", "pipelined", "slow_readers", "full_queue", "filters",
]  # fmt: skip


@pytest.fixture(scope="module")
def siege() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
        return importlib.import_module("siege")


@pytest.fixture(scope="module")
def client(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    place = tmp_path_factory.mktemp("siege") / "index"
    index = Index.create(place, model_folder, embedder=lusifer.load(model_folder, device="cpu"))
    index.add([{"id": str(row), "text": f"water {row}", "lang": "de", "year": row} for row in range(20)])
    limits = run.Limits(patience=PATIENCE, body_bytes=2**21, queue_tokens=4096)
    app = run.make([str(model_folder)], limits, device="cpu", indexes=[place])
    with http_server.running(app, PATIENCE) as client:
        yield client


@pytest.mark.slow
@pytest.mark.parametrize("name", ATTACKS)
def test_hostile_clients_get_what_is_promised_and_honest_ones_their_vectors(
    name: str, siege: Any, client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    address = (client.base_url.host, client.base_url.port)
    scale = siege.Scale(clients=12, connections=60, seconds=0.3, longest=8, lists=100, characters=1000, body=2**21)
    with caplog.at_level(logging.ERROR):
        seen = asyncio.run(siege.attack(getattr(siege, name), address, scale))
    assert seen.got and not seen.wrong, seen.got
    assert seen.honest and not seen.lost and max(seen.honest) < 5
    assert not caplog.records, caplog.text


@pytest.mark.parametrize(
    ("request_", "status", "said"),
    [
        (b"X: y\r\n" * 3_000 + b"\r\n", 431, "the headers are too long: send at most 16,384 bytes"),
        (b"X: " + b"y" * 16_000 + b"\r\nContent-Length: 14\r\n\r\n" + b'{"input": "a"}', 200, ""),
        (
            b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 5_000,
            413,
            "chunks of 1 bytes: send fewer and larger",
        ),
        (
            b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 3_000 + b'E\r\n{"input": "a"}\r\n0\r\n\r\n',
            200,
            "",
        ),
    ],
)
def test_limits_hold_for_what_comes_at_once(
    request_: bytes, status: int, said: str, siege: Any, client: httpx.Client
) -> None:
    """Also for the second request of a connection, whose bytes came with the first."""
    whole = siege.HEAD + request_
    for before in (b"", siege.request(b'{"input": "a"}')):
        with socket.create_connection((client.base_url.host, client.base_url.port), timeout=20) as other:
            other.sendall(before + whole)
            stream = other.makefile("rb")
            for wanted in [200] * bool(before) + [status]:
                assert stream.readline().split()[1] == str(wanted).encode()
                length = 0
                while (line := stream.readline()) != b"\r\n":
                    length = int(line[15:]) if line.lower().startswith(b"content-length") else length
                body = stream.read(length).decode()
            assert said in body


def test_a_connection_that_works_gives_no_room(model_folder: Path) -> None:
    slow = http_server.Slow(lusifer.load(model_folder, device="cpu"))
    app, _ = http_server.served(slow)
    with http_server.running(app, Patience(connections=1)) as client:
        first = asyncio.new_event_loop()
        task = first.create_task(
            httpx.AsyncClient(trust_env=False).post(f"{client.base_url}/v1/embeddings", json={"input": "a"})
        )
        first.run_until_complete(asyncio.wait([task], timeout=0.5))
        assert slow.began.wait(5)
        refused = client.get("/health")
        assert refused.status_code == 503 and refused.headers["Retry-After"] == "1"
        assert "1 clients are connected" in http_server.error(refused)["message"]
        slow.free.set()
        assert first.run_until_complete(task).status_code == 200
        assert eventually(lambda: client.get("/health").status_code == 200)
        first.close()


@pytest.mark.slow
def test_too_slow_says_how_slow(client: httpx.Client, siege: Any) -> None:
    def drip() -> Iterator[bytes]:
        yield b'{"input"'
        time.sleep(1.5)
        yield b': "a"}'

    answer = client.post("/v1/embeddings", content=drip(), headers={"Content-Length": "14"})
    said = http_server.error(answer)
    assert answer.status_code == 408 and said["code"] == "too_slow"
    assert "only 8 bytes of the body arrived in" in said["message"]
