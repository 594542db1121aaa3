"""The evaluated model: its identity and mteb's interface to it, with the prompts of a row and a cache of vectors."""

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
"""Size of the cache of vectors in bytes, for texts that several tasks share."""


class WorkerError(LusiferError):
    """A worker process for one of several devices has died, so the evaluation cannot continue."""


class ScoredModel:
    """A sentence-transformers model with mteb's `EncoderProtocol`, and the name and hash that identify its scores.

    `SentenceTransformer.encode` embeds the texts with the prompts of the current row. Vectors are cached, so that tasks
    with the same texts embed them once.
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
        """Wrap a model.

        Args:
            embedder: The model.
            name: Name of the model in tables.
            identity: Hash of its weights and prompts, which identifies its scores.
            instructed: Whether queries get the instruction of their row; otherwise the model's own prompts are used.
            unit: Whether to normalize vectors to length 1. The regularization of a classifier depends on their length.
            seen: The training texts of the model; None if they are not known.
        """
        self.embedder, self.name, self.identity, self.instructed = embedder, name, identity, instructed
        self.mteb_model_meta = model_meta(name, identity)
        self._unit = unit
        self._seen = seen
        self._pool: dict[str, Any] | None = None
        self._workers: dict[Any, str] = {}  # process -> device
        self._cache: dict[tuple[str, str], np.ndarray] = {}  # by prefix and text
        self.prompts: dict[Role, str] = {"query": "", "document": ""}  # prompts of the row
        self._split = ""
        self._read: dict[int, bool] = {}

    @property
    def dtype(self) -> str:
        """Dtype of the weights, that of the first tensor if there are several."""
        if _is_int8(self.embedder):
            return "int8"
        first = next(self.embedder.parameters(), None)
        return "not known" if first is None else str(first.dtype).removeprefix("torch.")

    @property
    def of_documents(self) -> ScoredModel:
        """The embedder of documents: the model itself."""
        return self

    @property
    def max_tokens(self) -> int | None:
        """Maximum length of a text in tokens, with prompt and special tokens; None if it is not known."""
        return self.embedder.max_seq_length if hasattr(self._tokenizer, "model_max_length") else None

    @property
    def _tokenizer(self) -> Any:
        return getattr(self.embedder, "tokenizer", None)

    def token_counts(self, texts: Sequence[str], prefix: str) -> list[int]:
        """Count the tokens of texts without truncation, with special tokens; the model must have a tokenizer.

        Args:
            texts: The texts.
            prefix: Prompt before each text.
        """
        full = [prefix + text for text in texts]
        ids = self._tokenizer(full, truncation=False, padding=False, verbose=False)["input_ids"]
        return [len(row) for row in ids]

    @contextmanager
    def spread(self, devices: Sequence[str]) -> Iterator[None]:
        """Embed on several devices while the context lasts, with one process a device; one device changes nothing."""
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
        """Use the prompts of a row, and reset the count of test texts.

        A model with instructions gets the instruction of the row. Other models use their own prompts named "query" and
        "document" (or "passage"), and their default prompt if they have none of these.
        """
        default, own = default_prompt(self.embedder), self.embedder.prompts
        theirs = {"query": own.get("query"), "document": own.get("document") or own.get("passage")}
        self.prompts = row.prompts() if self.instructed else {role: theirs[role] or default for role in ROLES}
        for text in self.prompts.values():
            self._check_room(text)
        self._split = row.split
        self._read = {}

    def seen_in_training(self) -> dict[str, int] | None:
        """Count the distinct test texts of the row ("of"), and those in the training data ("seen"); None if unknown."""
        if self._seen is None or not self._read:
            return None
        return {"seen": sum(self._read.values()), "of": len(self._read)}

    def encode(self, inputs: Any, *, prompt_type: Any = None, hf_split: str = "", **_: Any) -> np.ndarray:
        """Embed the texts of mteb's data loader.

        Args:
            inputs: Batches with the key "text".
            prompt_type: mteb's type of prompt: query or document; None for tasks with one kind of text, as queries.
            hf_split: Split of the texts; only texts of the tested split count as test texts.
            **_: Ignored.

        Returns:
            Vectors, float32, (n, d).

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
        """Record test texts for `seen_in_training`."""
        if self._seen is not None:
            self._read.update((hash(text), text in self._seen) for text in texts)

    def vectors(self, texts: Sequence[str], prefix: str | None = None) -> np.ndarray:
        """Embed texts; each distinct text is embedded once.

        Args:
            texts: The texts.
            prefix: Prompt before each text; None for the default prompt of the model.

        Returns:
            Vectors, float32, (n, d).
        """
        prefix = default_prompt(self.embedder) if prefix is None else prefix
        distinct = dict.fromkeys(texts)
        found = {text: self._cache[prefix, text] for text in distinct if (prefix, text) in self._cache}
        new = [text for text in distinct if text not in found]
        if new:
            made = self._embed(new, prefix)
            found |= zip(new, made, strict=True)
            room = max(1, CACHE_BYTES // made[0].nbytes)
            # Copies, because a view of one row would keep all vectors in memory.
            self._cache |= {(prefix, text): found[text].copy() for text in new[-room:]}
            for key in list(islice(self._cache, max(0, len(self._cache) - room))):  # the oldest
                del self._cache[key]
        return np.stack([found[text] for text in texts]) if texts else np.zeros((0, 0), np.float32)

    def _embed(self, texts: list[str], prefix: str) -> np.ndarray:
        """Embed texts with sentence-transformers: float32, (n, d)."""
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
            raise LusiferError("the model gives vectors that are not finite (NaN): check it with `lusifer doctor`")
        return made

    def _check_room(self, prefix: str) -> None:
        check_room(prefix, getattr(self.embedder, "tokenizer", None), self.embedder.max_seq_length, self.name)

    def _check_workers(self) -> None:
        dead = [f"{device} (status {each.exitcode})" for each, device in self._workers.items() if not each.is_alive()]
        if dead:
            raise WorkerError(
                f"the worker process on {', '.join(dead)} has died; -9 often means that memory ran out: finished "
                "rows are saved, run the same command again to resume"
            )

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Compute the cosine of each vector of one side with each vector of the other.

        Args:
            embeddings1: Vectors, (n, d).
            embeddings2: Vectors, (m, d).

        Returns:
            Cosines, (n, m).
        """
        from mteb.similarity_functions import cos_sim

        return cos_sim(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Compute the cosine of each vector of one side with the vector at the same position of the other.

        Args:
            embeddings1: Vectors, (n, d).
            embeddings2: Vectors, (n, d).

        Returns:
            Cosines, (n,).
        """
        from mteb.similarity_functions import pairwise_cos_sim

        return pairwise_cos_sim(embeddings1, embeddings2)


def default_prompt(embedder: SentenceTransformer) -> str:
    """Give the prompt that the model puts before texts by default; empty for most models."""
    name = embedder.default_prompt_name
    return embedder.prompts[name] if name else ""


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Let started processes ignore Ctrl-C, so that they print no traceback; the parent process ends them."""
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
    """Make mteb's record of a model, with its identity as the revision.

    mteb stores scores by name and revision. Without a revision, a model folder could get the cached score of another
    model.

    Args:
        name: Name of the model.
        identity: Hash of its weights and prompts.
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
    """Load a model for evaluation.

    Args:
        model: A folder, a name on the Hugging Face Hub, or the embedder itself.
        name: Name of the model in tables; None for the name of the folder.
        device: Device to load it on; None for the best one.
        instructed: Whether queries get the instruction of their task; None: only Lusifer models with any prompt.
        dtype: Dtype to load it in; None for that of the folder.
        unit: Whether to normalize vectors to length 1.

    Raises:
        ModelFolderError: There is no such folder, or a file of it is missing or damaged.
        UsageError: A dtype is given for a model that is already loaded.
    """
    if isinstance(model, SentenceTransformer):
        if dtype is not None:
            raise UsageError(f"dtype {dtype}: this model is already loaded: give its folder, or leave dtype out")
        embedder, place, called = model, None, "in memory"
    else:
        embedder = model_folder.load(model, device=device, dtype=dtype)
        found, called = names.model(model), Path(model).name
        place = found if isinstance(found, Path) else hub.fetch(found, contents.FILES)  # in the cache by now
    digest = identity.identity(place) if place else identity.identity_in_memory(embedder)
    if dtype not in (None, place and _saved_dtype(place)):  # other vectors than in the folder's own format
        digest = f"{digest}-{dtype}"
    if instructed is None:
        # Other models were not trained with Lusifer's instructions; they have their own prompts.
        ours = isinstance(getattr(embedder[0], "model", None), (LusiferModel, Int8Model))
        instructed = ours and any(embedder.prompts.values())
    seen = training_texts.of_model(place) if place else None
    return ScoredModel(embedder, name or called, digest, instructed=instructed, unit=unit, seen=seen)


def _saved_dtype(folder: Path) -> str | None:
    """Read the dtype in the configuration of a folder, which is the default for loading."""
    file = folder / "config.json"
    config = read_json(file, "save the model again", ModelFolderError, dict) if file.is_file() else {}
    return config.get("dtype") or config.get("torch_dtype")
