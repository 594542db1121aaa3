"""Places of needed documents in a whole collection, and measures from them, by hand and by brute force."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lusifer.evaluation.search.collection import Searched, SearchedDocument, judged, rank


def documents(*languages: str) -> Searched:
    return Searched(tuple(SearchedDocument(f"d{n}", "text", code) for n, code in enumerate(languages)))


def test_a_document_stands_where_its_best_passage_does():
    # Cosines with the question (1, 0): passages of document 0 have 0.6 and 1, of 1 have 0.8, of 2 have 0.
    passages = np.array([[0.6, 0.8], [3, 0], [0.8, 0.6], [0, 1]])
    found = rank(np.array([[2.0, 0.0]]), passages, np.array([0, 0, 1, 2]), [[2, 0]], 2)[0]
    assert found.ranks == (3, 1) and found.hits == ((0, 1.0), (1, 0.8))


def test_documents_with_equal_cosines_come_in_the_order_of_the_collection():
    passages = np.array([[0.0, 1], [1, 0], [1, 0], [1, 0]])
    found = rank(np.array([[1.0, 0]]), passages, np.arange(4), [[3, 1, 0]], 2)[0]
    assert found.ranks == (3, 1, 4) and [place for place, _ in found.hits] == [1, 2]


@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 9), st.integers(1, 40))
def test_blocks_give_what_a_sorted_list_gives(seed, asked, count, cells):
    draws = np.random.default_rng(seed)
    owners = np.repeat(np.arange(count), draws.integers(1, 4, size=count))
    questions, passages = (draws.integers(-2, 3, size=(n, 3)).astype(float) for n in (asked, len(owners)))
    needed = [draws.permutation(count)[: draws.integers(0, count + 1)].tolist() for _ in range(asked)]
    found = rank(questions, passages, owners, needed, 4, cells)
    for question, right, each in zip(questions, needed, found, strict=True):
        lengths = np.linalg.norm(passages, axis=1).clip(1e-12) * np.linalg.norm(question).clip(1e-12)
        cosines = (passages @ question / lengths).round(6)
        best = [cosines[owners == place].max() for place in range(count)]
        order = sorted(range(count), key=lambda place: (-best[place], place))
        assert each.ranks == tuple(1 + order.index(place) for place in right)
        assert [place for place, _ in each.hits] == order[:4]


def test_measures_by_hand():
    # Two needed documents at 1 and 4: DCG 1 + 1 / log2(5), at best 1 + 1 / log2(3). One at 11: nothing among ten.
    found = judged([(1, 4), (11,), (2,)], ["ndcg_cut_10", "success_1", "recall_10"])
    both = (1 + 1 / math.log2(5)) / (1 + 1 / math.log2(3))
    assert found["ndcg_cut_10"] == pytest.approx([both, 0, 1 / math.log2(3)])
    assert found["success_1"] == [1, 0, 0] and found["recall_10"] == [1, 0, 1]


def test_the_share_of_a_language_leaves_out_what_is_right():
    searched = documents("en", "en", "de", "de", "fr")
    assert searched.share("de", ["d2"]) == 1 / 4 and searched.share("de", ["d0", "d2"]) == 1 / 3
    assert searched.share("sw", ["d0"]) == 0
    # Of three wrong ones one is of unknown language, so half of those that are known are German.
    some = documents("en", "en", "de", "und", "und")
    assert some.share("de", ["d0", "d3"]) == 1 / 2 and documents("en", "und").share("de", ["d0"]) == 0
