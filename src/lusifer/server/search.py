"""Search: the server's models ask the indexes that they may ask."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from lusifer.errors import LusiferError, UsageError
from lusifer.index.index import Index
from lusifer.server.bodies import SearchBody
from lusifer.server.errors import ApiError
from lusifer.server.served import Embedded, Served, Timing

LOG = logging.getLogger(__name__)
WAITING = 256
"""Searches that may wait for an index; more are refused, as by a full queue of a model."""
WORDS_CHARACTERS = 4096
"""Characters of a question whose words are looked up: 40,000 words take a quarter of a minute."""
Result = TypeVar("Result")


class Searcher:
    """An index, and the served model that asks it; searches have a thread of their own, and each its turn.

    Args:
        index: Models that may ask the same one share it, and the vectors that it holds in memory.
        served: The model; its thread embeds the questions.
        prompt: What stands before its questions; None takes the model's default.
    """

    def __init__(self, index: Index, served: Served, prompt: str | None) -> None:
        self.index, self.served = index, served
        self._prompt = served.default_prompt if prompt is None else prompt
        self.name = Path(index.folder).resolve().name
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="lusifer-search")  # an index is searched by one at a time
        self._waiting, self._seconds, self._told = 0, 0.0, ""

    def close(self) -> None:
        """Finish what waits and end the thread."""
        self._pool.shutdown()

    async def find(self, body: SearchBody, timing: Timing) -> tuple[list[dict[str, Any]], Embedded | None]:
        """The hits of a question, best first, and what was embedded for them; cancelled, it is dropped.

        Raises:
            ApiError: The filter is none for this index, the index is not what it was or cannot be read, the question
                has too many words, too many wait, or as `Served.embed`.
            BusyError, StoppedError: As `Served.embed`.
        """
        if body.mode != "vector" and len(body.query) > WORDS_CHARACTERS:
            words = f"query: {len(body.query):,} characters, and words are looked up of at most {WORDS_CHARACTERS:,}"
            raise ApiError(413, f'{words}: shorten it, or leave mode: "{body.mode}" out', "query")
        if self._waiting >= WAITING:
            seconds = min(60, int(self._waiting * self._seconds) + 1)
            words = f"{self._waiting:,} searches wait, and at most {WAITING:,} may: try again in {seconds} s"
            raise ApiError(429, words, headers={"Retry-After": str(seconds)})
        self._waiting += 1  # before the question is embedded: many come meanwhile
        try:
            asked = None
            if body.mode != "words":
                refuse = body.truncate == "none"
                asked = await self.served.embed([body.query], self._prompt, timing, param="query", refuse_long=refuse)
            return await self._found(partial(self._hits, body, asked), body), asked
        finally:
            self._waiting -= 1

    async def _found(self, search: Callable[[], list[dict[str, Any]]], body: SearchBody) -> list[dict[str, Any]]:
        try:
            return await self._in_pool(search)
        except (LusiferError, OSError, RuntimeError) as error:
            await self._check_index()
            if not isinstance(error, LusiferError):
                raise
        try:
            return await self._in_pool(search)  # once more: the index may have been embedded anew while it was read
        except UsageError as error:
            await self._check_index()  # the index is what it was: so it is the filter
            raise ApiError(400, str(error), "where" if body.where else None) from error
        except LusiferError as error:
            raise self._unreadable(error) from error

    def _hits(self, body: SearchBody, asked: Embedded | None) -> list[dict[str, Any]]:
        began = time.perf_counter()
        vectors = None if asked is None else asked.vectors
        settings = {"top_k": body.top_k, "where": body.where, "mode": body.mode, "vectors": vectors}
        (found,) = self.index.search([body.query], **settings)
        self._seconds = 0.9 * self._seconds + 0.1 * (time.perf_counter() - began)
        self._told = ""
        return [asdict(hit) for hit in found]

    async def _check_index(self) -> None:
        """Say of an index that is gone, embedded anew or damaged that this is what is wrong."""
        try:
            await self._in_pool(self.index.__len__)
        except UsageError as error:
            mend = "put it back as it was, or start the server again"
            what = str(error).rpartition(": ")[0]  # its advice is for whoever opens an index
            self._log(f"{what}: {mend}: /search answers 503 until then")
            words = f"the index {self.name} is gone or was embedded anew since the server was started"
            raise ApiError(503, f"{words}: whoever runs the server must {mend}") from error
        except LusiferError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: LusiferError) -> ApiError:
        """What a client gets for it; the folder, and what to do, only the log."""
        self._log(f"{error} (/search answers 503 until it can be read)")
        return ApiError(503, f"the index {self.name} cannot be read: the server's log says more")

    def _log(self, words: str) -> None:
        """Write it once, until a search succeeds or something else is wrong."""
        if words != self._told:
            self._told = words
            LOG.error("%s", words)

    async def _in_pool(self, function: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function)


def searchers(indexes: Sequence[Path], models: Mapping[str, Served], device: str | None = None) -> dict[str, Searcher]:
    """Open indexes for the models that may ask them: of each model the first one, by the name that clients call it.

    Args:
        indexes: Their folders.
        models: What stands on the command line -> the model.
        device: Where the models are.

    Raises:
        UsageError: There is no such index, or one that none of the models may ask.
        MissingExtraError: LanceDB is not installed.
    """
    made: dict[str, Searcher] = {}
    for folder in indexes:
        refusal: UsageError | None = None
        shared: Index | None = None
        for name, served in models.items():
            try:
                index = Index.open(folder, name, embedder=served.embedder, device=device)
            except UsageError as error:
                refusal = error
                continue
            shared = index if shared is None else shared  # an empty one is false
            made.setdefault(served.name, Searcher(shared, served, index.prompt))
        if refusal is not None and shared is None:
            raise refusal
    return made
