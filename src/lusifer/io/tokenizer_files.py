"""Check the files of a tokenizer and name what is wrong, where the error of a library would not."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lusifer.errors import LusiferError
from lusifer.io.files import read_json

WHOLE, CONFIG = "tokenizer.json", "tokenizer_config.json"
TOKENIZER_FILES = (WHOLE, "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.json", "vocab.txt")
"""A tokenizer can be loaded from any of these."""
_NAMED = [f"{name}_token" for name in ("bos", "eos", "unk", "pad", "mask", "cls", "sep")]
_FLAGS = ("special", "lstrip", "rstrip", "single_word", "normalized")
_MORE = ("extra_special_tokens", "additional_special_tokens")
_SIDES = ("padding_side", "truncation_side")
_ADDED = "an object with its content"


def check(folder: Path, advice: str, raises: type[LusiferError]) -> None:
    """Refuse tokenizer settings and lists of added tokens on which a library would fail, or which it would misread.

    `tokenizer.json` is not checked: it is large, and the library reads it anyway.

    Args:
        folder: The folder of the tokenizer.
        advice: What to do, the end of the message.
        raises: The error to raise.

    Raises:
        LusiferError: Of the kind `raises`; the message names the file, the key and the number of the token.
    """
    for name, faults in _FAULTS.items():
        if name != WHOLE:
            _check(folder / name, faults, advice, raises)


def fault(folder: Path, advice: str) -> str | None:
    """Find the file of a folder from which a library could not load the tokenizer.

    Args:
        folder: The folder of the tokenizer.
        advice: What to do, the end of the message.

    Returns:
        One line that names the file and the fault; None if no fault was found.
    """
    try:
        for name, faults in _FAULTS.items():
            _check(folder / name, faults, advice, LusiferError)
    except LusiferError as error:
        return str(error)
    file = folder / WHOLE
    if file.is_file():
        from tokenizers import Tokenizer

        try:
            Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises no narrower class
            return f"{file}: damaged, no tokenizer ({error}); {advice}"
    return None


def missing(folder: Path) -> str | None:
    """Return a message if the folder has no file of a tokenizer, else None."""
    if any((folder / name).is_file() for name in TOKENIZER_FILES):
        return None
    return f"{folder}: no tokenizer ({', '.join(TOKENIZER_FILES)}): save the base's tokenizer into the folder"


def _check(file: Path, faults: Callable[[Any], Iterator[str]], advice: str, raises: type[LusiferError]) -> None:
    if file.is_file():
        fault = next(faults(read_json(file, advice, raises, dict)), None)
        if fault is not None:
            raise raises(f"{file}: damaged, {fault}; {advice}")


def _not(key: str, value: Any, expected: str) -> str:
    return f"{key}={reprlib.repr(value)}: expected {expected}"


def _of_config(said: Mapping[str, Any]) -> Iterator[str]:
    """Faults of `tokenizer_config.json`. A setting may be absent, or null where the library reads null as none."""
    length, kind, names = said.get("model_max_length"), said.get("tokenizer_class"), said.get("model_input_names", [])
    if length is not None and not (type(length) in (int, float) and length >= 1):
        yield _not("model_max_length", length, "a number, 1 or more")
    if kind is not None and not isinstance(kind, str):
        yield _not("tokenizer_class", kind, "a string")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        yield _not("model_input_names", names, "a list of strings")
    if type(said.get("split_special_tokens", False)) is not bool:
        yield _not("split_special_tokens", said["split_special_tokens"], "true or false")
    for key in _SIDES:
        if said.get(key, "right") not in ("left", "right"):
            yield _not(key, said[key], '"left" or "right"')
    yield from _of_named(said, marked=True)
    decoder = said.get("added_tokens_decoder", {})
    if not isinstance(decoder, dict):
        yield _not("added_tokens_decoder", decoder, "an object with an object for each token")
        return
    for number, token in decoder.items():
        if not (number.isascii() and number.isdigit()):
            yield f"added_tokens_decoder has the key {reprlib.repr(number)}: expected the number of a token"
        yield from _of_added(f"added_tokens_decoder.{number}", token)


def _of_named(said: Mapping[str, Any], marked: bool = False) -> Iterator[str]:
    """Faults of the named special tokens and of the lists of further ones; `marked`: objects need `__type`."""
    for key in _NAMED:
        if said.get(key) is not None:
            yield from _of_token(key, said[key], marked)
    own = said.get("model_specific_special_tokens")
    if own is not None and not isinstance(own, dict):
        yield _not("model_specific_special_tokens", own, "an object with a token for each name")
    for key in (*_MORE, "model_specific_special_tokens"):
        more = said.get(key) or []
        if not isinstance(more, list | dict):
            yield _not(key, more, "a list of tokens")
        else:
            for place, token in more.items() if isinstance(more, dict) else enumerate(more):
                yield from _of_token(f"{key}[{place!r}]", token, marked)


def _of_token(where: str, token: Any, marked: bool) -> Iterator[str]:
    if isinstance(token, str):
        return
    if not isinstance(token, dict) or (marked and token.get("__type") != "AddedToken"):
        yield _not(where, token, f"a string, or {_ADDED}{' and __type' if marked else ''}")
    else:
        yield from _of_added(where, token)


def _of_added(where: str, token: Any, whole: bool = False) -> Iterator[str]:
    """Faults of a token that is an object; `whole`: it must have all flags."""
    if not isinstance(token, dict):
        yield _not(where, token, _ADDED)
    elif not isinstance(token.get("content"), str):
        known = "content" in token
        yield _not(f"{where}.content", token["content"], "a string") if known else f"{where} has no content"
    else:
        for flag in _FLAGS:
            if whole and flag not in token:
                yield f"{where} has no {flag}"
            elif type(token.get(flag, False)) is not bool:
                yield _not(f"{where}.{flag}", token[flag], "true or false")


def _of_whole(said: Mapping[str, Any]) -> Iterator[str]:
    """Faults of the added tokens of `tokenizer.json`."""
    added = said.get("added_tokens", [])
    if not isinstance(added, list):
        yield _not("added_tokens", added, "a list of tokens")
        return
    for place, token in enumerate(added):
        where = f"added_tokens[{place}]"
        yield from _of_added(where, token, whole=True)
        number = token.get("id")
        if type(number) is not int or number < 0:
            yield _not(f"{where}.id", number, "the number of a token") if "id" in token else f"{where} has no id"


def _of_numbers(said: Mapping[str, Any]) -> Iterator[str]:
    for token, number in said.items():
        if type(number) is not int or number < 0:
            yield _not(repr(token), number, "the number of a token")


_FAULTS: dict[str, Callable[[Any], Iterator[str]]] = {
    CONFIG: _of_config,
    "special_tokens_map.json": _of_named,
    "added_tokens.json": _of_numbers,
    WHOLE: _of_whole,
}
