"""Read tokenizers and make them safe: special tokens in a text are text, and invisible characters are dropped."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from tokenizers import Regex, Tokenizer, normalizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.utils import cached_file

from lusifer.errors import LusiferError, UsageError
from lusifer.io import hub, names, tokenizer_files
from lusifer.io.tokenizer_files import CONFIG
from lusifer.model.bases import gguf, packed
from lusifer.prompts import INVISIBLE

ADVICE = "correct it, or fetch the folder again"
UNSEEN = "\u00ad\u034f\u061c\u115f\u17b5\u180b\u200b\u200e\u2060\u3164\ufe0f\ufeff\ufff9\U000e0101"
"""One character of each kind in `INVISIBLE`."""


def read_tokenizer(path: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a base. It pads on the right, and reads special tokens in a text as text.

    Args:
        path: A folder, a file, or an id on the Hub.
        revision: A commit, tag or branch on the Hub.

    Raises:
        UsageError: There is no tokenizer, or no fast one.
        LusiferError: A file of it is damaged.
    """
    kind = names.base_file(path)
    if kind == "packed":
        return read_safely(packed.read_tokenizer(Path(path)))
    if kind == "gguf":
        state = Path(path).stat()
        return copy.deepcopy(_of_gguf(path, state.st_mtime_ns, state.st_size))
    missing = tokenizer_files.missing(Path(path)) if Path(path).is_dir() else None
    if missing:
        raise UsageError(missing)
    with reading(path, revision) as commit:
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                path, revision=commit, trust_remote_code=False, split_special_tokens=True, padding_side="right"
            )
        except ImportError:  # the tokenizer of M2M-100 needs sentencepiece, and would still be a slow one
            tokenizer = None
        if tokenizer is not None and tokenizer.is_fast:
            return read_safely(tokenizer)
    raise UsageError(
        f"{path}: it has no fast tokenizer, which Lusifer needs: add an equal tokenizer.json to the folder, and "
        '"tokenizer_class": "PreTrainedTokenizerFast" to its tokenizer_config.json; or use another base (for M2M-100: '
        "facebook/nllb-200-distilled-600M)"
    )


@lru_cache(maxsize=4)
def _of_gguf(path: str, changed: int, size: int) -> PreTrainedTokenizerBase:
    """Read the tokenizer once a process while the file is unchanged: that of Gemma takes half a minute."""
    return read_safely(gguf.read_tokenizer(Path(path)))


@contextmanager
def reading(path: str, revision: str | None = None) -> Iterator[str | None]:
    """Turn errors of a block, in which transformers reads a tokenizer, into errors that name the damaged file.

    Args:
        path: A folder, or an id on the Hub.
        revision: A commit, tag or branch on the Hub.

    Yields:
        The commit to read.

    Raises:
        UsageError: There is no tokenizer.
        LusiferError: A file of it is damaged.
    """
    with hub.asking(f"{path}: no tokenizer there", UsageError):
        commit = hub.commit(path, revision)
        try:
            yield commit
        except (*hub.refusals(), ImportError, LusiferError):
            raise
        except Exception as error:  # tokenizers raises a bare Exception, and transformers many kinds
            file = cached_file(path, CONFIG, revision=commit, _raise_exceptions_for_missing_entries=False)
            said = tokenizer_files.fault(Path(file).parent if file else Path(path), ADVICE)
            if said is None and isinstance(error, ValueError):
                raise
            words = f"damaged, no tokenizer ({type(error).__name__}: {hub.why(error)}); {ADVICE}"
            raise LusiferError(said or f"{file or path}: {words}") from error


def read_safely(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Make a tokenizer read special tokens in a text as text, and drop invisible characters.

    `split_special_tokens` is enough for most tokenizers, but not if the vocabulary contains the special tokens (XLM-R,
    T5): there "</s>" becomes one token again. For these a normalizer adds a space after the first character. Another
    normalizer drops `INVISIBLE` characters, which would become unknown tokens.

    Returns:
        The tokenizer itself if it is safe, else a plain fast tokenizer, which is saved and loaded unchanged.
    """
    leaking = [token for token in tokenizer.all_special_tokens if leaks(tokenizer, token)]
    if not leaking and drops_invisible(tokenizer):
        return tokenizer
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    spaced = [normalizers.Replace(token, f"{token[0]} {token[1:]}") for token in leaking]
    own = [backend.normalizer] if backend.normalizer is not None else []
    # The spaces come last: the tokenizer's own normalizer turns a full-width "＜/s＞" into "</s>".
    backend.normalizer = normalizers.Sequence([normalizers.Replace(Regex(INVISIBLE), ""), *own, *spaced])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        split_special_tokens=True,
        padding_side="right",
        model_max_length=tokenizer.model_max_length,
        model_input_names=tokenizer.model_input_names,
        **tokenizer.special_tokens_map,
    )


def drops_invisible(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether invisible characters do not change the tokens."""
    plain, *others = tokenizer(["ab", *(f"a{character}b" for character in UNSEEN)], add_special_tokens=False)[
        "input_ids"
    ]
    return all(ids == plain for ids in others)


def leaks(tokenizer: PreTrainedTokenizerBase, token: str) -> bool:
    """Whether a special token that is written in a text is read as the special token.

    Args:
        tokenizer: The tokenizer.
        token: The special token.
    """
    ids = tokenizer(f"a {token} b", add_special_tokens=False)["input_ids"]
    return len(token) > 1 and token != tokenizer.unk_token and tokenizer.convert_tokens_to_ids(token) in ids


def check_tokenizers(encoder: PreTrainedTokenizerBase, llm: PreTrainedTokenizerBase | None = None) -> None:
    """Check that the tokenizers have the special tokens that training needs.

    Args:
        encoder: The encoder's tokenizer, which needs a pad token.
        llm: The LLM's tokenizer, which needs an EOS token to end targets. None if there are no targets.

    Raises:
        UsageError: A token is missing.
    """
    if encoder.pad_token_id is None:
        raise UsageError("model.encoder: its tokenizer has no pad token: set pad_token in its tokenizer_config.json")
    if llm is not None and llm.eos_token_id is None:
        raise UsageError("model.llm: its tokenizer has no eos token: set eos_token in its tokenizer_config.json")
