"""Save, load, check and export model folders; other embedders are loaded too."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers.initialization import no_init_weights

from lusifer.embedder import contents, golden, int8, plain
from lusifer.embedder.place import number_format, usable
from lusifer.errors import LusiferError, ModelFolderError, UsageError
from lusifer.io import hub, names, tokenizer_files
from lusifer.io.files import refuse_pointer, write_folder
from lusifer.io.weights import misfit, opened
from lusifer.model import build, delta
from lusifer.model.bases import backbones
from lusifer.model.config import LusiferConfig
from lusifer.model.lusifer import LusiferModel

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def save(
    embedder: SentenceTransformer, target: str | os.PathLike[str], card: str | None = None, *, finished: bool = False
) -> None:
    """Save an embedder as a complete folder, with adapters merged. It replaces an old folder, all at once.

    Args:
        embedder: The model.
        target: The folder to write.
        card: The text of README.md. None writes no README.md.
        finished: Whether to write golden vectors.
    """
    with write_folder(target) as temporary:
        embedder.save_pretrained(str(temporary), create_model_card=False)
        contents.shorten_tokenizer(temporary)
        if card is not None:
            (temporary / "README.md").write_text(card, encoding="utf-8")
        if finished:
            golden.write(embedder, temporary)


def load(
    name_or_path: str | os.PathLike[str],
    device: str | None = None,
    *,
    dtype: str | torch.dtype | None = None,
    attn_implementation: str | None = None,
    bases: Mapping[str, str] | None = None,
    merge_adapters: bool = True,
    vectors_only: bool = False,
) -> SentenceTransformer | plain.PlainEmbedder:
    """Check and load a LUSIFER model, or load any embedder of sentence-transformers.

    Args:
        name_or_path: A folder, the name of a model that comes with the library, `package:NAME`, or an id on the Hub.
        device: Such as "cuda:1". None takes the best device of the machine.
        dtype: The dtype of the backbones, such as "bfloat16". None keeps the dtype of the files.
        attn_implementation: "sdpa" or "eager". None leaves it to transformers.
        bases: For a delta: "encoder" and "llm" -> the path of the base, if it is not the path in `config.json`.
        merge_adapters: For a delta: False keeps the adapters of a half-precision backbone as separate layers.
        vectors_only: Whether a `PlainEmbedder`, which only embeds on the CPU, is enough where one can be made.

    Raises:
        ModelFolderError: A file is missing or damaged, or the Hub does not deliver the model.
        MissingExtraError: The folder is an int8 folder and OpenVINO is not installed.
        UsageError: There is no such model, device or dtype, or an argument does not apply to the model.
    """
    device, dtype = usable(device), number_format(dtype)
    wishes = {"dtype": dtype, "attn_implementation": attn_implementation}
    wishes |= {"bases": dict(bases) if bases else None, "merge_adapters": None if merge_adapters else False}
    wishes = {key: value for key, value in wishes.items() if value is not None}
    found = names.model(name_or_path)
    if names.is_packed(found):
        if bases:
            raise UsageError(f"bases: {found} is no delta, it contains all of its weights: leave the argument out")
        from lusifer.embedder import assemble  # imports sentence-transformers, which takes seconds

        return assemble.packed(Path(found), device, dtype, attn_implementation)
    if isinstance(found, Path):
        model = _check(found, vectors_only)
    else:
        start = hub.fetch(found, ["config.json"])
        config = start / "config.json"
        if not config.is_file() or contents.read(config).get("model_type") != contents.MODEL_TYPE:
            from sentence_transformers import SentenceTransformer

            with _told(start, found):
                # The name of the fetched folder is the commit.
                said = {"device": device, "revision": start.name, "model_kwargs": wishes}
                return SentenceTransformer(found, trust_remote_code=False, **said)
        name, found = found, hub.fetch(found, contents.FILES)
        try:
            model = _check(found, vectors_only)  # transformers would fill a missing tensor with random numbers
        except ModelFolderError as error:
            raise ModelFolderError(f"{name}: the files from the Hub are incomplete or damaged: {error}") from error
    if bases and not contents.is_delta(found):
        raise UsageError(f"bases: {found} is no delta, it contains all of its weights: leave the argument out")
    if contents.is_int8(found):
        return int8.load(found, device, vectors_only=vectors_only, **wishes)
    return plain.load(found, model, dtype, bases) if model is not None else _by_library(found, device, wishes)


def _by_library(folder: Path, device: str | None, wishes: dict[str, Any]) -> SentenceTransformer:
    """Load a checked folder with sentence-transformers."""
    from sentence_transformers import SentenceTransformer

    if device is not None and (placed := build.place(device)) and contents.is_ours(folder):
        wishes, device = wishes | placed, None  # the library accepts only one of the two
    with _told(folder, f"{folder}: sentence-transformers cannot load it"):
        said = {"device": device, "local_files_only": True, "model_kwargs": wishes}
        made = SentenceTransformer(str(folder), trust_remote_code=False, **said)
    if isinstance(model := getattr(made[0], "model", None), LusiferModel):
        plain.refuse_unread(folder, model, made.tokenizer)
    has_transformer = (folder / "config.json").is_file()  # then the library has applied the dtype
    return made if has_transformer or "dtype" not in wishes else made.to(getattr(torch, wishes["dtype"]))


@contextmanager
def _told(folder: Path, what: str) -> Iterator[None]:
    """Turn errors of a block, in which sentence-transformers loads a folder, into errors that name the damaged file.

    Args:
        folder: The folder.
        what: The start of the message when no file is found to be damaged.

    Raises:
        ModelFolderError: The settings, the tokenizer or the adapters are damaged. For a LUSIFER model without such
            damage the error of the library is raised unchanged.
    """
    try:
        yield
    except (LusiferError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # tokenizers raises a bare Exception, and peft many kinds
        said = contents.fault(folder) or _of_modules(folder) or tokenizer_files.fault(folder, contents.ADVICE)
        file = folder / contents.ADAPTERS
        if said is None and file.is_file():
            said = _of_adapters(folder, error)
        if said is None and (folder / "config.json").is_file() and contents.is_ours(folder):
            plain.tokenizer(folder)  # the library's own message does not name the fault of a tokenizer
            said = _of_settings(folder, error)
            if said is None:
                raise
        raise ModelFolderError(said or f"{what}: {_why(error)}") from error


def _of_modules(folder: Path) -> str | None:
    """Describe the first class in modules.json that sentence-transformers does not load; None if it loads them all."""
    from sentence_transformers.util.misc import import_from_string

    file = folder / "modules.json"
    for name in [module["type"] for module in contents.read(file)] if file.is_file() else ():
        if not name.startswith("sentence_transformers."):
            words = f"names the class {name!r}, which is not part of sentence-transformers"
            return f"{file}: {words}: Lusifer runs no code of a model folder; {contents.ADVICE}"
        try:
            import_from_string(name)
        except ImportError:
            return f"{file}: damaged, sentence-transformers has no class {name!r}; {contents.ADVICE}"
    return None


def _why(error: Exception) -> str:
    """Describe an error of a library in one line, with its class where the message needs it."""
    kind = f"{type(error).__name__}: " if isinstance(error, (TypeError, AttributeError, LookupError)) else ""
    return kind + hub.why(error)


def _of_settings(folder: Path, error: Exception) -> str | None:
    """Describe an error that sentence_bert_config.json caused; None if the error came from elsewhere."""
    *_, (last, _) = traceback.walk_tb(error.__traceback__)
    module = last.f_globals.get("__name__", "")
    unknown = isinstance(error, TypeError) and "Transformer.__init__" in str(error)
    if not (module.startswith("sentence_transformers.base.modules.") or unknown):
        return None
    return f"{folder / 'sentence_bert_config.json'}: damaged ({_why(error)}); {contents.ADVICE}"


def _of_adapters(folder: Path, error: Exception) -> str | None:
    """Describe an error that the adapters or their base caused; None if the error came from elsewhere."""
    file, why = folder / contents.ADAPTERS, _why(error)
    at = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    if any("peft" in name.split(".") for name in at):
        if isinstance(error, ValueError):  # such as VeRA, whose layers share tensors that peft stores on the model
            advice = "merge them into the model (peft: PeftModel.from_pretrained, merge_and_unload) and save that"
            return f"{file}: these adapters cannot be loaded ({why}): {advice}"
        return f"{file}: damaged, or adapters of another model ({why}); {contents.ADVICE}"
    if (folder / "config.json").is_file():
        return None
    base = contents.read(file, dict).get("base_model_name_or_path")
    words = f"{base}, the base of these adapters, cannot be loaded ({why}): put it there, or save the complete model"
    return tokenizer_files.missing(folder) or f"{file}: {words} instead"


def export(model: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Write a copy of a LUSIFER model with all of its weights: of a delta also those of its bases, adapters merged.

    Args:
        model: A folder, or a name as for `lusifer.load`.
        target: The folder to write.

    Raises:
        UsageError: There is no such model, or it is no LUSIFER model, or it is an int8 model.
        ModelFolderError: A file is damaged or a link out of the folder, a base has changed, or the model gives other
            vectors than its golden vectors.
    """
    from lusifer.embedder.card import of_whole  # it imports more than embedding needs

    found = names.model(model)
    source = found if isinstance(found, Path) else hub.fetch(found, contents.FILES)
    if not source.is_dir() or contents.is_int8(source) or not contents.is_ours(source):
        raise UsageError(f"{model}: cannot be exported: give a folder of a LUSIFER model that is not int8")
    contents.refuse_links(source)
    card = source / "README.md"
    words = card.read_text(encoding="utf-8") if card.is_file() else None
    embedder = load(source, device="cpu")
    golden.demand(embedder, source)
    save(embedder, target, of_whole(words) if words is not None else None, finished=True)


def load_cross_encoder(
    name_or_path: str, *, device: str | None = None, batch_size: int = 32
) -> Callable[[Sequence[tuple[str, str]]], np.ndarray]:
    """Load a cross-encoder of sentence-transformers.

    Args:
        name_or_path: A folder, or an id on the Hub.
        device: Such as "cuda:1". None takes the best device of the machine.
        batch_size: Pairs of one forward pass.

    Returns:
        A function from n pairs (query, text) to scores (n,), float32; a higher score is a better answer.

    Raises:
        UsageError: It cannot be loaded, or gives more than one score a pair.
    """
    from sentence_transformers import CrossEncoder

    try:
        here = Path(name_or_path).is_dir()
        model = CrossEncoder(name_or_path, device=device, local_files_only=here, trust_remote_code=False)
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        words = f"cannot be loaded as a cross-encoder ({first}): correct the name or choose another model"
        raise UsageError(f"{name_or_path}: {words}") from error
    if model.num_labels != 1:
        raise UsageError(f"{name_or_path}: gives {model.num_labels} scores a pair: use a cross-encoder with one score")

    def scores(pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        if not pairs:
            return np.zeros(0, dtype=np.float32)
        return np.asarray(model.predict(list(pairs), batch_size=batch_size, show_progress_bar=False), np.float32)

    return scores


def check(path: str | os.PathLike[str]) -> None:
    """Check a model folder without loading it: its files, its settings, and the shape of every tensor.

    Raises:
        ModelFolderError: A file is missing or damaged, or the tensors do not fit config.json.
    """
    folder = Path(path)
    _check(folder)
    if contents.is_int8(folder):
        int8.read(folder)


def _check(folder: Path, keep: bool = False) -> LusiferModel | None:
    """Check a folder; with `keep`, return the model that `plain.load` fills with the weights, where it can."""
    whole = contents.check(folder)
    if (folder / contents.ADAPTERS).is_file() and not (folder / "config.json").is_file():
        _check_adapters(folder)
    if not whole:
        return None  # another embedder, such as MiniLM: sentence-transformers checks it
    try:
        refuse_pointer(folder / "tokenizer.json", ModelFolderError)
        if not (keep and contents.is_plain(folder)):  # else `plain.load` reads it, and reading it twice takes long
            Tokenizer.from_file(str(folder / "tokenizer.json"))
    except (ModelFolderError, MemoryError):
        raise
    except Exception as error:  # tokenizers raises a bare Exception
        raise ModelFolderError(tokenizer_files.fault(folder, contents.ADVICE) or str(error)) from error
    config = contents.read(folder / "config.json")
    found = contents.weights(folder)
    keep = keep and contents.is_plain(folder)
    try:
        # Without `keep`, on the meta device, which takes no memory and a second to import.
        with no_init_weights() if keep else backbones.described():
            made = LusiferConfig.from_dict(config)
            dtypes, made.tower_dtypes = made.tower_dtypes, None if made.bases else made.tower_dtypes
            model = LusiferModel(made)
            made.tower_dtypes = dtypes  # only now: weights that come from a base need no cast before
    except RuntimeError:  # not enough memory, or shapes that do not fit
        if not keep:
            raise
        return _check(folder)
    except ValueError as error:
        raise ModelFolderError(f"{folder / 'config.json'}: {error}") from error
    except (TypeError, AttributeError, KeyError) as error:  # a setting of the wrong type
        words = f"damaged, no model can be made from it ({type(error).__name__}: {error}); {contents.ADVICE}"
        raise ModelFolderError(f"{folder / 'config.json'}: {words}") from error
    expected = delta.expected(model, model.config)
    for one, other in model.all_tied_weights_keys.items():  # T5 stores a shared tensor under one of its two names
        if (one in found) != (other in found):
            found[one] = found[other] = found.get(one) or found[other]
    wrong = misfit(expected, found)
    if wrong:
        raise ModelFolderError(f"{folder}: the weights do not fit config.json: tensors {wrong}; {contents.ADVICE}")
    return model if keep else None


def _check_adapters(folder: Path) -> None:
    """Check a folder with peft adapters alone, and their base if it is a folder."""
    base = contents.read(folder / contents.ADAPTERS, dict).get("base_model_name_or_path")
    with opened(folder / "adapter_model.safetensors", contents.ADVICE) as tensors:
        # transformers would skip these and only print a table about it.
        inner = [key for key in tensors.keys() if ".base_model.model." in key]  # noqa: SIM118
    if inner:
        words = f"contains adapters on a part that has its own adapters ({inner[0]}), which cannot be loaded"
        raise ModelFolderError(f"{folder / 'adapter_model.safetensors'}: {words}: save the complete model instead")
    if not base or not isinstance(base, str):
        raise ModelFolderError(f"{folder / contents.ADAPTERS}: names no base model: save the complete model instead")
    if Path(base).is_dir():
        check(base)
        if contents.is_ours(Path(base)):  # if one of these files is missing, transformers guesses its settings
            contents.check_files(folder, [name for name in contents.REQUIRED[1:] if name != "config.json"])
    elif Path(base).is_absolute():
        words = f"{base}, the base of these adapters, is not there: put it back, or save the complete model instead"
        raise ModelFolderError(f"{folder / contents.ADAPTERS}: {words}")
