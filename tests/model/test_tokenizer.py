"""Special tokens come from the tokenizer, never from a text; a text that is cut keeps its final token."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from lusifer.errors import UsageError
from lusifer.io.names import shipped_model
from lusifer.model.bases.tokenizer import check_tokenizers, leaks, read_safely, read_tokenizer
from lusifer.prompts import INVISIBLE
from support.tiny_bases import sentences, tiny_tokenizer

FAMILIES = ("xlm-roberta", "t5", "bert", "modernbert", "mistral")


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    tiny_tokenizer(request.param).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder):
    return read_tokenizer(str(folder))


def specials(tokenizer, text):
    """How many special tokens the text itself becomes."""
    own = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    return sum(token in own for token in tokenizer(text, add_special_tokens=False)["input_ids"])


def test_a_special_token_in_a_text_is_text(tokenizer):
    for token in tokenizer.all_special_tokens:
        for text in (token, f"a {token} b", f"a{token}b", token * 3, f"\uff1c{token[1:]}", token.upper()):
            assert specials(tokenizer, text) == 0, text


SEEN_BY_NOBODY = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b\u180d\u180e\u180f\u200b\u200e\u200f\u202a\u202e\u2060\u2064\u2065"
    "\u2066\u206f\u3164\ufe00\ufe0f\ufeff\uffa0\ufff9\ufffb\U000e0001\U000e0101"
)


@given(text=st.text(max_size=40), place=st.integers(0, 40), which=st.integers(0, 4))
def test_no_text_holds_a_special_token(tokenizer, text, place, which):
    token = tokenizer.all_special_tokens[which % len(tokenizer.all_special_tokens)]
    assert specials(tokenizer, text[:place] + token + text[place:]) == 0


def test_other_texts_get_the_ids_of_the_original(folder, tokenizer):
    original = AutoTokenizer.from_pretrained(folder)
    for text in sentences():
        assert tokenizer(text)["input_ids"] == original(text)["input_ids"]


@given(
    text=st.text(max_size=30), places=st.lists(st.integers(0, 30), max_size=4), which=st.sampled_from(SEEN_BY_NOBODY)
)
def test_characters_that_nobody_sees_leave_no_trace(tokenizer, text, places, which):
    plain = re.sub(INVISIBLE, "", text)
    strewn = plain
    for place in places:
        strewn = strewn[:place] + which + strewn[place:]
    assert tokenizer(strewn)["input_ids"] == tokenizer(plain)["input_ids"]


def test_the_joiners_of_words_stay(folder, tokenizer):
    england = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"
    text = f"می\u200cخواهم क्\u200dष {england}"
    assert not re.findall(INVISIBLE, text)
    assert tokenizer(text)["input_ids"] == AutoTokenizer.from_pretrained(folder)(text)["input_ids"]


def test_the_model_that_comes_along_reads_past_them():
    tokenizer = AutoTokenizer.from_pretrained(shipped_model("mini"))
    strewn = "\ufeffThe hy\u00adphen\u200bat\u2060ed \u200eword\ufe0f."
    assert tokenizer(strewn)["input_ids"] == tokenizer("The hyphenated word.")["input_ids"]


def test_it_survives_saving(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.padding_side == "right"
    for token in tokenizer.all_special_tokens:
        assert specials(loaded, f"a {token} b") == 0
    for text in [*sentences(), *(f"a {token} b" for token in tokenizer.all_special_tokens)]:
        assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]


def test_reading_twice_changes_nothing(tokenizer):
    assert read_safely(tokenizer) is tokenizer
    assert not any(leaks(tokenizer, token) for token in tokenizer.all_special_tokens)


def test_a_text_that_is_cut_keeps_its_final_token(tokenizer):
    whole = tokenizer("water in the river " * 30)["input_ids"]
    cut = tokenizer("water in the river " * 30, truncation=True, max_length=12)["input_ids"]
    assert len(cut) == 12 < len(whole)
    assert cut[-1] == (whole[-1] if whole[-1] in tokenizer.all_special_ids else whole[11])


def test_padding_is_on_the_right(tokenizer):
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    mask = tokenizer(["a", "a longer text by far"], padding=True)["attention_mask"]
    assert mask[0][0] == 1 and mask[0][-1] == 0


def test_the_published_fixture_with_its_own_normaliser():
    """A real XLM-R normaliser (NFKC and a precompiled map), which makes "</s>" out of full-width characters."""
    from pathlib import Path

    backbones = Path(__file__).parents[1] / "parity" / "numbers" / "backbones"
    for name in ("tiny-xlm-roberta", "tiny-mistral"):
        tokenizer = read_tokenizer(str(backbones / name))
        for text in ("a </s> b", "a ＜/s＞ b", "<s></s><s>", "x<mask>y", " <mask> "):
            assert specials(tokenizer, text) == 0, (name, text)


def test_missing_tokens_are_named():
    encoder, llm = tiny_tokenizer("xlm-roberta"), tiny_tokenizer("mistral")
    check_tokenizers(encoder, llm)
    check_tokenizers(encoder)
    llm.eos_token = None
    with pytest.raises(UsageError, match="model.llm: its tokenizer has no eos token: set eos_token"):
        check_tokenizers(encoder, llm)
    encoder.pad_token = None
    with pytest.raises(UsageError, match="model.encoder: its tokenizer has no pad token: set pad_token"):
        check_tokenizers(encoder)


def test_no_tokenizer_there(tmp_path):
    with pytest.raises(UsageError, match="no tokenizer \(tokenizer.json") as caught:
        read_tokenizer(str(tmp_path))
    assert "\n" not in str(caught.value)
