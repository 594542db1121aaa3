"""Checks of what happens to a text before the model sees it."""

from __future__ import annotations

import torch
from sentence_transformers import SentenceTransformer

from lusifer.model.probes import Probe

LONGEST_CHECKED = 100_000
"""Tokens up to which a limit is tried; tokenizers without one carry a huge number in its place."""
PROBE_PROMPT = "Given a question, find passages that answer it.\n"


def special_tokens_are_text(embedder: SentenceTransformer) -> Probe:
    """A special token that a text spells must not end or mask anything."""
    tokenizer = embedder.tokenizer
    plain = _ids(embedder, "a b")
    read = []
    for token in tokenizer.all_special_tokens:
        number = tokenizer.convert_tokens_to_ids(token)
        if token != tokenizer.unk_token and _ids(embedder, f"a {token} b").count(number) > plain.count(number):
            read.append(token)
    detail = f"a text may hold {', '.join(tokenizer.all_special_tokens)}"
    if read:
        detail = f"{', '.join(read)} in a text is read as the special token"
    return Probe("special tokens in a text are text", not read, detail)


def cut_keeps_the_end(embedder: SentenceTransformer) -> Probe:
    """A text that is too long must keep the final special token and stay within the limit."""
    name = "cutting keeps the final token"
    limit = embedder.max_seq_length
    if limit is None or limit > LONGEST_CHECKED:
        return Probe(name, True, "the model has no limit of tokens")
    short, long = _ids(embedder, "a"), _ids(embedder, "water and fire " * limit)
    final = short[-1] if short[-1] in embedder.tokenizer.all_special_ids else None
    ok = len(long) <= limit and (final is None or long[-1] == final)
    word = "none" if final is None else embedder.tokenizer.convert_ids_to_tokens(final)
    return Probe(name, ok, f"{len(long)} of at most {limit} tokens, final token {word}")


def prompt_reaches(embedder: SentenceTransformer) -> Probe:
    """A prompt must change the vector."""
    saved = [(name, text) for name, text in embedder.prompts.items() if text]
    name, prompt = saved[0] if saved else ("one of our own", PROBE_PROMPT)
    vectors = [
        embedder.encode(["Where does the river begin?"], prompt=text, convert_to_tensor=True, show_progress_bar=False)
        for text in ("", prompt)
    ]
    moved = float((vectors[0] - vectors[1]).float().abs().max())
    return Probe("a prompt reaches the model", moved > 1e-6, f"prompt {name!r} moves the vector by {moved:.1e}")


def _ids(embedder: SentenceTransformer, text: str) -> list[int]:
    """Token ids of one text on the way that `encode` takes."""
    ids: torch.Tensor = embedder.preprocess([text])["input_ids"]
    return ids[0].tolist()
