"""Many texts into vectors: sorted by length, batched under a token budget, nothing cut in silence.

The vectors are those of `SentenceTransformer.encode`, which makes each batch (or `PlainEmbedder`, to the bit); only the
cutting into batches is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from lusifer import prompts
from lusifer.batching import cut
from lusifer.errors import DataError, LusiferError, UsageError
from lusifer.processor import PRODUCTS, multiplies

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

    from lusifer.embedder.plain import PlainEmbedder

    Embedder = SentenceTransformer | PlainEmbedder

BATCH_TOKENS = {"cpu": 1024}
"""Tokens of a batch by device; on a CPU half the time of 8,192 in single runs (docs/performance.md)."""
BATCH_TOKENS_ELSEWHERE = 8192


@dataclass
class EmbedReport:
    """What was embedded: `rows` texts, of `tokens` that the model read, into vectors of `dimension` numbers.

    `limit` is how many tokens the model reads, prompt and special tokens included (None: no limit), `cut` how many
    texts were longer; `first_cut` is the place of the first of them, `first_tokens` its length.
    """

    rows: int = 0
    tokens: int = 0
    dimension: int = 0
    limit: int | None = None
    cut: int = 0
    first_cut: str = ""
    first_tokens: int = 0

    def add(self, later: EmbedReport) -> None:
        """Count in what was embedded of texts further behind."""
        if later.cut and not self.cut:
            self.first_cut, self.first_tokens = later.first_cut, later.first_tokens
        self.rows, self.tokens, self.cut = self.rows + later.rows, self.tokens + later.tokens, self.cut + later.cut
        self.dimension, self.limit = later.dimension, later.limit

    def cut_line(self, whose: str = "that the model reads") -> str:
        """One sentence about the texts that were cut; `whose` says what the limit is of."""
        are, were = ("text is", "was") if self.rows == 1 else ("texts are", "were")
        return (
            f"{self.cut:,} of {self.rows:,} {are} longer than the {self.limit} tokens {whose} and {were} "
            f"cut there; the first is {self.first_cut} with {self.first_tokens:,} tokens "
            "(--on-long error refuses such texts)"
        )


def slow_format(device: torch.device, dtype: str | None) -> str | None:
    """Say that a processor has no instructions for products of the format asked for; float32 is then much faster."""
    if device.type != "cpu" or dtype is None or multiplies(dtype) is not False:
        return None
    needed = " or ".join(PRODUCTS[dtype])
    return f"this processor has no instructions for {dtype} ({needed}): float32 is faster here"


def choose_prompt(
    saved: Mapping[str, str], instruction: str | None = None, task: str | None = None, role: str | None = None
) -> str | None:
    """Give the prefix of every text.

    `saved` are the model's own prompts by name: `TASK-ROLE` comes before the built-in task of that name,
    `INSTRUCTION-document` is there where documents had the instruction, and "query" and "document" serve a role without
    instruction or task. With an instruction or task, no role means query. None is
    given where nothing is asked for, and the model's default decides.

    Raises:
        UsageError: Both instruction and task, an unknown task, an instruction for documents, which carry none, or one
            for a model that frames every text in a way of its own.
    """
    if instruction is not None and task is not None:
        raise UsageError("--prompt and --task exclude each other: give one")
    if task is not None:
        built_in = prompts.for_task(task)[role or "query"]
        return saved.get(f"{task}-{role or 'query'}", built_in)
    if instruction is None:
        return None if role is None else saved.get(role, "")
    if role == "document":
        if both := saved.get(f"{instruction.strip()}-document"):
            return both
        raise UsageError(
            "--prompt with --role document: documents carry no instruction, but in tasks of texts of one kind that "
            "the model was trained on; leave --prompt out, or name a --task"
        )
    if saved.get("query"):
        # Folders of `convert --compat`: begin-of-text token and full stop belong to the published format.
        raise UsageError(f"--prompt: this model frames every text in its own way ({saved['query']!r}): name a --task")
    return prompts.prompt(instruction, "query")


def token_counts(embedder: Embedder, texts: Sequence[str], prompt: str | None = None) -> list[int]:
    """Tokens of each text with its prompt and special tokens, uncut."""
    full = [_before(embedder, prompt) + text for text in texts]
    ids = embedder.tokenizer(full, truncation=False, padding=False, verbose=False)["input_ids"]
    return [len(row) for row in ids]


def dimensions(embedder: Embedder) -> list[int]:
    """How many numbers a vector may have, the whole one first: those that the model says it was trained for."""
    config = getattr(getattr(embedder, "model", None) or getattr(embedder[0], "model", None), "config", None)
    getter = getattr(embedder, "get_embedding_dimension", None)
    whole = getter() if getter else config.hidden_size
    # Models of others bear the second name.
    trained = getattr(config, "matryoshka_dims", None) or getattr(config, "matryoshka_dimensions", None) or []
    return [whole, *sorted((size for size in trained if size < whole), reverse=True)]


def shorten(vectors: np.ndarray, size: int | None) -> np.ndarray:
    """The first `size` numbers of each vector (n, d), brought to length 1 again; None or d leaves them as they are."""
    if size is None or size == vectors.shape[1]:
        return vectors
    short = vectors[:, :size]
    return short / np.linalg.norm(short, axis=1, keepdims=True).clip(min=1e-12)


def _before(embedder: Embedder, prompt: str | None) -> str:
    """What stands before every text: the prompt, or without one the model's default."""
    if prompt is None and embedder.default_prompt_name is not None:
        prompt = embedder.prompts[embedder.default_prompt_name]
    return prompt or ""


def _note_long(report: EmbedReport, rows: list[tuple[str, str]], lengths: Sequence[int], refuse: bool) -> None:
    """Count the texts that the model cannot read to their end."""
    for (place, _), length in zip(rows, lengths, strict=True):
        if report.limit is None or length <= report.limit:
            continue
        if refuse:
            raise DataError(f"{place}: {length:,} tokens, and the model reads {report.limit}: shorten or split it")
        if not report.cut:
            report.first_cut, report.first_tokens = place, length
        report.cut += 1


@contextmanager
def spread(embedder: SentenceTransformer, devices: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Give a pool of processes for `embed_rows`, one of them on each device, while the block runs."""
    pool = embedder.start_multi_process_pool(list(devices))
    try:
        yield pool
    finally:
        embedder.stop_multi_process_pool(pool)


def embed_rows(
    embedder: Embedder,
    rows: list[tuple[str, str]],
    report: EmbedReport,
    *,
    prompt: str | None = None,
    batch_tokens: int | None = None,
    refuse_long: bool = False,
    progress: Callable[[EmbedReport], None] | None = None,
    pool: dict[str, Any] | None = None,
) -> np.ndarray:
    """Embed rows in memory.

    Args:
        embedder: The model.
        rows: (Place, text), at least one.
        report: Counts what is embedded and cut.
        prompt: Prefix of every text; None takes the model's default.
        batch_tokens: Most tokens of a batch, padding included; None takes what suits the model's device.
        refuse_long: Whether a text that is too long is an error; else it is cut and counted in the report.
        progress: Called with the report after every batch.
        pool: Of `spread`, to embed on several devices.

    Returns:
        Vectors (n, d), float32, in order.

    Raises:
        DataError: A text is too long.
        LusiferError: A vector is not finite.
    """
    prompts.check_room(_before(embedder, prompt), embedder.tokenizer, report.limit, "--prompt or --task")
    lengths = token_counts(embedder, [text for _, text in rows], prompt)
    _note_long(report, rows, lengths, refuse_long)
    read = [min(length, report.limit or length) for length in lengths]
    budget = batch_tokens or BATCH_TOKENS.get(embedder.device.type, BATCH_TOKENS_ELSEWHERE)
    batches = ((batch, len(batch)) for batch in cut(read, budget)) if pool is None else _even(read, budget)
    order: list[int] = []
    parts: list[np.ndarray] = []
    for batch, size in batches:
        texts = [rows[row][1] for row in batch]
        several = {} if pool is None else {"pool": pool, "chunk_size": size}
        part = embedder.encode(texts, prompt=prompt, batch_size=size, show_progress_bar=False, **several)
        broken = np.flatnonzero(~np.isfinite(part).all(axis=1))
        if len(broken):
            place = rows[batch[broken[0]]][0]
            raise LusiferError(f"{place}: the vector is not finite (NaN); see what `lusifer doctor` says")
        order += batch
        parts.append(part)
        report.rows += len(batch)
        report.tokens += sum(read[row] for row in batch)
        if progress is not None:
            progress(report)
    vectors = np.concatenate(parts).astype(np.float32, copy=False)
    report.dimension = vectors.shape[1]
    return vectors[np.argsort(order)]


def _even(lengths: Sequence[int], budget: int) -> Iterator[tuple[list[int], int]]:
    """Rows for several devices and the rows of a batch: sorted by length, those whose batches are of one size together.

    A size is a power of two, so each window is handed over in a dozen pieces, and devices wait for each other as often.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    for size, found in groupby(order, lambda row: 2 ** (max(1, budget // max(1, lengths[row])).bit_length() - 1)):
        yield list(found), size
