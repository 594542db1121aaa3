"""Read the bodies of requests: within limits, as JSON, checked field by field; errors name the field."""

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
"""A body with more bytes is parsed in another thread, so that other requests are answered meanwhile."""
READ_AT_ONCE = 2
"""How many large bodies are parsed at once: one of empty objects takes twenty times its bytes in memory."""
LONGEST_TEXT = 2**18
"""The most characters of a text. No model reads as many, and tokenizing takes some hundred times their bytes."""
Name = Annotated[str, Field(max_length=1000)]
"""The name of a model, with a role or task, or another short word."""
READ_ON = 8
"""A body that is too large is read and discarded up to this many times the limit, before the connection is closed: a
client reads the answer only after it has sent everything."""
TOKEN_IDS = (
    "token ids are refused, because they are from another tokenizer: send texts (with LangChain's OpenAIEmbeddings set "
    "check_embedding_ctx_length=False)"
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
        """Accept END and NONE, as Cohere's clients send, and true and false of text-embeddings-inference."""
        if isinstance(value, bool):
            return "end" if value else "none"
        return value.lower() if isinstance(value, str) else value


class EmbeddingsBody(_Cut, _Body):
    """The body of `/v1/embeddings`: that of OpenAI, with `task`, `input_type` and `truncate` in addition."""

    input: Any
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None


class RerankBody(_Cut, _Body):
    """The body of `/v1/rerank`: that of Cohere and Jina."""

    query: str
    documents: list[Any]
    top_n: int | None = Field(default=None, ge=1)
    return_documents: bool = False


class TokenizeBody(_Body):
    """The body of `/tokenize`."""

    input: Any


class SearchBody(_Cut):
    """The body of `/search`; it has no task, because the prompt of questions is stored in the index."""

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
        """Read a blank language, as an empty form field sends it, as none."""
        return None if isinstance(value, str) and not value.strip() else value


Kind = TypeVar("Kind", bound=BaseModel)


class Intake:
    """Reads the bodies of requests within limits.

    Args:
        body_bytes: The most bytes of one body.
        texts: The most texts of one request.
        held_bytes: The most bytes of all bodies in memory.
        patience: How long a body may take to arrive; None takes the defaults.
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
        """Yield the body of a request; its bytes count as in memory until the block ends.

        Args:
            request: The request.
            kind: The form of the body.

        Raises:
            ApiError: The body is too large, too slow or not JSON, a field is missing, unknown or wrong, or the client
                has disconnected.
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
                raise ApiError(CLIENT_LEFT, "the client disconnected", code="client_left") from error
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
        words = f"only {came:,} bytes of the body arrived in {self.patience.until(0, came):.0f} s"
        least = f"after {self.patience.body:g} s at least {self.patience.rate:,} bytes/s are required"
        return ApiError(408, f"{words}; {least}: send it faster", headers={"Connection": "close"})

    def _wrong(self, size: int, coming: int) -> ApiError | None:
        if size > self.body_bytes:
            words = f"the body has {size:,} bytes or more (at most {self.body_bytes:,}, --body-bytes)"
            return ApiError(413, f"{words}: send fewer or shorter texts at a time")
        if self.held + coming > self.held_bytes:
            words = f"requests with {self.held:,} bytes are in progress (at most {self.held_bytes:,})"
            return ApiError(429, f"{words}: try again in 1 s", headers={"Retry-After": "1"})
        return None

    def texts(self, value: Any, field: str) -> list[str]:
        """Check the texts of a field.

        Args:
            value: A text or a list of texts; elements may be objects with a `text`. A list is changed in place.
            field: The name of the field, for errors.

        Returns:
            The texts.

        Raises:
            ApiError: There are no texts or too many, or one cannot be embedded; `param` names it.
        """
        if isinstance(value, str):
            value = [value]
            return [_text(value[0], field)]
        if not isinstance(value, list):
            found = type(value).__name__
            raise ApiError(400, f"{field}: expected a text or a list of texts, found {found}", field)
        if not value:
            raise ApiError(400, f"{field}: the list is empty: give at least one text", field)
        some = value[: self.most_texts]  # a check of millions would block other requests
        if _is_ids(some) or any(isinstance(element, list) and _is_ids(element) for element in some):
            raise ApiError(400, f"{field}: {TOKEN_IDS}", field, code="token_ids_refused")
        if len(value) > self.most_texts:
            words = f"{field}: {len(value):,} texts (at most {self.most_texts:,} per request, --texts)"
            raise ApiError(413, f"{words}: send them in several requests", field)
        # In place, so that the rest of the objects is freed while the texts wait.
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
        words = f"{where}: the text has {len(found):,} characters (at most {LONGEST_TEXT:,}): split it"
        raise ApiError(413, words, where)
    return found


def _parse(data: bytes, kind: type[Kind]) -> Kind:
    try:
        said = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is not JSON in UTF-8 ({error}): send an object") from error
    if not isinstance(said, dict):
        raise ApiError(400, f"the body is a JSON {type(said).__name__}: send an object")
    try:
        return kind.model_validate(said)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = cut(".".join(map(str, first["loc"])))
        if first["type"] == "missing":
            raise ApiError(400, f"{field}: missing: add it", field, code="missing_field") from None
        if first["type"] == "extra_forbidden":
            known = ", ".join(kind.model_fields)
            raise ApiError(400, f"{field}: unknown field: use {known}", field, code="unknown_field") from None
        words = first["msg"][:1].lower() + first["msg"][1:]
        raise ApiError(400, f"{field}: {words}, found {_short(said, first['loc'])}", field) from None


def _short(said: Any, place: tuple[Any, ...]) -> str:
    for key in place:
        said = said[key] if isinstance(said, dict) and key in said else said
    if isinstance(said, dict | list):  # may be large, or nested too deep for JSON
        return "an object" if isinstance(said, dict) else f"a list of {len(said):,}"
    words = json.dumps(said[:41] if isinstance(said, str) else said, ensure_ascii=False)
    return words if len(words) <= 40 else words[:40] + "..."
