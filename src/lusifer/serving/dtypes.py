"""The dtype that suits the processor: `--dtype auto`.

bfloat16 where the processor multiplies it, float32 where it does not, and only if the model still gives the golden
vectors of its folder in that format. Whatever cannot be checked stays as saved.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lusifer.embedder import contents, golden
from lusifer.errors import ModelFolderError
from lusifer.io import hub, names
from lusifer.processor import multiplies

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from lusifer.embedder.plain import PlainEmbedder

    Embedder = SentenceTransformer | PlainEmbedder

AUTO = "auto"
"""What stands for the format that suits the processor."""
FARTHEST = 1e-3
"""Largest cosine distance of a golden vector, made in float32, from the same one in a format that nobody asked for: a
tenth of what a user may ask for (`golden.FARTHEST_IN_HALF`). That one holds where the golden vectors are of half
precision, since they are as far off themselves."""


@dataclass(frozen=True)
class FormatChoice:
    """The format of a model.

    dtype: The format; None: as saved.
    line: A line for the user, empty where there is nothing to say.
    checked: Whether the model in this format gave its golden vectors as `golden.demand` asks for: once is enough.
    """

    dtype: str | None
    line: str = ""
    checked: bool = False


def fastest(has_bfloat16: bool | None, saved: frozenset[str]) -> str | None:
    """The format that a processor multiplies fastest.

    Args:
        has_bfloat16: Whether it has instructions for products in bfloat16; None: not known.
        saved: The formats that the weights are saved in; empty: not known.

    Returns:
        None where that is the one they are saved in, or nothing is known of the processor.
    """
    if has_bfloat16 is None:
        return None
    wanted = "bfloat16" if has_bfloat16 else "float32"
    return None if saved == {wanted} else wanted


def choose(wanted: str, distance: float, limit: float) -> FormatChoice:
    """Take a format if no golden vector is farther off in it than `limit` (cosine distance); else as saved."""
    near = distance <= limit
    if not near:
        words = f"in {wanted} a test text of the model gets another vector (cosine distance {distance:.0e}"
        return FormatChoice(None, f"dtype as saved: {words}, limit {limit:.0e}); --dtype {wanted} sets it anyway")
    why = "fastest on this processor" if wanted == "bfloat16" else "this processor does not multiply bfloat16"
    kept = f"vectors of the model's test texts change by {distance:.0e} at most (cosine distance; limit {limit:.0e})"
    other = "float32" if wanted == "bfloat16" else "bfloat16"
    return FormatChoice(wanted, f"dtype {wanted}: {why}; {kept}; --dtype {other} chooses another")


def load(
    model: str | os.PathLike[str],
    device: str | None,
    make: Callable[[str | None], Embedder],
) -> tuple[Embedder, FormatChoice]:
    """Load a model in the format that suits the processor.

    All golden texts are compared, also for a job of few texts: a job of many would choose another format else.

    Args:
        model: A name as for `lusifer.load`.
        device: Where it will be; None: the best one here. Elsewhere than on a processor the format is as saved.
        make: Loads it in a format; None is the one it was saved in.

    Raises:
        LusiferError: As `make`.
    """
    folder = _folder(model) if on_processor(device) else None
    has_bfloat16 = multiplies("bfloat16")
    saved = formats(folder) if folder is not None else frozenset()
    wanted = fastest(has_bfloat16, saved)
    if folder is None or wanted is None or (wanted == "float32" and not saved):
        return make(None), FormatChoice(None)
    try:
        texts, vectors, half = golden.read(folder) if (folder / golden.FILE).is_file() else ((), None, False)
    except ModelFolderError:  # whoever checks the folder says what is wrong with it
        texts = ()
    if not texts:
        words = f"the folder of {model} has no golden vectors (golden.json) that can be read, to check {wanted}"
        line = f"dtype as saved: {words}; --dtype {wanted} sets it, which is faster here"
        return make(None), FormatChoice(None, line)
    made = make(wanted)
    limit = golden.FARTHEST_IN_HALF if half else FARTHEST
    distance = golden.farthest(made, texts, vectors)
    choice = choose(wanted, distance, limit)
    if choice.dtype is None:
        del made  # before the same model is loaded a second time
        return make(None), choice
    return made, replace(choice, checked=distance < golden.limit_for(made, half))


def formats(folder: Path) -> frozenset[str]:
    """The formats that the weights of a model are saved in, as its `config.json` has them; empty if it has none."""
    try:
        if contents.is_int8(folder):
            return frozenset()
        config = contents.read(folder / "config.json")
        if contents.is_ours(folder):
            return frozenset((config.get("tower_dtypes") or {}).values())
        return frozenset(filter(None, [config.get("dtype") or config.get("torch_dtype")]))
    except (ModelFolderError, AttributeError, KeyError, TypeError):
        return frozenset()  # `folder.load` says what is wrong


def same(model: str | os.PathLike[str], one: str | None, other: str | None) -> bool:
    """Whether two formats of a model are one; None is the format that it was saved in."""
    if one == other:
        return True
    folder = _folder(model) if None in (one, other) else None
    return folder is not None and formats(folder) == {one or other}


def on_processor(device: str | None) -> bool:
    """Whether a model is on the CPU; None is the best device of the machine."""
    import torch

    return device.lower().split(":")[0] == "cpu" if device is not None else not torch.accelerator.is_available()


def _folder(model: str | os.PathLike[str]) -> Path | None:
    """The folder of a model, or what of it this needs; None where it is another kind of thing (packed, int8)."""
    found = names.model(model)
    if names.is_packed(found):
        return None
    folder = found if isinstance(found, Path) else hub.fetch(found, ["config.json", golden.FILE])
    return None if contents.is_int8(folder) else folder
