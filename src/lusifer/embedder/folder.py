"""The model folder: how it is written, checked, loaded and identified; models of others are loaded too."""

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
    """Write an embedder as a complete folder, whole or not at all, in place of an old one; adapters are merged in it.

    `card` is the text of README.md; without it there is none. A `finished` model gets golden vectors.
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
    """Load one of our models, which is checked first, or any embedder of sentence-transformers.

    Args:
        name_or_path: A folder, the name of a model that comes with the library, `package:NAME`, or a hub id.
        device: None takes the best one of the machine.
        dtype: Number format of the backbones, as in "bfloat16"; None is the one they were saved in.
        attn_implementation: "sdpa" or "eager"; None leaves it to transformers.
        bases: Of a delta, "encoder" and "llm" -> where its base lies now, if not where the folder says.
        merge_adapters: Of a delta, False keeps adapters on a tower in half precision beside it.
        vectors_only: Whether what embeds on the processor, and nothing else, will do for a folder as we write it.

    Raises:
        ModelFolderError: A file is missing or damaged, or the hub does not give the model.
        MissingExtraError: An int8 folder, and OpenVINO is not installed.
        UsageError: There is no model of that name, device or number format, or not in an int8 folder.
    """
    device, dtype = usable(device), number_format(dtype)
    wishes = {"dtype": dtype, "attn_implementation": attn_implementation}
    wishes |= {"bases": dict(bases) if bases else None, "merge_adapters": None if merge_adapters else False}
    wishes = {key: value for key, value in wishes.items() if value is not None}
    found = names.model(name_or_path)
    if names.is_packed(found):
        if bases:
            raise UsageError(f"bases: {found} holds all of its weights: leave the argument out")
        from lusifer.embedder import assemble  # sentence-transformers, which `embed` of a model of ours does without

        return assemble.packed(Path(found), device, dtype, attn_implementation)
    if isinstance(found, Path):
        model = _check(found, vectors_only)
    else:
        start = hub.fetch(found, ["config.json"])
        config = start / "config.json"
        if not config.is_file() or contents.read(config).get("model_type") != contents.MODEL_TYPE:
            from sentence_transformers import SentenceTransformer

            with _told(start, found):
                # The folder is called by its commit.
                said = {"device": device, "revision": start.name, "model_kwargs": wishes}
                return SentenceTransformer(found, trust_remote_code=False, **said)
        name, found = found, hub.fetch(found, contents.FILES)
        try:
            model = _check(found, vectors_only)  # transformers would draw a missing tensor
        except ModelFolderError as error:
            raise ModelFolderError(f"{name}: what the hub gives is not whole: {error}") from error
    if bases and not contents.is_delta(found):
        raise UsageError(f"bases: {found} holds all of its weights: leave the argument out")
    if contents.is_int8(found):
        return int8.load(found, device, vectors_only=vectors_only, **wishes)
    return plain.load(found, model, dtype, bases) if model is not None else _by_library(found, device, wishes)


def _by_library(folder: Path, device: str | None, wishes: dict[str, Any]) -> SentenceTransformer:
    """Load a folder, which was checked, as sentence-transformers does."""
    from sentence_transformers import SentenceTransformer

    if device is not None and (placed := build.place(device)) and contents.is_ours(folder):
        wishes, device = wishes | placed, None  # the library takes one of the two
    with _told(folder, f"{folder}: sentence-transformers cannot load it"):
        said = {"device": device, "local_files_only": True, "model_kwargs": wishes}
        made = SentenceTransformer(str(folder), trust_remote_code=False, **said)
    if isinstance(model := getattr(made[0], "model", None), LusiferModel):
        plain.refuse_unread(folder, model, made.tokenizer)
    has_transformer = (folder / "config.json").is_file()  # which was given the number format
    return made if has_transformer or "dtype" not in wishes else made.to(getattr(torch, wishes["dtype"]))


@contextmanager
def _told(folder: Path, what: str) -> Iterator[None]:
    """Run a block in which sentence-transformers loads a folder; what is wrong with it is said, of `what` in general.

    Raises:
        ModelFolderError: Names the file of settings, of the tokenizer or of adapters where it is to blame. What the
            libraries raise of a folder of ours that seems sound passes.
    """
    try:
        yield
    except (LusiferError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # tokenizers raises nothing more special, peft all kinds
        said = contents.fault(folder) or tokenizer_files.fault(folder, contents.ADVICE)
        file = folder / contents.ADAPTERS
        if said is None and file.is_file():
            said = _of_adapters(folder, error)
        if said is None and (folder / "config.json").is_file() and contents.is_ours(folder):
            plain.tokenizer(folder)  # the library says of any tokenizer alike that it has no class for it
            said = _of_settings(folder, error)
            if said is None:
                raise
        raise ModelFolderError(said or f"{what}: {_why(error)}") from error


def _why(error: Exception) -> str:
    """One line on an error of a library, with its kind where the words say little without it."""
    kind = f"{type(error).__name__}: " if isinstance(error, (TypeError, AttributeError, LookupError)) else ""
    return kind + hub.why(error)


def _of_settings(folder: Path, error: Exception) -> str | None:
    """What the library does not take of its own settings of the first module; None where another one raised it."""
    *_, (last, _) = traceback.walk_tb(error.__traceback__)
    module = last.f_globals.get("__name__", "")
    unknown = isinstance(error, TypeError) and "Transformer.__init__" in str(error)
    if not (module.startswith("sentence_transformers.base.modules.") or unknown):
        return None
    return f"{folder / 'sentence_bert_config.json'}: damaged ({_why(error)}); {contents.ADVICE}"


def _of_adapters(folder: Path, error: Exception) -> str | None:
    """What kept a folder with adapters, whose settings seem sound, from being loaded; None where it was not these."""
    file, why = folder / contents.ADAPTERS, _why(error)
    at = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    if any("peft" in name.split(".") for name in at):
        if isinstance(error, ValueError):  # VeRA, say, whose layers share what peft keeps around the model
            advice = "merge them into the model (peft: PeftModel.from_pretrained, merge_and_unload) and save that"
            return f"{file}: these adapters cannot be loaded ({why}): {advice}"
        return f"{file}: damaged, or no adapters of this model ({why}); {contents.ADVICE}"
    if (folder / "config.json").is_file():
        return None
    base = contents.read(file, dict).get("base_model_name_or_path")
    words = f"{base}, the base of these adapters, cannot be loaded ({why}): put it there, or save the whole model"
    return tokenizer_files.missing(folder) or f"{file}: {words} instead"


def export(model: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Write a model as a whole folder: of a delta with the weights of its bases, adapters merged, and its card.

    Raises:
        UsageError: There is no such model, or it is not one of ours.
        ModelFolderError: It is damaged, holds links to elsewhere, a base of it is another one, or it gives other
            vectors than its golden ones.
    """
    from lusifer.embedder.card import of_whole  # it imports more than embedding needs

    found = names.model(model)
    source = found if isinstance(found, Path) else hub.fetch(found, contents.FILES)
    if not source.is_dir() or contents.is_int8(source) or not contents.is_ours(source):
        raise UsageError(f"{model}: only a model of this library in ordinary numbers can be exported whole")
    contents.refuse_links(source)
    card = source / "README.md"
    words = card.read_text(encoding="utf-8") if card.is_file() else None
    embedder = load(source, device="cpu")
    golden.demand(embedder, source)
    save(embedder, target, of_whole(words) if words is not None else None, finished=True)


def load_cross_encoder(
    name_or_path: str, *, device: str | None = None, batch_size: int = 32
) -> Callable[[Sequence[tuple[str, str]]], np.ndarray]:
    """Load a cross-encoder of sentence-transformers, from a folder or the hub.

    Returns:
        Pairs -> (n,) float32, higher for a text that answers the query.

    Raises:
        UsageError: It cannot be loaded, or gives more than one score for a pair.
    """
    from sentence_transformers import CrossEncoder

    try:
        here = Path(name_or_path).is_dir()
        model = CrossEncoder(name_or_path, device=device, local_files_only=here, trust_remote_code=False)
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise UsageError(f"{name_or_path}: is no cross-encoder that can be loaded ({first})") from error
    if model.num_labels != 1:
        raise UsageError(f"{name_or_path}: gives {model.num_labels} scores a pair: take a cross-encoder with one")

    def scores(pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        if not pairs:
            return np.zeros(0, dtype=np.float32)
        return np.asarray(model.predict(list(pairs), batch_size=batch_size, show_progress_bar=False), np.float32)

    return scores


def check(path: str | os.PathLike[str]) -> None:
    """Refuse a folder that is not whole: files, JSON, and every tensor the configuration asks for.

    Raises:
        ModelFolderError: Names the file and what is wrong with it.
    """
    folder = Path(path)
    _check(folder)
    if contents.is_int8(folder):
        int8.read(folder)


def _check(folder: Path, keep: bool = False) -> LusiferModel | None:
    """As `check`; with `keep`, a folder as we write it gives the model compared, ready to take its weights."""
    whole = contents.check(folder)
    if (folder / contents.ADAPTERS).is_file() and not (folder / "config.json").is_file():
        _check_adapters(folder)
    if not whole:
        return None  # an embedder of another kind (MiniLM, say): sentence-transformers checks it
    try:
        refuse_pointer(folder / "tokenizer.json", ModelFolderError)
        if not (keep and contents.is_plain(folder)):  # then it is read when the model is, and that takes as long
            Tokenizer.from_file(str(folder / "tokenizer.json"))
    except (ModelFolderError, MemoryError):
        raise
    except Exception as error:  # tokenizers raises nothing more special
        raise ModelFolderError(tokenizer_files.fault(folder, contents.ADVICE) or str(error)) from error
    config = contents.read(folder / "config.json")
    found = contents.weights(folder)
    keep = keep and contents.is_plain(folder)
    try:
        # Without memory where nothing is kept: torch's description of such tensors takes a second to import.
        with no_init_weights() if keep else backbones.described():
            made = LusiferConfig.from_dict(config)
            dtypes, made.tower_dtypes = made.tower_dtypes, None if made.bases else made.tower_dtypes
            model = LusiferModel(made)
            made.tower_dtypes = dtypes  # only now: what comes from a base need not be cast before
    except RuntimeError:  # no such memory, or no such shapes
        if not keep:
            raise
        return _check(folder)
    except ValueError as error:
        raise ModelFolderError(f"{folder / 'config.json'}: {error}") from error
    except (TypeError, AttributeError, KeyError) as error:  # a text where a number belongs, a number for an object
        words = f"makes no model ({type(error).__name__}: {error}); {contents.ADVICE}"
        raise ModelFolderError(f"{folder / 'config.json'}: {words}") from error
    expected = delta.expected(model, model.config)
    for one, other in model.all_tied_weights_keys.items():  # T5: one tensor, stored under one of its two names
        if (one in found) != (other in found):
            found[one] = found[other] = found.get(one) or found[other]
    wrong = misfit(expected, found)
    if wrong:
        raise ModelFolderError(f"{folder}: the weights do not fit config.json: tensors {wrong}; {contents.ADVICE}")
    return model if keep else None


def _check_adapters(folder: Path) -> None:
    """Refuse a folder with peft's adapters alone unless they and their base, where that is a folder, are there."""
    base = contents.read(folder / contents.ADAPTERS, dict).get("base_model_name_or_path")
    with opened(folder / "adapter_model.safetensors", contents.ADVICE) as tensors:
        # transformers would leave these out, and say so in a table.
        inner = [key for key in tensors.keys() if ".base_model.model." in key]  # noqa: SIM118
    if inner:
        words = f"holds adapters of a part that has adapters of its own ({inner[0]}), which are not loaded"
        raise ModelFolderError(f"{folder / 'adapter_model.safetensors'}: {words}: save the whole model instead")
    if not base or not isinstance(base, str):
        raise ModelFolderError(f"{folder / contents.ADAPTERS}: names no base model: save the whole model instead")
    if Path(base).is_dir():
        check(base)
        if contents.is_ours(Path(base)):  # without one of its files transformers would guess how to read it
            contents.check_files(folder, [name for name in contents.REQUIRED[1:] if name != "config.json"])
    elif Path(base).is_absolute():
        words = f"{base}, the base of these adapters, is not there: put it back, or save the whole model instead"
        raise ModelFolderError(f"{folder / contents.ADAPTERS}: {words}")
