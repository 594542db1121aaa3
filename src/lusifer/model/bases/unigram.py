"""Build a tokenizer of XLM-R's kind from its pieces, their scores, and a table of character replacements.

SentencePiece stores the table as a double-array trie, which `tokenizers` can read but not write.
"""

from __future__ import annotations

import struct
import unicodedata
from collections.abc import Mapping, Sequence

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

_LOOKED_UP = 5
"""The most bytes of a base character with its marks that `tokenizers` looks up together; else it looks up each one."""


def tokenizer(
    pieces: Sequence[tuple[str, float]], special: Mapping[str, int], characters: Mapping[str, str]
) -> Tokenizer:
    """Build a unigram tokenizer that replaces characters, joins spaces, and adds BOS and EOS.

    Args:
        pieces: Text and score of each token of the vocabulary, by id.
        special: The ids of "bos", "eos", "pad" and "unk".
        characters: Character -> its replacement.
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
    """Make the entries for a base character with a mark, which SentencePiece's own tables have.

    `tokenizers` uses the shortest entry at the start of a base with its marks. So only pairs whose base has no entry
    are needed.

    Returns:
        Base and mark -> the replacement of the character that they compose.
    """
    alike: dict[str, list[str]] = {}
    for character, replaced in characters.items():
        alike.setdefault(replaced, []).append(character)
    found = {}
    for composed in map(chr, range(2**16)):  # `_LOOKED_UP` bytes compose no character above
        parts = unicodedata.normalize("NFD", composed)
        replaced = characters.get(composed, composed)
        if len(parts) == 2 and parts[0] not in characters and len(replaced) == 1:
            pairs = (parts[0] + mark for mark in (parts[1], *alike.get(parts[1], ())))
            found |= {pair: replaced for pair in pairs if len(pair.encode()) <= _LOOKED_UP}
    return found


def _charsmap(table: Mapping[str, str]) -> bytes:
    """Encode a table as SentencePiece does: bytes of the array (uint32), the array, the replacements, each plus a 0."""
    texts, starts, size = [], {}, 0
    for key, value in table.items():
        starts[key.encode()] = size
        texts.append(value.encode() + b"\0")
        size += len(texts[-1])
    units = _double_array(starts)
    return struct.pack(f"<I{len(units)}I", 4 * len(units), *units) + b"".join(texts)


def _double_array(values: Mapping[bytes, int]) -> list[int]:
    """Make a trie of bytes in the format of darts-clone.

    A unit has its label (bits 0 to 7), whether a key ends there (bit 8), and from bit 10 the number that XORed with its
    place gives `base`. The child with label c is at `base ^ c`, and the value of a key is at `base`.
    """
    root: dict[int, dict] = {}
    for key, value in values.items():
        node = root
        for byte in key:
            node = node.setdefault(byte, {})
        node[0] = value  # no key has a byte 0
    units: list[int | None] = [0]
    bases: set[int] = set()
    after: dict[tuple[int, ...], int] = {}  # labels -> the first base that may still be free for them
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
