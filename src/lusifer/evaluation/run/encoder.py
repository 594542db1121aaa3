"""The model that is scored: what identifies it, and how mteb calls it: our prompts, each distinct text once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from lusifer.embedder import contents, identity
from lusifer.embedder import folder as model_folder
from lusifer.embedder.int8 import Int8Model
from lusifer.errors import LusiferError, ModelFolderError, UsageError
from lusifer.evaluation.tasks.rows import SuiteRow
from lusifer.io import hub, names
from lusifer.io import seen as training_texts
from lusifer.io.files import read_json
from lusifer.io.seen import SeenTexts
from lusifer.model.lusifer import LusiferModel
from lusifer.prompts import ROLES, Role, check_room

CACHE_BYTES = 2**30
"""Bytes of vectors that are kept in memory for texts that another task has as well."""


class WorkerError(LusiferError):
    """A process that embeds for one of several devices is gone: nothing more can be measured."""


class ScoredModel:
    """mteb's `EncoderProtocol` over a sentence-transformers model, and by what name and hash its scores are kept.

    A text is embedded by `SentenceTransformer.encode`, with the prefix that `lusifer.prompts` gives for the row, and
    once: what was embedded for another task is in memory.
    """

    def __init__(
        self,
        embedder: SentenceTransformer,
        name: str,
        identity: str,
        *,
        instructed: bool,
        unit: bool = False,
        seen: SeenTexts | None = None,
    ) -> None:
        """Take a model.

        Args:
            embedder: The model.
            name: What tables call it.
            identity: A hash of its weights and prompts, by which its scores are kept.
            instructed: Whether queries get the instruction of their row; else the model's own prompts count.
            unit: Whether vectors are brought to length 1: a classifier's strength would else depend on their length.
            seen: The texts that the model was trained on, where they are known.
        """
        self.embedder, self.name, self.identity, self.instructed = embedder, name, identity, instructed
        self.mteb_model_meta = model_meta(name, identity)
        self._unit = unit
        self._seen = seen
        self._pool: dict[str, Any] | None = None
        self._workers: dict[Any, str] = {}  # process -> device
        self._cache: dict[tuple[str, str], np.ndarray] = {}  # by prefix and text
        self.prompts: dict[Role, str] = {"query": "", "document": ""}  # what stands before the texts of the row
        self._split = ""
        self._read: dict[int, bool] = {}

    @property
    def dtype(self) -> str:
        """Number format of the weights, the first of them where there are several."""
        if _is_int8(self.embedder):
            return "int8"
        first = next(self.embedder.parameters(), None)
        return "not known" if first is None else str(first.dtype).removeprefix("torch.")

    @property
    def of_documents(self) -> ScoredModel:
        """What embeds documents: the model itself, where no other embedder does."""
        return self

    @property
    def max_tokens(self) -> int | None:
        """How many tokens of a text it reads, prompt and special tokens included; None: no limit that is known."""
        return self.embedder.max_seq_length if hasattr(self._tokenizer, "model_max_length") else None

    @property
    def _tokenizer(self) -> Any:
        return getattr(self.embedder, "tokenizer", None)

    def token_counts(self, texts: Sequence[str], prefix: str) -> list[int]:
        """Tokens of each text behind a prefix, special tokens included, uncut; of a model with a tokenizer."""
        full = [prefix + text for text in texts]
        ids = self._tokenizer(full, truncation=False, padding=False, verbose=False)["input_ids"]
        return [len(row) for row in ids]

    @contextmanager
    def spread(self, devices: Sequence[str]) -> Iterator[None]:
        """Embed on several devices while the context lasts, in a process for each; one device changes nothing."""
        if len(devices) < 2:
            yield
            return
        before = self.embedder.device
        with _interrupts_ignored():
            self._pool = self.embedder.start_multi_process_pool(list(devices))
        self._workers = dict(zip(self._pool["processes"], devices, strict=True))
        try:
            yield
        finally:
            self.embedder.stop_multi_process_pool(self._pool)
            self._pool, self._workers = None, {}
            self.embedder.to(before)

    def use(self, row: SuiteRow) -> None:
        """Use the prompts of a row from now on, and forget which texts were read.

        They are the row's instruction for a model that is instructed; else the model's own prompts named "query" and
        "document" (or "passage"), and where it has none of them its default one.
        """
        default, own = default_prompt(self.embedder), self.embedder.prompts
        theirs = {"query": own.get("query"), "document": own.get("document") or own.get("passage")}
        self.prompts = row.prompts() if self.instructed else {role: theirs[role] or default for role in ROLES}
        for text in self.prompts.values():
            self._check_room(text)
        self._split = row.split
        self._read = {}

    def seen_in_training(self) -> dict[str, int] | None:
        """Count the row's distinct texts of the tested split, and those that training has met; None if unknown."""
        if self._seen is None or not self._read:
            return None
        return {"seen": sum(self._read.values()), "of": len(self._read)}

    def encode(self, inputs: Any, *, prompt_type: Any = None, hf_split: str = "", **_: Any) -> np.ndarray:
        """Embed what mteb's data loader holds, batches with the key "text": vectors (n, d), float32.

        Without a `prompt_type`, as in tasks of one kind of text, they are queries. `hf_split` is the split that they
        are of; a classifier learns from another one than is tested.

        Raises:
            LusiferError: A vector is not finite.
            WorkerError: A process of one of several devices has died.
        """
        role = "document" if prompt_type is not None and prompt_type.value == "document" else "query"
        texts = [text for batch in inputs for text in batch["text"]]
        if hf_split == self._split:
            self.tested(texts)
        return self.vectors(texts, self.prompts[role])

    def tested(self, texts: Sequence[str]) -> None:
        """Take note of texts that are tested, for `seen_in_training`."""
        if self._seen is not None:
            self._read.update((hash(text), text in self._seen) for text in texts)

    def vectors(self, texts: Sequence[str], prefix: str | None = None) -> np.ndarray:
        """Embed texts, (n, d) float32; without a prefix the model's default one stands before them."""
        prefix = default_prompt(self.embedder) if prefix is None else prefix
        distinct = dict.fromkeys(texts)
        found = {text: self._cache[prefix, text] for text in distinct if (prefix, text) in self._cache}
        new = [text for text in distinct if text not in found]
        if new:
            made = self._embed(new, prefix)
            found |= zip(new, made, strict=True)
            room = max(1, CACHE_BYTES // made[0].nbytes)
            # Copies: a view of one row would hold the vectors of all.
            self._cache |= {(prefix, text): found[text].copy() for text in new[-room:]}
            for key in list(islice(self._cache, max(0, len(self._cache) - room))):  # the oldest
                del self._cache[key]
        return np.stack([found[text] for text in texts]) if texts else np.zeros((0, 0), np.float32)

    def _embed(self, texts: list[str], prefix: str) -> np.ndarray:
        """Embed texts by the library, (n, d) float32."""
        self._check_workers()
        self._check_room(prefix)
        try:
            made = self.embedder.encode(
                texts,
                prompt=prefix,
                normalize_embeddings=self._unit,
                show_progress_bar=False,
                convert_to_numpy=True,
                pool=self._pool,
            ).astype(np.float32, copy=False)
        except RuntimeError:
            self._check_workers()
            raise
        if not np.isfinite(made).all():
            raise LusiferError("the model gives vectors that are not finite; see what `lusifer doctor` says of it")
        return made

    def _check_room(self, prefix: str) -> None:
        check_room(prefix, getattr(self.embedder, "tokenizer", None), self.embedder.max_seq_length, self.name)

    def _check_workers(self) -> None:
        dead = [f"{device} (status {each.exitcode})" for each, device in self._workers.items() if not each.is_alive()]
        if dead:
            raise WorkerError(
                f"the process that embeds on {', '.join(dead)} has died; -9 often means that memory ran out; finished "
                "rows are kept: the same command goes on"
            )

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Cosine similarity of all vectors of one side with all of the other."""
        from mteb.similarity_functions import cos_sim

        return cos_sim(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Cosine similarity of each vector of one side with the one at its place on the other."""
        from mteb.similarity_functions import pairwise_cos_sim

        return pairwise_cos_sim(embeddings1, embeddings2)


def default_prompt(embedder: SentenceTransformer) -> str:
    """Give the prefix that the model itself puts before a text without a prompt; most models have none."""
    name = embedder.default_prompt_name
    return embedder.prompts[name] if name else ""


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Start processes that ignore Ctrl-C: whoever started them ends them, and they print no traceback."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set this
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _is_int8(embedder: SentenceTransformer) -> bool:
    return isinstance(getattr(embedder[0], "model", None), Int8Model)


def model_meta(name: str, identity: str) -> Any:
    """Make mteb's record of a model: its name in tables, and as revision the hash of its weights and prompts.

    mteb keeps scores by name and revision. A folder on disk has no revision there, so that one model could get another
    one's cached score.
    """
    from mteb.models.model_meta import ModelMeta

    plain = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name).strip("-.") or "model"
    return ModelMeta.create_empty({"name": f"lusifer/{plain}", "revision": identity})


def load_model(
    model: str | os.PathLike[str] | SentenceTransformer,
    name: str | None,
    device: str | None = None,
    instructed: bool | None = None,
    dtype: str | None = None,
    unit: bool = False,
) -> ScoredModel:
    """Load a model.

    Args:
        model: A folder or hub name, or the embedder itself.
        name: What to call it in tables; None takes the folder's name.
        device: Where to load it; None takes the best one.
        instructed: Whether queries get the instruction of their task; None: if it is one of ours with any prompt.
        dtype: Number format to load it in; None takes that of the folder.
        unit: Whether its vectors are brought to length 1.

    Raises:
        ModelFolderError: No such folder, or a file of it is missing or damaged.
        UsageError: A number format for a model that is loaded already.
    """
    if isinstance(model, SentenceTransformer):
        if dtype is not None:
            raise UsageError(f"dtype {dtype}: this model is loaded already: give its folder, or leave dtype out")
        embedder, place, called = model, None, "in memory"
    else:
        embedder = model_folder.load(model, device=device, dtype=dtype)
        found, called = names.model(model), Path(model).name
        place = found if isinstance(found, Path) else hub.fetch(found, contents.FILES)  # in the cache by now
    digest = identity.identity(place) if place else identity.identity_in_memory(embedder)
    if dtype not in (None, place and _saved_dtype(place)):  # other vectors than in the folder's own format
        digest = f"{digest}-{dtype}"
    if instructed is None:
        # The prompts of a model that was not trained here are its own, and our instructions are none of them.
        ours = isinstance(getattr(embedder[0], "model", None), (LusiferModel, Int8Model))
        instructed = ours and any(embedder.prompts.values())
    seen = training_texts.of_model(place) if place else None
    return ScoredModel(embedder, name or called, digest, instructed=instructed, unit=unit, seen=seen)


def _saved_dtype(folder: Path) -> str | None:
    """Number format that a folder's configuration names, and in which it is loaded where none is asked for."""
    file = folder / "config.json"
    config = read_json(file, "save the model again", ModelFolderError, dict) if file.is_file() else {}
    return config.get("dtype") or config.get("torch_dtype")
