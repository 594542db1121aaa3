"""Search: each model of the server searches an index that was made with it, or with a model in the same space."""

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
"""The most searches that may wait for an index; more are refused with status 429."""
WORDS_CHARACTERS = 4096
"""The most characters of a question in keyword search: 40,000 words take a quarter of a minute."""
Result = TypeVar("Result")


class Searcher:
    """An index and the model that searches it; one thread per index runs the searches in order.

    Args:
        index: The index, opened for this model. Several models can share the vectors in memory.
        served: The model; its thread embeds the questions.
        statistics: The file of its language statistics; None takes the one in its folder, if there is one.

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
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="lusifer-search")  # one search at a time per index
        self._waiting, self._seconds, self._told = 0, 0.0, ""

    @property
    def calibrates(self) -> bool:
        """Whether searches can have calibrated scores."""
        return self._statistics is not None and extras.tells_languages()

    def close(self) -> None:
        """Finish waiting searches and end the thread."""
        self._pool.shutdown()

    async def find(
        self, body: SearchBody, timing: Timing
    ) -> tuple[list[dict[str, Any]], Embedded | None, dict[str, str | None]]:
        """Search the index for a question; a cancelled search is dropped.

        Args:
            body: The request.
            timing: Gets the times.

        Returns:
            The hits, best first; what was embedded, None in keyword search; and {"language": code or None} if the
            language of the question counts, else {}.

        Raises:
            ApiError: The filter does not fit the index, the index has changed or cannot be read, the question is too
                long, its language or calibrated score cannot be determined, too many searches wait, or as
                `Served.embed`.
            BusyError, StoppedError: As `Served.embed`.
        """
        if body.mode != "vector" and len(body.query) > WORDS_CHARACTERS:
            words = f"query: {len(body.query):,} characters, and keyword search reads at most {WORDS_CHARACTERS:,}"
            raise ApiError(413, f'{words}: shorten it, or leave mode: "{body.mode}" out', "query")
        if self._waiting >= WAITING:
            seconds = min(60, int(self._waiting * self._seconds) + 1)
            words = f"{self._waiting:,} searches wait (at most {WAITING:,}): try again in {seconds} s"
            raise ApiError(429, words, headers={"Retry-After": str(seconds)})
        if body.mode == "words":
            for name, value in (("calibrated", body.calibrated or None), ("min_score", body.min_score)):
                if value is not None:
                    raise ApiError(400, f'{name}: mode: "words" gives no scores: leave one of the two out', name)
        if body.language is not None and not self._judges(body):
            words = "has no effect without calibrated scores or an index with offsets: set calibrated: true"
            raise ApiError(400, f"language: {words}, or leave it out", "language")
        self._waiting += 1  # counted before the question is embedded, because many may come meanwhile
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
            self._log(f"calibrated scores were requested: {self._without}")
            words = "has no language statistics on this server: ask its operator to make them (`lusifer calibrate`)"
            raise ApiError(400, f"calibrated: {self.served.name} {words}", "calibrated", code="no_statistics")
        try:
            return asking.languages_of([body.query], body.language, self._statistics)[0]
        except UsageError as error:
            raise ApiError(400, f"language: {error}", "language") from error
        except MissingExtraError as error:
            raise self._cannot_tell(error, body) from error

    def _cannot_tell(self, error: MissingExtraError, body: SearchBody) -> ApiError:
        """The error for a client if languages cannot be identified; the install command is only for the log."""
        self._log(f"languages cannot be identified: {error}")
        # Calibrated scores also need the languages of the documents, so naming that of the question is not enough.
        fix = "" if body.calibrated else "give the language of the question, or "
        words = f"languages cannot be identified on this server: {fix}ask its operator to install lusifer[languages]"
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
            return await self._in_pool(search)  # again: the index may have been embedded again during the search
        except UsageError as error:
            await self._check_index()  # if the index has not changed, the filter is wrong
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
        """Raise the error of an index that is missing, was embedded again or is damaged."""
        try:
            await self._in_pool(self.index.__len__)
        except UsageError as error:
            fix = "restore it, or restart the server"
            what = str(error).rpartition(": ")[0]  # without its advice, which does not fit a running server
            self._log(f"{what}: {fix}: /search answers 503 until then")
            words = f"the index {self.name} is missing or was embedded again since the server started"
            raise ApiError(503, f"{words}: ask the operator to {fix}") from error
        except LusiferError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: LusiferError) -> ApiError:
        """The error for a client; the folder and the fix are only for the log."""
        self._log(f"{error} (/search answers 503 until it can be read)")
        return ApiError(503, f"the index {self.name} cannot be read: see the server's log")

    def _log(self, words: str) -> None:
        """Log a problem once, until a search succeeds or the problem changes."""
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
    """Open indexes; each model searches the first one that fits it.

    Args:
        indexes: The folders of the indexes.
        models: Name on the command line -> model.
        device: The device of the models.
        statistics: Files of language statistics, each of one of the models.

    Returns:
        Public name of a model -> its searcher.

    Raises:
        UsageError: There is no such index, no model fits an index, or no model uses a file of statistics.
        DataError: A file of statistics is damaged.
        MissingExtraError: LanceDB is not installed, or py3langid, which statistics need.
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
            words = f"is of a model ({identity}) that searches no index here"
            raise UsageError(f"--statistics {file}: {words}: leave it out")
    return made
