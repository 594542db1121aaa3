"""A base in one GGUF file, as llama.cpp's tools write it; transformers reads it with the package gguf.

Weights that are stored in few bits come out as ordinary numbers. Transformers knows the decoders of our table, and of
the encoders T5 alone.
"""

from __future__ import annotations

import copy
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

from lusifer.errors import UsageError
from lusifer.extras import need
from lusifer.io import hub, tokenizer_files

_STUMBLES = (OSError, ValueError, LookupError, TypeError, ArithmeticError, AttributeError, MemoryError, RuntimeError)


def where(file: Path) -> dict[str, Any]:
    """Keywords by which transformers' `from_pretrained` finds the file."""
    return {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}


def read_config(file: Path) -> PreTrainedConfig:
    """The configuration; no weight is read. A large vocabulary, which lies before it, takes seconds.

    Raises:
        UsageError: The file is damaged, or of an architecture that transformers does not read from such files.
        MissingExtraError: The package gguf is not installed.
    """
    state = file.stat()
    return copy.deepcopy(_config(file, state.st_mtime_ns, state.st_size))


@lru_cache(maxsize=4)
def _config(file: Path, changed: int, size: int) -> PreTrainedConfig:
    """Read once a process, while the file stays what it is: a run asks many times."""
    with reading(file):
        return AutoConfig.from_pretrained(**where(file), trust_remote_code=False)


def read_tokenizer(file: Path) -> PreTrainedTokenizerBase:
    """The tokenizer, which pads on the right. Its configuration is read before, once a process.

    Raises:
        UsageError: The file is damaged, or has a tokenizer that transformers does not read.
        MissingExtraError: The package gguf is not installed.
    """
    kind = read_config(file).model_type
    with reading(file):
        return AutoTokenizer.from_pretrained(
            **where(file),
            **_typed(file, kind),
            trust_remote_code=False,
            split_special_tokens=True,
            padding_side="right",
        )


def _typed(file: Path, kind: str) -> dict[str, str]:
    """Keywords that name the kind of tokenizer, which transformers else reads the file for: `config` does not spare it.

    Not where it looks at more than the type of the model.
    """
    plain = TOKENIZER_MAPPING_NAMES.get(kind) not in (None, "MistralCommonBackend")
    return {"tokenizer_type": kind} if plain and not (file.parent / tokenizer_files.CONFIG).is_file() else {}


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Run a block that reads the file; what goes wrong is said of it."""
    need("gguf", "gguf")
    try:
        yield
    # A damaged file is read as it comes: what the readers stumble over has many names.
    except (*_STUMBLES, struct.error) as error:
        raise UsageError(f"{file}: cannot be read as GGUF ({hub.why(error)}); fetch it anew") from error
