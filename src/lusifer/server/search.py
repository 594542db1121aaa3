"""Search: the server's models ask the indexes that they may ask."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lusifer.errors import UsageError
from lusifer.index.index import Index
from lusifer.server.bodies import SearchBody
from lusifer.server.errors import ApiError
from lusifer.server.served import Served, Timing


class Searcher:
    """An index, and the served model that asks it.

    Args:
        index: It was opened for this model.
        served: The model; its thread embeds the questions.
    """

    def __init__(self, index: Index, served: Served) -> None:
        self.index, self.served = index, served
        self.name = Path(index.folder).resolve().name

    async def find(self, body: SearchBody, timing: Timing) -> list[dict[str, Any]]:
        """The hits of a question, best first.

        Raises:
            ApiError: The filter is none for this index, or as `Served.embed`.
        """
        vectors = None
        if body.mode != "words":
            prompt = self.index.prompt
            prompt = self.served.default_prompt if prompt is None else prompt
            vectors = (await self.served.embed([body.query], prompt, timing, param="query")).vectors
        settings = {"top_k": body.top_k, "where": body.where, "mode": body.mode, "vectors": vectors}
        try:
            (found,) = await asyncio.to_thread(self.index.search, [body.query], **settings)
        except UsageError as error:
            raise ApiError(400, str(error), "where" if body.where else None) from error
        return [asdict(hit) for hit in found]


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
        asked = False
        for name, served in models.items():
            try:
                index = Index.open(folder, name, embedder=served.embedder, device=device)
            except UsageError as error:
                refusal = error
                continue
            asked = True
            made.setdefault(served.name, Searcher(index, served))
        if refusal is not None and not asked:
            raise refusal
    return made
