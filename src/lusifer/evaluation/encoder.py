"""A model as mteb calls it: our identity, our prompts, each distinct text once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from lusifer.errors import LusiferError
from lusifer.evaluation.rows import Row
from lusifer.folders import write_file
from lusifer.prompts import Role
from lusifer.seen import SeenTexts

CACHED_TEXTS = 200_000  # rows with more texts are not kept: at 4,096 numbers a text these are 3.3 GB
DAMAGED = (OSError, ValueError, KeyError, TypeError)


def model_meta(name: str, identity: str) -> Any:
    """Make mteb's record of a model.

    mteb keeps scores by name and revision. A folder on disk has no revision there, so that one model could get another
    one's cached score; the hash of weights and prompts is the revision here.

    Args:
        name: What the model is called in tables.
        identity: As `lusifer.embedder.folder.identity` gives it.
    """
    from mteb.models.model_meta import ModelMeta

    plain = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name).strip("-.") or "model"
    return ModelMeta.create_empty({"name": f"lusifer/{plain}", "revision": identity})


class Encoder:
    """mteb's `EncoderProtocol` over a sentence-transformers model.

    A text is embedded by `SentenceTransformer.encode`, with the prefix that `lusifer.prompts` gives for the row, and
    once: what was embedded for another task comes from a file.
    """

    def __init__(
        self,
        embedder: SentenceTransformer,
        meta: Any,
        cache: Path,
        *,
        instructed: bool,
        unit: bool = False,
        seen: SeenTexts | None = None,
        batch_size: int = 32,
    ) -> None:
        """Take a model.

        Args:
            embedder: The model.
            meta: As `model_meta` makes it.
            cache: A folder for vectors, made anew where it is damaged or of another model.
            instructed: Whether queries get the instruction of their row.
            unit: Whether vectors are brought to length 1: a classifier's strength would else depend on their length.
            seen: The texts that the model was trained on, where they are known.
            batch_size: Texts a batch.
        """
        self.mteb_model_meta = meta
        self._embedder = embedder
        self._instructed = instructed
        self._unit = unit
        self._batch_size = batch_size
        self._vectors = VectorFile(cache, meta.revision)
        self._prefix: dict[Role, str] = {"query": "", "document": ""}
        self._keep = True
        self._seen = seen
        self._read: dict[int, bool] = {}

    def turn_to(self, row: Row) -> None:
        """Use the prompts of a row from now on, and forget which texts were read."""
        self._prefix = row.prompts(self._instructed)
        self._keep = row.cost is None or row.cost <= CACHED_TEXTS
        self._read = {}

    def seen_in_training(self) -> dict[str, int] | None:
        """Count the distinct texts of the row, and those that training has met; None where that is not known."""
        return None if self._seen is None else {"seen": sum(self._read.values()), "of": len(self._read)}

    def encode(self, inputs: Any, *, prompt_type: Any = None, **_: Any) -> np.ndarray:
        """Embed what mteb's data loader holds.

        Args:
            inputs: Batches with the key "text".
            prompt_type: mteb's query or document; None, for tasks of one kind of text, is a query.

        Returns:
            Vectors (n, d), float32.

        Raises:
            LusiferError: A vector is not finite.
        """
        role = "document" if prompt_type is not None and prompt_type.value == "document" else "query"
        texts = [text for batch in inputs for text in batch["text"]]
        if self._seen is not None:
            self._read.update((hash(text), text in self._seen) for text in texts)
        return self.vectors(texts, self._prefix[role])

    def vectors(self, texts: Sequence[str], prefix: str = "") -> np.ndarray:
        """Embed texts, (n, d) float32; without a prefix the model's default one stands before them."""
        prefix = prefix or default_prompt(self._embedder)
        distinct = list(dict.fromkeys(texts))
        new = [text for text in distinct if (prefix, text) not in self._vectors]
        made = self._embed(new, prefix)
        if self._keep:
            self._vectors.add([(prefix, text) for text in new], made)
        fresh = dict(zip(new, made, strict=True))
        known = {text: fresh[text] if text in fresh else self._vectors[prefix, text] for text in distinct}
        return np.stack([known[text] for text in texts]) if texts else np.zeros((0, 0), np.float32)

    def _embed(self, texts: Sequence[str], prefix: str) -> np.ndarray:
        if not texts:
            return np.zeros((0, 0), np.float32)
        vectors = self._embedder.encode(
            list(texts),
            prompt=prefix,
            batch_size=self._batch_size,
            normalize_embeddings=self._unit,
            show_progress_bar=False,
            convert_to_numpy=True,
        )
        if not np.isfinite(vectors).all():
            raise LusiferError("the model gives vectors that are not finite; see what `lusifer doctor` says of it")
        return vectors.astype(np.float32, copy=False)

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


class VectorFile:
    """Vectors by prefix and text, in mteb's own cache on disk."""

    def __init__(self, folder: Path, identity: str) -> None:
        """Open the file of a model; what belongs to another model or cannot be read is thrown away."""
        from mteb.models.cache_wrappers.cache_backends.numpy_cache import NumpyCache

        owner = folder / "model.json"
        try:
            if json.loads(owner.read_text(encoding="utf-8")) != identity:
                raise ValueError("another model")
            self._cache = NumpyCache(folder)
            self._cache.load()
        except DAMAGED:
            for file in folder.glob("*"):
                file.unlink()
            self._cache = NumpyCache(folder)
            with write_file(owner) as temporary:
                temporary.write_text(json.dumps(identity), encoding="utf-8")

    def __contains__(self, key: tuple[str, str]) -> bool:
        """Whether the vector of (prefix, text) is there."""
        return _item(key) in self._cache

    def __getitem__(self, key: tuple[str, str]) -> np.ndarray:
        """Give the vector of (prefix, text)."""
        return np.array(self._cache.get_vector(_item(key)), dtype=np.float32)

    def add(self, keys: Sequence[tuple[str, str]], vectors: np.ndarray) -> None:
        """Keep vectors (n, d)."""
        if keys:
            self._cache.add([_item(key) for key in keys], vectors)
            self._cache.save()


def _item(key: tuple[str, str]) -> dict[str, str]:
    return {"text": json.dumps(key, ensure_ascii=False)}
