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
        self._waiting, self._seconds, self._told = 0, 0.0, False

    def close(self) -> None:
        """Finish what waits and end the thread."""
        self._pool.shutdown()

    async def find(self, body: SearchBody, timing: Timing) -> tuple[list[dict[str, Any]], Embedded | None]:
        """The hits of a question, best first, and what was embedded for them; cancelled, it is dropped.

        Raises:
            ApiError: The filter is none for this index, the index is not what it was, the question has too many words,
                too many wait, or as `Served.embed`.
            BusyError, StoppedError: As `Served.embed`.
        """
        if body.mode != "vector" and len(body.query) > WORDS_CHARACTERS:
            words = f"query: {len(body.query):,} characters, and words are looked up of at most {WORDS_CHARACTERS:,}"
            raise ApiError(413, f'{words}: shorten it, or leave mode: "{body.mode}" out', "query")
        if self._waiting >= WAITING:
            seconds = min(60, int(self._waiting * self._seconds) + 1)
            words = f"{self._waiting:,} searches wait, and at most {WAITING:,} may: try again in {seconds} s"
            raise ApiError(429, words, headers={"Retry-After": str(seconds)})
        asked = None
        if body.mode != "words":
            refuse = body.truncate == "none"
            asked = await self.served.embed([body.query], self._prompt, timing, param="query", refuse_long=refuse)
        self._waiting += 1
        try:
            return await self._in_pool(partial(self._hits, body, asked)), asked
        except (LusiferError, OSError, RuntimeError) as error:
            await self._check_index()
            if isinstance(error, UsageError):  # the index is what it was: so it is the filter
                raise ApiError(400, str(error), "where" if body.where else None) from error
            raise
        finally:
            self._waiting -= 1

    def _hits(self, body: SearchBody, asked: Embedded | None) -> list[dict[str, Any]]:
        began = time.perf_counter()
        vectors = None if asked is None else asked.vectors
        settings = {"top_k": body.top_k, "where": body.where, "mode": body.mode, "vectors": vectors}
        (found,) = self.index.search([body.query], **settings)
        self._seconds = 0.9 * self._seconds + 0.1 * (time.perf_counter() - began)
        self._told = False
        return [asdict(hit) for hit in found]

    async def _check_index(self) -> None:
        """Say of an index that is gone, or embedded anew, that this is what is wrong; its folder only to the log."""
        try:
            await self._in_pool(self.index.__len__)
        except UsageError as error:
            if not self._told:
                self._told = True
                LOG.error("%s: /search answers 503 until then, or until the server is started again", error)
            words = f"the index {self.name} is gone or was embedded anew since the server was started"
            raise ApiError(503, f"{words}: whoever runs the server must start it again") from error

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
