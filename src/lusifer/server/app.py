"""The routes: OpenAI's embeddings and models, reranking, tokens, health and metrics, search and the page."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib import resources
from typing import Any, TypeVar

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from lusifer import __version__
from lusifer.errors import LusiferError
from lusifer.server.bodies import EmbeddingsBody, Intake, RerankBody, SearchBody, TokenizeBody
from lusifer.server.errors import CLIENT_LEFT, ApiError, as_api_error, cut
from lusifer.server.gate import Gate, Keys
from lusifer.server.metrics import Metrics
from lusifer.server.search import Searcher
from lusifer.server.served import ROLES, Embedded, Served, Timing
from lusifer.serving.encode import shorten

LOG = logging.getLogger(__name__)
NUMBERS_AT_ONCE = 100_000
"""An answer with more numbers is written in another thread."""
PAGE_MAY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
"""The content security policy of the page: it may load nothing from other hosts."""
Result = TypeVar("Result")


class Site:
    """The state of the routes: models, searchers by the name of their model, limits and metrics."""

    def __init__(
        self,
        models: Sequence[Served],
        intake: Intake,
        metrics: Metrics,
        searchers: Mapping[str, Searcher] | None = None,
    ) -> None:
        self.models = {served.name: served for served in models}
        self.searchers = dict(searchers or {})
        self.intake, self.metrics = intake, metrics

    def find(self, name: str | None) -> tuple[Served, list[str]]:
        """Find a model by the name that a client sent.

        Returns:
            The model, and the words after its name, which are a role or a task.

        Raises:
            ApiError: There is no such model, or no name was sent and there are several models.
        """
        if name is None and len(self.models) == 1:
            return next(iter(self.models.values())), []
        given, *words = (name or "").split(":")
        if given in self.models:
            return self.models[given], words
        what = "model: missing" if name is None else f"the model {cut(name)!r} is not served"
        code = "missing_field" if name is None else "model_not_found"
        names = ", ".join(self.models)
        raise ApiError(400 if name is None else 404, f"{what}: use {names}, alone or as NAME:query", "model", code)

    def about(self, served: Served) -> dict[str, Any]:
        """Return the model's entry in `/v1/models`, with its index."""
        searcher = self.searchers.get(served.name)
        index = {"index": searcher and searcher.name, "calibrated": bool(searcher and searcher.calibrates)}
        return served.about() | index

    async def ask(self, request: Request, work: Awaitable[Result]) -> Result:
        """Wait for the work of a request; if the client disconnects, the work is cancelled.

        Args:
            request: The request.
            work: The work.

        Raises:
            ApiError: The client has disconnected.
        """
        task = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(_gone(request))
        try:
            await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            self.metrics.left.inc()
            raise ApiError(CLIENT_LEFT, "the client disconnected", code="client_left")
        finally:
            gone.cancel()
            task.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def make_app(site: Site, keys: Keys) -> Gate:
    """Return the ASGI application; it closes the models and searchers when it ends.

    Args:
        site: The state of the routes.
        keys: The API keys.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        for each in (*site.models.values(), *site.searchers.values(), site.intake):
            await asyncio.to_thread(each.close)

    # Without FastAPI's own documentation pages: they load scripts from other hosts.
    app = FastAPI(title="Lusifer", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_exception_handler(LusiferError, _told)
    app.add_exception_handler(Exception, _told)
    app.add_exception_handler(HTTPException, _no_route)
    _add_work(app, site)
    _add_state(app, site)
    return Gate(app, keys, site.metrics)


async def _told(request: Request, error: Exception) -> Response:
    answer = as_api_error(error)
    # 503 is logged once where it is found, not for every request.
    level = logging.ERROR if answer.http_status >= 500 and answer.http_status != 503 else logging.INFO
    words = (request.method, request.scope["path"], answer.http_status, answer)
    LOG.log(level, "%s %s %d: %s", *words, exc_info=None if isinstance(error, LusiferError) else error)
    return answer.answer()


async def _no_route(request: Request, error: HTTPException) -> Response:
    words = {404: "no such address: see /openapi.json", 405: f"{cut(request.method)} is not allowed here"}
    # The path of the scope, because a full URL would need the header Host, which may be invalid.
    message = f"{cut(request.scope['path'])}: {words.get(error.status_code, error.detail)}"
    return ApiError(error.status_code, message).answer()


def _add_work(app: FastAPI, site: Site) -> None:
    """Add the routes that use a model."""

    @app.post("/v1/embeddings", openapi_extra=_described(EmbeddingsBody))
    async def embeddings(request: Request) -> Response:
        async with site.intake.read(request, EmbeddingsBody) as body:
            return await site.ask(request, _embeddings(site, body, _timing(request)))

    @app.post("/v1/rerank", openapi_extra=_described(RerankBody))
    async def rerank(request: Request) -> Response:
        async with site.intake.read(request, RerankBody) as body:
            return await site.ask(request, _rerank(site, body, _timing(request)))

    @app.post("/search", openapi_extra=_described(SearchBody))
    async def search(request: Request) -> Response:
        async with site.intake.read(request, SearchBody) as body:
            return await site.ask(request, _search(site, body, _timing(request)))

    @app.post("/tokenize", openapi_extra=_described(TokenizeBody))
    async def tokenize(request: Request) -> Response:
        async with site.intake.read(request, TokenizeBody) as body:
            return await site.ask(request, _tokenize(site, body))


def _described(kind: type[BaseModel]) -> dict[str, Any]:
    """The description of a body for `/openapi.json`; FastAPI does not read bodies here, so that our limits apply."""
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _timing(request: Request) -> Timing:
    return request.scope["lusifer.timing"]


async def _embeddings(site: Site, body: EmbeddingsBody, timing: Timing) -> Response:
    served, words = site.find(body.model)
    texts = site.intake.texts(body.input, "input")
    size = served.shape(body.dimensions)
    prompt = await served.prompt(words, body.task, body.input_type)
    found = await served.embed(texts, prompt, timing, param="input", refuse_long=body.truncate == "none")
    name = body.model or served.name
    arguments = (name, found, shorten(found.vectors, size), body.encoding_format)
    large = found.vectors.size > NUMBERS_AT_ONCE
    data = await asyncio.to_thread(_written, *arguments) if large else _written(*arguments)
    return Response(data, media_type="application/json")


def _written(name: str, found: Embedded, vectors: np.ndarray, form: str) -> bytes:
    """The answer with its vectors; nine digits are enough to restore each float32 exactly."""
    about: dict[str, Any] = {"object": "list", "model": name, "usage": found.usage}
    about |= _notes(found)
    rows = []
    for row, vector in enumerate(vectors):
        if form == "base64":
            spelt = f'"{base64.b64encode(vector.astype("<f4").tobytes()).decode()}"'
        else:
            spelt = "[" + ", ".join(map("%.9g".__mod__, vector.tolist())) + "]"
        rows.append(f'{{"object": "embedding", "index": {row}, "embedding": {spelt}}}')
    return f'{json.dumps(about)[:-1]}, "data": [{", ".join(rows)}]}}'.encode()


def _notes(found: Embedded) -> dict[str, Any]:
    """The fields of the answer about truncated and unscored texts, if there are any."""
    notes = {"truncated": found.cut, "unscored": found.unscored}
    return {name: rows for name, rows in notes.items() if rows}


async def _rerank(site: Site, body: RerankBody, timing: Timing) -> Response:
    served, words = site.find(body.model)
    words = [word for word in words if word not in ROLES]
    query = site.intake.texts(body.query, "query")
    documents = site.intake.texts(body.documents, "documents")
    refuse = body.truncate == "none"
    sides = []
    for texts, role, param in ((query, "query", "query"), (documents, "document", "documents")):
        prompt = await served.prompt(words, body.task, role)
        sides.append(await served.embed(texts, prompt, timing, param=param, refuse_long=refuse))
    question, answers = (_unit(side.vectors) for side in sides)
    scores = answers @ question[0]
    results = [
        {"index": int(row), "relevance_score": float(scores[row])}
        | ({"document": {"text": documents[row]}} if body.return_documents else {})
        for row in np.argsort(-scores, kind="stable")[: body.top_n]
    ]
    usage = {key: sum(side.usage.get(key, 0) for side in sides) for key in sides[0].usage | sides[1].usage}
    notes: dict[str, list[dict[str, Any]]] = {}
    for field, side in zip(("query", "documents"), sides, strict=True):
        for name, rows in _notes(side).items():
            notes.setdefault(name, []).extend({"field": field} | row for row in rows)
    answer = {"object": "list", "model": body.model or served.name, "results": results, "usage": usage}
    return JSONResponse(answer | notes)


async def _search(site: Site, body: SearchBody, timing: Timing) -> Response:
    if not site.searchers:
        raise ApiError(404, "/search: no index is served: start the server with --index", code="no_index")
    only = next(iter(site.searchers)) if len(site.searchers) == 1 else None
    served, _ = site.find(body.model or only)
    if served.name not in site.searchers:
        words = f"model: {served.name} has no index here: use {', '.join(site.searchers)}"
        raise ApiError(400, words, "model", code="no_index")
    site.intake.texts(body.query, "query")
    results, asked, told = await site.searchers[served.name].find(body, timing)
    asked = asked or Embedded(np.empty(0), [], served.limit)  # keyword search does not use the model
    answer = {"object": "list", "model": served.name, "results": results, "usage": asked.usage}
    return JSONResponse(answer | told | _notes(asked))


async def _tokenize(site: Site, body: TokenizeBody) -> Response:
    served, words = site.find(body.model)
    texts = site.intake.texts(body.input, "input")
    prompt = await served.prompt(words, body.task, body.input_type)
    rows = await served.tokens(texts, prompt, param="input")
    data = f'{{"model": {json.dumps(served.name)}, "data": ['.encode() + b", ".join(rows) + b"]}"
    return Response(data, media_type="application/json")


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1e-12)


def _add_state(app: FastAPI, site: Site) -> None:
    """Add the routes about the state of the server, and the page."""

    @app.get("/v1/models")
    async def models() -> Response:
        return JSONResponse({"object": "list", "data": [site.about(served) for served in site.models.values()]})

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Response:
        served, words = site.find(name)
        await served.prompt(words, None, None)  # refuses unknown words
        return JSONResponse(site.about(served) | {"id": name})

    @app.get("/health")
    async def health() -> Response:
        return JSONResponse({"status": "ok"})

    @app.get("/ready")
    async def ready() -> Response:
        said = {
            name: {"ready": served.batcher.alive, "queue_tokens": served.batcher.tokens}
            for name, served in site.models.items()
        }
        all_ready = all(each["ready"] for each in said.values())
        return JSONResponse({"ready": all_ready, "models": said}, 200 if all_ready else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(site.metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/")
    async def page() -> Response:
        text = resources.files("lusifer.server").joinpath("page.html").read_text(encoding="utf-8")
        return HTMLResponse(text, headers={"Content-Security-Policy": PAGE_MAY})
