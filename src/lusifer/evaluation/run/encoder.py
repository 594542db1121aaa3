"""A model as mteb calls it: our identity, our prompts, each distinct text once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from lusifer.errors import LusiferError
from lusifer.evaluation.suites.rows import Row
from lusifer.io.atomic import write_file
from lusifer.io.seen import SeenTexts
from lusifer.prompts import Role

CACHED_TEXTS = 200_000  # rows with more texts are not kept: at 4,096 numbers a text these are 3.3 GB
DAMAGED = (OSError, ValueError, KeyError, TypeError, RuntimeError)
OWNER = "model.json"


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
            instructed: Whether queries get the instruction of their row; else the model's own prompts count.
            unit: Whether vectors are brought to length 1: a classifier's strength would else depend on their length.
            seen: The texts that the model was trained on, where they are known.
            batch_size: Texts a batch.
        """
        self.mteb_model_meta = meta
        self._embedder = embedder
        self._instructed = instructed
        self._unit = unit
        self._batch_size = batch_size
        self._vectors = VectorFile(cache, meta.revision, embedder.get_embedding_dimension())
        self._prefix: dict[Role, str] = {"query": "", "document": ""}
        self._split = ""
        self._keep = True
        self._seen = seen
        self._read: dict[int, bool] = {}

    def turn_to(self, row: Row) -> None:
        """Use the prompts of a row from now on, and forget which texts were read."""
        self._prefix = prefixes(row, self._embedder, self._instructed)
        self._split = row.split
        self._keep = row.cost is None or row.cost <= CACHED_TEXTS
        self._read = {}

    @property
    def prompts(self) -> dict[Role, str]:
        """What stands before the texts of the row."""
        return dict(self._prefix)

    def seen_in_training(self) -> dict[str, int] | None:
        """Count the row's distinct texts of the tested split, and those that training has met; None if unknown."""
        return (
            None if self._seen is None or not self._read else {"seen": sum(self._read.values()), "of": len(self._read)}
        )

    def encode(self, inputs: Any, *, prompt_type: Any = None, hf_split: str = "", **_: Any) -> np.ndarray:
        """Embed what mteb's data loader holds.

        Args:
            inputs: Batches with the key "text".
            prompt_type: mteb's query or document; None, for tasks of one kind of text, is a query.
            hf_split: The split that they are of; a classifier learns from another one than is tested.

        Returns:
            Vectors (n, d), float32.

        Raises:
            LusiferError: A vector is not finite.
        """
        role = "document" if prompt_type is not None and prompt_type.value == "document" else "query"
        texts = [text for batch in inputs for text in batch["text"]]
        if self._seen is not None and hf_split == self._split:
            self._read.update((hash(text), text in self._seen) for text in texts)
        return self.vectors(texts, self._prefix[role])

    def vectors(self, texts: Sequence[str], prefix: str | None = None) -> np.ndarray:
        """Embed texts, (n, d) float32; without a prefix the model's default one stands before them."""
        prefix = default_prompt(self._embedder) if prefix is None else prefix
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

    def save(self) -> None:
        """Keep what was embedded for a later run."""
        self._vectors.save()

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Cosine similarity of all vectors of one side with all of the other."""
        from mteb.similarity_functions import cos_sim

        return cos_sim(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Cosine similarity of each vector of one side with the one at its place on the other."""
        from mteb.similarity_functions import pairwise_cos_sim

        return pairwise_cos_sim(embeddings1, embeddings2)


def prefixes(row: Row, embedder: SentenceTransformer, instructed: bool) -> dict[Role, str]:
    """Give what stands before the texts of a row.

    Args:
        row: The row.
        embedder: The model.
        instructed: The row's instruction, as models of ours are trained; else the model's own prompts named "query"
            and "document" (or "passage"), and where it has none of them its default one.
    """
    if instructed:
        return row.prompts()
    default, own = default_prompt(embedder), embedder.prompts
    document = own.get("document") or own.get("passage") or default
    return {"query": own.get("query") or default, "document": document}


def default_prompt(embedder: SentenceTransformer) -> str:
    """Give the prefix that the model itself puts before a text without a prompt; most models have none."""
    name = embedder.default_prompt_name
    return embedder.prompts[name] if name else ""


class VectorFile:
    """Vectors by prefix and text, in mteb's own cache on disk."""

    def __init__(self, folder: Path, identity: str, dimension: int | None = None) -> None:
        """Open the file of a model; what belongs to another model or is not whole is thrown away."""
        self._folder, self._owner = folder, json.dumps([identity, dimension])
        try:
            self._cache = self._opened()
        except DAMAGED:
            shutil.rmtree(folder, ignore_errors=True)
            self._cache = self._new()

    def _new(self) -> Any:
        from mteb.models.cache_wrappers.cache_backends.numpy_cache import NumpyCache

        cache = NumpyCache(self._folder)
        with write_file(self._folder / OWNER) as temporary:
            temporary.write_text(self._owner, encoding="utf-8")
        return cache

    def _opened(self) -> Any:
        """The cache that is there.

        Raises:
            ValueError, OSError, KeyError, TypeError, RuntimeError: It is not this model's, or not whole.
        """
        from mteb.models.cache_wrappers.cache_backends.numpy_cache import NumpyCache

        if (self._folder / OWNER).read_text(encoding="utf-8") != self._owner:
            raise ValueError("of another model")
        if not (self._folder / "index.json").is_file():
            raise ValueError("stopped before its first index")
        cache = NumpyCache(self._folder)
        cache.load()
        places = cache.hash_to_index.values()
        if cache.vectors is None or [cache.vector_dim] != json.loads(self._owner)[1:]:
            raise ValueError("without vectors")
        if sorted(places) != list(range(len(places))) or len(places) > len(cache.vectors):
            raise ValueError("index and vectors do not belong together")
        return cache

    def __contains__(self, key: tuple[str, str]) -> bool:
        """Whether the vector of (prefix, text) is there."""
        return _item(key) in self._cache

    def __getitem__(self, key: tuple[str, str]) -> np.ndarray:
        """Give the vector of (prefix, text)."""
        return np.array(self._cache.get_vector(_item(key)), dtype=np.float32)

    def add(self, keys: Sequence[tuple[str, str]], vectors: np.ndarray) -> None:
        """Keep vectors (n, d); they last for a later run once `save` is called."""
        if keys:
            self._cache.add([_item(key) for key in keys], vectors)

    def save(self) -> None:
        """Write the index: it grows with all texts, so once a row is enough."""
        if self._cache.vectors is not None:
            self._cache.save()


def _item(key: tuple[str, str]) -> dict[str, str]:
    return {"text": json.dumps(key, ensure_ascii=False)}
