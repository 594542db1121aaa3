"""The look across languages: what is near to what, and the page about it."""

from html.parser import HTMLParser

import numpy as np
import pytest

from lusifer import languages
from lusifer.evaluation.report import figures
from lusifer.evaluation.report import look as compare
from lusifer.evaluation.report.page import demo
from lusifer.io import parallel_text
from lusifer.io.parallel_text import Parallel

TEXTS = Parallel(
    {"en": ("0", "1", "2", "3"), "es": ("0", "1", "2", "3"), "ru": ("3", "0", "x", "2")}, ("a", "a", "b", "b")
)


def embed(texts: list[str]) -> np.ndarray:
    """0 and 1 lie together, 2 and 3 as well; x is near to none."""
    known = {"0": (1, 0.1, 0), "1": (1, -0.1, 0), "2": (0.1, 1, 0), "3": (-0.1, 1, 0), "x": (0, 0, 1)}
    vectors = np.array([known[text] for text in texts], dtype=float)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_the_sample_is_parallel_and_in_the_languages_of_the_paper() -> None:
    sample = parallel_text.sample()
    assert set(sample.texts) == {language.code for language in languages.paper()}
    assert {len(texts) for texts in sample.texts.values()} == {len(sample.topics)} == {28}
    assert all(sample.topics.count(topic) == 4 for topic in sample.topics)
    everything = [text for texts in sample.texts.values() for text in texts]
    assert len(set(everything)) == len(everything) == 392  # no sentence stands there twice, in no two languages


def test_translations_and_topics_are_found_where_vectors_are_near() -> None:
    look = compare.look(embed, TEXTS)
    assert look.found == {"es": 100, "ru": 0}
    assert look.topic["es"] == 100  # not by the sentence's own translation, which is left out
    assert look.topic["ru"] == 50  # the first says b, the second a, the fourth b; the third says nothing


def test_search_gives_the_nearest_of_all_languages() -> None:
    vectors = compare.look(embed, TEXTS).vectors
    hits = compare.search(embed, "0", TEXTS, vectors, 4)
    assert [(hit.code, hit.text) for hit in hits[:3]] == [("en", "0"), ("es", "0"), ("ru", "0")]
    assert hits[0].similarity == pytest.approx(1) and hits[3].similarity < 1 and len(hits) == 4


class Words(HTMLParser):
    """Texts and tags of a page, and whether every tag is closed."""

    VOID = {"meta", "img"}

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.images: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.images += [value for key, value in attrs if key in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_stands_alone_and_shows_what_was_found() -> None:
    look = compare.look(embed, TEXTS)
    hits = compare.search(embed, "0", TEXTS, look.vectors, 3)
    looks = {"old <one>": look, "new": look}
    islands = figures.islands({name: each.vectors for name, each in looks.items()})
    html = demo(looks, {"1 < 2?": dict.fromkeys(looks, hits)}, islands)
    read = Words()
    read.feed(html)
    read.close()
    assert not read.open
    assert {"An English embedder learns languages", "old <one>", "1 < 2?", "Spanish", "Russian"} <= set(read.words)
    assert read.words.count("100") == 4 and "mean" in read.words
    assert html.count("<svg ") == 1 and not read.images
