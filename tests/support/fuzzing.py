"""Inputs at random over one surface after another: how many, what holds of each, and what became of them.

`LUSIFER_FUZZ=100000` shares so many inputs among the surfaces, other ones each time (`make fuzz`). Without it a few
hundred are tried, the same ones each time.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from lusifer.errors import LusiferError

TOTAL = int(os.environ.get("LUSIFER_FUZZ", "0"))
LONGEST = 60
"""Seconds after which an input hangs."""
COUNTS: Counter[tuple[str, str]] = Counter()
"""(surface, what became of an input) -> how many."""


def inputs(share: float, few: int) -> Callable[[Any], Any]:
    """How many inputs a test tries: its share of a long run, or a few."""
    return settings(
        max_examples=max(few, int(share * TOTAL)),
        derandomize=not TOTAL,
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )


@contextmanager
def tried(surface: str, refusals: tuple[type[Exception], ...] = (LusiferError,)) -> Iterator[None]:
    """One input: it is accepted, or refused in one line, and soon."""

    def hangs(number: int, frame: object) -> None:
        raise TimeoutError(f"{surface}: an input takes more than {LONGEST} seconds")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(LONGEST)
    try:
        yield
        COUNTS[surface, "accepted"] += 1
    except refusals as error:
        assert str(error).strip() and "\n" not in str(error), f"{surface}: an error of several lines: {error}"
        COUNTS[surface, "refused"] += 1
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def table() -> str:
    """What became of all inputs, as Markdown; one that broke a promise has failed its test and is not counted."""
    lines = ["| surface | inputs | accepted | refused in one line |", "|---|--:|--:|--:|"]
    for surface in dict.fromkeys(surface for surface, _ in COUNTS):
        accepted, refused = (COUNTS[surface, what] for what in ("accepted", "refused"))
        lines.append(f"| {surface} | {accepted + refused:,} | {accepted:,} | {refused:,} |")
    return "\n".join([*lines, f"| all | {sum(COUNTS.values()):,} | | |", ""])


ODD = [
    "", " ", "\0", "\n", "\r", "\t", "\x1b[31m", "\ud800", "\udfff", "\ufeff", "\u202e", "\u200b", "\U0010ffff", "</s>",
    "<mask>", "<pad>", "<unk>", "nan", "NaN", "inf", "-1", "0", "1e999", "9" * 400, "null", "[]", "{}", "'", '"', "\\",
    "../..", "/", "~", "{", "}", "[", ":", "&a", "*a", "<<", "$(id)", "%s", ";", "--",
    "!!python/object/apply:os.system",
]  # fmt: skip
"""What breaks readers."""


def any_text(longest: int = 200) -> st.SearchStrategy[str]:
    """Text of all of Unicode, lone halves of characters among it."""
    letters = st.characters(exclude_categories=())
    return st.one_of(
        st.text(letters, max_size=longest),
        st.text(max_size=longest),
        st.lists(st.sampled_from(ODD) | st.text(letters, max_size=9), max_size=12).map("".join),
    )


def values() -> st.SearchStrategy[Any]:
    """What JSON can say, and numbers that it cannot."""
    leaves = st.none() | st.booleans() | st.integers() | st.floats() | any_text(20) | st.sampled_from(ODD)
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text(9), inner, max_size=4)
    )


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Bytes that were whole: cut, changed, doubled, or with something odd in them."""
    found = bytearray(whole)
    for _ in range(draw(st.integers(0, 3))):
        # A share of the whole, so that the same draws do the same to a file that is a few bytes longer elsewhere.
        place = draw(st.integers(0, 1 << 20)) * len(found) >> 20
        end = min(len(found), place + draw(st.sampled_from([0, 1, 2, 8, 64, 1 << 20])))
        new = draw(
            st.one_of(
                st.binary(max_size=8),
                st.sampled_from(ODD).map(lambda odd: odd.encode("utf-8", "surrogatepass")),
                st.just(bytes(found[place:end]) * 2),
            )
        )
        found[place:end] = new
    return bytes(found)
