"""`/search` over HTTP finds what the index itself finds, by the models that may ask it."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

import lusifer
from lusifer.cli import main
from lusifer.embedder.identity import identity
from lusifer.errors import LusiferError, MissingExtraError, UsageError
from lusifer.index import table
from lusifer.index.index import Index
from lusifer.server import run
from lusifer.server import search as searching
from lusifer.server.bodies import SearchBody
from lusifer.server.errors import ApiError
from lusifer.server.served import Timing
from lusifer.serving import guard
from support import http_server

DOCUMENTS = [
    {"id": "a", "text": "The river rose.", "lang": "en", "year": 1999},
    {"id": "b", "text": "Mto ulijaa maji.", "lang": "sw", "year": 2020},
    {"id": "c", "text": "水从山上流下来。", "lang": "zh", "year": 2021},
]


@pytest.fixture(scope="module")
def folder(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models `maker`, `reader` (trained into its space) and `stranger`, and an index of the first."""
    root = tmp_path_factory.mktemp("search")
    (root / "maker").symlink_to(model_folder)
    for name, space in (("reader", identity(model_folder)), ("stranger", "0" * 12)):
        shutil.copytree(model_folder, root / name)
        for file, change in (
            ("config.json", {"space": {"name": "maker", "identity": space}}),
            ("config_sentence_transformers.json", {"prompts": {"query": "Ask: ", "document": "", name: "x"}}),
        ):
            said = json.loads((root / name / file).read_text()) | change
            (root / name / file).write_text(json.dumps(said))
    Index.create(root / "rivers", root / "maker").add(DOCUMENTS)
    return root


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[httpx.Client]:
    models = [str(folder / name) for name in ("maker", "reader", "stranger")]
    with http_server.running(run.make(models, indexes=[folder / "rivers"], device="cpu")) as client:
        yield client


@pytest.mark.parametrize("name", ["maker", "reader"])
def test_the_hits_are_those_of_the_index(client: httpx.Client, folder: Path, name: str) -> None:
    index = Index.open(folder / "rivers", folder / name)
    for more in ({}, {"where": "year > 2000"}, {"mode": "words"}, {"mode": "hybrid", "top_k": 2}):
        answer = client.post("/search", json={"query": "river 水", "model": name, **more})
        assert answer.status_code == 200, answer.text
        wanted = index.search("river 水", **more)[0]
        found = answer.json()["results"]
        assert [hit["id"] for hit in found] == [hit.id for hit in wanted]
        for hit, each in zip(found, wanted, strict=True):
            assert (hit["text"], hit["fields"]) == (each.text, each.fields)
            assert hit["score"] is each.score is None or abs(hit["score"] - each.score) < 1e-5


def test_models_over_one_index_hold_its_vectors_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, kind = [], table.Snapshot
    monkeypatch.setattr(table, "Snapshot", lambda *parts: made.append(kind(*parts)) or made[-1])
    models = [str(folder / name) for name in ("maker", "reader")]
    with http_server.running(run.make(models, indexes=[folder / "rivers"], device="cpu")) as client:
        for name in ("maker", "reader"):
            assert client.post("/search", json={"query": "river", "model": name}).status_code == 200
    assert len(made) == 1


def test_what_cannot_be_asked_is_refused(client: httpx.Client) -> None:
    for body, status, param, words in (
        ({"query": "river", "model": "stranger"}, 400, "model", "stranger has no index here: use maker, reader"),
        ({"query": "river"}, 400, "model", "missing"),
        ({"query": "", "model": "maker"}, 400, "query", "empty"),
        ({"query": "river", "model": "maker", "top_k": 0}, 400, "top_k", "greater than or equal to 1"),
        ({"query": "river", "model": "maker", "where": "no_such_field = 3"}, 400, "where", "no_such_field"),
    ):
        answer = client.post("/search", json=body)
        said = answer.json()["error"]
        assert (answer.status_code, said["param"]) == (status, param) and words in said["message"]
    about = {model["id"]: model["index"] for model in client.get("/v1/models").json()["data"]}
    assert about == {"maker": "rivers", "reader": "rivers", "stranger": None}


def test_what_is_said_of_a_question_stands_in_the_body(client: httpx.Client) -> None:
    body = {"query": "water " * 500, "model": "maker"}
    answer = client.post("/search", json=body)
    (cut,) = answer.json()["truncated"]
    assert cut["index"] == 0 and cut["tokens"] > cut["read"] == 64 and answer.headers["x-truncated-texts"] == "1"
    assert answer.json()["usage"] == {"prompt_tokens": 64, "total_tokens": 64, "truncated_texts": 1}
    said = client.post("/search", json=body | {"truncate": "none"})
    assert said.status_code == 400 and said.json()["error"]["param"] == "query"
    assert said.json()["error"]["code"] == "context_length_exceeded"
    words = client.post("/search", json=body | {"mode": "words", "truncate": "none"}).json()
    assert words["usage"]["total_tokens"] == 0 and "truncated" not in words


def test_an_index_that_is_gone_or_embedded_anew_is_no_fault_of_the_filter(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place, away = tmp_path / "towns", tmp_path / "away"
    Index.create(place, folder / "maker").add(DOCUMENTS)
    body = {"query": "river", "where": "year > 2000"}
    app = run.make([str(folder / "maker")], indexes=[place], device="cpu")
    with http_server.running(app) as client, caplog.at_level(logging.ERROR):
        assert client.post("/search", json=body).status_code == 200
        place.rename(away)
        for mode in ("vector", "words"):
            answer = client.post("/search", json=body | {"mode": mode})
            said = answer.json()["error"]
            assert (answer.status_code, said["param"]) == (503, None)
            assert "the index towns is missing" in said["message"]
            assert "restore it, or restart the server" in said["message"]
        assert len(caplog.records) == 1 and "restore it, or restart the server" in caplog.text
        shutil.copytree(away, place)
        assert client.post("/search", json=body).status_code == 200
        shutil.rmtree(place)
        Index.create(place, folder / "maker", tokens=20).add(DOCUMENTS)
        for where in (None, "year > 2000"):
            assert client.post("/search", json=body | {"where": where}).status_code == 503
        assert len(caplog.records) == 2 and "embedded again" in caplog.records[1].getMessage()
        assert "open it again" not in caplog.text


def test_searches_that_wait_are_bounded_and_hold_up_nothing_else(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began, free, search = threading.Event(), threading.Event(), Index.search

    def slow(*arguments: Any, **settings: Any) -> Any:
        began.set()
        assert free.wait(30)
        return search(*arguments, **settings)

    monkeypatch.setattr(Index, "search", slow)
    monkeypatch.setattr(searching, "WAITING", 1)
    app = run.make([str(folder / "maker")], indexes=[folder / "rivers"], device="cpu")
    with http_server.running(app) as client, ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, "/search", json={"query": "river", "mode": "words"})
        assert began.wait(10)
        for mode in ("words", "vector"):
            answer = client.post("/search", json={"query": "river", "mode": mode})
            assert answer.status_code == 429 and int(answer.headers["Retry-After"]) >= 1
            assert "1 searches wait (at most 1)" in answer.json()["error"]["message"]
        assert client.post("/v1/embeddings", json={"input": "river"}).status_code == 200
        free.set()
        assert first.result().status_code == 200
        said = client.post("/search", json={"query": "river " * 1000, "mode": "hybrid"})
        assert said.status_code == 413 and "keyword search reads at most 4,096" in said.json()["error"]["message"]


@pytest.mark.parametrize("broken", ["search", "__len__"])
def test_of_an_index_that_cannot_be_read_the_folder_goes_to_the_log_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    def damaged(index: Index, *_: Any, **__: Any) -> Any:
        raise LusiferError(f"{index.folder}: a file of the index is lost or damaged: restore it from a copy")

    app = run.make([str(folder / "maker")], indexes=[folder / "rivers"], device="cpu")
    with http_server.running(app) as client, caplog.at_level(logging.ERROR):
        for name in {"search", broken}:
            monkeypatch.setattr(Index, name, damaged)
        for _ in range(2):
            answer = client.post("/search", json={"query": "river"})
            said = answer.json()["error"]["message"]
            assert (answer.status_code, said) == (503, "the index rivers cannot be read: see the server's log")
        assert len(caplog.records) == 1 and f"{folder / 'rivers'}: a file of the index is lost" in caplog.text


def test_an_index_embedded_anew_while_it_was_read_is_asked_once_more(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search, asked = Index.search, []

    def once(index: Index, *arguments: Any, **settings: Any) -> Any:
        asked.append(arguments)
        if len(asked) == 1:
            raise LusiferError(f"{index.folder}: was embedded again while it was read: try again")
        return search(index, *arguments, **settings)

    monkeypatch.setattr(Index, "search", once)
    app = run.make([str(folder / "maker")], indexes=[folder / "rivers"], device="cpu")
    with http_server.running(app) as client:
        assert client.post("/search", json={"query": "river"}).status_code == 200
    assert len(asked) == 2


def test_searches_whose_question_is_being_embedded_are_counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "WAITING", 5)
    _, served = http_server.served(lusifer.load(folder / "maker", device="cpu"))
    searcher = searching.Searcher(Index.open(folder / "rivers", folder / "maker"), served, None)
    body = SearchBody(query="river")

    async def many(count: int) -> list[Any]:
        return await asyncio.gather(*(searcher.find(body, Timing()) for _ in range(count)), return_exceptions=True)

    try:
        for _ in range(2):  # and what is over is no longer counted
            found = asyncio.run(many(100))
            refused = [one for one in found if isinstance(one, ApiError)]
            assert len(refused) == 95 and {one.http_status for one in refused} == {429}
            assert all(one[0] for one in found if one not in refused)
    finally:
        searcher.close()
        served.close()


def test_an_index_that_no_model_may_ask_is_refused_at_the_start(folder: Path) -> None:
    with pytest.raises(UsageError, match="was made by .*, but .*gives other vectors"):
        run.make([str(folder / "stranger")], indexes=[folder / "rivers"], device="cpu")


def test_without_an_index_it_says_so(model_folder: Path) -> None:
    app, _ = http_server.served(lusifer.load(model_folder, device="cpu"))
    with http_server.running(app) as client:
        answer = client.post("/search", json={"query": "river"})
        assert answer.status_code == 404 and "start the server with --index" in answer.json()["error"]["message"]


@pytest.fixture(scope="module")
def statistics(folder: Path) -> Path:
    """The file of `maker`'s statistics, beside the models."""
    file = folder / "maker.safetensors"
    assert main(["calibrate", str(folder / "maker"), "--parallel", "sample", "--output", str(file)]) == 0
    return file


def test_calibrated_scores_are_those_of_the_index(folder: Path, statistics: Path) -> None:
    index = Index.open(folder / "rivers", folder / "maker")
    app = run.make([str(folder / "maker")], indexes=[folder / "rivers"], statistics=[statistics], device="cpu")
    with http_server.running(app) as client:
        plain = client.post("/search", json={"query": "river"}).json()
        assert "language" not in plain and all("calibrated" not in hit for hit in plain["results"])
        for language in ("sw", "el"):
            body = {"query": "river", "calibrated": True, "language": language}
            answer = client.post("/search", json=body).json()
            (wanted,) = index.search("river", calibrated=True, languages=language, statistics=statistics)
            assert answer["language"] == (language if language == "sw" else None)
            found = [(hit["id"], hit["calibrated"]) for hit in answer["results"]]
            assert found == [(hit.id, pytest.approx(hit.calibrated, rel=1e-3)) for hit in wanted]
            least = sorted(hit.calibrated for hit in wanted)[1]
            some = client.post("/search", json=body | {"min_score": least - 1e-4}).json()["results"]
            assert len(some) == 2 and all(hit["calibrated"] >= least - 1e-4 for hit in some)
        near = client.post("/search", json={"query": "The river rose.", "min_score": 0.9999}).json()["results"]
        assert [hit["id"] for hit in near] == ["a"]
        for more, param, words in (
            ({"calibrated": True, "language": "no such"}, "language", "is unknown"),
            ({"language": "sw"}, "language", "has no effect without calibrated scores or an index with offsets"),
            ({"language": "sw", "mode": "words"}, "language", "set calibrated: true, or leave it out"),
            ({"calibrated": True, "language": "xx"}, "language", "is unknown"),
            ({"calibrated": True, "language": "x" * 5000}, "language", "at most 35 characters"),
            ({"calibrated": True, "mode": "words"}, "calibrated", "gives no scores"),
            ({"min_score": 0.0, "mode": "words"}, "min_score", "gives no scores"),
            ({"min_score": "high"}, "min_score", "should be a valid number"),
        ):
            said = client.post("/search", json={"query": "river"} | more)
            assert (said.status_code, said.json()["error"]["param"]) == (400, param)
            assert words in said.json()["error"]["message"] and len(said.text) < 500
        assert client.post("/search", json={"query": "river", "language": " "}).status_code == 200


def test_hits_say_which_language_their_score_counts(folder: Path, statistics: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(guard, "told", lambda text, codes: "sw" if text.startswith("Mto") else None)
    app = run.make([str(folder / "maker")], indexes=[folder / "rivers"], statistics=[statistics], device="cpu")
    with http_server.running(app) as client:
        plain = client.post("/search", json={"query": "river"}).json()["results"]
        assert all("language" not in hit for hit in plain)
        found = client.post("/search", json={"query": "river", "calibrated": True, "language": "en"}).json()["results"]
    assert {hit["id"]: hit["language"] for hit in found} == {"a": None, "b": "sw", "c": None}


def test_without_what_tells_languages_the_client_is_told_who_installs_it(
    folder: Path, statistics: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = run.make([str(folder / "maker")], indexes=[folder / "rivers"], statistics=[statistics], device="cpu")
    guard.identifier.cache_clear()
    for name in ("py3langid", "py3langid.langid"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"py3langid: pip install 'lusifer\[languages\]'"):
        run.make([str(folder / "maker")], indexes=[folder / "rivers"], statistics=[statistics], device="cpu")
    with http_server.running(app) as client, caplog.at_level(logging.ERROR):
        for more in ({}, {"language": "es"}):
            answer = client.post("/search", json={"query": "river", "calibrated": True, **more})
            error = answer.json()["error"]
            assert (answer.status_code, error["code"], error["param"]) == (400, "no_identifier", "calibrated")
            words = "languages cannot be identified on this server: ask its operator to install lusifer[languages]"
            assert error["message"] == f"calibrated: {words}"
    assert len(caplog.records) == 1 and "pip install 'lusifer[languages]'" in caplog.text
    guard.identifier.cache_clear()


def test_without_statistics_a_client_is_told_who_makes_them(client: httpx.Client) -> None:
    said = client.post("/search", json={"query": "river", "model": "maker", "calibrated": True})
    error = said.json()["error"]
    assert (said.status_code, error["code"], error["param"]) == (400, "no_statistics", "calibrated")
    assert "maker has no language statistics on this server: ask its operator to make them" in error["message"]


def test_an_index_with_offsets_is_asked_through_them(folder: Path, statistics: Path) -> None:
    made = Index.create(folder / "moved", folder / "maker", offsets=statistics, language_field="lang")
    made.add(DOCUMENTS)
    with http_server.running(run.make([str(folder / "maker")], indexes=[folder / "moved"], device="cpu")) as client:
        answer = client.post("/search", json={"query": "Mto ulijaa maji.", "language": "sw"}).json()
        assert answer["language"] == "sw" and answer["results"][0]["id"] == "b"
        assert answer["results"][0]["score"] == pytest.approx(1, abs=1e-5)
    reader = str(folder / "reader")
    with pytest.raises(UsageError, match="no language statistics"):
        run.make([reader], indexes=[folder / "moved"], device="cpu")
    both = folder / "both.safetensors"
    command = ["calibrate", reader, "--parallel", "sample", "--documents"]
    assert main([*command, str(folder / "maker"), "--output", str(both)]) == 0
    assert main([*command, str(folder / "stranger"), "--output", str(both)]) == 2
    assert main([*command, str(folder / "maker")]) == 2
    app = run.make([reader], indexes=[folder / "moved"], statistics=[both], device="cpu")
    with http_server.running(app) as client:
        body = {"query": "Mto ulijaa maji.", "language": "sw", "calibrated": True}
        (wanted,) = Index.open(folder / "moved", reader).search(
            body["query"], languages="sw", statistics=both, calibrated=True
        )
        found = [(hit["id"], hit["calibrated"]) for hit in client.post("/search", json=body).json()["results"]]
        assert found == [(hit.id, pytest.approx(hit.calibrated, rel=1e-3)) for hit in wanted]
    with pytest.raises(UsageError, match="searches no index here: leave it out"):
        run.make([str(folder / "reader")], indexes=[folder / "rivers"], statistics=[statistics], device="cpu")
