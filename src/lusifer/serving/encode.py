"""Embed many texts: sorted by length, batched under a token budget, with a report of truncated texts.

The vectors are those of `SentenceTransformer.encode` (or of `PlainEmbedder`, bit-identical), which embeds each batch;
only the choice of batches is made here.
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
"""Tokens per batch by device; on a CPU this took half the time of 8,192 in single runs (docs/performance.md)."""
BATCH_TOKENS_ELSEWHERE = 8192


@dataclass
class EmbedReport:
    """Counts of what was embedded.

    rows: The number of texts.
    tokens: The number of tokens that the model has read.
    dimension: The number of dimensions of the vectors.
    limit: The most tokens that the model reads, prompt and special tokens included; None: no limit.
    cut: The number of truncated texts.
    first_cut: The place of the first truncated text, and `first_tokens` its number of tokens.
    """

    rows: int = 0
    tokens: int = 0
    dimension: int = 0
    limit: int | None = None
    cut: int = 0
    first_cut: str = ""
    first_tokens: int = 0

    def add(self, later: EmbedReport) -> None:
        """Add the report of later texts."""
        if later.cut and not self.cut:
            self.first_cut, self.first_tokens = later.first_cut, later.first_tokens
        self.rows, self.tokens, self.cut = self.rows + later.rows, self.tokens + later.tokens, self.cut + later.cut
        self.dimension, self.limit = later.dimension, later.limit

    def cut_line(self, whose: str = "that the model reads") -> str:
        """Return one sentence about the truncated texts; `whose` follows "tokens" and tells what the limit is of."""
        are, were = ("text is", "was") if self.rows == 1 else ("texts are", "were")
        return (
            f"{self.cut:,} of {self.rows:,} {are} longer than the {self.limit} tokens {whose} and {were} "
            f"truncated; the first is {self.first_cut} with {self.first_tokens:,} tokens "
            "(--on-long error refuses such texts)"
        )


def slow_format(device: torch.device, dtype: str | None) -> str | None:
    """Return a warning if the device is a CPU without instructions for products of a dtype; else None.

    Args:
        device: The device of the model.
        dtype: The dtype that the user chose, or None.
    """
    if device.type != "cpu" or dtype is None or multiplies(dtype) is not False:
        return None
    needed = " or ".join(PRODUCTS[dtype])
    return f"this processor has no instructions for {dtype} ({needed}): float32 is faster here"


def choose_prompt(
    saved: Mapping[str, str], instruction: str | None = None, task: str | None = None, role: str | None = None
) -> str | None:
    """Choose the prefix of all texts.

    Args:
        saved: The model's own prompts, name -> prefix. `TASK-ROLE` has priority over the built-in task;
            `INSTRUCTION-document` exists if documents had the instruction in training; "query" and "document" are used
            for a role without instruction or task.
        instruction: An instruction for queries.
        task: The name of a task.
        role: "query" or "document"; None means query if there is an instruction or task.

    Returns:
        The prefix; None if nothing is chosen, so that the model's default applies.

    Raises:
        UsageError: Instruction and task are both given, the task is unknown, or the model has no instruction of this
            kind.
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
            "--prompt with --role document: this model has no such instruction for documents: leave --prompt out, or "
            "name a --task"
        )
    if saved.get("query"):
        # In folders of `convert --compat` the prompt has the begin-of-text token and full stop of the published format.
        raise UsageError(f"--prompt: this model has its own form of prompts ({saved['query']!r}): name a --task")
    return prompts.prompt(instruction, "query")


def token_counts(embedder: Embedder, texts: Sequence[str], prompt: str | None = None) -> list[int]:
    """Count the tokens of each text, not truncated.

    Args:
        embedder: The model.
        texts: The texts.
        prompt: The prefix of every text, which is counted too; None takes the model's default.

    Returns:
        The counts, with special tokens.
    """
    full = [_before(embedder, prompt) + text for text in texts]
    ids = embedder.tokenizer(full, truncation=False, padding=False, verbose=False)["input_ids"]
    return [len(row) for row in ids]


def dimensions(embedder: Embedder) -> list[int]:
    """Return the numbers of dimensions that a model was trained for, the full one first."""
    config = getattr(getattr(embedder, "model", None) or getattr(embedder[0], "model", None), "config", None)
    getter = getattr(embedder, "get_embedding_dimension", None)
    whole = getter() if getter else config.hidden_size
    # Other models have the second name.
    trained = getattr(config, "matryoshka_dims", None) or getattr(config, "matryoshka_dimensions", None) or []
    return [whole, *sorted((size for size in trained if size < whole), reverse=True)]


def shorten(vectors: np.ndarray, size: int | None) -> np.ndarray:
    """Shorten vectors to their first dimensions, and scale them to length 1 again.

    Args:
        vectors: (n, d) float32.
        size: The number of dimensions; None or d returns the vectors unchanged.

    Returns:
        (n, size) float32.
    """
    if size is None or size == vectors.shape[1]:
        return vectors
    short = vectors[:, :size]
    return short / np.linalg.norm(short, axis=1, keepdims=True).clip(min=1e-12)


def _before(embedder: Embedder, prompt: str | None) -> str:
    """The prefix of every text: the prompt, or the model's default."""
    if prompt is None and embedder.default_prompt_name is not None:
        prompt = embedder.prompts[embedder.default_prompt_name]
    return prompt or ""


def _note_long(report: EmbedReport, rows: list[tuple[str, str]], lengths: Sequence[int], refuse: bool) -> None:
    """Count the texts that will be truncated, or refuse them."""
    for (place, _), length in zip(rows, lengths, strict=True):
        if report.limit is None or length <= report.limit:
            continue
        if refuse:
            raise DataError(f"{place}: {length:,} tokens, but the model reads {report.limit}: shorten or split it")
        if not report.cut:
            report.first_cut, report.first_tokens = place, length
        report.cut += 1


@contextmanager
def spread(embedder: SentenceTransformer, devices: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield a pool of processes for `embed_rows`, one per device, while the block runs.

    Args:
        embedder: The model.
        devices: The devices, such as ["cuda:0", "cuda:1"].
    """
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
        report: Gets the counts; its `limit` must be set.
        prompt: The prefix of every text; None takes the model's default.
        batch_tokens: The most tokens of a batch, padding included; None takes the default of the device.
        refuse_long: Whether a text that is too long is an error; else it is truncated and counted.
        progress: Called with the report after every batch.
        pool: A pool of `spread`, to embed on several devices.

    Returns:
        Vectors (n, d) float32, in order.

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
            raise LusiferError(f"{place}: the vector is not finite (NaN): check the model with `lusifer doctor`")
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
    """Rows for several devices, and the rows per batch: sorted by length, grouped by batch size.

    Batch sizes are powers of two, so that a window is split into a dozen groups only: devices wait for each other after
    each group.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    for size, found in groupby(order, lambda row: 2 ** (max(1, budget // max(1, lengths[row])).bit_length() - 1)):
        yield list(found), size
