"""A served model: its names, prompts and limits, and the way of a request to its thread."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, islice, takewhile
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer

from lusifer import prompts
from lusifer.errors import UsageError
from lusifer.prompts import Role
from lusifer.server.batcher import Batcher, VectorError
from lusifer.server.errors import ApiError, cut
from lusifer.serving import encode

if TYPE_CHECKING:
    from lusifer.server.metrics import Meter
    from lusifer.serving.encode import Embedder

LOG = logging.getLogger(__name__)
TEXTS_AT_ONCE, CHARACTERS_AT_ONCE = 256, 2**20
"""The most texts and characters that are tokenized before it is another request's turn; a token takes some hundred
bytes of memory meanwhile."""
CHARACTERS_SHOWN = 2**19
"""The most characters of a request to `/tokenize`, prompts included: the answer has some twenty times their bytes. One
text of the largest size fits."""
ROLES: dict[str, Role] = {
    "query": "query", "document": "document", "passage": "document", "search_query": "query",
    "search_document": "document",
}  # fmt: skip
"""The names that clients use for the two roles; the last two are those of Cohere."""


Look = Callable[[Sequence[str]], list[tuple[int, str, str]]]
"""Texts -> those without a score: number, kind and name, such as (3, "script", "Thai")."""


@dataclass
class Timing:
    """The times (in seconds) and counts of a request, for the headers of its answer."""

    tokenize: float = 0.0
    queue: float = 0.0
    inference: float = 0.0
    tokens: int = 0
    characters: int = 0
    truncated: int | None = None
    unscored: int = 0


@dataclass
class Embedded:
    """The embedded texts of a request.

    vectors: (n, d) float32.
    lengths: The tokens of each text before truncation.
    limit: The most tokens that the model reads; None: no limit.
    unscored: Texts in a language for which the model has no score: number in the request, kind and name.
    """

    vectors: np.ndarray
    lengths: list[int]
    limit: int | None
    unscored: list[dict[str, Any]] = field(default_factory=list)

    @property
    def cut(self) -> list[dict[str, int]]:
        """The truncated texts: their number in the request, their tokens, and how many of these were read."""
        if self.limit is None:
            return []
        long = [(row, length) for row, length in enumerate(self.lengths) if length > self.limit]
        return [{"index": row, "tokens": length, "read": self.limit} for row, length in long]

    @property
    def usage(self) -> dict[str, int]:
        """The tokens that were read, in the form of OpenAI, and the counts of truncated and unscored texts."""
        read = sum(min(length, self.limit or length) for length in self.lengths)
        return {"prompt_tokens": read, "total_tokens": read, "truncated_texts": len(self.cut)} | (
            {"unscored_texts": len(self.unscored)} if self.unscored else {}
        )


@dataclass
class Served:
    """A model of the server.

    name: Its public name; clients may add a role or a task (`mini:query`, `mini:sts`).
    identity: The digest of its weights and settings.
    embedder: The model; only `batcher` may call it.
    batcher: Its thread.
    meter: Its metrics.
    look: Finds texts without a score. They are counted and listed in the answer, or refused with `refuse_unscored`.
    started: The time of the start, in seconds since 1970.
    """

    name: str
    identity: str
    embedder: Embedder
    batcher: Batcher
    meter: Meter
    look: Look | None = None
    refuse_unscored: bool = False
    started: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self.limit = self.embedder.max_seq_length
        self.sizes = encode.dimensions(self.embedder)
        default = self.embedder.default_prompt_name
        # A separate tokenizer: truncation limits are its state, and the model's thread sets others.
        self._reader = SimpleNamespace(
            tokenizer=_twin(self.embedder.tokenizer), prompts=self.embedder.prompts, default_prompt_name=None
        )
        self.default_prompt = self.embedder.prompts[default] if default is not None else ""
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="lusifer-tokens")
        self._told: set[str] = set()
        self._prompts: dict[tuple[str | None, Role | None], str] = {}

    def close(self) -> None:
        """Finish queued requests and end both threads."""
        self.batcher.close()
        self._pool.shutdown()

    async def prompt(self, words: Sequence[str], task: str | None, input_type: str | None) -> str:
        """Return the prefix of all texts of a request.

        Args:
            words: The words behind the name of the model: a role, a task, or both.
            task: The field `task`.
            input_type: The field `input_type`.

        Raises:
            ApiError: A word is neither role nor task, two contradict each other, or the prompt leaves no room for text.
        """
        role = _role(input_type, "input_type")
        for word in words:
            if word in ROLES:
                if role not in (None, ROLES[word]):
                    raise ApiError(400, f"model asks for {word!r}, input_type for {input_type!r}: give one", "model")
                role = ROLES[word]
            elif task in (None, word):
                task = word
            else:
                raise ApiError(400, f"model asks for {cut(word)!r}, task for {cut(task)!r}: give one", "model")
        if (task, role) not in self._prompts:
            self._prompts[task, role] = await self._in_pool(self._choose, task, role)
        return self._prompts[task, role]

    def _choose(self, task: str | None, role: Role | None) -> str:
        try:
            found = encode.choose_prompt(self.embedder.prompts, None, task, role)
            found = self.default_prompt if found is None else found
            prompts.check_room(found, self._reader.tokenizer, self.limit, "task")
        except UsageError as error:
            raise ApiError(400, str(error).replace(", or give the instruction itself", ""), "task") from error
        return found

    async def count(self, texts: Sequence[str], prompt: str) -> list[int]:
        """Count the tokens of each text before truncation, with the prompt and special tokens.

        Args:
            texts: The texts.
            prompt: Their prefix, from `prompt`.
        """
        lengths: list[int] = []
        while len(lengths) < len(texts):
            part = list(islice(texts, len(lengths), len(lengths) + TEXTS_AT_ONCE))
            sums = accumulate(map(len, part))
            part = part[: max(1, sum(1 for _ in takewhile(lambda size: size <= CHARACTERS_AT_ONCE, sums)))]
            lengths += await self._in_pool(encode.token_counts, self._reader, part, prompt)
        return lengths

    async def embed(
        self, texts: Sequence[str], prompt: str, timing: Timing, *, param: str, refuse_long: bool = False
    ) -> Embedded:
        """Embed the texts of a request; if it is cancelled, texts that wait are dropped.

        Args:
            texts: Checked texts.
            prompt: Their prefix, from `prompt`.
            timing: Gets the times.
            param: The field with the texts, for errors.
            refuse_long: Whether a text that would be truncated is an error.

        Raises:
            ApiError: A text is too long, has no score and is refused, or could not be embedded.
            BusyError, StoppedError: As `Batcher.submit`.
        """
        self.batcher.check_room()
        began = time.perf_counter()
        lengths = await self.count(texts, prompt)
        seconds = time.perf_counter() - began
        self.meter.tokenized.observe(seconds)
        for length in lengths:
            self.meter.text_tokens.observe(length)
        done = Embedded(np.empty(0), lengths, self.limit)
        done.unscored = await self._in_pool(self._unscored, texts, param)
        long = done.cut
        if long and refuse_long:
            self._refuse_long(long, param)
        read = [min(length, self.limit or length) for length in lengths]
        try:
            found = await asyncio.wrap_future(self.batcher.submit(texts, read, prompt))
        except VectorError as error:
            raise ApiError(500, str(error), _place(param, error.row), code="no_vector") from error
        self.meter.truncated.inc(len(long))
        timing.tokenize += seconds
        timing.queue += found.queued
        timing.inference += found.computed
        timing.tokens += sum(read)
        timing.characters += sum(map(len, texts))
        timing.unscored += len(done.unscored)
        timing.truncated = (timing.truncated or 0) + len(long)
        done.vectors = found.vectors
        return done

    def _unscored(self, texts: Sequence[str], param: str) -> list[dict[str, Any]]:
        """Find the texts without a score; each kind and name is logged once."""
        found = self.look(texts) if self.look is not None else []
        wrong = [{"index": row, "kind": kind, "name": name} for row, kind, name in found]
        for each in wrong:
            said = f"{each['kind']} {each['name']}".strip()
            if self.refuse_unscored:
                place = _place(param, each["index"])
                words = f"{place}: {self.name} has no score for such a text ({said}), so its vector may be useless"
                raise ApiError(400, f"{words}: leave it out", place, code="unscored_language")
            self.meter.unscored(each["kind"], each["name"])
            if said not in self._told:
                self._told.add(said)
                LOG.warning("%s has no score for a text that was sent (%s)", self.name, said)
        return wrong

    def _refuse_long(self, long: list[dict[str, int]], param: str) -> None:
        first = long[0]
        place = _place(param, first["index"])
        more = f" ({len(long) - 1:,} more texts are too long)" if len(long) > 1 else ""
        raise ApiError(
            400,
            f"{place}: {first['tokens']:,} tokens, but the model reads {self.limit}{more}: shorten "
            'or split it, or leave truncate: "none" out to truncate it',
            place,
            code="context_length_exceeded",
        )

    def shape(self, size: int | None) -> int | None:
        """Check the field `dimensions` and return it.

        Raises:
            ApiError: The model was not trained for it; the message lists the allowed ones.
        """
        if size is not None and size not in self.sizes:
            allowed = ", ".join(map(str, self.sizes))
            raise ApiError(
                400, f"dimensions {size}: {self.name} was trained for {allowed}: use one of them", "dimensions"
            )
        return size

    async def tokens(self, texts: Sequence[str], prompt: str, *, param: str) -> list[bytes]:
        """Tokenize texts for `/tokenize`; if it is cancelled, it stops.

        Args:
            texts: Checked texts.
            prompt: Their prefix, from `prompt`.
            param: The field with the texts, for errors.

        Returns:
            For each text a JSON object with its tokens and the place where it is truncated.

        Raises:
            ApiError: The texts have too many characters.
            BusyError, StoppedError: As `Batcher.check_room`.
        """
        size = sum(map(len, texts)) + len(prompt) * len(texts)
        if size > CHARACTERS_SHOWN:
            words = f"{param}: {size:,} characters, prompts included (at most {CHARACTERS_SHOWN:,} per request)"
            raise ApiError(413, f"{words}: send the texts in several requests", param)
        self.batcher.check_room()
        # One text at a time, so that other requests get their turn, and work stops when the client disconnects.
        return [await self._in_pool(self._tokens, text, prompt) for text in texts]

    def _tokens(self, text: str, prompt: str) -> bytes:
        reader, full = self._reader.tokenizer, prompt + text
        settings = {"padding": False, "verbose": False}
        ids = reader(full, truncation=False, **settings)["input_ids"]
        answer: dict[str, Any] = {"text": full, "prompt": prompt, "count": len(ids), "limit": self.limit}
        answer |= {"tokens": reader.convert_ids_to_tokens(ids), "ids": ids, "cut_at": None, "unread": ""}
        if self.limit is not None and len(ids) > self.limit:
            kept = reader(full, truncation=True, max_length=self.limit, return_offsets_mapping=True, **settings)
            end = max((stop for _, stop in kept["offset_mapping"]), default=0)
            answer |= {"cut_at": max(0, end - len(prompt)), "unread": full[max(end, len(prompt)) :]}
        return json.dumps(answer, ensure_ascii=False).encode()

    async def _in_pool(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._pool, partial(function, *arguments))

    def about(self) -> dict[str, Any]:
        """Return the model's entry in `/v1/models`."""
        return {
            "id": self.name,
            "object": "model",
            "created": self.started,
            "owned_by": "lusifer",
            "identity": self.identity,
            "dimensions": self.sizes,
            "max_tokens": self.limit,
            "aliases": [f"{self.name}:{word}" for word in ("query", "document")],
            "tasks": list(prompts.table()),
        }


def _twin(tokenizer: Any) -> Any:
    """A copy of a tokenizer with its own limits; both share the vocabulary, which is large."""
    old = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(old, Tokenizer):
        return copy.deepcopy(tokenizer)
    new = Tokenizer(old.model)
    for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        if getattr(old, part) is not None:
            setattr(new, part, getattr(old, part))
    added = [token for _, token in sorted(old.get_added_tokens_decoder().items())]
    new.add_special_tokens([token for token in added if token.special])
    new.add_tokens([token for token in added if not token.special])
    made = copy.copy(tokenizer)
    made._tokenizer = new
    return made


def _place(param: str, row: int) -> str:
    """The name of a text in a field, for errors; a query is the only text of its field."""
    return param if param == "query" else f"{param}[{row}]"


def _role(word: str | None, field: str) -> Role | None:
    if word is None or word in ROLES:
        return None if word is None else ROLES[word]
    raise ApiError(400, f"{field} {cut(word)!r} is unknown: use one of {', '.join(ROLES)}", field)
