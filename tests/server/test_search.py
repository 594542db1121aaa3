"""`/search` over HTTP finds what the index itself finds, by the models that may ask it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import lusifer
from lusifer.embedder.identity import identity
from lusifer.errors import UsageError
from lusifer.index.index import Index
from lusifer.server import run
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


def test_what_cannot_be_asked_is_refused(client: httpx.Client) -> None:
    for body, status, param, words in (
        ({"query": "river", "model": "stranger"}, 400, "model", "stranger has no index here: use maker, reader"),
        ({"query": "river"}, 400, "model", "is missing"),
        ({"query": "", "model": "maker"}, 400, "query", "empty"),
        ({"query": "river", "model": "maker", "top_k": 0}, 400, "top_k", "greater than or equal to 1"),
        ({"query": "river", "model": "maker", "where": "no_such_field = 3"}, 400, "where", "no_such_field"),
    ):
        answer = client.post("/search", json=body)
        said = answer.json()["error"]
        assert (answer.status_code, said["param"]) == (status, param) and words in said["message"]
    about = {model["id"]: model["index"] for model in client.get("/v1/models").json()["data"]}
    assert about == {"maker": "rivers", "reader": "rivers", "stranger": None}


def test_an_index_that_no_model_may_ask_is_refused_at_the_start(folder: Path) -> None:
    with pytest.raises(UsageError, match="was made by .*and .*gives other vectors"):
        run.make([str(folder / "stranger")], indexes=[folder / "rivers"], device="cpu")


def test_without_an_index_it_says_so(model_folder: Path) -> None:
    app, _ = http_server.served(lusifer.load(model_folder, device="cpu"))
    with http_server.running(app) as client:
        answer = client.post("/search", json={"query": "river"})
        assert answer.status_code == 404 and "start the server with --index" in answer.json()["error"]["message"]
