"""Clients that people have, as they come: OpenAI's, and the classes of LangChain and LlamaIndex."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lusifer
from lusifer import prompts
from lusifer.server import run
from support import http_server

pytestmark = pytest.mark.slow  # their imports take seconds
TEXTS = ["Where is the station?", "水は命。", "محطة القطار", "river " * 100]


@pytest.fixture(scope="module")
def link(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clients") / "tiny"
    folder.symlink_to(model_folder)
    return folder


@pytest.fixture(scope="module")
def address(link: Path) -> Iterator[str]:
    with http_server.running(run.make([str(link)], keys=["secret"], device="cpu")) as client:
        yield f"{client.base_url}/v1"


@pytest.fixture(scope="module")
def wanted(model_folder: Path) -> dict[str, np.ndarray]:
    """The library's vectors by the instruction before the texts."""
    embedder = lusifer.load(model_folder, device="cpu")
    instructions = {"": "", "retrieval": prompts.for_task("retrieval")["query"]}
    return {name: embedder.encode(TEXTS, prompt=prompt) for name, prompt in instructions.items()}


def same(found: Any, wanted: np.ndarray) -> bool:
    return np.abs(np.array(found, dtype=np.float32) - wanted).max() < 1e-6


def test_openai(address: str, wanted: dict[str, np.ndarray]) -> None:
    import openai

    client = openai.OpenAI(base_url=address, api_key="secret", max_retries=0)
    answer = client.embeddings.create(model="tiny", input=TEXTS)  # base64 by itself
    assert same([row.embedding for row in answer.data], wanted[""])
    assert answer.usage.truncated_texts == 1 and answer.usage.prompt_tokens > 64
    answer = client.embeddings.create(model="tiny:retrieval:query", input=TEXTS[0], encoding_format="float")
    assert same([answer.data[0].embedding], wanted["retrieval"][:1])
    more = {"task": "retrieval", "input_type": "query"}
    answer = client.embeddings.create(model="tiny", input=TEXTS, extra_body=more, dimensions=48)
    assert same([row.embedding for row in answer.data], wanted["retrieval"])
    assert [model.id for model in client.models.list()] == ["tiny"] and client.models.retrieve("tiny").id == "tiny"
    with pytest.raises(openai.BadRequestError, match="trained for 48") as caught:
        client.embeddings.create(model="tiny", input="a", dimensions=16)
    assert caught.value.param == "dimensions" and caught.value.type == "invalid_request_error"
    with pytest.raises(openai.NotFoundError, match="'text-embedding-3-small' is not served: use tiny"):
        client.embeddings.create(model="text-embedding-3-small", input="a")
    with pytest.raises(openai.AuthenticationError, match="the API key is wrong"):
        openai.OpenAI(base_url=address, api_key="other", max_retries=0).embeddings.create(model="tiny", input="a")


def test_langchain(address: str, wanted: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    import openai
    import tiktoken
    from langchain_openai import OpenAIEmbeddings

    settings = {"base_url": address, "api_key": "secret", "max_retries": 0}
    embeddings = OpenAIEmbeddings(model="tiny", check_embedding_ctx_length=False, **settings)
    assert same(embeddings.embed_documents(TEXTS), wanted[""])
    queries = OpenAIEmbeddings(model="tiny:retrieval:query", check_embedding_ctx_length=False, **settings)
    assert same([queries.embed_query(text) for text in TEXTS], wanted["retrieval"])

    class Encoding:  # the real one fetches its table
        def encode_ordinary(self, text: str) -> list[int]:
            return list(text.encode())

    monkeypatch.setattr(tiktoken, "get_encoding", lambda name: Encoding())
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
        OpenAIEmbeddings(model="tiny", **settings).embed_documents(TEXTS)


def test_llama_index(address: str, wanted: dict[str, np.ndarray]) -> None:
    from llama_index.embeddings.openai import OpenAIEmbedding

    settings = {"api_base": address, "api_key": "secret", "max_retries": 0}
    embedding = OpenAIEmbedding(model_name="tiny", embed_batch_size=3, **settings)
    assert same(embedding.get_text_embedding_batch(TEXTS), wanted[""])
    queries = OpenAIEmbedding(model_name="tiny:retrieval:query", **settings)
    assert same([queries.get_query_embedding(text) for text in TEXTS], wanted["retrieval"])


def test_langchain_loads_a_folder_without_a_server(link: Path, wanted: dict[str, np.ndarray]) -> None:
    from langchain_community.embeddings import HuggingFaceEmbeddings

    embeddings = HuggingFaceEmbeddings(model_name=str(link), model_kwargs={"device": "cpu"})
    assert same(embeddings.embed_documents(TEXTS), wanted[""])
    assert same([embeddings.embed_query(TEXTS[1])], wanted[""][1:2])


def test_llama_index_loads_a_folder_without_a_server(link: Path, wanted: dict[str, np.ndarray]) -> None:
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

    embedding = HuggingFaceEmbedding(model_name=str(link), device="cpu")
    assert same(embedding.get_text_embedding_batch(TEXTS), wanted[""])
    assert same([embedding.get_query_embedding(TEXTS[1])], wanted[""][1:2])
