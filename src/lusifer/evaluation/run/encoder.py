"""The model that is scored: what identifies it, and how mteb calls it: our prompts, each distinct text once."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from lusifer.embedder import folder as model_folder
from lusifer.embedder.int8 import Int8Model
from lusifer.errors import LusiferError, ModelFolderError, UsageError
from lusifer.evaluation.suites.rows import SuiteRow
from lusifer.io import hub
from lusifer.io import seen as training_texts
from lusifer.io.atomic import write_file
from lusifer.io.jsonfile import read_json
from lusifer.io.seen import SeenTexts
from lusifer.model.lusifer import LusiferModel
from lusifer.prompts import ROLES, Role

CACHED_TEXTS = 200_000  # rows with more texts are not kept: at 4,096 numbers a text these are 3.3 GB
OWNER = "model.json"
KEY = 16  # bytes of a hash


def model_meta(name: str, identity: str) -> Any:
    """Make mteb's record of a model: its name in tables, and as revision the hash of its weights and prompts.

    mteb keeps scores by name and revision. A folder on disk has no revision there, so that one model could get another
    one's cached score.
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
    ) -> None:
        """Take a model.

        Args:
            embedder: The model.
            meta: As `model_meta` makes it.
            cache: A folder for vectors, made anew where it is damaged or of another model.
            instructed: Whether queries get the instruction of their row; else the model's own prompts count.
            unit: Whether vectors are brought to length 1: a classifier's strength would else depend on their length.
            seen: The texts that the model was trained on, where they are known.
        """
        self.mteb_model_meta = meta
        self._embedder = embedder
        self._instructed = instructed
        self._unit = unit
        dimension = embedder.get_embedding_dimension() or embedder.encode(["x"], convert_to_numpy=True).shape[1]
        self._vectors = VectorFile(cache, meta.revision, dimension)
        self._prefix: dict[Role, str] = {"query": "", "document": ""}
        self._split = ""
        self._keep = True
        self._seen = seen
        self._read: dict[int, bool] = {}

    def use(self, row: SuiteRow) -> None:
        """Use the prompts of a row from now on, and forget which texts were read.

        They are the row's instruction for a model that is instructed; else the model's own prompts named "query" and
        "document" (or "passage"), and where it has none of them its default one.
        """
        default, own = default_prompt(self._embedder), self._embedder.prompts
        theirs = {"query": own.get("query"), "document": own.get("document") or own.get("passage")}
        self._prefix = row.prompts() if self._instructed else {role: theirs[role] or default for role in ROLES}
        self._split = row.split
        self._keep = row.cost is None or row.cost <= CACHED_TEXTS
        self._read = {}

    @property
    def prompts(self) -> dict[Role, str]:
        """What stands before the texts of the row."""
        return dict(self._prefix)

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
        old = [text for text in distinct if (prefix, text) in self._vectors]
        known = dict(zip(old, self._vectors.read([(prefix, text) for text in old]), strict=True))
        if new:
            made = self._embedder.encode(
                new,
                prompt=prefix,
                normalize_embeddings=self._unit,
                show_progress_bar=False,
                convert_to_numpy=True,
            ).astype(np.float32, copy=False)
            if not np.isfinite(made).all():
                raise LusiferError("the model gives vectors that are not finite; see what `lusifer doctor` says of it")
            if self._keep:
                self._vectors.add([(prefix, text) for text in new], made)
            known |= zip(new, made, strict=True)
        return np.stack([known[text] for text in texts]) if texts else np.zeros((0, 0), np.float32)

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
    """Vectors by prefix and text in two files that only grow: 16 bytes a key, and float32 numbers.

    A kill leaves at most an incomplete end, which is cut off; what belongs to another model is deleted.
    """

    def __init__(self, folder: Path, identity: str, dimension: int) -> None:
        """Open the files of a model, or begin them."""
        self._keys, self._rows = folder / "keys.bin", folder / "vectors.bin"
        self._dimension = dimension
        owner, marker = json.dumps([identity, dimension]), folder / OWNER
        if not marker.is_file() or marker.read_bytes() != owner.encode():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            with write_file(marker) as temporary:
                temporary.write_text(owner, encoding="utf-8")
        for file in (self._keys, self._rows):
            file.touch()
        count = min(self._keys.stat().st_size // KEY, self._rows.stat().st_size // (4 * dimension))
        os.truncate(self._keys, KEY * count)
        os.truncate(self._rows, 4 * dimension * count)
        keys = self._keys.read_bytes()
        self._places = {keys[KEY * place : KEY * (place + 1)]: place for place in range(count)}

    def __contains__(self, key: tuple[str, str]) -> bool:
        """Whether the vector of (prefix, text) is there."""
        return _hash(key) in self._places

    def read(self, keys: Sequence[tuple[str, str]]) -> np.ndarray:
        """Give the vectors of (prefix, text), which must all be there, (n, d)."""
        if not keys:
            return np.zeros((0, self._dimension), np.float32)
        shape = (len(self._places), self._dimension)
        return np.array(np.memmap(self._rows, np.float32, "r", shape=shape)[[self._places[_hash(key)] for key in keys]])

    def add(self, keys: Sequence[tuple[str, str]], vectors: np.ndarray) -> None:
        """Keep vectors (n, d) float32 of keys that are not there yet."""
        hashes, count = [_hash(key) for key in keys], len(self._places)
        content = vectors.reshape(len(keys), self._dimension).tobytes()
        for file, size, added in ((self._rows, 4 * self._dimension, content), (self._keys, KEY, b"".join(hashes))):
            with file.open("r+b") as stream:
                stream.seek(size * count)  # not the end: an earlier write may have failed half way
                stream.write(added)
        self._places |= {key: place for place, key in enumerate(hashes, start=count)}


def _hash(key: tuple[str, str]) -> bytes:
    text = json.dumps(key)  # in ASCII: half of a surrogate pair is a text as well
    return hashlib.blake2b(text.encode(), digest_size=KEY).digest()


@dataclass(frozen=True)
class ModelSource:
    """What a process needs to load the model; the names mean what they mean in `load_model`.

    `folder` is None for a model that is only in memory; `identity` is the hash by which its scores are kept.
    """

    folder: str | None
    name: str
    identity: str
    instructed: bool
    device: str | None = None
    dtype: str | None = None

    def load(self) -> ScoredModel:
        """Load it."""
        return ScoredModel(model_folder.load(self.folder or self.name, device=self.device, dtype=self.dtype), self)


@dataclass(frozen=True)
class ScoredModel:
    """The model that is scored, and where it comes from."""

    embedder: SentenceTransformer
    source: ModelSource

    @property
    def dtype(self) -> str:
        """Number format of the weights, the first of them where there are several."""
        if isinstance(getattr(self.embedder[0], "model", None), Int8Model):
            return "int8"
        first = next(self.embedder.parameters(), None)
        return "not known" if first is None else str(first.dtype).removeprefix("torch.")

    def encoder(self, cache: Path, unit: bool) -> Encoder:
        """As mteb calls it; `cache` and `unit` as for `Encoder`. The texts of its training run are looked up."""
        source = self.source
        seen = training_texts.of_model(Path(source.folder)) if source.folder and Path(source.folder).is_dir() else None
        meta = model_meta(source.name, source.identity)
        return Encoder(self.embedder, meta, cache, instructed=source.instructed, unit=unit, seen=seen)


def load_model(
    model: str | os.PathLike[str] | SentenceTransformer,
    name: str | None,
    device: str | None = None,
    instructed: bool | None = None,
    dtype: str | None = None,
) -> ScoredModel:
    """Load a model.

    Args:
        model: A folder or hub name, or the embedder itself.
        name: What to call it in tables; None takes the folder's name.
        device: Where to load it; None takes the best one.
        instructed: Whether queries get the instruction of their task; None: if it is one of ours with any prompt.
        dtype: Number format to load it in; None takes that of the folder.

    Raises:
        ModelFolderError: No such folder, or a file of it is missing or damaged.
        UsageError: A number format for a model that is loaded already.
    """
    in_memory = isinstance(model, SentenceTransformer)
    if dtype is not None and in_memory:
        raise UsageError(f"dtype {dtype}: this model is loaded already: give its folder, or leave dtype out")
    embedder = model if in_memory else model_folder.load(model, device=device, dtype=dtype)
    identity, folder = _identity(model, embedder)
    if dtype not in (None, _saved_dtype(folder)):  # other vectors than in the folder's own format: not to be mixed
        identity = f"{identity}-{dtype}"
    called = name or ("in memory" if in_memory else Path(os.fspath(model)).name)
    if instructed is None:
        # The prompts of a model that was not trained here are its own, and our instructions are none of them.
        ours = isinstance(getattr(embedder[0], "model", None), (LusiferModel, Int8Model))
        instructed = ours and any(embedder.prompts.values())
    return ScoredModel(embedder, ModelSource(folder, called, identity, instructed, device, dtype))


def _identity(
    model: str | os.PathLike[str] | SentenceTransformer, embedder: SentenceTransformer
) -> tuple[str, str | None]:
    """The hash by which scores are kept, and where the model lies, if anywhere."""
    if isinstance(model, SentenceTransformer):
        return model_folder.identity_in_memory(embedder), None
    path = Path(os.fspath(model)).expanduser()
    if not path.is_dir():
        try:
            path = hub.fetch(os.fspath(model), model_folder.FILES)  # a hub name: its files are in the cache by now
        except ModelFolderError:
            return model_folder.identity_in_memory(embedder), os.fspath(model)
    return model_folder.identity(path), str(path)


def _saved_dtype(place: str | None) -> str | None:
    """Number format that a folder's configuration names, and in which it is loaded where none is asked for."""
    file = None if place is None else Path(place) / "config.json"
    if file is None or not file.is_file():
        return None
    config = read_json(file, "save the model again", ModelFolderError, dict)
    return config.get("dtype") or config.get("torch_dtype")
