"""Split a long text into passages that a model can read without truncation, at ends of sentences, in any script.

Sentence ends follow Unicode (UAX 29): its character classes, which the library `regex` has, include the full stops of
every script. A sentence that is too long is split at a line end, a clause or a space, and as a last resort between two
characters as a reader sees them (grapheme clusters). There are no gaps: the passages join to the text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import regex

from lusifer.errors import UsageError

Span = tuple[int, int]
"""Where a passage begins and ends in a text, in characters."""
Count = Callable[[Sequence[str]], list[int]]
"""Texts -> the number of tokens of each, with the prompt and special tokens."""

# Closing brackets and quotes; in French a space comes before them.
_TAIL = r"(?:(?![\p{Ps}\p{Pi}])[\p{SB=Close}\p{SB=Extend}\p{SB=Format}]|[ \u00a0\u202f]\p{Pf}(?=\s|\z))*"
_SENTENCES = (
    # ! ? and characters that are only full stops, as in Chinese or Hindi;
    rf"(?:\p{{SB=STerm}}[\p{{SB=STerm}}\p{{SB=ATerm}}]*{_TAIL}"
    # the dot, which is also part of numbers and names: only before a space, if the next letter is not lower-case;
    rf"|[\p{{SB=ATerm}}…]+{_TAIL}(?=\s)(?!\s+[^\p{{SB=OLetter}}\p{{SB=Upper}}\p{{SB=Lower}}\p{{SB=STerm}}]*\p{{SB=Lower}}))"
    # and an empty line. A single line break ends no sentence: texts are wrapped.
    r"\s*|\n\s*\n\s*"
)
_LEVELS = [
    regex.compile(ends)
    for ends in (_SENTENCES, r"\s*\n\s*", rf"[\p{{SB=SContinue}};؛]{_TAIL}(?:\s+|(?<=[、，；：]))", r"\s+")
]
_GRAPHEMES = regex.compile(r"\X")


def sentences(text: str) -> list[Span]:
    """Find the sentences of a text, each with the space after it."""
    return list(_parts(text, 0, len(text), 0))


def split(text: str, count: Count, size: int, overlap: int = 0) -> list[Span]:
    """Split a text into passages.

    Args:
        text: The text.
        count: Counts tokens. A passage is counted without the space around it.
        size: The most tokens of a passage, prompt and special tokens included.
        overlap: How many tokens at the end of a passage the next one may repeat, in complete sentences.

    Returns:
        The span of each passage; one span if the text fits. Without overlap the passages join to the text. No grapheme
        cluster is split.

    Raises:
        UsageError: `size` leaves no room for text next to the prompt, or `overlap` is more than half of that room.
    """
    base, whole = count(["", text.strip()])
    if size <= base:
        raise UsageError(f"passages of {size} tokens: the prompt and special tokens take {base}: raise the size")
    if not 0 <= overlap <= (size - base) // 2:
        most = f"at most {(size - base) // 2}, half of what the prompt and special tokens leave"
        raise UsageError(f"passages of {size} tokens: an overlap of {overlap}: must be 0 or more, and {most}")
    if whole <= size:
        return [(0, len(text))]
    room = size - base
    pieces = _pieces(text, (0, len(text)), count, base, room)
    return _packed(text, pieces, count, base, size, overlap)


def beginning(text: str, count: Count, size: int) -> int:
    """Find how many characters at the start of a text fit into `size` tokens, without splitting a grapheme cluster.

    Args:
        text: The text.
        count: Counts tokens.
        size: The most tokens, prompt and special tokens included.

    Returns:
        The number of characters: `text[:number]` fits. It is at least one grapheme cluster, also if that is too long.
    """
    base = count([""])[0]
    room = max(1, size - base)
    start, end, _ = next(_by_graphemes(text, 0, min(len(text), 64 * room), count, base, room))
    return end - start


def _parts(text: str, start: int, end: int, level: int) -> Iterator[Span]:
    """The parts of a span, split after each match of the level's pattern."""
    begin = start
    for found in _LEVELS[level].finditer(text, start, end):
        if found.end() > begin and _between(text, found.end()):
            yield begin, found.end()
            begin = found.end()
    if begin < end:
        yield begin, end


def _between(text: str, place: int) -> bool:
    """Whether a place is between two grapheme clusters: the one that begins before it ends there."""
    if place >= len(text):
        return True
    start = max(0, place - 1)
    return _GRAPHEMES.match(text, start).end() == place


def _pieces(text: str, span: Span, count: Count, base: int, room: int) -> list[tuple[int, int, int]]:
    """Pieces (start, end, tokens) of a text, each of at most `room` tokens: sentences where they fit."""
    done: list[tuple[int, int, int]] = []
    left = [(span, room + 1, 0)]  # a stack instead of recursion: the next piece to split is the last one
    while left:
        (start, end), tokens, level = left.pop()
        if tokens <= room:
            done.append((start, end, tokens))
        elif level == len(_LEVELS):
            done += _by_graphemes(text, start, end, count, base, room)
        else:
            parts = list(_parts(text, start, end, level))
            sizes = count([text[one:two].strip() for one, two in parts])
            left += [(part, size - base, level + 1) for part, size in zip(parts, sizes, strict=True)][::-1]
    return done


def _by_graphemes(
    text: str, start: int, end: int, count: Count, base: int, room: int
) -> Iterator[tuple[int, int, int]]:
    """A piece without a space, split after as many grapheme clusters as fit; at least one."""
    ends = [found.end() for found in _GRAPHEMES.finditer(text, start, end)]
    first = 0
    while first < len(ends):
        low, high = first + 1, min(len(ends), first + 16 * room) + 1  # binary search: `low` fits, `high` does not
        while high - low > 1:
            middle = (low + high) // 2
            fits = count([text[start : ends[middle - 1]]])[0] - base <= room
            low, high = (middle, high) if fits else (low, middle)
        yield start, ends[low - 1], min(room, count([text[start : ends[low - 1]]])[0] - base)
        start, first = ends[low - 1], low


def _packed(
    text: str, pieces: list[tuple[int, int, int]], count: Count, base: int, size: int, overlap: int
) -> list[Span]:
    """Join consecutive pieces into passages; the joined text is counted again, since its tokens may differ."""
    spans: list[Span] = []
    first = fresh = 0  # the first piece of the passage, and the first piece that is in no passage yet
    while fresh < len(pieces):
        last, tokens = first, 0
        while last < len(pieces) and (last <= fresh or base + tokens + pieces[last][2] <= size):
            tokens += pieces[last][2]
            last += 1
        while last > fresh + 1 and _tokens(text, pieces[first][0], pieces[last - 1][1], count) > size:
            last -= 1
        if first < fresh and _tokens(text, pieces[first][0], pieces[last - 1][1], count) > size:
            first = fresh  # the overlap with the passage before leaves no room for a new piece
            continue
        spans.append((pieces[first][0], pieces[last - 1][1]))
        first = fresh = last
        shared = 0
        while (
            overlap and first > 0 and shared + pieces[first - 1][2] <= overlap and pieces[first - 1][0] > spans[-1][0]
        ):
            first -= 1
            shared += pieces[first][2]
    return spans


def _tokens(text: str, start: int, end: int, count: Count) -> int:
    return count([text[start:end].strip()])[0]
