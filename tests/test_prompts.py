

@pytest.mark.parametrize("text", ["\u200b", "\ufeff \u00ad", "\u200c\u200d", "\u2060\n\t\ufe0f"])
def test_a_text_of_nothing_that_is_seen_is_blank(text: str) -> None:
    with pytest.raises(TextError, match="row 1: the text is empty"):
        check_text(text, "row 1")
