"""`model.start`: a recipe that begins where a finished model stands takes its bases, connector and lengths from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lusifer.errors import ModelFolderError, UsageError
from lusifer.io import hub, names
from lusifer.io.files import read_json
from lusifer.io.names import EXPORTED, OWN_TYPE

if TYPE_CHECKING:
    from lusifer.training.recipe.recipe import StartSettings

ADVICE = "give a whole model folder"
TOWERS = ("encoder", "llm")


def folder(path: str, revision: str | None = None) -> Path:
    """Where a model to start from lies on this machine; a hub name is fetched.

    Raises:
        UsageError: There is no such model, or a revision of one that lies here is asked for.
        ModelFolderError: The hub does not give it.
    """
    found = names.model(path)
    if isinstance(found, Path) and revision:
        words = f"{path} lies on this machine, and only a name on the hub has one: leave it out"
        raise UsageError(f"model.start.revision={revision!r}: {words}")
    return found if isinstance(found, Path) else hub.fetch(found, hub.MODEL_FILES, revision)


def taken(path: str, revision: str | None = None) -> dict[str, Any]:
    """What a recipe takes from the model that it starts from: keys of `model`, and `max_length`; and its `folder`.

    The bases of a delta stay what they are; of a whole model both are the model itself, from which the tower of that
    name is read.

    Raises:
        UsageError: It is no model of this library, or an int8 copy.
        ModelFolderError: A file of it is missing or damaged.
    """
    from lusifer.model.config import LusiferConfig  # imports transformers

    where = folder(path, revision)
    if (where / EXPORTED).is_file():
        raise UsageError(f"{path}: is an int8 copy, which cannot be trained: start from the model it was made from")
    settings = read_json(where / "config.json", ADVICE, ModelFolderError, dict)
    if settings.get("model_type") != OWN_TYPE:
        kind = settings.get("model_type") or "no model_type"
        raise UsageError(f"{path}: is no LUSIFER model ({kind}): a base goes to model.encoder or model.llm")
    try:
        config = LusiferConfig.from_dict(settings)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ModelFolderError(f"{where / 'config.json'}: makes no model ({error}); {ADVICE}") from error
    tokenizer = read_json(where / "tokenizer_config.json", ADVICE, ModelFolderError, dict)
    lengths = [config.max_position_embeddings, tokenizer.get("model_max_length")]
    formats = set((config.tower_dtypes or {}).values()) & {"float32", "bfloat16"}
    return {
        "folder": _base(None, path, revision)["path"],
        "max_length": min(int(length) for length in lengths if length),
        "model": {
            **{tower: _base((config.bases or {}).get(tower), path, revision) for tower in TOWERS},
            "connector": {
                "type": config.connector_type,
                "num_soft_tokens": config.num_soft_tokens,
                **config.connector_kwargs,
            },
            "pooling": config.pooling,
            "output_projection": config.output_projection,
            "dtype": {"frozen": formats.pop() if len(formats) == 1 else "auto"},
        },
    }


def kept_adapters(model: StartSettings | None) -> list[dict[str, Any]]:
    """Give the adapters of a delta to start from (name, tower, r, alpha, targets); a whole model has none beside it."""
    if model is None:
        return []
    where = folder(model.path, model.revision)
    return read_json(where / "config.json", ADVICE, ModelFolderError, dict).get("adapters") or []


def _base(known: Mapping[str, Any] | None, path: str, revision: str | None) -> dict[str, Any]:
    """What a recipe says of one tower; `known` is what a delta says of its base."""
    if known is None:
        found = names.model(path)
        given = {"path": str(found.resolve()) if isinstance(found, Path) else found, "revision": revision}
    else:
        given = {key: known.get(key) for key in ("path", "revision", "layers")}
    return {key: value for key, value in given.items() if value is not None}
