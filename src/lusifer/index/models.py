"""The index's record of its model, and the check of other models: they must be trained in the same vector space."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lusifer import chunks
from lusifer.calibration.asking import Given, taken
from lusifer.embedder import contents
from lusifer.embedder.identity import identity, identity_in_memory
from lusifer.errors import LusiferError, UsageError
from lusifer.io import hub, names
from lusifer.io.files import expand_user
from lusifer.serving.encode import choose_prompt, token_counts

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from lusifer.embedder.plain import PlainEmbedder

    Embedder = SentenceTransformer | PlainEmbedder

IN_MEMORY = "a model in memory"
_AGAIN = "embed the stored texts again"
"""Advice about an index; `reindex` refuses one that stores only vectors."""
NO_LIMIT = 512
"""The tokens of a passage if the model has no limit."""


@dataclass(frozen=True)
class IndexModel:
    """An index's record of the model that made it.

    Args:
        name: The name of the model; the absolute path of a folder.
        identity: The digest of its weights and settings (`embedder.identity`).
        dimensions: The number of dimensions of its vectors.
        query: The prefix of questions; None: the default of the model.
        document: The prefix of documents; None: the default of the model.
        dtype: The dtype in which it was loaded; None: the one it was saved in.
        tokens: The most tokens of a passage, prompt and special tokens included.
        overlap: How many tokens a passage may share with the one before.
        offsets: The digest of the language statistics whose offsets are subtracted from all vectors; None: no offsets.
        language_field: The field with the language of a document; None identifies it from the text.
    """

    name: str
    identity: str
    dimensions: int
    query: str | None
    document: str | None
    dtype: str | None
    tokens: int
    overlap: int
    offsets: str | None = None
    language_field: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the record for the table's metadata; without offsets it has no keys for them, as in old tables."""
        later = ("offsets", "language_field")
        return {name: value for name, value in asdict(self).items() if value is not None or name not in later}

    @classmethod
    def from_dict(cls, said: Mapping[str, Any], where: str | os.PathLike[str] = "index") -> IndexModel:
        """Read a record of `to_dict`.

        Args:
            said: The record.
            where: The index, the start of the message.

        Raises:
            UsageError: Another version of lusifer wrote it, or it is damaged.
        """
        kinds = {one.name: one.type for one in fields(cls)}
        needed = {one.name for one in fields(cls) if one.default is MISSING}
        wrong = [f"{name} is missing" for name in sorted(needed - said.keys())]
        wrong += [f"{name} is unknown" for name in sorted(said.keys() - kinds.keys())]
        wrong += [
            f"{name} is {value!r}"[:80]
            for name, value in said.items()
            if name in kinds and type(value).__name__.replace("NoneType", "None") not in kinds[name].split(" | ")
        ]
        if wrong:
            words = "was made by another version of lusifer, or is damaged"
            how = "use the version that made it, or index the documents again"
            raise UsageError(f"{where}: {words} (record of its model: {'; '.join(wrong)}): {how}")
        return cls(**said)


@dataclass(frozen=True)
class Known:
    """An available model.

    name: Its name.
    identity: The digest of its weights and settings.
    space: The identity of the embedder in whose vector space it was trained; None: its own space.
    place: What to load: the name, or the folder in the cache if an index names a model on the Hub.
    """

    name: str
    identity: str
    space: str | None
    place: str


def known(model: str | os.PathLike[str] | Embedder, index: str | os.PathLike[str] | None = None) -> Known:
    """Identify a model: a name as for `lusifer.load`, or an embedder in memory.

    Args:
        model: The model, or its name.
        index: The folder of the index, if only the index names the model and not the user. Then nothing is downloaded:
            a model on the Hub must be in the cache of this machine.

    Raises:
        UsageError: There is no such model, or only an index names it and it is not in the cache.
        ModelFolderError: It is damaged, or cannot be downloaded.
    """
    if not isinstance(model, (str, os.PathLike)):
        config = getattr(getattr(model[0], "model", None), "config", None)
        space = getattr(config, "space", None) if getattr(config, "model_type", None) == contents.MODEL_TYPE else None
        return Known(IN_MEMORY, identity_in_memory(model), (space or {}).get("identity"), IN_MEMORY)
    found, name = names.model(model), os.fspath(model)
    if isinstance(found, Path):
        place = found
    elif index is None:
        place = hub.fetch(found, contents.FILES)
    elif (place := hub.cached(found, contents.FILES)) is None:
        words = f"was made by {found} on the Hub, which is not in the cache of this machine, and you did not name it"
        how = f"if you trust it, name it: `--model {shlex.quote(found)}`, in Python `Index.open(PATH, {found!r})`"
        raise UsageError(f"{index}: {words}: {how}")
    if expand_user(name).exists():
        name = str(expand_user(name).resolve())
    config = place / "config.json"
    said = contents.read(config, dict) if place.is_dir() and config.is_file() else {}
    space = said.get("space") if said.get("model_type") == contents.MODEL_TYPE else None
    taken = str(place) if index is not None and isinstance(found, str) else name
    return Known(name, identity(place), space.get("identity") if isinstance(space, dict) else None, taken)


def maker(made_by: IndexModel, index: str | os.PathLike[str]) -> Known:
    """Find the model that made an index, by the name in its record.

    Args:
        made_by: The record.
        index: The folder of the index.

    Raises:
        UsageError: The model was moved, removed or damaged; the message says how to give its new place.
    """
    try:
        return known(made_by.name, index)
    except LusiferError as error:
        if str(error).startswith(f"{index}: "):  # the message about a model on the Hub is already complete
            raise
        place = Path(made_by.name)
        gone = "was moved or deleted" if place.is_absolute() and not place.exists() else f"cannot be read ({error})"
        words = f"its model {made_by.name} (identity {made_by.identity}) {gone}"
        how = "if you have it in another folder, name that folder: `--model PATH`, in Python `Index.open(INDEX, PATH)`"
        anew = f"otherwise {_AGAIN} with another model: `lusifer reindex {shlex.quote(str(index))} --model MODEL`"
        raise UsageError(f"{index}: {words}: {how}; {anew}") from error


def shipped_line(made_by: IndexModel) -> str | None:
    """Name the model of the library that was trained in the vector space of an index, for questions; None if none was.

    An index of an English embedder answers questions in other languages badly, and nothing in the scores shows it.
    """
    for name in names.shipped_models():
        file = names.shipped_model(name) / "config.json"
        space = contents.read(file, dict).get("space") if file.is_file() else None
        if isinstance(space, dict) and space.get("identity") == made_by.identity:
            words = f"{made_by.name} embedded the question, as it did the documents"
            return f"{words}: if it does not know the language of the question, add `--model {name}`"
    return None


class OtherModelError(UsageError):
    """The model gives other vectors than those of the index; the message has `SEARCH`, with the advice for searches."""

    SEARCH = "gives other vectors: search with the first model, or"


def may_ask(index: str, made_by: IndexModel, asks: Known) -> bool:
    """Check that a model may search an index.

    Args:
        index: The folder of the index, for messages.
        made_by: The record of the model that made it.
        asks: The model that searches.

    Returns:
        True for the model that made the index, False for another one that was trained in the same vector space.

    Raises:
        UsageError: It is neither.
    """
    if asks.identity == made_by.identity:
        return True
    if asks.space == made_by.identity:
        return False
    trained = f", trained in the vector space of {asks.space}" if asks.space else ""
    made, asked = f"{made_by.name} ({made_by.identity})", f"{asks.name} ({asks.identity}{trained})"
    if asks.name != IN_MEMORY:
        anew = f"{_AGAIN}: `lusifer reindex {shlex.quote(index)} --model {shlex.quote(asks.name)}`"
    else:
        anew = f"{_AGAIN}: `lusifer.index.reindex.reindex({index!r}, model)`"
    if asks.name == IN_MEMORY != made_by.name:  # a loaded model cannot be compared with the identity of the files
        how = f"`Index.open({index!r}, {made_by.name!r}, embedder=model)`"
        words = f"its files are unknown: if it is that model, use {how}; if not, {anew}"
        raise UsageError(f"{index}: was made by {made}, but you gave {asked}; {words}")
    raise OtherModelError(f"{index}: was made by {made}, but {asked} {OtherModelError.SEARCH} {anew}")


def describe(
    model: str | os.PathLike[str] | Embedder,
    embedder: Embedder | None = None,
    device: str | None = None,
    *,
    task: str | None = None,
    prompt: str | None = None,
    dtype: str | None = None,
    tokens: int | None = None,
    overlap: int = 0,
    offsets: Given | None = None,
    language_field: str | None = None,
) -> tuple[IndexModel, Known, Embedder]:
    """Make the record of a model for a new index.

    Args:
        model: The model of the documents: a name as for `lusifer.load`, or a model in memory.
        embedder: The model of that name, if it is already loaded; else it is loaded.
        device: The device; None takes the best one.
        task: A built-in task, whose instruction is the prompt.
        prompt: The instruction of questions, instead of a task.
        dtype: The dtype of the model; None is the one it was saved in.
        tokens: The most tokens of a passage; None takes the limit of the model.
        overlap: How many tokens of a passage may begin the next one.
        offsets: The language statistics whose offsets are subtracted from all vectors, or their file.
        language_field: With `offsets`, the field with the language of a document.

    Returns:
        The record, the identified model, and the loaded model.

    Raises:
        UsageError: There is no such model or task, the model reads fewer tokens, or the statistics are of another one.
        DataError: The file of the statistics is damaged.
    """
    asks = known(model)
    if embedder is None:
        from lusifer.embedder import folder  # late: the command line loads models itself and does not need this

        loaded = not isinstance(model, (str, os.PathLike))
        embedder = model if loaded else folder.load(model, device=device, dtype=dtype)
    query = choose_prompt(embedder.prompts, prompt, task, "query")
    if prompt is not None:  # documents get it if the model was trained that way
        text = embedder.prompts.get(f"{prompt.strip()}-document", "")
    else:
        text = choose_prompt(embedder.prompts, None, task, "document")
    limit = embedder.max_seq_length
    if tokens is not None and limit is not None and tokens > limit:
        raise UsageError(f"passages of {tokens} tokens: {asks.name} reads only {limit}: give at most that many")
    room = tokens or limit or NO_LIMIT
    chunks.split("", partial(token_counts, embedder, prompt=text), room, overlap)  # refuses prompts without room
    size = len(embedder.encode(["a"], show_progress_bar=False)[0])
    made = IndexModel(asks.name, asks.identity, size, query, text, dtype, room, overlap)
    return with_offsets(made, offsets, language_field), asks, embedder


def with_offsets(made: IndexModel, offsets: Given | None, language_field: str | None) -> IndexModel:
    """Return the record with language offsets, which are subtracted from all vectors.

    Args:
        made: The record.
        offsets: The statistics, or their file; None returns the record unchanged.
        language_field: The field with the language of a document.

    Raises:
        UsageError: The statistics are of another model or other prompts, or there is a field without statistics.
        DataError: Their file is damaged.
    """
    if offsets is None:
        if language_field is not None:
            words = "has no effect without --offsets: give them, or leave it out"
            raise UsageError(f"--language-field {language_field}: {words}")
        return made
    statistics, called = taken(offsets)
    statistics.require(called, made.identity, made.identity, made.query, made.document)
    return replace(made, offsets=statistics.digest, language_field=language_field)
