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
from lusifer.index.disk import filters
from lusifer.index.index import Index
from lusifer.server import run
from lusifer.server.bodies import EmbeddingsBody, RerankBody, SearchBody, TokenizeBody
from support import http_server
from support.fuzzing import COUNTS, ODD, TOTAL, any_text, damaged, inputs, values

pytestmark = pytest.mark.slow
BODIES = {
    "/v1/embeddings": {"input": ["one", "zwei"], "encoding_format": "float", "model": "tiny"},
    "/v1/rerank": {"query": "one", "documents": ["one", "zwei"], "top_n": 1},
    "/tokenize": {"input": "one"},
    "/search": {"query": "one", "where": "year > 2000 AND lang = 'de'", "mode": "hybrid", "top_k": 2},
}
KINDS = {
    "/v1/embeddings": EmbeddingsBody, "/v1/rerank": RerankBody, "/tokenize": TokenizeBody, "/search": SearchBody
}  # fmt: skip
SLOWEST = 10
"""Seconds after which an answer of a few words came too late, on a busy machine."""
PIECES = [
    *ODD, "lang", "year", "id", "text", "nothing", "`lang`", "'de'", "'", "''", "2000", "1.5e3", "1e999", "-", "+", "*",
    "/", "%", "=", "!=", "<>", "<", ">=", "(", ")", ",", ".", "AND", "or", "NOT", "IN", "BETWEEN", "LIKE", "'%_%'",
    "IS", "NULL", "TRUE", "CAST(year AS text)", "CAST(", "AS", "bigint", "DATE '2024-01-31'", "DATE 'x'", "lower(lang)",
    "round(year, 2)", "regexp_like(lang, '(a+)+$')", "lpad(lang, 2147483647)", "repeat('a', 999999999)", "-- ", "/*",
    "; DROP TABLE x", "1+" * 99, "(" * 40, "NOT " * 40, "x" * 300, " OR year = 1" * 200,
]  # fmt: skip
"""What conditions are made of, right ones and others."""
PLAIN = [
    "lang", "year", "id", "text", "nothing", "chunk", "2000", "0", "9223372036854775807", "1e308", "0.1", "TRUE",
    "NULL", "''", "'de'", "'2000'", "'(a+)+$'", "'[a-z]{999}{999}'", "'%_%\\'", "'🙂'", "DATE '2024-01-31'",
    "DATE '9999999-01-01'",
]  # fmt: skip
"""Values that the grammar of conditions lets through, whatever LanceDB makes of them."""


def conditions() -> st.SearchStrategy[str]:
    """Conditions that are right as far as the grammar goes, and may make no sense."""

    def more(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return st.one_of(
            st.tuples(inner, st.sampled_from("+-*/%"), inner).map(" ".join),
            inner.map("- {}".format),
            inner.map("({})".format),
            st.tuples(st.sampled_from(sorted(filters.FUNCTIONS)), st.lists(inner, max_size=3).map(", ".join)).map(
                lambda parts: f"{parts[0]}({parts[1]})"
            ),
            st.tuples(inner, st.sampled_from(sorted(filters.TYPES))).map(lambda parts: "CAST({} AS {})".format(*parts)),
        )

    value = st.recursive(st.sampled_from(PLAIN), more, max_leaves=6)
    test = st.one_of(
        value,
        st.tuples(value, st.sampled_from(["=", "==", "!=", "<>", "<", ">=", "LIKE", "NOT ILIKE"]), value).map(" ".join),
        st.tuples(value, st.lists(value, min_size=1, max_size=4).map(", ".join)).map(
            lambda parts: "{} NOT IN ({})".format(*parts)
        ),
        st.tuples(value, value, value).map(lambda parts: "{} BETWEEN {} AND {}".format(*parts)),
        st.tuples(value, st.sampled_from(["NULL", "NOT NULL", "TRUE", "NOT FALSE"])).map(" IS ".join),
    )
    return st.lists(test, min_size=1, max_size=4).flatmap(
        lambda tests: st.sampled_from([" AND ", " OR ", " AND NOT "]).map(lambda word: word.join(tests))
    )


@pytest.fixture(scope="module")
def app(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("served") / "tiny"
    folder.symlink_to(model_folder)
    index = Index.create(folder.parent / "index", folder, embedder=lusifer.load(folder, device="cpu"))
    years = (1999, None, 2001, 2020)
    index.add([{"id": str(row), "text": f"Text {row}", "lang": "de", "year": year} for row, year in enumerate(years)])
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
    assert answer.elapsed.total_seconds() < SLOWEST
    COUNTS[surface, "refused" if answer.status_code >= 400 else "accepted"] += 1


def test_every_field_is_drawn() -> None:
    assert KINDS.keys() == BODIES.keys() and all(
        BODIES[path].keys() <= KINDS[path].model_fields.keys() for path in KINDS
    )


@pytest.mark.parametrize("path", BODIES)
def test_bodies_of_any_values_are_answered(client: httpx.Client, path: str) -> None:
    changes = st.dictionaries(st.sampled_from([*KINDS[path].model_fields, "other"]), values(), max_size=3)

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


def test_any_condition_is_answered(client: httpx.Client) -> None:
    """It reaches the database, or says what is wrong with it; what is right is not refused for what came before."""
    written = st.lists(st.sampled_from(PIECES), max_size=9).map(" ".join) | conditions() | any_text()

    @inputs(0.03, 60)
    @given(written, st.sampled_from(["vector", "hybrid", "words"]))
    def check(where: str, mode: str) -> None:
        content = json.dumps({"query": "text", "where": where, "mode": mode}).encode("utf-8", "surrogatepass")
        answered("served, conditions", client.post("/search", content=content))

    check()
    for where, wanted in (
        ("year > 2000 OR year IS NULL", {"1", "2", "3"}),
        ("lang = 'de' AND NOT year = 1999", {"2", "3"}),
    ):
        found = client.post("/search", json={"query": "text", "where": where}).json()["results"]
        assert {hit["id"] for hit in found} == wanted


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
            assert answer.status_code < 500 and answer.elapsed < SLOWEST, answer.text
            case.validate_response(answer, checks=[schemathesis.checks.not_a_server_error])
            COUNTS["served, schemathesis", "refused" if answer.status_code >= 400 else "accepted"] += 1
            checked += 1

        check()
    assert checked >= (TOTAL * 0.01 or 30)
