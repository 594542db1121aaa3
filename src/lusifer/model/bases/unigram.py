"""A tokenizer of XLM-R's kind from its pieces, their scores, and what each character is replaced by.

SentencePiece keeps the replacements as a double array of bytes (a trie), which `tokenizers` reads, and nothing in it
writes one.
"""

from __future__ import annotations

import struct
import unicodedata
from collections.abc import Mapping, Sequence

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

_LOOKED_UP = 5
"""Bytes of the longest base and marks that `tokenizers` looks up as one; of longer ones it looks up each character."""


def tokenizer(
    pieces: Sequence[tuple[str, float]], special: Mapping[str, int], characters: Mapping[str, str]
) -> Tokenizer:
    """Build the tokenizer: characters replaced, spaces joined, pieces of the best sum, BOS and EOS around them.

    Args:
        pieces: Text and score, by id.
        special: Ids of "bos", "eos", "pad" and "unk".
        characters: Character -> what stands for it.
    """
    backend = Tokenizer(models.Unigram(list(pieces), unk_id=special["unk"], byte_fallback=False))
    charsmap = normalizers.Precompiled(_charsmap({**characters, **_composed(characters)}))
    backend.normalizer = normalizers.Sequence([charsmap, normalizers.Replace(Regex(" {2,}"), " ")])
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    backend.decoder = decoders.Metaspace(prepend_scheme="always")
    bos, eos = (pieces[special[role]][0] for role in ("bos", "eos"))
    backend.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A {eos}",
        pair=f"{bos} $A {eos} {eos} $B {eos}",
        special_tokens=[(bos, special["bos"]), (eos, special["eos"])],
    )
    names = [pieces[number][0] for number in special.values()] + ["<mask>"] * (pieces[-1][0] == "<mask>")
    backend.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    return backend


def _composed(characters: Mapping[str, str]) -> dict[str, str]:
    """Base and mark -> the character that they make, as the table replaces it: SentencePiece's own tables have these.

    `tokenizers` takes the shortest entry that begins a base with its marks, so only pairs whose base has none count.
    """
    alike: dict[str, list[str]] = {}
    for character, replaced in characters.items():
        alike.setdefault(replaced, []).append(character)
    found = {}
    for composed in map(chr, range(2**16)):  # parts of so few bytes make none beyond
        parts = unicodedata.normalize("NFD", composed)
        replaced = characters.get(composed, composed)
        if len(parts) == 2 and parts[0] not in characters and len(replaced) == 1:
            pairs = (parts[0] + mark for mark in (parts[1], *alike.get(parts[1], ())))
            found |= {pair: replaced for pair in pairs if len(pair.encode()) <= _LOOKED_UP}
    return found


def _charsmap(table: Mapping[str, str]) -> bytes:
    """A table as SentencePiece writes it: bytes of the array (uint32), the array, what stands for each, ended by 0."""
    texts, starts, size = [], {}, 0
    for key, value in table.items():
        starts[key.encode()] = size
        texts.append(value.encode() + b"\0")
        size += len(texts[-1])
    units = _double_array(starts)
    return struct.pack(f"<I{len(units)}I", 4 * len(units), *units) + b"".join(texts)


def _double_array(values: Mapping[bytes, int]) -> list[int]:
    """A trie of bytes in the form of darts-clone.

    A unit has its label (bits 0 to 7), whether a key ends there (bit 8), and from bit 10 what its place is XORed with
    for the place `base` of its children; the child of label c is at `base ^ c`, and at `base` itself the key's value.
    """
    root: dict[int, dict] = {}
    for key, value in values.items():
        node = root
        for byte in key:
            node = node.setdefault(byte, {})
        node[0] = value  # no key has a byte 0
    units: list[int | None] = [0]
    bases: set[int] = set()
    after: dict[tuple[int, ...], int] = {}  # where no more children with these labels fit before
    waiting = [(0, root)]
    while waiting:
        place, node = waiting.pop()
        labels = tuple(node)
        base = after.get(labels, 1)
        while base in bases or any((base ^ label) < len(units) and units[base ^ label] is not None for label in labels):
            base += 1
        bases.add(base)
        after[labels] = base + 1
        units += [None] * ((base | 255) + 1 - len(units))
        units[place] |= (place ^ base) << 10 | (0 in node) << 8
        for label, child in node.items():
            units[base ^ label] = label if label else child | 1 << 31
            if label:
                waiting.append((base ^ label, child))
    return [unit or 0 for unit in units]
