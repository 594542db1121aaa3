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

from lusifer import extras
from lusifer.calibration import asking
from lusifer.calibration.statistics import LanguageStatistics, read
from lusifer.errors import LusiferError, MissingExtraError, UsageError
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
        index: As the model asks it; those of models that may ask the same one share the vectors held in memory.
        served: The model; its thread embeds the questions.
        statistics: The file of its language statistics; None takes that in its folder, where there is one.

    Raises:
        UsageError: The index has offsets, and the model has no statistics for them.
    """

    def __init__(self, index: Index, served: Served, statistics: Path | None = None) -> None:
        self.index, self.served, prompt = index, served, index.prompt
        self._needed = index.model.offsets is not None
        self._statistics: LanguageStatistics | None = None
        try:
            self._statistics = index.statistics(statistics)
        except UsageError as error:
            if statistics is not None or self._needed:
                raise
            self._without = str(error)
        self._prompt = served.default_prompt if prompt is None else prompt
        self.name = Path(index.folder).resolve().name
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="lusifer-search")  # an index is searched by one at a time
        self._waiting, self._seconds, self._told = 0, 0.0, ""

    def close(self) -> None:
        """Finish what waits and end the thread."""
        self._pool.shutdown()

    async def find(
        self, body: SearchBody, timing: Timing
    ) -> tuple[list[dict[str, Any]], Embedded | None, dict[str, str | None]]:
        """The hits of a question, best first, and what was embedded for them; cancelled, it is dropped.

        Where its language counts, that comes last, by the key "language"; it is None where it could not be told.

        Raises:
            ApiError: The filter is none for this index, the index is not what it was or cannot be read, the question
                has too many words, its language or its score cannot be had, too many wait, or as `Served.embed`.
            BusyError, StoppedError: As `Served.embed`.
        """
        if body.mode != "vector" and len(body.query) > WORDS_CHARACTERS:
            words = f"query: {len(body.query):,} characters, and words are looked up of at most {WORDS_CHARACTERS:,}"
            raise ApiError(413, f'{words}: shorten it, or leave mode: "{body.mode}" out', "query")
        if self._waiting >= WAITING:
            seconds = min(60, int(self._waiting * self._seconds) + 1)
            words = f"{self._waiting:,} searches wait, and at most {WAITING:,} may: try again in {seconds} s"
            raise ApiError(429, words, headers={"Retry-After": str(seconds)})
        if body.mode == "words":
            for name, value in (("calibrated", body.calibrated or None), ("min_score", body.min_score)):
                if value is not None:
                    raise ApiError(400, f'{name}: mode: "words" gives no scores: leave one of the two out', name)
        if body.language is not None and not self._judges(body):
            words = "says something of calibrated scores or of an index with offsets: ask for calibrated scores"
            raise ApiError(400, f"language: {words}, or leave it out", "language")
        self._waiting += 1  # before the question is embedded: many come meanwhile
        try:
            asked = None
            if body.mode != "words":
                refuse = body.truncate == "none"
                asked = await self.served.embed([body.query], self._prompt, timing, param="query", refuse_long=refuse)
            told = {"language": await self._in_pool(partial(self._language, body))} if self._judges(body) else {}
            return await self._found(partial(self._hits, body, asked, told.get("language")), body), asked, told
        finally:
            self._waiting -= 1

    def _judges(self, body: SearchBody) -> bool:
        """Whether the language of a question counts."""
        return body.mode != "words" and (body.calibrated or self._needed)

    def _language(self, body: SearchBody) -> str | None:
        if self._statistics is None:
            self._log(f"calibrated scores were asked for: {self._without}")
            words = "has no language statistics here: whoever runs the server makes them (`lusifer calibrate`)"
            raise ApiError(400, f"calibrated: {self.served.name} {words}", "calibrated", code="no_statistics")
        try:
            return asking.languages_of([body.query], body.language, self._statistics)[0]
        except UsageError as error:
            raise ApiError(400, f"language: {error}", "language") from error
        except MissingExtraError as error:
            raise self._cannot_tell(error, body) from error

    def _cannot_tell(self, error: MissingExtraError, body: SearchBody) -> ApiError:
        """What a client gets where a language is to be told and nothing tells it; the install line, only the log."""
        self._log(f"languages cannot be told: {error}")
        # Calibrated scores need those of the documents as well.
        mend = "" if body.calibrated else "name the language of the question, or "
        words = f"languages cannot be told here: {mend}whoever runs the server installs lusifer[languages]"
        param = "calibrated" if body.calibrated else "language"
        return ApiError(400, f"{param}: {words}", param, code="no_identifier")

    async def _found(self, search: Callable[[], list[dict[str, Any]]], body: SearchBody) -> list[dict[str, Any]]:
        try:
            return await self._in_pool(search)
        except MissingExtraError as error:
            raise self._cannot_tell(error, body) from error
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

    def _hits(self, body: SearchBody, asked: Embedded | None, language: str | None) -> list[dict[str, Any]]:
        began = time.perf_counter()
        vectors = None if asked is None else asked.vectors
        settings = {"top_k": body.top_k, "where": body.where, "mode": body.mode, "vectors": vectors}
        settings |= {"calibrated": body.calibrated, "min_score": body.min_score, "languages": [language]}
        settings |= {"statistics": self._statistics} if self._judges(body) else {}
        (found,) = self.index.search([body.query], **settings)
        self._seconds = 0.9 * self._seconds + 0.1 * (time.perf_counter() - began)
        self._told = ""
        hits = [asdict(hit) for hit in found]
        for hit in hits if not body.calibrated else ():
            del hit["calibrated"], hit["language"]
        return hits

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


def searchers(
    indexes: Sequence[Path],
    models: Mapping[str, Served],
    device: str | None = None,
    statistics: Sequence[Path] = (),
) -> dict[str, Searcher]:
    """Open indexes for the models that may ask them: of each model the first one, by the name that clients call it.

    Args:
        indexes: Their folders.
        models: What stands on the command line -> the model.
        device: Where the models are.
        statistics: Files of language statistics, each of one of the models.

    Raises:
        UsageError: There is no such index, or one that none of the models may ask, or statistics that nobody uses.
        DataError: A file of statistics is damaged.
        MissingExtraError: LanceDB is not installed, or with statistics py3langid, which tells languages.
    """
    made: dict[str, Searcher] = {}
    if statistics:
        extras.need("languages", extras.IDENTIFIER)
    files = {file: read(file).identity for file in statistics}
    for folder in indexes:
        refusal: UsageError | None = None
        shared: Index | None = None
        for name, served in models.items():
            try:
                index = Index.open(folder, name, embedder=served.embedder, device=device)
                own = next((file for file, identity in files.items() if identity == served.identity), None)
                searcher = Searcher(index, served, own)
            except UsageError as error:
                refusal = error
                continue
            if shared is not None:
                index.share(shared)
            shared = index
            made.setdefault(served.name, searcher)
        if refusal is not None and shared is None:
            raise refusal
    for file, identity in files.items():
        if identity not in {each.served.identity for each in made.values()}:
            raise UsageError(f"--statistics {file}: is of a model ({identity}) that asks no index here: leave it out")
    return made
