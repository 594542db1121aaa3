"""The numbers of the calibration against those done by hand, and the file that keeps them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from calibration.conftest import ASKED, ENGLISH, SWAHILI
from lusifer.calibration.fit import accepted, codes, fit, measure, wrong_pairs
from lusifer.calibration.statistics import ERROR, RIGHT, SPREAD, WRONG, read, unit
from lusifer.embedder import folder
from lusifer.errors import DataError, UsageError
from lusifer.io import parallel_text
from lusifer.io.parallel_text import Parallel
from lusifer.serving import encode


def test_wrong_pairs_by_hand(statistics):
    # English with itself: of the six wrong pairs (1, 2) and (2, 1) have cosine 1, the others 0.
    here = statistics.pairs[0, 0, 0]
    assert here[WRONG] == pytest.approx(1 / 3) and here[SPREAD] == pytest.approx(math.sqrt(1 / 3 - 1 / 9))
    assert math.isnan(here[RIGHT])
    # Without sentence 1 or 2 the mean is 0, without sentence 3 it is 1: deviations of 1/3, 1/3 and 2/3, by 2/3.
    assert here[ERROR] == pytest.approx(math.sqrt(2 / 3 * (1 / 9 + 1 / 9 + 4 / 9)))
    # English questions, Swahili documents: right pairs have 1, 0, 1; of the wrong ones (2, 1) and (3, 2) have 1.
    across = statistics.pairs[0, 0, 1]
    assert across[RIGHT] == pytest.approx(2 / 3) and across[WRONG] == pytest.approx(2 / 6)
    assert across[SPREAD] == pytest.approx(math.sqrt(2 / 9))
    assert np.allclose(statistics.query_means, [[2 / 3, 1 / 3], [1 / 3, 2 / 3]])  # the 2 is brought to length 1


def test_a_calibrated_score_by_hand(statistics):
    # (1 - 1/3) / sqrt(2/9) is the root of 2, in English and across.
    assert statistics.calibrated(1.0, "en", "en") == pytest.approx(math.sqrt(2))
    assert statistics.calibrated(1 / 3, "en", "sw") == pytest.approx(0, abs=1e-9)
    assert statistics.calibrated(np.array([1.0, 1 / 3]), "eng", "sw") == pytest.approx([math.sqrt(2), 0], abs=1e-9)


def test_offsets_by_hand(statistics):
    # The means are (2/3, 1/3) and (1/3, 2/3): that of Swahili lies (-1/3, 1/3) from that of English.
    moved = statistics.without_offset(np.array([[0.0, 5.0], [0.0, 1.0], [0.0, 1.0]]), ["swh", "en", None], "query")
    assert np.allclose(moved, [unit([[1 / 3, 2 / 3]])[0], [0, 1], [0, 1]])
    # With them taken out Swahili is (4/3, -1/3), (1/3, 2/3), (1/3, 2/3), each brought to length 1: of its wrong pairs
    # (2, 3) and (3, 2) have cosine 1, the four others 2 / sqrt(17 * 5).
    here = statistics.pairs[1, 1, 1]
    assert here[WRONG] == pytest.approx((2 + 4 * 2 / math.sqrt(85)) / 6)
    assert np.allclose(statistics.pairs[1, 0, 0], statistics.pairs[0, 0, 0], equal_nan=True)
    assert statistics.calibrated(0.5, "sw", "sw", offsets=True) == pytest.approx((0.5 - here[WRONG]) / here[SPREAD])


def test_an_unknown_language_counts_as_all_together(statistics):
    made = replace(statistics, pairs=statistics.pairs.copy())
    made.pairs[0, ..., WRONG] = [[0.0, 0.2], [0.4, 0.6]]
    made.pairs[0, ..., SPREAD] = 0.1
    # English questions to any: means 0 and 0.2, so the heap has mean 0.1 and variance 0.1 ** 2 + 0.1 ** 2.
    for unknown in (None, "de"):
        assert made.calibrated(0.3, "en", unknown) == pytest.approx(0.2 / math.sqrt(0.02))
        # Any to any: mean 0.3, and the four means have variance 0.05 around it.
        assert made.calibrated(0.6, unknown, unknown) == pytest.approx(0.3 / math.sqrt(0.05 + 0.01))
    with pytest.raises(UsageError, match="'swa-hili' is unknown"):
        made.calibrated(0.3, "swa-hili", "en")


@given(st.integers(3, 9), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_pairs_are_those_of_all_products(count, size, seed):
    draw = np.random.default_rng(seed)
    one, two = (unit(draw.normal(size=(count, size))) for _ in range(2))
    products = one @ two.T
    off = ~np.eye(count, dtype=bool)
    found = wrong_pairs(one, two, False)
    assert found[WRONG] == pytest.approx(products[off].mean(), abs=1e-9)
    assert found[SPREAD] == pytest.approx(products[off].std(), abs=1e-5)
    assert found[RIGHT] == pytest.approx(np.diag(products).mean(), abs=1e-9)
    without = [np.delete(np.delete(products, row, 0), row, 1)[off[1:, 1:]].mean() for row in range(count)]
    spread = (count - 1) / count * sum((each - np.mean(without)) ** 2 for each in without)
    assert found[ERROR] == pytest.approx(math.sqrt(spread), abs=1e-9)


def test_one_threshold_accepts_alike_after_calibration():
    """Swahili questions here have cosines to English that lie 0.3 higher than those of Hindi, right or wrong."""
    draw = np.random.default_rng(0)

    def vectors(common: float) -> np.ndarray:
        return np.concatenate([np.full((400, 1), common), meaning + 0.5 * draw.normal(size=(400, 16))], axis=1)

    meaning = draw.normal(size=(400, 16))
    sides = {"en": vectors(2.0), "sw": vectors(2.0), "hi": vectors(-1.0)}
    first, second = ({code: rows[part::2] for code, rows in sides.items()} for part in (0, 1))
    found = accepted(fit(first, first, ASKED, "drawn"), second, second["en"])
    assert set(found) == {"sw", "hi"} and found["sw"].wrong > found["hi"].wrong + 0.2
    assert found["sw"].accepted_before > 1.9 and found["hi"].accepted_before < 0.1
    assert 0.6 < found["sw"].accepted_after < 1.4 and 0.6 < found["hi"].accepted_after < 1.4
    assert found["hi"].missed_after < found["hi"].missed_before


def test_measure_embeds_each_side_and_counts_on_the_other_half():
    texts = {"en": tuple("abcdef"), "swh": tuple("ABCDEF")}
    asked = []

    def embed(texts: list[str]) -> np.ndarray:
        asked.append(list(texts))
        return np.array([[ord(text.lower()) - 90.0, 3.0 * text.isupper() + 1, 2.0] for text in texts])

    made, table = measure(Parallel(texts), embed, None, ASKED, "six")
    assert made.languages == ("en", "sw") and made.sentences == 6 and set(table) == {"sw"}
    assert asked == [list("abcdef"), list("ABCDEF")]
    both, _ = measure(Parallel(texts), embed, lambda texts: embed(texts) + 1, ASKED, "six")
    assert not np.allclose(both.document_means, both.query_means) and np.allclose(both.query_means, made.query_means)
    few, table = measure(Parallel({code: rows[:4] for code, rows in texts.items()}), embed, None, ASKED, "four")
    assert few.sentences == 4 and table == {}
    with pytest.raises(DataError, match="two: 2 sentences: give at least 3"):
        measure(Parallel({code: rows[:2] for code, rows in texts.items()}), embed, None, ASKED, "two")


def test_keys_that_are_no_languages_are_refused():
    with pytest.raises(DataError, match="f.csv: keys en and eng are both en: remove one"):
        codes({"en": 0, "sw": 0, "eng": 0}, "f.csv")
    with pytest.raises(UsageError, match="f.csv: key xq: language 'xq' is unknown.*: correct the key"):
        codes({"en": 0, "xq": 0}, "f.csv")


def test_a_file_gives_back_what_was_written(statistics, tmp_path):
    statistics.write(tmp_path / "languages.safetensors")
    for place in (tmp_path / "languages.safetensors", tmp_path):
        found = read(place)
        assert found.digest == statistics.digest and found.languages == ("en", "sw") and found.sentences == 3
        assert np.array_equal(found.pairs, statistics.pairs, equal_nan=True)
        assert (found.model, found.identity, found.source) == ("mine", ASKED.identity, "by hand")
    assert replace(statistics, query="q").digest != statistics.digest


def test_a_file_that_is_none_is_refused(statistics, tmp_path):
    with pytest.raises(UsageError, match=r"none.safetensors: no such file: make it with `lusifer calibrate MODEL"):
        read(tmp_path / "none.safetensors")
    file = tmp_path / "s.safetensors"
    statistics.write(file)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="s.safetensors: .*lusifer calibrate"):
        read(file)
    save_file({"a": ENGLISH}, file, metadata={"format": "pt"})
    with pytest.raises(DataError, match="s.safetensors: no language statistics of this version"):
        read(file)
    statistics.write(file)
    arrays, about = load_file(file), statistics._about() | {"format": "1"}
    means, pairs = arrays["query_means"], arrays["pairs"]
    for change in (
        {"pairs": pairs[:1]}, {"pairs": np.array(1.0)}, {"query_means": means[:1]},
        {"query_means": means[:, :0], "document_means": means[:, :0]}, {"query_means": means.astype(np.int32)},
    ):  # fmt: skip
        save_file(arrays | change, file, metadata=about)
        with pytest.raises(
            DataError, match="s.safetensors: damaged, expected numbers for 2 languages, found .*lusifer calibrate"
        ):
            read(file)


@pytest.mark.parametrize(
    ("array", "place", "number", "words"),
    [
        ("query_means", (1, 0), np.nan, "a number of query_means is not finite"),
        ("document_means", (0, 0), np.inf, "a number of document_means is not finite"),
        ("pairs", (0, 0, 1, RIGHT), np.nan, "a number of pairs is not finite"),
        ("pairs", (1, 0, 0, WRONG), np.inf, "a number of pairs is not finite"),
        ("pairs", (1, 1, 0, SPREAD), 0.0, "a spread of wrong pairs is not above 0"),
    ],
)
def test_a_file_with_a_number_that_cannot_be_is_refused(statistics, tmp_path, array, place, number, words):
    numbers = getattr(statistics, array).copy()
    numbers[place] = number
    replace(statistics, **{array: numbers}).write(tmp_path / "s.safetensors")
    with pytest.raises(DataError, match=f"s.safetensors: damaged, {words}: make it again with `lusifer calibrate`"):
        read(tmp_path / "s.safetensors")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("languages", "5", "expected a list of codes"),
        ("languages", "null", "expected a list of codes"),
        ("languages", '["en", 3]', "expected a list of codes"),
        ("languages", "[" * 100_000, "make it again"),
        ("languages", '["en", "en"]', "a duplicate code"),
        ("languages", '["en", "xq"]', "'xq' is unknown"),
        ("languages", '["en", "swh"]', "language 'swh' must be written sw"),
        ("languages", '["de", "sw"]', "no en among its languages"),
        ("sentences", "-3", "-3 sentences"),
        ("sentences", "many", "invalid literal"),
    ],
)
def test_a_file_that_says_what_cannot_be_is_refused(statistics, tmp_path, key, value, words):
    file = tmp_path / "s.safetensors"
    statistics.write(file)
    save_file(load_file(file), file, metadata=statistics._about() | {"format": "1", key: value})
    with pytest.raises(DataError, match=f"s.safetensors: damaged .*{words}") as caught:
        read(file)
    assert "make it again with `lusifer calibrate`" in str(caught.value) and len(str(caught.value)) < 500


def test_statistics_of_another_model_or_prompt_are_refused(statistics, others):
    statistics.require("f", ASKED.identity, ASKED.identity, None, "")
    with pytest.raises(UsageError, match="f: has the statistics of other, with questions by ffffffffffff, but here"):
        others.require("f", ASKED.identity, ASKED.identity, None, None)
    with pytest.raises(UsageError, match="documents by 0123456789ab, but here documents are by aaaaaaaaaaaa"):
        statistics.require("f", ASKED.identity, "a" * 12, None, None)
    with pytest.raises(UsageError, match="f: was made with the prompt '' for questions, but here it is 'query: '"):
        statistics.require("f", ASKED.identity, ASKED.identity, "query: ", None)


def test_three_sentences_are_the_fewest():
    with pytest.raises(DataError, match="few: 2 sentences"):
        fit({"en": ENGLISH[:2], "sw": SWAHILI[:2]}, {"en": ENGLISH[:2], "sw": SWAHILI[:2]}, ASKED, "few")


@pytest.mark.slow
def test_those_of_float32_vectors_serve_bfloat16_ones():
    """The shift is far below the standard error of the zero; so the file need not name a dtype."""
    text, made = parallel_text.read("sample"), {}
    for dtype in ("float32", "bfloat16"):
        embedder = folder.load("mini", device="cpu", dtype=dtype)
        report = encode.EmbedReport(limit=embedder.max_seq_length)

        def embed(texts, embedder=embedder, report=report):
            return encode.embed_rows(embedder, [("", each) for each in texts], report, prompt="")

        made[dtype] = measure(text, embed, None, ASKED, "sample")[0].pairs
    one, other = made.values()
    spread = one[..., SPREAD]
    assert not np.array_equal(one[..., WRONG], other[..., WRONG])
    assert (abs(one[..., WRONG] - other[..., WRONG]) < one[..., ERROR] / 2).all()
    assert (abs(other[..., SPREAD] / spread - 1) < 0.01).all()
