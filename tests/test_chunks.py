"""Long texts into passages: at sentence ends of every script, no character cut, nothing lost, none too long."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from lusifer import chunks
from lusifer.errors import UsageError
from lusifer.serving import encode

SENTENCES = {
    "en": ["Water is life. ", "Is it? ", "Yes, 3.5 litres, e.g. from St. Moritz!"],
    "es": ["El agua es vida. ", "¿De verdad? ", "¡Sí!"],
    "ru": ["Вода — это жизнь. ", "Правда? ", "Да… ", "Конечно."],
    "fr": ["L’eau, c’est la vie. ", "« Vraiment ? » ", "Oui."],
    "vi": ["Nước là sự sống. ", "Thật không? ", "Đúng."],
    "fa": ["آب زندگی است. ", "واقعاً؟ ", "بله!"],
    "ur": ["پانی زندگی ہے۔ ", "واقعی؟ ", "ہاں۔"],
    "id": ["Air adalah kehidupan. ", "Benarkah? ", "Ya."],
    "ar": ["الماء حياة. ", "حقا؟ ", "نعم!"],
    "fi": ["Vesi on elämää. ", "Niinkö? ", "On."],
    "ko": ["물은 생명입니다. ", "정말요? ", "네."],
    "hi": ["पानी ही जीवन है। ", "सच में? ", "हाँ।"],
    "bn": ["পানিই জীবন। ", "সত্যি? ", "হ্যাঁ।"],
    "te": ["నీరే జీవం. ", "నిజమా? ", "అవును."],
    "sw": ["Maji ni uhai. ", "Kweli? ", "Ndiyo."],
    "ja": ["水は命です。", "「本当？」", "はい。"],
    "zh": ["水是生命。", "真的吗？", "（是的！）", "对．"],
    "am": ["ውሃ ሕይወት ነው። ", "እውነት? ", "አዎ።"],
    "hy": ["Ջուրը կյանք է։ ", "Այո։"],
    "my": ["ရေသည် အသက်ဖြစ်သည်။ ", "ဟုတ်ကဲ့။"],
    "km": ["ទឹកគឺជាជីវិត។ ", "បាទ។"],
    "el": ["Το νερό είναι ζωή. ", "Ναι!"],
    "he": ["מים הם חיים. ", "כן?"],
}


def by_characters(texts: Sequence[str]) -> list[int]:
    return [len(text) + 2 for text in texts]


@pytest.mark.parametrize("language", SENTENCES)
def test_sentences_end_where_a_reader_ends_them(language):
    text = "".join(SENTENCES[language])
    found = [text[start:end] for start, end in chunks.sentences(text)]
    if language == "en":
        found[2:] = ["".join(found[2:])]  # an abbreviation before a name ends one, which costs nothing
    assert found == SENTENCES[language]


def test_a_wrapped_line_ends_no_sentence_and_an_empty_one_does():
    text = "# Title\n\nA line\nwrapped here. And\r\n\r\nmore"
    assert [text[start:end] for start, end in chunks.sentences(text)] == [
        "# Title\n\n", "A line\nwrapped here. ", "And\r\n\r\n", "more",
    ]  # fmt: skip


PIECES = st.sampled_from(
    [
        "water ",
        "a",
        ". ",
        ".",
        "\n",
        "\n\n",
        ", ",
        "。",
        "水",
        "्",
        "न",
        "क",
        "ि",
        "é",
        "e\u0301",
        "👨‍👩‍👧",
        "🇩🇪",
        "? ",
        "ไทย",
        "؟ ",
        "\r\n",
    ]
)


@given(st.lists(PIECES, max_size=200).map("".join), st.integers(30, 60), st.data())
def test_passages_are_the_text_none_is_too_long_and_no_character_is_cut(text, size, data):
    spans = chunks.split(text, by_characters, size)
    assert "".join(text[start:end] for start, end in spans) == text
    assert all(len(text[start:end].strip()) + 2 <= size for start, end in spans)
    ends = {0, *(found.end() for found in regex.finditer(r"\X", text))}
    assert {place for span in spans for place in span} <= ends
    overlap = data.draw(st.integers(1, (size - 2) // 2))
    shared = chunks.split(text, by_characters, size, overlap)
    assert (shared[0][0], shared[-1][1]) == (0, len(text))
    for before, after in zip(shared, shared[1:], strict=False):
        assert before[0] < after[0] <= before[1] < after[1]
        assert len(text[after[0] : before[1]].strip()) <= overlap
    assert all(len(text[start:end].strip()) + 2 <= size for start, end in shared)


def test_whole_sentences_stay_together_and_may_be_shared():
    text = "One two. Three four. Five six. Seven eight."
    parts = [text[start:end] for start, end in chunks.split(text, by_characters, 25)]
    assert parts == ["One two. Three four. ", "Five six. Seven eight."]
    parts = [text[start:end] for start, end in chunks.split(text, by_characters, 25, 11)]
    assert parts == ["One two. Three four. ", "Three four. Five six. ", "Five six. Seven eight."]


def test_a_long_sentence_is_cut_at_clauses_then_spaces_then_characters():
    text = "one two three, four five six; " + "seveneightnine" * 3 + " ten"
    parts = [text[start:end] for start, end in chunks.split(text, by_characters, 22)]
    assert parts[:2] == ["one two three, ", "four five six; "] and parts[-1].endswith(" ten")
    family = "👨‍👩‍👧" * 9
    assert all(len(family[start:end]) % 5 == 0 for start, end in chunks.split(family, by_characters, 13))


def test_a_character_that_is_too_long_alone_is_not_cut():
    zalgo = "e" + "\u0301" * 50
    assert chunks.split(f"{zalgo} a", by_characters, 22)[0] == (0, 51)


def test_no_room_is_refused():
    for size, overlap in ((2, 0), (1, 0), (30, 15), (30, -1)):
        with pytest.raises(
            UsageError, match=f"^passages of {size} tokens: (the prompt and special tokens take 2|an overlap of)"
        ):
            chunks.split("water", by_characters, size, overlap)


@pytest.mark.parametrize("prompt", [None, "Find it.\n"])
def test_passages_fit_the_tokens_of_a_real_tokenizer(model_folder, prompt):
    from lusifer import load

    embedder = load(model_folder, device="cpu")

    def count(texts: Sequence[str]) -> list[int]:
        return encode.token_counts(embedder, texts, prompt)

    text = " ".join("".join(parts) for parts in SENTENCES.values()) * 3 + "水" * 300
    spans = chunks.split(text, count, 64)
    assert "".join(text[start:end] for start, end in spans) == text
    tokens = count([text[start:end].strip() for start, end in spans])
    assert max(tokens) <= 64 and sum(tokens) / len(tokens) > 40
