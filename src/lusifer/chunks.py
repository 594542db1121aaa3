"""A long text into passages that a model reads whole, cut where a sentence ends, in any script.

Where sentences end follows Unicode (UAX 29): its classes of characters, which the library `regex` has, know the full
stops of every script. A sentence that is too long is cut at a line, a clause, a space, and last between two characters
as a reader sees them (grapheme clusters). Passages follow each other without a gap: joined they are the text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import regex

from lusifer.errors import UsageError

Span = tuple[int, int]
"""Where a passage begins in a text and where it ends, in characters."""
Count = Callable[[Sequence[str]], list[int]]
"""Texts -> the tokens of each, with prompt and special tokens."""

# Brackets and quotes that close, in French behind a space.
_TAIL = r"(?:(?![\p{Ps}\p{Pi}])[\p{SB=Close}\p{SB=Extend}\p{SB=Format}]|[ \u00a0\u202f]\p{Pf}(?=\s|\z))*"
_SENTENCES = (
    # ! ? and the full stops that are nothing else, as in Chinese or Hindi;
    rf"(?:\p{{SB=STerm}}[\p{{SB=STerm}}\p{{SB=ATerm}}]*{_TAIL}"
    # the dot, which also stands in numbers and names: a space follows, and the next letter is no small one;
    rf"|[\p{{SB=ATerm}}…]+{_TAIL}(?=\s)(?!\s+[^\p{{SB=OLetter}}\p{{SB=Upper}}\p{{SB=Lower}}\p{{SB=STerm}}]*\p{{SB=Lower}}))"
    # and an empty line. A line break alone is none: texts are wrapped.
    r"\s*|\n\s*\n\s*"
)
_LEVELS = [
    regex.compile(ends)
    for ends in (_SENTENCES, r"\s*\n\s*", rf"[\p{{SB=SContinue}};؛]{_TAIL}(?:\s+|(?<=[、，；：]))", r"\s+")
]
_GRAPHEMES = regex.compile(r"\X")


def sentences(text: str) -> list[Span]:
    """Where the sentences of a text lie, each with the space behind it."""
    return list(_parts(text, 0, len(text), 0))


def split(text: str, count: Count, size: int, overlap: int = 0) -> list[Span]:
    """Cut a text into passages.

    Args:
        text: The text.
        count: Counts tokens. A passage is counted without the space around it.
        size: The most tokens of a passage, prompt and special tokens included.
        overlap: How many tokens of a passage may begin the next one as well, as whole sentences.

    Returns:
        One span for a text that fits. Without overlap they join to the text; no grapheme cluster is cut.

    Raises:
        UsageError: `size` leaves no room for a text, or `overlap` none for new ones.
    """
    base, whole = count(["", text.strip()])
    if size <= base or not 0 <= overlap <= (size - base) // 2:
        words = f"{overlap} of overlap (half of the rest at most)" if size > base else "a text"
        raise UsageError(f"passages of {size} tokens: prompt and special tokens take {base}: no room for {words}")
    if whole <= size:
        return [(0, len(text))]
    room = size - base
    pieces = _pieces(text, (0, len(text)), count, base, room)
    return _packed(text, pieces, count, base, size, overlap)


def beginning(text: str, count: Count, size: int) -> int:
    """Where the longest beginning of a text ends that has `size` tokens at most; no grapheme cluster is cut."""
    base = count([""])[0]
    room = max(1, size - base)
    start, end, _ = next(_by_graphemes(text, 0, min(len(text), 64 * room), count, base, room))
    return end - start


def _parts(text: str, start: int, end: int, level: int) -> Iterator[Span]:
    """The parts of a span, cut behind whatever ends one on this level."""
    begin = start
    for found in _LEVELS[level].finditer(text, start, end):
        if found.end() > begin and _between(text, found.end()):
            yield begin, found.end()
            begin = found.end()
    if begin < end:
        yield begin, end


def _between(text: str, place: int) -> bool:
    """Whether no grapheme cluster lies over a place: none ends later than it that began shortly before."""
    if place >= len(text):
        return True
    start = max(0, place - 1)
    return _GRAPHEMES.match(text, start).end() == place


def _pieces(text: str, span: Span, count: Count, base: int, room: int) -> list[tuple[int, int, int]]:
    """Pieces (start, end, tokens) of a text none of which has more than `room` tokens: sentences where they fit."""
    done: list[tuple[int, int, int]] = []
    left = [(span, room + 1, 0)]  # and no recursion: what is left to cut, the next one last
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
    """A piece without a space, cut after as many grapheme clusters as fit; at least one."""
    ends = [found.end() for found in _GRAPHEMES.finditer(text, start, end)]
    first = 0
    while first < len(ends):
        low, high = first + 1, min(len(ends), first + 16 * room) + 1  # fits (or has to) .. does not fit
        while high - low > 1:
            middle = (low + high) // 2
            fits = count([text[start : ends[middle - 1]]])[0] - base <= room
            low, high = (middle, high) if fits else (low, middle)
        yield start, ends[low - 1], min(room, count([text[start : ends[low - 1]]])[0] - base)
        start, first = ends[low - 1], low


def _packed(
    text: str, pieces: list[tuple[int, int, int]], count: Count, base: int, size: int, overlap: int
) -> list[Span]:
    """As many pieces in a row as fit, counted together at the end: joined they may have other tokens."""
    spans: list[Span] = []
    first = fresh = 0  # the first piece of a passage, and the first that no passage has yet
    while fresh < len(pieces):
        last, tokens = first, 0
        while last < len(pieces) and (last <= fresh or base + tokens + pieces[last][2] <= size):
            tokens += pieces[last][2]
            last += 1
        while last > fresh + 1 and _tokens(text, pieces[first][0], pieces[last - 1][1], count) > size:
            last -= 1
        if first < fresh and _tokens(text, pieces[first][0], pieces[last - 1][1], count) > size:
            first = fresh  # what it shares with the one before leaves no room
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
