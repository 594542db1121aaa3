"""The subword vocabulary: an own Unigram model over all languages, with XLM-R's special pieces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from corpus import Row, row_weights

# Order and thereby ids of XLM-R; "<mask>" comes last.
SPECIALS = ["<s>", "<pad>", "</s>", "<unk>"]


def sample_texts(rows: list[Row], characters: int, seed: int, rarest: int = 4) -> Iterator[str]:
    """Yield texts of about ``characters`` characters in all: English and the others, balanced by language.

    Characters seen fewer than ``rarest`` times become spaces: the trainer keeps every character it sees as a
    piece, and rare ones would fill the vocabulary.
    """
    generator = np.random.default_rng(seed)
    weights = row_weights(rows, dictionary_share=0.3, temperature=0.3)
    # Without replacement, so that no text counts twice.
    order = generator.choice(len(rows), size=min(len(rows), characters // 20), replace=False, p=weights)
    texts: list[str] = []
    total = 0
    for index in order:
        row = rows[index]
        # English is on every row; one row in six gives it a share a little above the other languages'.
        texts += [row.other, row.english] if generator.random() < 1 / 6 else [row.other]
        total += len(texts[-1])
        if total > characters:
            break
    counter: Counter[str] = Counter()
    for text in texts:
        counter.update(text)
    rare = {ord(character): " " for character, number in counter.items() if number < rarest}
    for text in texts:
        yield text.translate(rare)


def train_tokenizer(rows: list[Row], size: int, characters: int, seed: int) -> PreTrainedTokenizerFast:
    """Train a Unigram tokenizer of ``size`` pieces, special ones included, that writes ``<s> text </s>``.

    The trainer of the tokenizers library sums in an order that changes from process to process, so two runs
    give slightly different pieces: only with a given vocabulary can a run be repeated exactly.
    """
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            # One case only: the vocabulary is small, and upper-case forms would take pieces from rare languages.
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=size - 1, special_tokens=SPECIALS, unk_token="<unk>", max_piece_length=16, show_progress=False
    )
    tokenizer.train_from_iterator(sample_texts(rows, characters, seed), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        cls_token="<s>",
        sep_token="</s>",
        mask_token="<mask>",
        padding_side="right",
        model_max_length=512,
        model_input_names=["input_ids", "attention_mask"],
    )
