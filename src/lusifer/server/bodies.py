"""What clients send: bodies within limits, read as JSON and checked field by field; what is wrong names the field."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal, TypeVar

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from starlette.requests import ClientDisconnect

from lusifer.errors import TextError
from lusifer.prompts import check_text
from lusifer.server.connections import Patience
from lusifer.server.errors import CLIENT_LEFT, ApiError, cut

LARGE = 2**18
"""Bytes from which a body is read in a thread of its own, so that others are answered meanwhile."""
READ_AT_ONCE = 2
"""Large bodies that are read at once: one of empty objects takes twenty times its bytes."""
LONGEST_TEXT = 2**18
"""Characters of a text; no model reads as many, and tokenising takes some hundred times their bytes."""
Name = Annotated[str, Field(max_length=1000)]
"""The name of a model with what stands behind it, or a word: longer is none."""
READ_ON = 8
"""How many times the limit of a body is read, and thrown away, before the connection is closed: a client that is still
sending does not read the answer."""
TOKEN_IDS = (
    "token ids are refused: they are of another tokenizer, and their vectors would be wrong; send texts (LangChain's "
    "OpenAIEmbeddings: check_embedding_ctx_length=False)"
)


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    model: Name | None = None
    user: str | None = None
    task: Name | None = None
    input_type: Name | None = None


class _Cut(BaseModel):
    truncate: Literal["end", "none"] = "end"

    @field_validator("truncate", mode="before")
    @classmethod
    def _as_word(cls, value: Any) -> Any:
        """Cohere writes END and NONE, text-embeddings-inference true and false."""
        if isinstance(value, bool):
            return "end" if value else "none"
        return value.lower() if isinstance(value, str) else value


class EmbeddingsBody(_Cut, _Body):
    """`/v1/embeddings`, as OpenAI has it; `task`, `input_type` and `truncate` are added."""

    input: Any
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None


class RerankBody(_Cut, _Body):
    """`/v1/rerank`, as Cohere and Jina have it."""

    query: str
    documents: list[Any]
    top_n: int | None = Field(default=None, ge=1)
    return_documents: bool = False


class TokenizeBody(_Body):
    """`/tokenize`."""

    input: Any


class SearchBody(_Cut):
    """`/search`; what stands before the question, the index knows."""

    model_config = _Body.model_config

    model: Name | None = None
    query: str
    top_k: int = Field(default=10, ge=1, le=1000)
    where: str | None = None
    mode: Literal["vector", "hybrid", "words"] = "vector"
    calibrated: bool = False
    min_score: float | None = Field(default=None, allow_inf_nan=False)
    language: str | None = Field(default=None, max_length=35)  # no code is longer (RFC 5646, 4.4.1)

    @field_validator("language", mode="before")
    @classmethod
    def _not_blank(cls, value: Any) -> Any:
        """A form that was left empty names none."""
        return None if isinstance(value, str) and not value.strip() else value


Kind = TypeVar("Kind", bound=BaseModel)


class Intake:
    """Reads bodies within limits.

    Args:
        body_bytes: Most bytes of one body.
        texts: Most texts of one request.
        held_bytes: Most bytes of all bodies that are being worked on.
        patience: How long a body may take to come.
    """

    def __init__(self, body_bytes: int, texts: int, held_bytes: int, patience: Patience | None = None) -> None:
        self.patience = patience or Patience()
        self.body_bytes, self.most_texts, self.held_bytes = body_bytes, texts, held_bytes
        self.held = 0
        self._pool = ThreadPoolExecutor(READ_AT_ONCE, thread_name_prefix="lusifer-bodies")

    def close(self) -> None:
        """End the threads that read large bodies."""
        self._pool.shutdown()

    @asynccontextmanager
    async def read(self, request: Request, kind: type[Kind]) -> AsyncIterator[Kind]:
        """Give the body as `kind`; its bytes count as held until the block ends.

        Raises:
            ApiError: Too large, too slow, no JSON, or a field that is missing, unknown or wrong; or the client left.
        """
        size = 0
        began = asyncio.get_running_loop().time()
        try:
            declared = int(request.headers.get("content-length") or 0)
            wrong = self._wrong(declared, declared)
            parts, coming = [], 0
            try:
                async with asyncio.timeout_at(self.patience.until(began, 0)) as clock:
                    async for part in request.stream():
                        coming += len(part)
                        clock.reschedule(self.patience.until(began, coming))
                        wrong = wrong or self._wrong(coming, len(part))
                        if wrong is None:
                            size += len(part)
                            self.held += len(part)
                            parts.append(part)
                        elif coming > READ_ON * self.body_bytes:
                            break
            except TimeoutError as error:
                raise self._slow(coming) from error
            except ClientDisconnect as error:
                raise ApiError(CLIENT_LEFT, "the client left", code="client_left") from error
            if wrong is not None:
                raise wrong
            data = b"".join(parts)
            parts.clear()
            if len(data) > LARGE:
                yield await asyncio.get_running_loop().run_in_executor(self._pool, _parse, data, kind)
            else:
                yield _parse(data, kind)
        finally:
            self.held -= size

    def _slow(self, came: int) -> ApiError:
        words = f"of the body {came:,} bytes came in {self.patience.until(0, came):.0f} s"
        least = f"after {self.patience.body:g} s at least {self.patience.rate:,} a second must"
        return ApiError(408, f"{words}, and {least}: send it faster", headers={"Connection": "close"})

    def _wrong(self, size: int, coming: int) -> ApiError | None:
        if size > self.body_bytes:
            words = f"the body has {size:,} bytes or more, and at most {self.body_bytes:,} are read (--body-bytes)"
            return ApiError(413, f"{words}: send fewer or shorter texts at a time")
        if self.held + coming > self.held_bytes:
            words = f"requests of {self.held:,} bytes are being worked on, and at most {self.held_bytes:,} may be"
            return ApiError(429, f"{words}: try again in 1 s", headers={"Retry-After": "1"})
        return None

    def texts(self, value: Any, field: str) -> list[str]:
        """The texts of a field: one, or a list of them; an element may be an object with `text`, which gives way to it.

        Raises:
            ApiError: There are none or too many, or one that cannot be embedded, which `param` names.
        """
        if isinstance(value, str):
            value = [value]
            return [_text(value[0], field)]
        if not isinstance(value, list):
            found = type(value).__name__
            raise ApiError(400, f"{field}: expected a text or a list of texts, found {found}", field)
        if not value:
            raise ApiError(400, f"{field}: the list is empty: give at least one text", field)
        some = value[: self.most_texts]  # millions would hold up the others
        if _is_ids(some) or any(isinstance(element, list) and _is_ids(element) for element in some):
            raise ApiError(400, f"{field}: {TOKEN_IDS}", field, code="token_ids_refused")
        if len(value) > self.most_texts:
            words = f"{field}: {len(value):,} texts, and at most {self.most_texts:,} a request (--texts)"
            raise ApiError(413, f"{words}: send them in several", field)
        # In place: what else the objects held is let go, and not kept while the texts wait.
        value[:] = [_text(element, f"{field}[{row}]") for row, element in enumerate(value)]
        return value


def _is_ids(value: list[Any]) -> bool:
    return bool(value) and all(type(element) is int for element in value)


def _text(value: Any, where: str) -> str:
    if isinstance(value, dict) and isinstance(value.get("text"), str):
        value = value["text"]
    try:
        found = check_text(value, where)
    except TextError as error:
        raise ApiError(400, str(error), where) from error
    if len(found) > LONGEST_TEXT:
        words = f"{where}: {len(found):,} characters, and at most {LONGEST_TEXT:,} are taken of one text: split it"
        raise ApiError(413, words, where)
    return found


def _parse(data: bytes, kind: type[Kind]) -> Kind:
    try:
        said = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is no JSON in UTF-8 ({error}): send an object") from error
    if not isinstance(said, dict):
        raise ApiError(400, f"the body is a JSON {type(said).__name__}: send an object")
    try:
        return kind.model_validate(said)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = cut(".".join(map(str, first["loc"])))
        if first["type"] == "missing":
            raise ApiError(400, f"{field}: is missing", field, code="missing_field") from None
        if first["type"] == "extra_forbidden":
            known = ", ".join(kind.model_fields)
            raise ApiError(400, f"{field}: is not known here: use {known}", field, code="unknown_field") from None
        words = first["msg"][:1].lower() + first["msg"][1:]
        raise ApiError(400, f"{field}: {words}, found {_short(said, first['loc'])}", field) from None


def _short(said: Any, place: tuple[Any, ...]) -> str:
    for key in place:
        said = said[key] if isinstance(said, dict) and key in said else said
    if isinstance(said, dict | list):  # may be large, or so deep that it cannot be written
        return "an object" if isinstance(said, dict) else f"a list of {len(said):,}"
    words = json.dumps(said[:41] if isinstance(said, str) else said, ensure_ascii=False)
    return words if len(words) <= 40 else words[:40] + "..."
