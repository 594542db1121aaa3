"""The argument MODEL, its device and dtype for several commands, and a fast start for short processes."""

from __future__ import annotations

import gc
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lusifer.cli import terminal
from lusifer.errors import LusiferError, MissingExtraError, ModelFolderError, UsageError
from lusifer.io import names
from lusifer.io.files import expand_user, refuse_unwritable

if TYPE_CHECKING:
    from lusifer.index.index import Index
    from lusifer.serving.dtypes import FormatChoice
    from lusifer.serving.guard import LanguageGuard

OWN_PROCESS = "own process"
"""The object of typer's context if this process runs only one command."""


def model_name(name: str | None) -> str | None:
    """Return the name of a model; refuse an impossible name before anything is read.

    Raises:
        UsageError: It is no folder, no packaged model, no installed package and no id of the Hub.
    """
    if name is not None:
        names.model(name)
    return name


Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        callback=model_name,
        help="A model folder, a packaged model (mini), an id on the Hugging Face Hub, or package:NAME.",
    ),
]
Field = Annotated[
    str | None, typer.Option(help="Field or column with the text (JSON lines, CSV, Parquet); by default text.")
]
InputFormat = Annotated[
    Literal["txt", "jsonl", "csv"] | None,
    typer.Option(help="Format of the input; by default from its suffix, and txt for standard input."),
]
Task = Annotated[str | None, typer.Option(help="Name of a built-in instruction, as for `embed`.")]
Prompt = Annotated[str | None, typer.Option(help="Instruction for queries, as in training.")]
Tokens = Annotated[int | None, typer.Option(min=1, help="Maximum tokens of a passage; by default that of the model.")]
Overlap = Annotated[int | None, typer.Option(min=0, help="Maximum tokens shared with the next passage; by default 0.")]
LanguageField = Annotated[
    str | None, typer.Option(help="With --offsets: field with the language; by default the language is identified.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the model in the output folder.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...; by default the best one.")]
Unscored = Annotated[
    Literal["warn", "error", "off"],
    typer.Option(help="Texts in a language or script that the model card has no score for: warn, stop, or do nothing."),
]


def _number_format(name: str | None) -> str | None:
    if name is None:
        return None
    from lusifer.embedder.place import number_format

    return number_format(name, "--dtype")


DtypeOption = Annotated[
    str | None,
    typer.Option(
        callback=_number_format,
        help="Dtype of the model: float32, bfloat16 or float16; by default as saved.",
    ),
]


def _number_format_or_auto(name: str | None) -> str | None:
    return AUTO if name is not None and name.strip().lower() == AUTO else _number_format(name)


AUTO = "auto"
"""The value of `serving.dtypes.AUTO`, whose module imports torch."""
AutoDtype = Annotated[
    str,
    typer.Option(
        callback=_number_format_or_auto,
        help="Dtype of the model: auto, float32, bfloat16 or float16. On a CPU, auto is the fastest one that leaves "
        "the vectors of the model's test texts nearly unchanged; elsewhere it is the saved one. An existing index "
        "keeps its dtype.",
    ),
]


def guard_for(model: str, unscored: str) -> LanguageGuard | None:
    """Give the language guard of a model for `--unscored`; None without one.

    A model that does not exist also gives None: loading it raises the error.

    Raises:
        MissingExtraError: `--unscored error`, and py3langid is not installed.
    """
    from lusifer.serving import guard

    if unscored == "off":
        return None
    try:
        return guard.for_model(model, True if unscored == "error" else None, terminal.note)
    except MissingExtraError:
        raise
    except LusiferError:
        return None


def refuse_words(
    prompt: str | None, task: str | None, statistics: str | Path | None = None, language: str | None = None
) -> None:
    """Refuse options that are wrong for every model, before one is loaded.

    Raises:
        UsageError: Both prompt and task, an unknown task or language, or a missing file of language statistics.
        DataError: That file is damaged.
    """
    from lusifer import languages
    from lusifer.calibration import asking
    from lusifer.serving import encode

    encode.choose_prompt({}, prompt, task, "query")
    if statistics is not None:
        asking.taken(statistics)
    if language is not None and language.strip():
        languages.language(language)


def refuse_damaged(*models: str | None) -> None:
    """Refuse a model folder that lacks a file or has damaged settings, before libraries are imported to load it.

    Weights are not read: damage inside them is found when they are loaded.

    Raises:
        ModelFolderError: The message names the file. It is also raised for a file in place of a folder.
    """
    from lusifer.embedder import contents
    from lusifer.io import weights

    for folder in (names.model(model) for model in models if model is not None):
        if not isinstance(folder, Path) or names.is_packed(folder) or not contents.check(folder):
            continue
        if file := next((each for each in weights.files(folder, contents.ADVICE) if not each.is_file()), None):
            raise ModelFolderError(f"{file}: missing; {contents.ADVICE}")


def refuse_model(output: Path, option: str, overwrite: bool) -> None:
    """Refuse an output folder that is to become a model, before libraries are imported.

    Args:
        output: The folder; a symbolic link counts as the folder that it points to.
        option: The option or argument that names it, for the message.
        overwrite: Whether a model in it may be replaced. Other files are never replaced.

    Raises:
        UsageError: It cannot be written to, has files and is no model folder, or has a model and `overwrite` is False.
    """
    refuse_unwritable(output, "folder", option, replaces="modules.json")
    if not overwrite and (expand_user(output) / "modules.json").is_file():
        raise UsageError(f"{output}: already has a model: name another folder, or give --overwrite to replace it")


def refuse_unserved(models: list[str], indexes: list[Path], statistics: list[Path]) -> None:
    """Refuse models, indexes and files of statistics that do not exist."""
    from lusifer.index.table import refuse_none

    refuse_damaged(*models)
    for place in indexes:
        refuse_none(expand_user(place))
    for file in statistics:
        refuse_words(None, None, file)


def open_to_add(output: Path, model: str) -> Index:
    """Open an index with the model that is to add documents.

    Raises:
        UsageError: As for `Index.open`; for another model than that of the index the message advises another --output.
    """
    from lusifer.index.index import Index
    from lusifer.index.models import OtherModelError

    try:
        return Index.open(output, model)
    except OtherModelError as error:
        how = "gives other vectors: choose another --output, name the first model, or"
        raise UsageError(str(error).replace(error.SEARCH, how)) from error


def limit_caches() -> None:
    """Let oneDNN and torch keep kernels for 16 batch shapes, where the user has set no number; call it before torch.

    Each of them keeps a kernel and its reordered weights for every shape: gigabytes in bfloat16 over a long job. Both
    read their limit when torch is imported.
    """
    for cache in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(cache, "16")


def usable(device: str | None) -> str | None:
    """Return the device in lower case; refuse one that this machine does not have, as `embedder.place.usable`."""
    if device is None:
        return None
    from lusifer.embedder import place

    return place.usable(device, "--device")


@contextmanager
def quick_imports() -> Iterator[None]:
    """Pause garbage collection: imports and a loaded model leave no garbage, and collection takes 1/7 of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def load_to_embed(
    model: str,
    device: str | None,
    dtype: str | None,
    *,
    alone: bool,
    index: Index | None = None,
    advise: bool = True,
) -> tuple[Any, FormatChoice]:
    """Load a model to embed, without its other parts if it is a Lusifer model on a CPU in a process of its own.

    Gives the model and its dtype, None if it is the saved one. The caller reports a dtype that `auto` chose.

    Args:
        model: As `Model`.
        device: As `Device`.
        dtype: As `DtypeOption` or `AutoDtype`.
        alone: Whether the process ends after this command and compiles nothing.
        index: The index whose dtype is given as `dtype`; a slow one is then not a choice of this call.
        advise: Whether to say that `auto` could not check a faster dtype, which a long job may want.

    Raises:
        LusiferError: As `folder.load`.
    """
    refuse_damaged(model)
    device = usable(device)
    light = alone and start_light(model, device)
    from lusifer.embedder import folder
    from lusifer.serving import dtypes

    def make(dtype: str | None) -> Any:
        return folder.load(model, device=device, dtype=dtype, vectors_only=light)

    if dtype != AUTO:
        from lusifer.serving.encode import slow_format

        made = make(dtype)
        if slow := slow_format(made.device, dtype):
            own = "" if index is None else f"{index.folder}: its vectors are in {dtype}: "
            advice = "" if index is None else f"; {embed_again(index.folder, index.asks, '--dtype', 'float32')}"
            terminal.note(f"{own}{slow}{advice}")
        return made, dtypes.FormatChoice(dtype)
    made, choice = dtypes.load(model, device, make)
    if advise and choice.dtype is None and choice.line:
        terminal.note(choice.line)
    return made, choice


def settle_dtype(settings: dict[str, Any], index: Path, model: str, before: str | None) -> None:
    """Remove the dtype from the settings of an index whose vectors are in the dtype `before` (None: as saved).

    Raises:
        UsageError: The option names another dtype.
    """
    from lusifer.serving import dtypes

    dtype = settings.pop("dtype")
    if dtype != AUTO and not dtypes.same(model, dtype, before):
        words = f"the vectors of the index are in {before or 'the dtype that the model was saved in'}"
        again = embed_again(index, model, "--dtype", dtype)
        raise UsageError(f"--dtype {dtype}: {words}: leave the option out; {again}")


def embed_again(index: Path, model: str, *more: str) -> str:
    """Say how to replace the vectors of an index: embed its texts again, or make a new index if it has no texts.

    Args:
        index: The folder of the index.
        model: The model, as it was given.
        *more: More arguments of the command.
    """
    from lusifer.index.table import PassageTable

    if PassageTable(expand_user(index)).lacks_text:
        return "the index has no texts to embed again: for other vectors, make a new index (`lusifer index`)"
    return f"to embed the texts again: `{shlex.join(['lusifer', 'reindex', str(index), '--model', model, *more])}`"


def demand(embedder: Any, model: str) -> None:
    """Refuse a loaded model that does not give its golden vectors; see `golden.demand`."""
    from lusifer.embedder import golden  # after the model is loaded, which may keep out libraries

    golden.demand(embedder, model)


def start_light(model: str, device: str | None) -> bool:
    """Skip imports of transformers that embedding with a Lusifer model on a CPU does not need.

    Three things take half of the time from the command to the first vector: the compiler of torch, torch.distributed,
    and scipy and accelerate. A process that compiles nothing and runs alone does not need them. They are hidden, as if
    they were not installed; the compiler is imported at its first use. Call this only in a process that ends with the
    command, because transformers is then imported without these parts.

    Returns:
        Whether it was done: not for other models or devices, or after transformers was imported.
    """
    from lusifer.embedder import contents
    from lusifer.errors import ModelFolderError

    try:
        folder = names.model(model)
        ours = isinstance(folder, Path) and (contents.is_int8(folder) or contents.is_plain(folder))
    except (ModelFolderError, AttributeError, KeyError, TypeError):
        return False  # `folder.load` reports the error
    if not ours or "transformers.modeling_utils" in sys.modules:
        return False
    import torch

    if device not in (None, "cpu") or (device is None and torch.accelerator.is_available()):
        return False
    torch.distributed.is_available = lambda: False
    spec = find_spec("torch._dynamo")
    compiler = module_from_spec(spec)
    compiler.__class__ = _Compiler
    sys.modules[spec.name] = torch._dynamo = compiler
    sys.modules |= dict.fromkeys(_NOT_NEEDED)
    return True


_NOT_NEEDED = ("scipy", "accelerate")
"""Libraries that transformers does not need; with None in `sys.modules` an import fails as if they were absent."""


class _Compiler(ModuleType):
    """Placeholder for the compiler of torch: it only has the decorators, which do nothing before the real import."""

    @staticmethod
    def disable(function: Any = None, *_: Any, **__: Any) -> Any:
        """Return the function unchanged; works as a decorator with or without arguments."""
        return function if function is not None else lambda given: given

    allow_in_graph = assume_constant_result = disable

    def __getattr__(self, name: str) -> Any:
        """Import the real module at the first other use, as `importlib.util.LazyLoader` does."""
        if name.startswith("__"):
            raise AttributeError(name)
        self.__class__ = ModuleType
        self.__spec__.loader.exec_module(self)
        return getattr(self, name)
