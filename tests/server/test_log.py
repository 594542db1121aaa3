"""What clients send stays within the lines of the log, and is repeated to them only in part."""

from __future__ import annotations

import io
import logging
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import lusifer
from lusifer.index.index import Index
from lusifer.server import run
from lusifer.server.errors import MOST_LOGGED, MOST_SAID, LogLine, cut
from support import http_server

LONG = "x" * 300_000
EVIL = "/%1b]0;owned%07%1b[2J%c2%9b%e2%80%ae%0alusifer:%20GET%20/%20200:%20forged%e2%80%a8lusifer:%20forged"


@pytest.fixture(scope="module")
def client(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("log") / "tiny"
    folder.symlink_to(model_folder)
    index = Index.create(folder.parent / "index", folder, embedder=lusifer.load(folder, device="cpu"))
    index.add([{"id": "a", "text": "one"}])
    keys = {"authorization": "Bearer k"}
    app = run.make([str(folder)], keys=["k"], device="cpu", indexes=[index.folder])
    with http_server.running(app, headers=keys) as client:
        yield client


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What the log says, in the lines that `lusifer serve` writes."""
    said, logger = io.StringIO(), logging.getLogger("lusifer")
    handler = logging.StreamHandler(said)
    handler.setFormatter(LogLine())
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield said
    logger.removeHandler(handler)
    logger.setLevel(before)


def whole(said: str, lines: int) -> None:
    assert len(said.splitlines()) == lines, said
    assert all(line.startswith("lusifer: ") and line.isprintable() for line in said.splitlines())
    assert max(map(len, said.splitlines())) < MOST_LOGGED + 20


@pytest.mark.parametrize(
    ("path", "key", "status"),
    [(EVIL, "no", 401), (f"/v1/models{EVIL.replace('%0a', '%0d')}", "k", 404), ("/" + "y" * 9000, "no", 401)],
)
def test_an_address_cannot_steer_the_terminal_or_forge_a_line(
    client: httpx.Client, log: io.StringIO, path: str, key: str, status: int
) -> None:
    answer = client.get(path, headers={"authorization": f"Bearer {key}"})
    assert answer.status_code == status
    whole(log.getvalue(), 1)
    assert "y" in path or "\\u001b[2J" in log.getvalue()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"input": "a", "model": LONG}),
        ("/v1/embeddings", {"input": "a", "model": f"tiny:{LONG}"}),
        ("/v1/embeddings", {"input": "a", "task": LONG}),
        ("/v1/embeddings", {"input": "a", "input_type": LONG}),
        ("/v1/embeddings", {"input": "a", "encoding_format": LONG}),
        ("/v1/embeddings", {"input": "a", "dimensions": [LONG]}),
        ("/v1/embeddings", {"input": "a", LONG: 1}),
        ("/v1/embeddings", {"input": "a", "model": "z" * 900}),
        ("/search", {"query": "a", "where": f"nothing = '{LONG}"}),
        ("/search", {"query": "a", "where": LONG}),
        ("/search", {"query": "a", "language": LONG}),
        ("/search", {"query": "a", "model": LONG}),
    ],
)
def test_a_long_value_is_repeated_in_part(client: httpx.Client, log: io.StringIO, path: str, body: Any) -> None:
    answer = client.post(path, json=body)
    said = http_server.error(answer)
    assert 400 <= answer.status_code < 500 and len(answer.content) < 2 * MOST_SAID
    assert len(said["message"]) <= MOST_SAID and len(said["param"] or "") <= 200
    whole(log.getvalue(), 1)


def test_a_deep_value_is_refused_with_its_kind(client: httpx.Client) -> None:
    """Where it can just be read, it may be too deep to be written again."""
    for depth in (1, *range(900, 1000)):
        answer = client.post("/v1/embeddings", content=f'{{"input": "a", "dimensions": {"[" * depth}{"]" * depth}}}')
        assert answer.status_code == 400, depth


def test_an_address_that_is_none_is_answered(client: httpx.Client) -> None:
    head = b"GET /nowhere HTTP/1.1\r\nHost: [\r\nAuthorization: Bearer k\r\nConnection: close\r\n\r\n"
    with socket.create_connection((client.base_url.host, client.base_url.port)) as other:
        other.sendall(head)
        assert other.makefile("rb").readline() == b"HTTP/1.1 404 Not Found\r\n"


def test_a_traceback_is_set_in_and_bounded() -> None:
    try:
        raise ValueError("\x1b[2J\nlusifer: forged\n" + "line\n" * 10_000 + LONG)
    except ValueError:
        record = logging.LogRecord("other", logging.ERROR, "", 1, "%s", ("a\tb\nc",), sys.exc_info())
    first, *trace = LogLine().format(record).split("\n")
    assert first == "lusifer: a\tb\\u000ac"
    assert 10 < len(trace) < 100 and all(line.startswith("    ") and len(line) < 600 for line in trace)
    assert not any("\x1b" in line for line in trace)


def test_both_ends_of_what_is_cut_are_shown() -> None:
    assert cut("a" * 200) == "a" * 200
    assert cut("a" * 300 + "b" * 300) == "a" * 150 + " ... " + "b" * 45
