"""Whatever is sent to the server, the answer is right or says what is wrong with the request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import schemathesis
from hypothesis import given
from hypothesis import strategies as st

import lusifer
from lusifer.index.index import Index
from lusifer.server import run
from support import http_server
from support.fuzzing import COUNTS, TOTAL, damaged, inputs, values

pytestmark = pytest.mark.slow
BODIES = {
    "/v1/embeddings": {"input": ["one", "zwei"], "encoding_format": "float", "model": "tiny"},
    "/v1/rerank": {"query": "one", "documents": ["one", "zwei"], "top_n": 1},
    "/tokenize": {"input": "one"},
    "/search": {"query": "one"},
}


@pytest.fixture(scope="module")
def app(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("served") / "tiny"
    folder.symlink_to(model_folder)
    index = Index.create(folder.parent / "index", folder, embedder=lusifer.load(folder, device="cpu"))
    index.add([{"id": str(row), "text": f"Text {row}"} for row in range(4)])
    return run.make([str(folder)], device="cpu", indexes=[index.folder])


@pytest.fixture(scope="module")
def client(app: Any) -> Iterator[httpx.Client]:
    with http_server.running(app) as client:
        yield client


def answered(surface: str, answer: httpx.Response) -> None:
    """An answer is right JSON without NaN, or an error in the form of OpenAI's."""
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert answer.json()["error"]["message"].strip(), answer.text
    else:
        numbers = [row["embedding"] for row in answer.json().get("data", ()) if isinstance(row.get("embedding"), list)]
        assert np.isfinite(np.array(numbers, dtype=float)).all()
    COUNTS[surface, "refused" if answer.status_code >= 400 else "accepted"] += 1


@pytest.mark.parametrize("path", BODIES)
def test_bodies_of_any_values_are_answered(client: httpx.Client, path: str) -> None:
    changes = st.dictionaries(st.sampled_from([*BODIES[path], "model", "user", "other"]), values(), max_size=3)

    @inputs(0.03, 20)
    @given(changes | values(), st.booleans())
    def check(changed: Any, whole: bool) -> None:
        body = {**BODIES[path], **changed} if whole and isinstance(changed, dict) else changed
        content = json.dumps(body).encode("utf-8", "surrogatepass")
        answered(f"served {path}", client.post(path, content=content, headers={"content-type": "application/json"}))

    check()


@pytest.mark.parametrize("path", BODIES)
def test_damaged_bodies_are_answered(client: httpx.Client, path: str) -> None:
    @inputs(0.02, 12)
    @given(damaged(json.dumps(BODIES[path]).encode()), st.sampled_from(["application/json", "text/plain", "", "a/b"]))
    def check(content: bytes, kind: str) -> None:
        answered(f"served {path}", client.post(path, content=content, headers={"content-type": kind}))

    check()


def test_the_published_description_is_true(app: Any, client: httpx.Client) -> None:
    """schemathesis asks what `/openapi.json` promises, and what it does not, and looks at the answers."""
    schema = schemathesis.openapi.from_url(f"{client.base_url}/openapi.json")
    checked = 0
    for found in schema.get_all_operations():
        operation = found.ok()

        @inputs(0.01, 8)
        @given(operation.as_strategy())
        def check(case: Any) -> None:
            nonlocal checked
            answer = case.call(base_url=str(client.base_url))
            assert answer.status_code < 500, answer.text
            case.validate_response(answer, checks=[schemathesis.checks.not_a_server_error])
            COUNTS["served, schemathesis", "refused" if answer.status_code >= 400 else "accepted"] += 1
            checked += 1

        check()
    assert checked >= (TOTAL * 0.01 or 30)
