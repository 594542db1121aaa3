"""Train a small multilingual encoder from parallel text and save it as a transformers folder.

Three phases: a Unigram vocabulary, one vector a piece by translation ranking, and a small encoder of
XLM-R's kind above these vectors. See README.md for the command and for what was measured.
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
from transformers import PreTrainedTokenizerFast, XLMRobertaModel

from batches import Clock, Pairs, Texts
from corpus import CorpusError, Split, read_rows, row_weights, split_rows
from encoder import Losses, Shape, build_encoder, embed, train_encoder
from lusifer.errors import UsageError
from lusifer.model.build import resolve
from scores import held_out_scores
from table import mean_vectors, train_table
from teacher import Teacher
from vocabulary import train_tokenizer

LOG = logging.getLogger("mini")
PLACES = ("data", "output", "tokenizer", "teacher")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; exits with status 2 when it is wrong."""
    parser = argparse.ArgumentParser(description="Train a small multilingual encoder from parallel text.")
    parser.add_argument("--data", type=Path, required=True, help="folder with parallel/en-xx.jsonl.gz")
    parser.add_argument("--output", type=Path, required=True, help="folder to write; replaced if it is there")
    parser.add_argument("--table-minutes", type=float, default=8.0, help="time for the vectors (default 8)")
    parser.add_argument("--encoder-minutes", type=float, default=20.0, help="time for the encoder (default 20)")
    parser.add_argument("--table-steps", type=int, help="steps instead of minutes: a run that can be repeated")
    parser.add_argument("--encoder-steps", type=int, help="the same for the encoder")
    parser.add_argument("--width", type=int, default=384, help="width of the states (default 384)")
    parser.add_argument("--layers", type=int, default=2, help="transformer layers (default 2)")
    parser.add_argument("--vocabulary", type=int, default=32_000, help="pieces (default 32000)")
    parser.add_argument("--characters", type=int, default=12_000_000, help="text for the vocabulary (default 12M)")
    parser.add_argument("--tokenizer", type=Path, help="reuse the vocabulary of this folder: for a repeated run")
    parser.add_argument("--teacher", help="an English embedder: its folder, or package:NAME; none by default")
    parser.add_argument("--state-ranking", type=float, default=Losses.state_ranking, help="see Losses in encoder.py")
    parser.add_argument("--agreement", type=float, default=Losses.agreement, help="see Losses in encoder.py")
    parser.add_argument("--held-out", type=int, default=200, help="sentences set aside of each source (default 200)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="processor threads (default 1)")
    options = parser.parse_args(arguments)
    for name in ("table_minutes", "encoder_minutes", "table_steps", "encoder_steps", "threads", "held_out"):
        value = getattr(options, name)
        if value is not None and value <= 0:
            parser.error(f"--{name.replace('_', '-')} must be above 0, not {value}")
    if options.width % Shape.heads:
        parser.error(f"--width must be a multiple of {Shape.heads}, the number of heads")
    if options.teacher is not None:
        try:
            options.teacher = resolve(options.teacher)
        except UsageError as error:
            parser.error(f"--teacher {error}")
    if options.tokenizer is not None and not (options.tokenizer / "tokenizer.json").is_file():
        parser.error(f"--tokenizer {options.tokenizer}: no tokenizer.json in this folder")
    return options


def train(options: argparse.Namespace, split: Split) -> tuple[PreTrainedTokenizerFast, XLMRobertaModel, dict[str, Any]]:
    """Run the three phases; returns tokenizer, encoder and what training.json tells of the run."""
    minutes: dict[str, float] = {}
    scores: dict[str, dict[str, dict[str, float]]] = {}
    start = time.monotonic()
    if options.tokenizer is None:
        tokenizer = train_tokenizer(split.train, options.vocabulary, options.characters, options.seed)
    else:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(options.tokenizer)
    minutes["vocabulary"] = (time.monotonic() - start) / 60
    LOG.info("vocabulary of %d pieces, %.1f min", len(tokenizer), minutes["vocabulary"])
    start = time.monotonic()
    pairs = Pairs(tokenizer, split.train, longest=64)
    minutes["tokenise"] = (time.monotonic() - start) / 60

    start = time.monotonic()
    teacher = Teacher(split.train, options.teacher) if options.teacher else None
    if teacher is not None and teacher.vectors.shape[1] != options.width:
        raise CorpusError(f"--width {options.width}: the teacher's vectors have {teacher.vectors.shape[1]} dimensions")
    minutes["teacher"] = (time.monotonic() - start) / 60

    clock = Clock(options.table_steps, options.table_minutes)
    # Dictionaries give words that no sentence has; once known, sentences teach more.
    weights = row_weights(split.train, dictionary_share=0.3)
    vectors = train_table(pairs, weights, len(tokenizer), options.width, clock, options.seed, teacher)
    minutes["table"], table_steps = clock.elapsed(), clock.step - 1

    def table_means(texts: list[str]) -> torch.Tensor:
        return mean_vectors(vectors, Texts(tokenizer, texts, 510), np.arange(len(texts)))

    scores["table"] = held_out(split, table_means)
    model = build_encoder(vectors, tokenizer, Shape(layers=options.layers), options.seed)
    losses = Losses(options.state_ranking, options.agreement)
    clock = Clock(options.encoder_steps, options.encoder_minutes)
    weights = row_weights(split.train, dictionary_share=0.1)
    train_encoder(model, pairs, weights, losses, clock, options.seed, teacher)
    minutes["encoder"], encoder_steps = clock.elapsed(), clock.step - 1
    scores["encoder"] = held_out(split, lambda texts: embed(model, tokenizer, texts)[0])
    report = {
        "minutes": {phase: round(value, 1) for phase, value in minutes.items()},
        "steps": {"table": table_steps, "encoder": encoder_steps},
        "held_out_retrieval": scores,
    }
    return tokenizer, model, report


def held_out(split: Split, embed_texts: Callable[[list[str]], torch.Tensor]) -> dict[str, dict[str, float]]:
    """Held-out retrieval of every held-out source; see scores.held_out_scores."""
    sources = sorted({source for _, source in split.held_out})
    table = {source: held_out_scores(split.held_out, embed_texts, source) for source in sources}
    for source, row in table.items():
        LOG.info("held-out %s: %s", source, row)
    return table


def save(output: Path, tokenizer: PreTrainedTokenizerFast, model: XLMRobertaModel, report: dict[str, Any]) -> None:
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
        split = split_rows(read_rows(options.data), options.held_out, options.seed)
        tokenizer, model, report = train(options, split)
    except CorpusError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    settings = {key: value for key, value in vars(options).items() if key not in PLACES}
    settings |= {"vocabulary_reused": options.tokenizer is not None, "teacher": options.teacher is not None}
    rows = {"train": len(split.train), "by_language_and_source": split.counts()}
    save(options.output, tokenizer, model, {"settings": settings, **report, "rows": rows})
    LOG.info("written to %s", options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
