"""Lusifer: multilingual text embeddings from an English-centric LLM, trained on English text alone (arXiv 2501.00874).

`import lusifer` is fast: it imports neither torch nor transformers. After it, `AutoModel.from_pretrained(DIR)` and
`SentenceTransformer(DIR)` load model folders of this project without `trust_remote_code`. The classes are registered
when transformers loads its Auto classes, so the order of the imports does not matter.
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
    """Load a trained model as a SentenceTransformer.

    Args:
        name_or_path: A folder that `lusifer train` or `lusifer convert` wrote, the name of a model that comes with the
            library (`mini`), `package:NAME` for an installed Python package, or an id on the Hugging Face Hub.
        device: "cpu", "cuda", ...; None takes the best device of this machine.
        dtype: The dtype of both backbones, such as "bfloat16"; None is the one they were saved in.
        bases: "encoder" and "llm" -> the path of that base, for a model that is stored without its bases (a delta).

    Returns:
        The model, with `.encode(texts)`, `.encode_query` and `.encode_document`.

    Raises:
        ModelFolderError: A file is missing or damaged; the message names it.
        UsageError: No model, device or dtype has that name.
    """
    from lusifer.embedder import folder

    return folder.load(name_or_path, device=device, dtype=dtype, bases=bases)


def _load_config(_: ModuleType) -> None:
    """Import our configuration, unless an import of it is already running: that one registers it when it is done."""
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
