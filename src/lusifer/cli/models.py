"""The MODEL argument, its device and number format, which several commands take; and its start in a short process."""

from __future__ import annotations

import gc
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
from lusifer.errors import LusiferError, MissingExtraError, UsageError
from lusifer.io import names

if TYPE_CHECKING:
    from lusifer.index.index import Index
    from lusifer.serving.guard import LanguageGuard

OWN_PROCESS = "own process"
"""The object of typer's context where nothing but one command runs in this process."""


def model_name(name: str | None) -> str | None:
    """The name of a model as it was given; one that can be none is refused before anything else is read.

    Raises:
        UsageError: It is no folder, no model that comes with the library, no installed package and no hub id.
    """
    if name is not None:
        names.model(name)
    return name


Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        callback=model_name,
        help="A model folder, a model that comes with the library (mini), a hub id, or package:NAME.",
    ),
]
Field = Annotated[str | None, typer.Option(help="Field or column of the text (JSON lines, CSV, Parquet); else text.")]
InputFormat = Annotated[
    Literal["txt", "jsonl", "csv"] | None,
    typer.Option(help="What the input is; by default by its ending, and a text a line on standard input."),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...; by default the best one here.")]
Unscored = Annotated[
    Literal["warn", "error", "off"],
    typer.Option(help="Texts in a language or script without a score on the model's card: say so, refuse, or nothing."),
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
        help="Number format of the model: float32, bfloat16 or float16; by default as saved.",
    ),
]


def _number_format_or_auto(name: str | None) -> str | None:
    return _AUTO if name is not None and name.strip().lower() == _AUTO else _number_format(name)


_AUTO = "auto"
"""`serving.dtypes.AUTO`, which takes torch to import."""
AutoDtype = Annotated[
    str,
    typer.Option(
        callback=_number_format_or_auto,
        help="Number format of the model: auto, float32, bfloat16 or float16. On a CPU, auto takes the fastest one "
        "that keeps the golden vectors of the model; elsewhere the one saved. An index keeps its own.",
    ),
]


def guard_for(model: str, unscored: str) -> LanguageGuard | None:
    """What looks at the languages of texts for a model, as `Unscored` says; None where nothing is looked at.

    Of a model that is nowhere, its loading tells.

    Raises:
        MissingExtraError: Texts are to be refused, and py3langid is not installed.
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
    """Refuse options that are wrong whatever the model: it need not be loaded to say so.

    Raises:
        UsageError: Both prompt and task, an unknown task or language, or no file of language statistics there.
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


def usable(device: str | None) -> str | None:
    """The device in small letters; one that this machine does not have is refused as `embedder.place.usable` does."""
    if device is None:
        return None
    from lusifer.embedder import place

    return place.usable(device, "--device")


@contextmanager
def quick_imports() -> Iterator[None]:
    """Look for no garbage meanwhile: what imports and a loaded model make stays, and the search is a seventh of it."""
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
    thorough: bool = True,
    index: Index | None = None,
) -> Any:
    """Load what embeds: of one of our models on a CPU no more than that, where nothing else runs in this process.

    Gives the model and the format it was asked for in, None as saved. Where `auto` chose it, a line says so.

    Args:
        model: As `Model`.
        device: As `Device`.
        dtype: As `DtypeOption` or `AutoDtype`.
        thorough: As `serving.dtypes.load`.
        alone: Whether the process ends with this command, and compiles nothing.
        index: The index whose format `dtype` is; a slow one is then no choice of the call.

    Raises:
        LusiferError: As `folder.load`.
    """
    device = usable(device)
    light = alone and start_light(model, device)
    from lusifer.embedder import folder

    def make(dtype: str | None) -> Any:
        return folder.load(model, device=device, dtype=dtype, vectors_only=light)

    if dtype != _AUTO:
        from lusifer.serving.encode import slow_format

        made = make(dtype)
        if slow := slow_format(made.device, dtype):
            own = "" if index is None else f"{index.folder}: its vectors are in {dtype}: "
            advice = "" if index is None else f"; {embed_again(index.folder, index.asks, '--dtype', 'float32')}"
            terminal.note(f"{own}{slow}{advice}")
        return made, dtype
    from lusifer.serving import dtypes

    made, choice = dtypes.load(model, device, make, thorough=thorough)
    if choice.line:
        terminal.note(choice.line)
    return made, choice.dtype


def settle_dtype(settings: dict[str, Any], index: Path, model: str, before: str | None) -> None:
    """Take the option out of settings for an index whose vectors are in the format `before` (None: as saved).

    Raises:
        UsageError: Another one is asked for.
    """
    from lusifer.serving import dtypes

    dtype = settings.pop("dtype")
    if dtype != _AUTO and not dtypes.same(model, dtype, before):
        words = f"the vectors of the index are in {before or 'the format that the model was saved in'}"
        anew = embed_again(index, model, "--dtype", dtype)
        raise UsageError(f"--dtype {dtype}: {words}: leave the option out; {anew}")


def embed_again(index: Path, model: str, *more: str) -> str:
    """How the documents of an index get other vectors: from their texts, or from new vectors if it has no texts.

    Args:
        index: The folder of the index.
        model: The model, as it is named in a call.
        *more: Further words of the call.
    """
    from lusifer.index.table import PassageTable

    if PassageTable(index.expanduser()).lacks_text:
        return "the index has no texts to embed again: for other vectors, make a new index (`lusifer index`)"
    return f"to embed the texts again: `{shlex.join(['lusifer', 'reindex', str(index), '--model', model, *more])}`"


def demand(embedder: Any, model: str) -> None:
    """Refuse a loaded model that does not give its golden vectors, as `golden.demand`."""
    from lusifer.embedder import golden  # not before the model is loaded, which may keep libraries out of the process

    golden.demand(embedder, model)


def start_light(model: str, device: str | None) -> bool:
    """Keep out of this process what transformers imports for other work than embedding one of our models on a CPU.

    Three things take half of the time from the command to the first vector: the compiler of torch, parameters that
    several processes share, and scipy and accelerate. A process that compiles nothing and runs alone needs none of
    them, so they are absent as in an installation without them; the compiler is imported once it is asked for. Only for
    a process of our own that ends with the command: in it transformers has been imported without these parts.

    Returns:
        Whether it was done: not for models of others, another device, or after transformers was imported.
    """
    from lusifer.embedder import contents
    from lusifer.errors import ModelFolderError

    try:
        folder = names.model(model)
        ours = isinstance(folder, Path) and (contents.is_int8(folder) or contents.is_plain(folder))
    except (ModelFolderError, AttributeError, KeyError, TypeError):
        return False  # `folder.load` says what is wrong
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
"""Libraries that transformers can do without; None in `sys.modules` is Python's way to say that there is none."""


class _Compiler(ModuleType):
    """Torch's compiler before it is imported. It only lets functions be marked, which means nothing until then."""

    @staticmethod
    def disable(function: Any = None, *_: Any, **__: Any) -> Any:
        """Mark nothing, as a decorator with or without arguments."""
        return function if function is not None else lambda given: given

    allow_in_graph = assume_constant_result = disable

    def __getattr__(self, name: str) -> Any:
        """Become the module itself at the first other use, as `importlib.util.LazyLoader` does."""
        if name.startswith("__"):
            raise AttributeError(name)
        self.__class__ = ModuleType
        self.__spec__.loader.exec_module(self)
        return getattr(self, name)
