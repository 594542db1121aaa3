"""The gap between languages: what each number says where the answer is known, and what it must not depend on."""

from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lusifer import language_gap
from lusifer.errors import DataError, LusiferError


def cloud(seed: int, sentences: int = 30, width: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(sentences, width))


def mixed(seed: int, languages: int = 3, sentences: int = 24) -> dict[str, np.ndarray]:
    """Languages that share some of what a sentence says, each moved to a place of its own."""
    meaning = cloud(seed, sentences)
    codes = ("en", "sw", "fi", "te")[:languages]
    return {
        code: meaning + 0.7 * cloud(seed + 9 * n, sentences) + 0.5 * n * cloud(seed, 1) for n, code in enumerate(codes)
    }


def numbers(found: language_gap.Gap) -> dict[str, float]:
    rows = {**found.against, **{f"within {code}": row for code, row in found.within.items()}}
    return {f"{code} {name}": value for code, row in rows.items() for name, value in asdict(row).items()}


def test_languages_with_the_same_vectors_have_no_gap() -> None:
    found = language_gap.measure(np.asarray, dict.fromkeys(("en", "sw", "fi"), cloud(1)))
    assert found.against["sw"] == found.against["fi"]
    row = found.against["sw"]
    assert row.to_english == row.from_english == row.retrieval == 100
    assert row.shift == 0 and row.shift_share is None
    assert row.translations == pytest.approx(1) and row.margin > 0.5
    for within in found.within.values():
        assert within.own_language == pytest.approx(found.chance) == pytest.approx(100 / 3)
        assert within.predicted == pytest.approx(found.chance)


def test_islands_are_all_of_one_language() -> None:
    far = np.zeros(16)
    far[0] = 50
    found = language_gap.measure(np.asarray, {"en": cloud(1) + far, "sw": cloud(1) - far})
    assert found.mean("own_language") == found.mean("predicted") == 100
    assert found.against["sw"].shift == pytest.approx(2, abs=0.02)
    assert found.against["sw"].shift_share == pytest.approx(100, abs=1)
    assert found.within["en"].anisotropy > 0.99
    assert found.against["sw"].translations < -0.9


def test_what_is_moved_by_one_vector_is_all_shift() -> None:
    circle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    around = np.stack([0.6 * np.cos(circle), 0.6 * np.sin(circle)], axis=1)
    rows = {code: np.column_stack([around, np.full(24, height)]) for code, height in (("en", 0.8), ("sw", -0.8))}
    row = language_gap.measure(np.asarray, rows, k=5).against["sw"]
    assert row.shift == pytest.approx(1.6) and row.shift_share == pytest.approx(100)
    assert row.retrieval == 100 and row.hubness == pytest.approx(0, abs=1e-6)


def test_retrieval_counts_each_direction_for_itself() -> None:
    english = np.eye(12)
    other = np.eye(12)
    other[3] = english[4] + 0.1 * english[3]  # its nearest is 4, and nothing else is near to the English 3
    row = language_gap.measure(np.asarray, {"en": english, "sw": other}).against["sw"]
    assert row.to_english == pytest.approx(100 * 11 / 12)
    assert row.from_english == 100
    length = np.hypot(1, 0.1)
    assert row.translations == pytest.approx((11 + 0.1 / length) / 12)
    assert row.others == pytest.approx(1 / length / (12 * 11))


def test_a_model_that_gives_one_vector_for_all_finds_nothing() -> None:
    found = language_gap.measure(np.asarray, {"en": np.ones((20, 3)), "sw": np.ones((20, 3))})
    assert found.against["sw"].to_english == found.against["sw"].from_english == 0
    assert found.against["sw"].hubness == 0
    assert found.within["en"].anisotropy == pytest.approx(1)
    assert found.within["en"].own_language == pytest.approx(50)


def test_one_sentence_that_answers_everything_is_a_hub() -> None:
    english, other = cloud(1, 60, 64), cloud(2, 60, 64) + 0.4
    without = language_gap.measure(np.asarray, {"en": english, "sw": other}).against["sw"].hubness
    english[7] = other.mean(axis=0)
    assert language_gap.measure(np.asarray, {"en": english, "sw": other}).against["sw"].hubness > without + 1


def test_hubness_is_the_skewness_of_occurrences() -> None:
    vectors = mixed(3, languages=2)
    unit = {code: rows / np.linalg.norm(rows, axis=1, keepdims=True) for code, rows in vectors.items()}
    nearest = np.argsort(-(unit["sw"] @ unit["en"].T), axis=1)[:, :10]
    counts = np.bincount(nearest.ravel(), minlength=24)
    expected = ((counts - counts.mean()) ** 3).mean() / counts.std() ** 3
    assert language_gap.measure(np.asarray, vectors).against["sw"].hubness == pytest.approx(expected)


def test_a_texts_own_sentence_tells_nothing_of_its_language() -> None:
    """Both are at chance whether a translation is the nearest of all or far away."""
    english = cloud(4, 400, 4)
    near = language_gap.measure(np.asarray, {"en": english, "sw": english + 1e-3 * cloud(5, 400, 4)})
    apart = language_gap.measure(np.asarray, {"en": english, "sw": cloud(6, 400, 4)})
    for found in (near, apart):
        assert found.mean("own_language") == pytest.approx(50, abs=5)
        assert found.mean("predicted") == pytest.approx(50, abs=10)


@given(seed=st.integers(0, 10_000), languages=st.integers(2, 4))
def test_a_rotation_changes_nothing(seed: int, languages: int) -> None:
    vectors = mixed(seed, languages)
    turn, _ = np.linalg.qr(cloud(seed + 1, 16, 16))
    turned = {code: 3 * rows @ turn for code, rows in vectors.items()}
    assert numbers(language_gap.measure(np.asarray, turned)) == pytest.approx(
        numbers(language_gap.measure(np.asarray, vectors)), abs=1e-4
    )


@given(seed=st.integers(0, 10_000), cells=st.integers(1, 10_000))
def test_blocks_change_nothing(seed: int, cells: int) -> None:
    vectors = mixed(seed)
    wanted = numbers(language_gap.measure(np.asarray, vectors))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(language_gap, "_CELLS", cells)
        assert numbers(language_gap.measure(np.asarray, vectors)) == pytest.approx(wanted, abs=1e-4)


@given(seed=st.integers(0, 10_000), order=st.permutations(range(24)))
def test_the_order_of_sentences_and_languages_changes_nothing(seed: int, order: list[int]) -> None:
    vectors = mixed(seed)
    moved = {code: rows[order] for code, rows in reversed(vectors.items())}
    assert numbers(language_gap.measure(np.asarray, moved)) == pytest.approx(
        numbers(language_gap.measure(np.asarray, vectors)), abs=1e-4
    )


def test_texts_are_embedded_a_language_at_a_time_whatever_the_number_format() -> None:
    vectors = {code: rows.astype(np.float16) for code, rows in mixed(5).items()}
    texts = {code: tuple(f"{code} {n}" for n in range(24)) for code in vectors}
    calls: list[int] = []

    def embed(rows: tuple[str, ...]) -> np.ndarray:
        calls.append(len(rows))
        return np.stack([vectors[row[:2]][int(row[3:])] for row in rows])

    assert numbers(language_gap.measure(embed, texts)) == numbers(language_gap.measure(np.asarray, vectors))
    assert calls == [24, 24, 24]


def broken(value: float) -> np.ndarray:
    rows = cloud(2)
    rows[4] = value
    return rows


@pytest.mark.parametrize(
    ("vectors", "words"),
    [
        ({"sw": cloud(1), "fi": cloud(2)}, "languages sw, fi: give en and at least one other"),
        ({"en": cloud(1)}, "give en and at least one other"),
        ({"en": cloud(1), "sw": cloud(1, 29)}, "sw has 29 sentences and en 30"),
        ({"en": cloud(1, 10), "sw": cloud(2, 10)}, "10 sentences in each language: give 11 or more"),
        ({"en": cloud(1), "sw": broken(np.nan)}, "sw: the vector of text 5 is not finite"),
        ({"en": cloud(1), "sw": broken(np.inf)}, "sw: the vector of text 5 is not finite"),
        ({"en": cloud(1), "sw": broken(0)}, "sw: the vector of text 5 has length 0"),
    ],
)
def test_what_cannot_be_measured_is_refused(vectors: dict[str, np.ndarray], words: str) -> None:
    with pytest.raises((DataError, LusiferError), match=words):
        language_gap.measure(np.asarray, vectors)


def test_a_model_that_loses_texts_is_refused() -> None:
    texts = {"en": ("a",) * 12, "sw": ("b",) * 12}
    with pytest.raises(LusiferError, match=r"en: expected vectors of shape \(12, d\), found \(11, 3\)"):
        language_gap.measure(lambda rows: np.ones((len(rows) - 1, 3)), texts)
