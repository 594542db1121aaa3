"""Texts that were seen."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lusifer.errors import DataError
from lusifer.io.seen import BloomFilter, text_key


@given(st.lists(st.text(min_size=1, max_size=30), max_size=40), st.lists(st.text(max_size=30), max_size=20))
def test_what_was_put_in_is_found(inside: list[str], others: list[str]) -> None:
    made = BloomFilter(len(inside))
    for text in inside:
        made.add(text)
    keys = {text_key(text) for text in inside} - {""}
    assert all((text in made) == bool(text_key(text)) for text in inside)
    assert sum(text in made and text_key(text) not in keys for text in others) <= 1


def test_chance_hits_are_as_rare_as_promised() -> None:
    made = BloomFilter(2000, false_positives=0.01)
    for number in range(2000):
        made.add(f"text {number}")
    assert sum(f"other {number}" in made for number in range(5000)) < 0.02 * 5000


def test_case_width_and_punctuation_do_not_count() -> None:
    made = BloomFilter(10)
    made.add("Straße, ﬁne — “42”!")
    assert "strasse fine 42" in made and "strasse fine 43" not in made
    assert "…" not in made and text_key("…") == ""
    assert text_key("हिन्दी") != text_key("हनद")  # marks are letters in many scripts


def test_saved_is_loaded_and_other_files_are_refused(tmp_path: Path) -> None:
    made = BloomFilter(100)
    for number in range(100):
        made.add(f"text {number}")
    made.save(tmp_path / "seen.safetensors")
    again = BloomFilter.load(tmp_path / "seen.safetensors")
    assert (again.bits == made.bits).all() and again.hashes == made.hashes and again.texts == 100
    (tmp_path / "no.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(DataError, match=r"no.safetensors: cannot be read"):
        BloomFilter.load(tmp_path / "no.safetensors")
