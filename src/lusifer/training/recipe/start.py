"""`model.start`: a recipe that starts from a finished model takes its bases, connector and lengths from that model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lusifer.errors import ModelFolderError, UsageError
from lusifer.io import hub, names
from lusifer.io.bases import check_positions_and_dtypes, check_settings
from lusifer.io.files import read_json
from lusifer.io.names import EXPORTED, OWN_TYPE
from lusifer.training.recipe.recipe import ModelSettings, StartSettings

ADVICE = "give a complete model folder"
BACKBONES = ("encoder", "llm")
_WRITTEN: dict[str, tuple[type, ...]] = {
    "connector_type": (str,), "connector_kwargs": (dict,), "num_soft_tokens": (int,), "pooling": (str,),
    "output_projection": (bool,), "max_position_embeddings": (int,), "tower_dtypes": (dict, type(None)),
    "encoder": (dict,), "llm": (dict,),
}  # fmt: skip
"""Settings in the `config.json` of a model, and their types."""


def folder(path: str, revision: str | None = None) -> Path:
    """Find the folder of a model to start from; a model on the Hub is fetched.

    Args:
        path: A folder, a name as for `lusifer.load`, or an id on the Hub.
        revision: A commit, tag or branch on the Hub.

    Raises:
        UsageError: There is no such model, or a revision of a local folder was given.
        ModelFolderError: The Hub does not deliver it.
    """
    found = names.model(path)
    if isinstance(found, Path) and revision:
        words = f"{path} is a local folder, and only an id on the Hub has revisions: remove the key"
        raise UsageError(f"model.start.revision={revision!r}: {words}")
    return found if isinstance(found, Path) else hub.fetch(found, hub.MODEL_FILES, revision)


def taken(path: str, revision: str | None = None) -> dict[str, Any]:
    """Read the settings that a recipe takes from the model that it starts from.

    A delta has its own bases. The bases of a model with all weights are the model itself, which contains both
    backbones.

    Args:
        path: As for `folder`.
        revision: As for `folder`.

    Returns:
        The keys `folder`, `max_length` and `model`, the settings of the recipe's `model`.

    Raises:
        UsageError: It is no LUSIFER model, or an int8 copy.
        ModelFolderError: A file is missing or damaged.
    """
    where = folder(path, revision)
    if (where / EXPORTED).is_file():
        raise UsageError(f"{path}: is an int8 copy, which cannot be trained: start from the original model")
    settings = read_json(where / "config.json", ADVICE, ModelFolderError, dict)
    if settings.get("model_type") != OWN_TYPE:
        kind = settings.get("model_type") or "no model_type"
        raise UsageError(f"{path}: is no LUSIFER model ({kind}): give a base as model.encoder or model.llm")
    config = settings if _is_as_saved(settings) else _completed(settings, where / "config.json")
    tokenizer = read_json(where / "tokenizer_config.json", ADVICE, ModelFolderError, dict)
    lengths = [config["max_position_embeddings"], tokenizer.get("model_max_length")]
    formats = {name for name in ("float32", "bfloat16") if name in (config["tower_dtypes"] or {}).values()}
    bases = config.get("bases") or {}
    return {
        "folder": _base(None, path, revision)["path"],
        "max_length": min(int(length) for length in lengths if length),
        "model": {
            **{backbone: _base(bases.get(backbone), path, revision) for backbone in BACKBONES},
            **_joining(config),
            "dtype": {"frozen": formats.pop() if len(formats) == 1 else "auto"},
        },
    }


def _joining(config: Mapping[str, Any]) -> dict[str, Any]:
    """Give the settings of what joins the backbones, as a recipe has them."""
    connector = {"type": config["connector_type"], "num_soft_tokens": config["num_soft_tokens"]}
    return {
        "connector": connector | config["connector_kwargs"],
        "pooling": config["pooling"],
        "output_projection": config["output_projection"],
    }


def _is_as_saved(settings: Mapping[str, Any]) -> bool:
    """Whether settings are complete and valid, as `folder.save` writes them; then they need no check by transformers.

    The settings of both backbones are not checked here, but when the model is loaded before training.
    """
    if any(type(settings.get(key, ...)) not in kinds for key, kinds in _WRITTEN.items()):
        return False
    if settings.get("residual", False) is not False or settings.get("include_prompt", True) is not True:
        return False  # of older versions
    try:
        check_settings(settings)
        check_positions_and_dtypes(settings)
        ModelSettings.model_validate(_joining(settings))
    except (AttributeError, KeyError, TypeError, ValueError):
        return False
    return True


def _completed(settings: dict[str, Any], file: Path) -> dict[str, Any]:
    """Check the settings of a model, and add those that it leaves out.

    Raises:
        ModelFolderError: A setting is damaged.
    """
    from lusifer.model.config import LusiferConfig  # imports transformers

    try:
        return vars(LusiferConfig.from_dict(settings))
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ModelFolderError(f"{file}: damaged, no model can be made from it ({error}); {ADVICE}") from error


def kept_adapters(model: StartSettings | None) -> list[dict[str, Any]]:
    """Read the adapters (name, tower, r, alpha, targets) of a delta to start from; empty for any other model."""
    if model is None:
        return []
    where = folder(model.path, model.revision)
    return read_json(where / "config.json", ADVICE, ModelFolderError, dict).get("adapters") or []


def _base(known: Mapping[str, Any] | None, path: str, revision: str | None) -> dict[str, Any]:
    """Make the recipe's settings of a backbone; `known` is the record of its base in a delta."""
    if known is None:
        found = names.model(path)
        given = {"path": str(found.resolve()) if isinstance(found, Path) else found, "revision": revision}
    else:
        given = {key: known.get(key) for key in ("path", "revision", "layers")}
    return {key: value for key, value in given.items() if value is not None}
