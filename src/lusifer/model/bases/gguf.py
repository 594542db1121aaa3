"""Read a base from a GGUF file, the format of llama.cpp; transformers reads it with the package gguf.

Quantized weights are converted to floating-point numbers. transformers supports the decoders of `backbones.toml`, and
of the encoders only T5.
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
    """Return the keywords of transformers' `from_pretrained` for a GGUF file."""
    return {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}


def read_config(file: Path) -> PreTrainedConfig:
    """Read the configuration without the weights. A large vocabulary, which precedes it in the file, takes seconds.

    Raises:
        UsageError: The file is damaged, or transformers does not support its architecture in GGUF.
        MissingExtraError: The package gguf is not installed.
    """
    state = file.stat()
    return copy.deepcopy(_config(file, state.st_mtime_ns, state.st_size))


@lru_cache(maxsize=4)
def _config(file: Path, changed: int, size: int) -> PreTrainedConfig:
    """Read the configuration once a process while the file is unchanged, because a run needs it many times."""
    with reading(file):
        return AutoConfig.from_pretrained(**where(file), trust_remote_code=False)


def read_tokenizer(file: Path) -> PreTrainedTokenizerBase:
    """Read the tokenizer, which pads on the right.

    Raises:
        UsageError: The file is damaged, or transformers does not support its tokenizer.
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
    """Turn errors in a block that reads the file into errors that name it.

    Raises:
        UsageError: The file cannot be read.
        MissingExtraError: The package gguf is not installed.
    """
    need("gguf", "gguf")
    try:
        yield
    # The readers do not check the file, so that a damaged one raises many kinds of errors.
    except (*_STUMBLES, struct.error) as error:
        raise UsageError(f"{file}: cannot be read as GGUF ({hub.why(error)}): fetch it again") from error
