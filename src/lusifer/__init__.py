"""LUSIFER: many languages for an English-centric LLM embedder, learned from English text alone (arXiv 2501.00874).

`import lusifer` costs next to nothing and makes `AutoModel.from_pretrained(DIR)` and `SentenceTransformer(DIR)` work on
folders of this project without `trust_remote_code`: the classes are registered at the moment when transformers loads
its Auto classes, in whatever order the imports are written.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING

import wrapt

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from sentence_transformers import SentenceTransformer

__version__ = "0.2.0"
__all__ = ["__version__", "load"]


def load(
    name_or_path: str | os.PathLike[str],
    device: str | None = None,
    dtype: str | None = None,
    *,
    bases: Mapping[str, str] | None = None,
) -> SentenceTransformer:
    """Load a trained model.

    Args:
        name_or_path: A folder that `lusifer train` or `lusifer convert` wrote, the name of a model that comes with the
            library (`mini`), `package:NAME` of an installed Python package, or a hub id.
        device: "cpu", "cuda", ...; None takes the best one of this machine.
        dtype: Number format of both backbones, as in "bfloat16"; None is the one they were saved in.
        bases: Of a model without the weights of its bases: "encoder" and "llm" -> where they lie now.

    Returns:
        The model: `.encode(texts)`, `.encode_query`, `.encode_document`.

    Raises:
        ModelFolderError: A file is missing or damaged; the message names it.
        UsageError: There is no model, device or number format of that name.
    """
    from lusifer.embedder import folder

    return folder.load(name_or_path, device=device, dtype=dtype, bases=bases)


def _load_config(_: ModuleType) -> None:
    """Import our configuration, unless somebody is in the middle of doing so: that somebody registers it when done."""
    if "lusifer.model.config" not in sys.modules:
        importlib.import_module("lusifer.model.config")


def _register_config(module: ModuleType) -> None:
    """Tell AutoConfig which class reads `model_type: lusifer`."""
    from transformers import AutoConfig

    AutoConfig.register("lusifer", module.LusiferConfig, exist_ok=True)


def _register_model(module: ModuleType) -> None:
    """Tell AutoModel which class belongs to our configuration."""
    from transformers import AutoModel

    AutoModel.register(module.LusiferConfig, module.LusiferModel, exist_ok=True)


wrapt.when_imported("transformers.models.auto.configuration_auto")(_load_config)
wrapt.when_imported("lusifer.model.config")(_register_config)
wrapt.when_imported("lusifer.model.lusifer")(_register_model)
