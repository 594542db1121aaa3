"""Which model an index is of, and which other may ask it: one that was trained into the space of its vectors."""

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
from lusifer.serving.encode import choose_prompt, token_counts

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from lusifer.embedder.plain import PlainEmbedder

    Embedder = SentenceTransformer | PlainEmbedder

IN_MEMORY = "a model in memory"
NO_LIMIT = 512
"""Tokens of a passage where the model names no limit."""


@dataclass(frozen=True)
class IndexModel:
    """What an index knows of the model that made it.

    Args:
        name: As it was called; a folder by its whole path.
        identity: Of what lies in its folder (`embedder.identity`).
        dimensions: How many numbers a vector has.
        query: What stands before a question; None: the default of the model.
        document: What stands before a document.
        dtype: The number format it was loaded in; None: as saved.
        tokens: The most tokens of a passage, prompt and special tokens included.
        overlap: How many of them it may share with the passage before.
        offsets: The digest of the language statistics whose offsets are taken out of all vectors; None: of none.
        language_field: The field that has the language of a document; None: the text tells it.
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
        """As it is kept in the table's metadata; without offsets nothing is said of them, as before there were any."""
        later = ("offsets", "language_field")
        return {name: value for name, value in asdict(self).items() if value is not None or name not in later}

    @classmethod
    def from_dict(cls, said: Mapping[str, Any], where: str | os.PathLike[str] = "index") -> IndexModel:
        """As `to_dict` gave it; `where` it was read, for the message.

        Raises:
            UsageError: A later version of lusifer wrote it, or it is damaged.
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
            raise UsageError(f"{where}: {words} (of its model {'; '.join(wrong)}): {how}")
        return cls(**said)


@dataclass(frozen=True)
class Known:
    """A model that is there: its identity, and that of the embedder into whose space it was trained.

    `place` is what to load: the name, or the folder in the cache of a model of the hub that an index names.
    """

    name: str
    identity: str
    space: str | None
    place: str


def known(model: str | os.PathLike[str] | Embedder, index: str | os.PathLike[str] | None = None) -> Known:
    """Identify a model: a name as for `lusifer.load`, or an embedder in memory.

    Args:
        model: It, or its name.
        index: The folder that names it where no user did: then nothing is fetched, and a model of the hub must be in
            the cache of this machine, as it is where the index was made.

    Raises:
        UsageError: There is no model of that name, or an index alone names it and it is not in the cache.
        ModelFolderError: It is damaged, or the hub does not give it.
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
        words = f"was made by {found} of the hub, which is not in the cache of this machine and which you did not name"
        how = f"if you trust it, name it: `--model {shlex.quote(found)}`, in Python `Index.open(PATH, {found!r})`"
        raise UsageError(f"{index}: {words}: {how}")
    if Path(name).expanduser().exists():
        name = str(Path(name).expanduser().resolve())
    config = place / "config.json"
    said = contents.read(config, dict) if place.is_dir() and config.is_file() else {}
    space = said.get("space") if said.get("model_type") == contents.MODEL_TYPE else None
    taken = str(place) if index is not None and isinstance(found, str) else name
    return Known(name, identity(place), space.get("identity") if isinstance(space, dict) else None, taken)


def maker(made_by: IndexModel, index: str | os.PathLike[str]) -> Known:
    """The model that made an index, where it was then.

    Raises:
        UsageError: It was moved, removed or damaged; the message names the index, the model, and how to name it anew.
    """
    try:
        return known(made_by.name, index)
    except LusiferError as error:
        if str(error).startswith(f"{index}: "):  # of the hub and not in the cache, which is said there
            raise
        place = Path(made_by.name)
        gone = "is not there any more" if place.is_absolute() and not place.exists() else f"cannot be read ({error})"
        words = f"its model {made_by.name} (identity {made_by.identity}) {gone}"
        how = "if you have that model elsewhere, name its folder: `--model PATH`, in Python `Index.open(INDEX, PATH)`"
        anew = f"else embed anew: `lusifer reindex {shlex.quote(str(index))} --model MODEL`"
        raise UsageError(f"{index}: {words}: {how}; {anew}") from error


def may_ask(index: str, made_by: IndexModel, asks: Known) -> bool:
    """Whether a model may ask an index.

    Returns:
        True for the one that made it, False for another that was trained into the space of its vectors.

    Raises:
        UsageError: It is neither.
    """
    if asks.identity == made_by.identity:
        return True
    if asks.space == made_by.identity:
        return False
    trained = f", whose vectors stand in the space of {asks.space}" if asks.space else ""
    made, asked = f"{made_by.name} ({made_by.identity})", f"{asks.name} ({asks.identity}{trained})"
    if asks.name != IN_MEMORY:
        anew = f"embed anew: `lusifer reindex {shlex.quote(index)} --model {shlex.quote(asks.name)}`"
    else:
        anew = f"embed anew: `lusifer.index.reindex.reindex({index!r}, model)`"
    if asks.name == IN_MEMORY != made_by.name:  # loaded, it is no more the files whose identity the index knows
        how = f"`Index.open({index!r}, {made_by.name!r}, embedder=model)`"
        words = f"its files cannot be seen: if it is that one, loaded, say so, {how}; if not, {anew}"
        raise UsageError(f"{index}: was made by {made}, and of {asked} {words}")
    raise UsageError(f"{index}: was made by {made}, and {asked} gives other vectors: ask with that one, or {anew}")


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
    """What a new index will know of its model.

    Args:
        model: What embeds its documents: a name as for `lusifer.load`, or a model in memory.
        embedder: The model of that name, if it is loaded already; else it is loaded now.
        device: Where; None takes the best one.
        task: A built-in task whose instruction stands before the texts.
        prompt: The instruction of questions itself.
        dtype: Number format of the model; None is the one it was saved in.
        tokens: The most tokens of a passage; None takes what the model reads.
        overlap: How many tokens of a passage may begin the next one.
        offsets: The language statistics whose offsets are taken out of all vectors, or their file.
        language_field: With them: the field that has the language of a document.

    Raises:
        UsageError: There is no such model or task, the model reads fewer tokens, or the statistics are of another one.
        DataError: The file of the statistics is damaged.
    """
    asks = known(model)
    if embedder is None:
        from lusifer.embedder import folder  # the command line loads its models itself, before this is imported

        loaded = not isinstance(model, (str, os.PathLike))
        embedder = model if loaded else folder.load(model, device=device, dtype=dtype)
    query = choose_prompt(embedder.prompts, prompt, task, "query")
    if prompt is not None:  # documents carry it where the model was trained so
        text = embedder.prompts.get(f"{prompt.strip()}-document", "")
    else:
        text = choose_prompt(embedder.prompts, None, task, "document")
    limit = embedder.max_seq_length
    if tokens is not None and limit is not None and tokens > limit:
        raise UsageError(f"passages of {tokens} tokens: {asks.name} reads {limit}: ask for that many at most")
    room = tokens or limit or NO_LIMIT
    chunks.split("", partial(token_counts, embedder, prompt=text), room, overlap)  # refuses what leaves no room
    size = len(embedder.encode(["a"], show_progress_bar=False)[0])
    made = IndexModel(asks.name, asks.identity, size, query, text, dtype, room, overlap)
    return with_offsets(made, offsets, language_field), asks, embedder


def with_offsets(made: IndexModel, offsets: Given | None, language_field: str | None) -> IndexModel:
    """The same, with the language offsets that are taken out of all vectors.

    Raises:
        UsageError: The statistics are of another model or of other prompts, or there are none to name a field for.
        DataError: Their file is damaged.
    """
    if offsets is None:
        if language_field is not None:
            words = "says something of --offsets: give them, or leave it out"
            raise UsageError(f"--language-field {language_field}: {words}")
        return made
    statistics, called = taken(offsets)
    statistics.require(called, made.identity, made.identity, made.query, made.document)
    return replace(made, offsets=statistics.digest, language_field=language_field)
