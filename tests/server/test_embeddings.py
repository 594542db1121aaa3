"""What the server answers is what the library gives, whatever is asked at once; what it cannot do it says."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lusifer
from lusifer.embedder.plain import PlainEmbedder
from lusifer.server import run
from lusifer.server.metrics import Metrics
from lusifer.serving import encode
from support import http_server
from support.http_server import counted, error, some_texts, vectors

PATHS = ("/v1/embeddings", "/v1/rerank", "/tokenize")


@pytest.fixture(scope="module")
def embedder(model_folder: Path) -> Any:
    """The library's own, beside the server's."""
    return lusifer.load(model_folder, device="cpu")


@pytest.fixture(scope="module")
def client(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("served") / "tiny"
    folder.symlink_to(model_folder)
    with http_server.running(run.make([str(folder)], device="cpu")) as client:
        yield client


# Vectors


@pytest.mark.parametrize("dtype", [None, "auto", "bfloat16"])
def test_on_a_cpu_a_model_is_loaded_without_sentence_transformers(model_folder: Path, dtype: str | None) -> None:
    served = run.load(str(model_folder), Metrics(), run.Limits(), device="cpu", dtype=dtype, unscored="off")
    assert isinstance(served.embedder, PlainEmbedder)
    served.close()


@pytest.mark.parametrize("form", ["float", "base64"])
def test_a_list_has_the_vectors_of_the_library_in_order(client: httpx.Client, embedder: Any, form: str) -> None:
    texts = some_texts(60, seed=1)
    answer = client.post("/v1/embeddings", json={"input": texts, "encoding_format": form})
    assert np.abs(vectors(answer) - embedder.encode(texts)).max() < 1e-6
    assert answer.json()["object"] == "list" and answer.json()["model"] == "tiny"


def test_both_forms_have_the_same_numbers_to_the_last_bit(client: httpx.Client) -> None:
    found = [
        vectors(client.post("/v1/embeddings", json={"input": "Straße 水", "encoding_format": form}))
        for form in ("float", "base64")
    ]
    assert np.array_equal(*found)


def test_many_clients_at_once_get_each_their_own(client: httpx.Client, embedder: Any) -> None:
    asked = [some_texts(count, seed) for seed, count in enumerate([1, 1, 1, 7, 40, 1, 3, 1] * 4)]

    def ask(texts: list[str]) -> np.ndarray:
        content = texts[0] if len(texts) == 1 else texts
        return vectors(client.post("/v1/embeddings", json={"input": content, "encoding_format": "base64"}))

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, asked))
    for texts, found in zip(asked, answers, strict=True):
        assert np.abs(found - embedder.encode(texts)).max() < 1e-6


@pytest.mark.parametrize(
    ("said", "prompt"),
    [
        ({}, ""),
        ({"input_type": "query"}, ""),
        ({"task": "sts"}, "sts"),
        ({"task": "sts", "input_type": "passage"}, "sts"),
        ({"task": "retrieval", "input_type": "search_query"}, "retrieval"),
        ({"task": "retrieval", "input_type": "document"}, ""),
        ({"model": "tiny:retrieval"}, "retrieval"),
        ({"model": "tiny:retrieval:document"}, ""),
        ({"model": "tiny:query", "task": "retrieval"}, "retrieval"),
    ],
    ids=str,
)
def test_the_prompt_is_that_of_task_and_side(
    client: httpx.Client, embedder: Any, said: dict[str, str], prompt: str
) -> None:
    text = lusifer.prompts.for_task(prompt)["query"] if prompt else ""
    answer = client.post("/v1/embeddings", json={"input": "water", **said})
    assert np.abs(vectors(answer) - embedder.encode(["water"], prompt=text)).max() < 1e-6
    shown = client.post("/tokenize", json={"input": "water", **said}).json()["data"][0]
    assert (shown["text"], shown["prompt"]) == (text + "water", text)
    assert shown["count"] == answer.json()["usage"]["prompt_tokens"] == len(shown["ids"]) == len(shown["tokens"])


def test_vectors_are_cut_only_where_the_model_was_trained_for_it(embedder: Any, model_folder: Path) -> None:
    trained = lusifer.load(model_folder, device="cpu")
    trained[0].model.config.matryoshka_dims = [8]
    whole = embedder.encode(["water"])
    with http_server.running(http_server.served(trained)[0]) as client:
        short = vectors(client.post("/v1/embeddings", json={"input": "water", "dimensions": 8}))
        assert np.abs(short - whole[:, :8] / np.linalg.norm(whole[:, :8])).max() < 1e-6
        assert vectors(client.post("/v1/embeddings", json={"input": "water", "dimensions": 48})).shape == (1, 48)
        said = error(client.post("/v1/embeddings", json={"input": "water", "dimensions": 16}))
        assert said["param"] == "dimensions" and "trained for 48, 8" in said["message"]


def test_what_is_cut_is_said_in_the_answer_or_refused(client: httpx.Client, embedder: Any) -> None:
    texts = ["short", "water " * 500, "stone " * 900]
    answer = client.post("/v1/embeddings", json={"input": texts})
    count = [len(embedder.tokenizer(text, truncation=False)["input_ids"]) for text in texts]
    assert answer.json()["truncated"] == [{"index": row, "tokens": count[row], "read": 64} for row in (1, 2)]
    assert answer.json()["usage"] == {
        "prompt_tokens": count[0] + 128, "total_tokens": count[0] + 128, "truncated_texts": 2,
    }  # fmt: skip
    assert answer.headers["x-truncated-texts"] == "2"
    assert np.abs(vectors(answer) - embedder.encode(texts)).max() < 1e-6
    for none in ("none", "NONE", False):
        said = error(client.post("/v1/embeddings", json={"input": texts, "truncate": none}))
        assert said["param"] == "input[1]" and said["code"] == "context_length_exceeded"
        assert f"{count[1]:,} tokens, but the model reads 64" in said["message"]
    fits = client.post("/v1/embeddings", json={"input": "short", "truncate": "none"})
    assert "truncated" not in fits.json() and fits.headers["x-truncated-texts"] == "0"


def test_texts_that_the_model_has_no_score_for_are_counted_named_or_refused(embedder: Any) -> None:
    app, served = http_server.served(embedder)
    served.look = lambda texts: [(row, "script", "Thai") for row, text in enumerate(texts) if text == "น้ำ"]
    with http_server.running(app) as client:
        answer = client.post("/v1/embeddings", json={"input": ["water", "น้ำ", "水"]})
        assert answer.json()["unscored"] == [{"index": 1, "kind": "script", "name": "Thai"}]
        assert answer.json()["usage"]["unscored_texts"] == 1 and answer.headers["x-unscored-texts"] == "1"
        assert counted(client, "lusifer_unscored_texts_total") == 1
        plain = client.post("/v1/embeddings", json={"input": "water"})
        assert "unscored" not in plain.json() and "x-unscored-texts" not in plain.headers
        served.refuse_unscored = True
        said = error(client.post("/v1/embeddings", json={"input": ["water", "น้ำ"]}))
        assert (said["param"], said["code"]) == ("input[1]", "unscored_language") and "script Thai" in said["message"]


def test_the_languages_on_the_card_are_those_that_have_a_score(model_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(model_folder, tmp_path / "english")
    (folder / "README.md").write_text("---\nlanguage:\n- en\n---\n")
    texts = ["The river rose again after three days of rain.", "После дождя река вышла из берегов.", "water"]
    with http_server.running(run.make([str(folder)], device="cpu")) as client:
        answer = client.post("/v1/embeddings", json={"input": texts}).json()
        assert answer["unscored"] == [{"index": 1, "kind": "script", "name": "Cyrillic"}]
    with http_server.running(run.make([str(folder)], device="cpu", unscored="error")) as client:
        assert error(client.post("/v1/embeddings", json={"input": texts}))["param"] == "input[1]"
        assert client.post("/v1/embeddings", json={"input": texts[0]}).status_code == 200
    with http_server.running(run.make([str(folder)], device="cpu", unscored="off")) as client:
        assert "unscored" not in client.post("/v1/embeddings", json={"input": texts}).json()


def test_tokens_are_counted_beside_the_model_with_its_vocabulary_and_limits_of_their_own(embedder: Any) -> None:
    app, served = http_server.served(embedder)
    reader = served._reader.tokenizer
    texts = ["Hello </s> <mask> [MASK] naïve", "水は命。", "a" * 500, *some_texts(20, seed=9)]
    settings = {"truncation": False, "padding": False, "verbose": False}
    assert reader(texts, **settings)["input_ids"] == embedder.tokenizer(texts, **settings)["input_ids"]
    embedder.tokenizer(texts, truncation=True, max_length=5)
    assert reader.backend_tokenizer.truncation is None
    assert [len(ids) for ids in reader(texts, **settings)["input_ids"]] == encode.token_counts(embedder, texts)
    served.close()


def test_tokenize_shows_where_a_text_is_cut(client: httpx.Client, embedder: Any) -> None:
    text = "water " * 500
    shown = client.post("/tokenize", json={"input": text, "task": "retrieval"}).json()["data"][0]
    assert (shown["limit"], text[shown["cut_at"] :]) == (64, shown["unread"])
    read = shown["prompt"] + text[: shown["cut_at"]]
    kept = embedder.tokenizer(shown["text"], truncation=True, max_length=64)["input_ids"]
    assert embedder.tokenizer(read, truncation=False)["input_ids"] == kept


def test_rerank_orders_by_the_cosine_of_the_same_model(client: httpx.Client, embedder: Any) -> None:
    texts = some_texts(12, seed=5)
    body = {"query": "river 水", "documents": [{"text": text} for text in texts], "task": "retrieval", "top_n": 5}
    answer = client.post("/v1/rerank", json={**body, "return_documents": True, "model": "tiny:query"})
    query = embedder.encode(["river 水"], prompt=lusifer.prompts.for_task("retrieval")["query"])
    wanted = (embedder.encode(texts, prompt="") @ query[0]).tolist()
    results = answer.json()["results"]
    assert answer.json()["usage"]["truncated_texts"] == len(answer.json()["truncated"]) == 7
    assert [row["index"] for row in results] == np.argsort([-score for score in wanted])[:5].tolist()
    assert all(abs(row["relevance_score"] - wanted[row["index"]]) < 1e-5 for row in results)
    assert all(row["document"]["text"] == texts[row["index"]] for row in results)


def test_rerank_names_the_side_of_what_is_cut_or_has_no_score(embedder: Any) -> None:
    app, served = http_server.served(embedder)
    served.look = lambda texts: [(row, "script", "Thai") for row, text in enumerate(texts) if "น้ำ" in text]
    with http_server.running(app) as client:
        body = {"query": "น้ำ " * 500, "documents": ["short", "stone " * 900, "น้ำ"]}
        answer = client.post("/v1/rerank", json=body).json()
        places = [(each["field"], each["index"], each["read"]) for each in answer["truncated"]]
        assert places == [("query", 0, 64), ("documents", 1, 64)]
        assert [(each["field"], each["index"]) for each in answer["unscored"]] == [("query", 0), ("documents", 2)]
        said = error(client.post("/v1/rerank", json={**body, "truncate": "none"}))
        assert said["param"] == "query" and said["message"].startswith("query: ")


def test_times_and_counts_stand_in_the_headers(client: httpx.Client) -> None:
    headers = client.post("/v1/embeddings", json={"input": ["water", "نهر"]}).headers
    parts = [float(headers[f"x-{name}-time"]) for name in ("tokenization", "queue", "inference")]
    assert 0 < sum(parts) <= float(headers["x-total-time"]) and headers["x-compute-characters"] == "8"
    assert headers["server-timing"].startswith("tokenization;dur=") and len(headers["x-request-id"]) == 16


# Errors


@pytest.mark.parametrize(
    ("path", "body", "status", "param", "words"),
    [
        ("/v1/embeddings", {"input": [[15, 2], [7]]}, 400, "input", "check_embedding_ctx_length=False"),
        ("/v1/embeddings", {"input": [15, 2]}, 400, "input", "token ids"),
        ("/v1/embeddings", {"input": []}, 400, "input", "empty"),
        ("/v1/embeddings", {"input": 3}, 400, "input", "found int"),
        ("/v1/embeddings", {}, 400, "input", "missing"),
        ("/v1/embeddings", {"input": ["a", ""]}, 400, "input[1]", "the text is empty"),
        ("/v1/embeddings", {"input": ["a", "b\x00"]}, 400, "input[1]", "NUL character"),
        (
            "/v1/embeddings",
            {"input": ["a", "b" * 2**18 + "b"]},
            413,
            "input[1]",
            "the text has 262,145 characters (at most 262,144",
        ),
        ("/v1/embeddings", {"input": ["a", 3.5]}, 400, "input[1]", "found float"),
        ("/v1/embeddings", {"input": "a", "encoding_format": "int8"}, 400, "encoding_format", "'float' or 'base64'"),
        ("/v1/embeddings", {"input": "a", "dimensions": 16}, 400, "dimensions", "trained for 48"),
        ("/v1/embeddings", {"input": "a", "dimensions": "48"}, 400, "dimensions", "valid integer"),
        ("/v1/embeddings", {"input": "a", "dimesions": 48}, 400, "dimesions", "unknown field: use model"),
        ("/v1/embeddings", {"input": "a", "task": "retreival"}, 400, "task", "use one of retrieval"),
        ("/v1/embeddings", {"input": "a", "input_type": "image"}, 400, "input_type", "use one of query"),
        ("/v1/embeddings", {"input": "a", "truncate": "start"}, 400, "truncate", "'end' or 'none'"),
        ("/v1/embeddings", {"input": "a", "model": "gpt"}, 404, "model", "'gpt' is not served: use tiny"),
        ("/v1/embeddings", {"input": "a", "model": "tiny:sts", "task": "intent"}, 400, "model", "give one"),
        ("/v1/embeddings", {"input": "a", "model": "tiny:query", "input_type": "document"}, 400, "model", "give one"),
        ("/v1/rerank", {"query": "a", "documents": []}, 400, "documents", "empty"),
        ("/v1/rerank", {"query": "a", "documents": ["b"], "top_n": 0}, 400, "top_n", "greater than or equal to 1"),
        ("/v1/rerank", {"query": " ", "documents": ["b"]}, 400, "query", "the text is empty"),
        (
            "/v1/rerank",
            {"query": "a", "documents": ["b", "c " * 200], "truncate": "none"},
            400,
            "documents[1]",
            "split",
        ),
        ("/v1/nothing", {}, 404, None, "no such address"),
        ("/health", {}, 405, None, "POST"),
    ],
)
def test_a_wrong_call_names_the_field(
    client: httpx.Client, path: str, body: Any, status: int, param: str | None, words: str
) -> None:
    answer = client.post(path, json=body)
    said = error(answer)
    assert (answer.status_code, said["param"]) == (status, param) and words in said["message"]
    assert said["type"] == "invalid_request_error"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ("input", "query", "documents", "model", "encoding_format", "dimensions", "task", "input_type", "truncate")


@settings(max_examples=30)
@given(
    st.sampled_from(PATHS), JSON | st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4) | st.binary(max_size=9)
)
def test_no_body_brings_the_server_down(client: httpx.Client, path: str, body: Any) -> None:
    import json

    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = client.post(path, content=content)
    assert answer.status_code in (200, 400, 404)
    assert answer.status_code == 200 or error(answer)["message"]


def test_half_a_surrogate_pair_is_refused_with_its_place(client: httpx.Client) -> None:
    said = error(client.post("/v1/embeddings", content=b'{"input": ["a", "b\\ud800"]}'))
    assert said["param"] == "input[1]" and "lone surrogate U+D800" in said["message"]


def test_limits_are_named_with_what_was_sent(embedder: Any) -> None:
    app, _ = http_server.served(embedder, texts=3, body_bytes=2000)
    with http_server.running(app) as client:
        answer = client.post("/v1/embeddings", json={"input": ["a"] * 4})
        assert answer.status_code == 413 and "4 texts (at most 3 per request" in error(answer)["message"]
        answer = client.post("/v1/embeddings", json={"input": "a" * 3000})
        assert answer.status_code == 413 and "(at most 2,000, --body-bytes)" in error(answer)["message"]
        answer = client.post("/v1/embeddings", content=(b"x" * 500 for _ in range(6)))  # its size is not announced
        assert answer.status_code == 413
        assert client.post("/v1/embeddings", json={"input": ["a"] * 3}).status_code == 200


# Who may ask, and what is told


def test_every_route_but_health_needs_one_of_the_keys(model_folder: Path) -> None:
    app = run.make([str(model_folder)], keys=["first", "zweiter Schlüssel"], device="cpu")
    inner = app.app
    paths = {route.path.replace("{name:path}", model_folder.name) for route in inner.routes if hasattr(route, "path")}
    assert {"/", "/health", "/metrics", "/ready", *PATHS} <= paths
    with http_server.running(app) as client:
        for path in sorted(paths | {"/nothing"}):
            for method in ("GET", "POST", "OPTIONS"):
                for header in ({}, {"Authorization": "Bearer third"}, {"Authorization": "Digest first"}):
                    status = client.request(method, path, headers=header).status_code
                    assert (status == 401) == (path != "/health"), (method, path)
        basic = base64.b64encode("me:zweiter Schlüssel".encode()).decode()
        for words in ("Bearer first", "bearer first", "Bearer zweiter Schlüssel".encode(), f"Basic {basic}"):
            answer = client.post("/v1/embeddings", json={"input": "a"}, headers={"Authorization": words})
            assert answer.status_code == 200
        for words in ("Basic !", "Basic é".encode(), "Basic é".encode("latin-1"), "Basic /w==", "Bearer é".encode()):
            answer = client.get("/v1/models", headers={"Authorization": words})
            assert answer.status_code == 401 and error(answer)["type"] == "authentication_error"
            assert "wrong" in error(answer)["message"]


def test_models_are_listed_and_found_by_their_aliases(client: httpx.Client) -> None:
    (about,) = client.get("/v1/models").json()["data"]
    assert (about["id"], about["object"], about["dimensions"], about["max_tokens"]) == ("tiny", "model", [48], 64)
    assert client.get("/v1/models/tiny:query").json()["id"] == "tiny:query"
    assert client.get("/v1/models/other").status_code == 404
    assert client.get("/v1/models/tiny:nonsense").status_code == 400


def test_bodies_are_described_as_they_are_read(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    for path in (*PATHS, "/search"):
        schema = paths[path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert schema["additionalProperties"] is False and set(schema["required"]) < set(schema["properties"])
        body = {name: ["a"] if name == "documents" else "a" for name in schema["required"]}
        said = error(client.post(path, json=body | {"nonsense": 1}))
        assert said["message"] == f"nonsense: unknown field: use {', '.join(schema['properties'])}"


def test_metrics_count_texts_tokens_and_what_is_cut(client: httpx.Client) -> None:
    names = ("lusifer_texts_total", "lusifer_tokens_total", "lusifer_truncated_texts_total", "lusifer_batch_texts_sum")
    before = [counted(client, name) for name in names]
    usage = client.post("/v1/embeddings", json={"input": ["a", "water " * 200]}).json()["usage"]
    after = [counted(client, name) for name in names]
    assert [new - old for new, old in zip(after, before, strict=True)] == [2, usage["total_tokens"], 1, 2]
    assert counted(client, "lusifer_queue_tokens") == 0


def test_two_models_are_told_apart_by_name(model_folder: Path, tmp_path: Path) -> None:
    links = [str(tmp_path / name) for name in ("one", "two")]
    for link in links:
        Path(link).symlink_to(model_folder)
    with pytest.raises(lusifer.errors.UsageError, match="two models have the name"):
        run.make([links[0], links[0]])
    with http_server.running(run.make(links, device="cpu")) as client:
        assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["one", "two"]
        assert client.post("/v1/embeddings", json={"input": "a", "model": "two:query"}).status_code == 200
        assert error(client.post("/v1/embeddings", json={"input": "a"}))["param"] == "model"
