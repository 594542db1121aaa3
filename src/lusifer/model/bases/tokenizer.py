"""Read tokenizers and make them safe: a special token written in a text is text, and what nobody sees is dropped."""

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

ADVICE = "correct it, or fetch the folder anew"
UNSEEN = "\u00ad\u034f\u061c\u115f\u17b5\u180b\u200b\u200e\u2060\u3164\ufe0f\ufeff\ufff9\U000e0101"
"""Characters of `INVISIBLE` of each sort."""


def read_tokenizer(path: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """Load a tokenizer, from a base's folder, file or hub name, that pads on the right; special tokens are text.

    Raises:
        UsageError: There is none at `path`, or none that is fast.
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
        except ImportError:  # that of M2M-100 needs sentencepiece, and would still be a slow one
            tokenizer = None
        if tokenizer is not None and tokenizer.is_fast:
            return read_safely(tokenizer)
    raise UsageError(
        f"{path}: it has no fast tokenizer, which Lusifer needs: put a tokenizer.json that does the same into the "
        'folder, and "tokenizer_class": "PreTrainedTokenizerFast" into its tokenizer_config.json; or take another '
        "base (for M2M-100: facebook/nllb-200-distilled-600M)"
    )


@lru_cache(maxsize=4)
def _of_gguf(path: str, changed: int, size: int) -> PreTrainedTokenizerBase:
    """Read once a process, while the file stays what it is: Gemma's takes half a minute."""
    return read_safely(gguf.read_tokenizer(Path(path)))


@contextmanager
def reading(path: str, revision: str | None = None) -> Iterator[str | None]:
    """Run a block in which transformers reads the tokenizer of a folder or hub name, at the commit that it is given.

    Raises:
        UsageError: There is none.
        LusiferError: A file of it is damaged.
    """
    with hub.asking(f"{path}: no tokenizer there", UsageError):
        commit = hub.commit(path, revision)
        try:
            yield commit
        except (*hub.refusals(), ImportError, LusiferError):
            raise
        except Exception as error:  # tokenizers raises nothing more special, transformers all kinds
            file = cached_file(path, CONFIG, revision=commit, _raise_exceptions_for_missing_entries=False)
            said = tokenizer_files.fault(Path(file).parent if file else Path(path), ADVICE)
            if said is None and isinstance(error, ValueError):
                raise
            words = f"damaged, no tokenizer ({type(error).__name__}: {hub.why(error)}); {ADVICE}"
            raise LusiferError(said or f"{file or path}: {words}") from error


def read_safely(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Make sure that no text can hold a special token, whatever is written in it, and that what nobody sees is dropped.

    `split_special_tokens` is enough for most tokenizers, not for those whose vocabulary lists the special tokens
    among its pieces (XLM-R, T5): there "</s>" is one piece again. For these a normaliser puts a space behind the
    first character. Another one drops `INVISIBLE` characters, which would become unknown tokens. The result is kept as
    a plain fast tokenizer, which loads from its file as it is.
    """
    leaking = [token for token in tokenizer.all_special_tokens if leaks(tokenizer, token)]
    if not leaking and drops_invisible(tokenizer):
        return tokenizer
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    spaced = [normalizers.Replace(token, f"{token[0]} {token[1:]}") for token in leaking]
    own = [backend.normalizer] if backend.normalizer is not None else []
    # Spaces last in the sequence: a full-width "＜/s＞" becomes "</s>" in the normaliser before.
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
    """Whether characters that nobody sees leave no trace in the tokens."""
    plain, *others = tokenizer(["ab", *(f"a{character}b" for character in UNSEEN)], add_special_tokens=False)[
        "input_ids"
    ]
    return all(ids == plain for ids in others)


def leaks(tokenizer: PreTrainedTokenizerBase, token: str) -> bool:
    """Whether the text `token` becomes the special token of that name."""
    ids = tokenizer(f"a {token} b", add_special_tokens=False)["input_ids"]
    return len(token) > 1 and token != tokenizer.unk_token and tokenizer.convert_tokens_to_ids(token) in ids


def check_tokenizers(encoder: PreTrainedTokenizerBase, llm: PreTrainedTokenizerBase | None = None) -> None:
    """Refuse an encoder's tokenizer without pad token, and an LLM's that ends its targets with no EOS.

    Raises:
        UsageError: Names the tokenizer and the token.
    """
    if encoder.pad_token_id is None:
        raise UsageError("model.encoder: its tokenizer has no pad token; set pad_token in its tokenizer_config.json")
    if llm is not None and llm.eos_token_id is None:
        raise UsageError("model.llm: its tokenizer has no eos token; set eos_token in its tokenizer_config.json")
