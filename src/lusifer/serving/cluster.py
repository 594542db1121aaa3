"""Embed a file on several machines with Ray Data.

One task reads the input, each worker has a model, and this process writes the shards. So workers need access to the
input and the model only. A worker that dies is started again, and another one gets its window. Finished windows are
stored as in `bulk`.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from lusifer import errors, extras
from lusifer.errors import LusiferError
from lusifer.io.files import expand_user
from lusifer.serving import dtypes, encode, forms
from lusifer.serving.bulk import Engine, Window, WindowPlan
from lusifer.serving.encode import EmbedReport
from lusifer.serving.files import TextRow


@dataclass(frozen=True)
class WorkerWish:
    """The settings of a worker.

    model: A model as for `lusifer.load`.
    prompt: Instruction, task and role, as for `encode.choose_prompt`.
    batch_tokens: As for `encode.embed_rows`, and so is `refuse_long`.
    dtype: As for `lusifer.load`, and so is `device`.
    compiled: Whether the layers are compiled.
    dimensions: The number of dimensions that will be stored, to refuse a wrong one; None: all.
    """

    model: str
    prompt: tuple[str | None, str | None, str | None] = (None, None, None)
    batch_tokens: int | None = None
    refuse_long: bool = False
    dtype: str | None = None
    compiled: bool = False
    device: str | None = None
    dimensions: int | None = None


class EmbedWorker:
    """A model in a process of Ray. Errors are part of the result, because Ray would retry an exception."""

    def __init__(self, wish: WorkerWish) -> None:
        self.wish, self.error = wish, None
        try:
            self._load(wish)
        except LusiferError as error:
            self.error = _packed_error(error)

    def _load(self, wish: WorkerWish) -> None:
        from lusifer.embedder import folder, golden

        # On a CPU without sentence-transformers, like `lusifer embed`: it loads faster, and vectors are bit-identical.
        light = dtypes.on_processor(wish.device) and not wish.compiled
        self.embedder = folder.load(wish.model, device=wish.device, dtype=wish.dtype, vectors_only=light)
        golden.demand(self.embedder, wish.model)
        if wish.dimensions is not None:
            forms.check_dimensions(wish.dimensions, encode.dimensions(self.embedder))
        if wish.compiled:
            from lusifer.model.bases.backbones import compile_layers

            compile_layers(self.embedder)
        self.prompt = encode.choose_prompt(self.embedder.prompts, *wish.prompt)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Embed one window, as `_pack` encodes it."""
        packed = batch["window"][0]
        if self.error is not None:
            return _result(packed, b"", self.error)
        rows = [(row.place, row.text) for row in _unpack(packed).rows]
        report = EmbedReport(limit=self.embedder.max_seq_length)
        settings = {"batch_tokens": self.wish.batch_tokens, "refuse_long": self.wish.refuse_long}
        try:
            vectors = encode.embed_rows(self.embedder, rows, report, prompt=self.prompt, **settings)
        except LusiferError as error:
            return _result(packed, b"", _packed_error(error))
        return _result(packed, vectors.tobytes(), json.dumps(asdict(report)))


def engine(wish: WorkerWish, workers: int) -> Engine:
    """Return an engine that embeds in workers of Ray.

    It uses the cluster of this process or of `RAY_ADDRESS`; else it starts one on this machine and stops it at the end.

    Args:
        wish: The settings of each worker.
        workers: The number of workers.

    Raises:
        MissingExtraError: Ray is not installed.
    """
    extras.need("ray", "ray.data")
    if expand_user(wish.model).exists():
        wish = replace(wish, model=str(expand_user(wish.model).resolve()))

    def embed(plan: WindowPlan) -> Iterator[tuple[Window, np.ndarray, EmbedReport]]:
        plan.job.source.path = plan.job.source.path.resolve()
        with _cluster(workers), _context():
            yield from _results(plan, wish, workers)

    return embed


def _results(plan: WindowPlan, wish: WorkerWish, workers: int) -> Iterator[tuple[Window, np.ndarray, EmbedReport]]:
    import ray

    def read(_: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for window in plan.windows():
            yield {"window": [_pack(window)]}

    gpu = wish.device is not None and wish.device.startswith("cuda")
    # With different numbers of CPUs Ray does not fuse the reading with the workers.
    windows = ray.data.range(1, override_num_blocks=1).map_batches(read, batch_size=1, num_cpus=0)
    done = windows.map_batches(
        EmbedWorker,
        fn_constructor_args=(wish,),
        batch_size=1,
        concurrency=workers,
        num_cpus=1,
        num_gpus=1 if gpu else 0,
    )
    for batch in done.iter_batches(batch_size=1, prefetch_batches=0):
        yield _taken(batch)


def _taken(batch: dict[str, Any]) -> tuple[Window, np.ndarray, EmbedReport]:
    """The result of a worker for a window; its error is raised here."""
    said, window = json.loads(batch["report"][0]), _unpack(batch["window"][0])
    if "error" in said:
        raise getattr(errors, said["error"], LusiferError)(said["words"])
    vectors = np.frombuffer(batch["vectors"][0], dtype=np.float32).reshape(len(window.rows), -1)
    return window, vectors, EmbedReport(**said)


@contextmanager
def _cluster(workers: int) -> Iterator[None]:
    """Run the block with Ray: an existing cluster, or a new one on this machine with a CPU for each worker."""
    import ray

    if ray.is_initialized():
        yield
        return
    for name, value in (("RAY_USAGE_STATS_ENABLED", "0"), ("RAY_BACKEND_LOG_LEVEL", "fatal")):
        os.environ.setdefault(name, value)
    own = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": workers + 1, "include_dashboard": False}
    ray.init(log_to_driver=False, logging_level=logging.ERROR, **own)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _context() -> Iterator[None]:
    """Set up Ray Data: each window is a block, or the first worker would get all of them; no progress bars."""
    from ray.data import DataContext

    context, logger = DataContext.get_current(), logging.getLogger("ray.data")
    before = (context.target_max_block_size, context.enable_progress_bars, logger.level)
    context.target_max_block_size, context.enable_progress_bars = 1, False
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        context.target_max_block_size, context.enable_progress_bars, level = before
        logger.setLevel(level)


def _pack(window: Window) -> bytes:
    """Encode a window as bytes: in Ray's tables ids of two kinds would become one kind."""
    return json.dumps([window.number, window.first, [[row.place, row.text, row.id] for row in window.rows]]).encode()


def _unpack(packed: bytes) -> Window:
    number, first, rows = json.loads(packed)
    return Window(number, first, [TextRow(*row) for row in rows])


def _packed_error(error: LusiferError) -> str:
    return json.dumps({"error": type(error).__name__, "words": str(error)})


def _result(packed: bytes, vectors: bytes, report: str) -> dict[str, Any]:
    return {"window": [packed], "vectors": [vectors], "report": [report]}
