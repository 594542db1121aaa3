"""The thread of a model and its queue: batches of texts of similar length, taken from all requests in turn.

A request is one job with any number of texts. The queue is bounded in tokens: as long as fewer than the bound wait, a
job is accepted, whether it has one text or a thousand. A batch is filled from the jobs in turn, so that a short
question does not wait behind a long list. The vectors are those of the model's own `encode`.
"""

from __future__ import annotations

import ctypes
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from lusifer.errors import LusiferError

if TYPE_CHECKING:
    from lusifer.server.metrics import Meter
    from lusifer.serving.encode import Embedder

LOG = logging.getLogger(__name__)
WINDOW = 8
"""How many batches of tokens are searched for texts of similar length."""
RECOVERED = 256
"""After this many batches without an error a budget that was halved is doubled again."""
TRIM_SECONDS = 5.0
_OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "bad_alloc", "cannot allocate memory")


class BusyError(LusiferError):
    """The queue is full; `seconds` is the estimated time until it has room."""

    def __init__(self, waiting: int, bound: int, seconds: int) -> None:
        self.seconds = seconds
        super().__init__(f"{waiting:,} tokens wait (at most {bound:,}, --queue-tokens): try again in {seconds} s")


class StoppedError(LusiferError):
    """The server is being stopped."""


class VectorError(LusiferError):
    """A text could not be embedded; `row` is its number in the request."""

    def __init__(self, message: str, row: int) -> None:
        self.row = row
        super().__init__(message)


class OutOfMemoryError(VectorError):
    """There is not enough memory for a single text."""


@dataclass
class Done:
    """The result of a job.

    vectors: (n, d) float32.
    queued: Seconds from the queue to its first batch.
    computed: Seconds of all batches with its texts.
    """

    vectors: np.ndarray
    queued: float
    computed: float


@dataclass(eq=False)
class Job:
    """The texts of a request.

    lengths: The tokens of each text, as the model reads them.
    waiting: The rows that are in no batch yet, the longest first.
    left: The number of rows without a vector.
    """

    texts: Sequence[str]
    lengths: Sequence[int]
    prompt: str | None
    future: Future[Done] = field(default_factory=Future)
    waiting: list[int] = field(default_factory=list)
    vectors: np.ndarray | None = None
    left: int = 0
    came: float = field(default_factory=time.perf_counter)
    began: float | None = None
    computed: float = 0.0

    def __post_init__(self) -> None:
        self.left = len(self.texts)
        self.waiting = sorted(range(self.left), key=lambda row: -self.lengths[row])  # similar lengths are neighbors


Row = tuple[Job, int]


class Batcher:
    """The thread of a model and its queue.

    Args:
        embedder: The model; nothing else may call it.
        budget: The most tokens of a batch, padding included; a longer text is a batch of its own.
        bound: If this many tokens wait, jobs are refused.
        meter: Gets the counts.
    """

    def __init__(self, embedder: Embedder, budget: int, bound: int, meter: Meter) -> None:
        self.embedder, self.bound, self.meter = embedder, bound, meter
        self.full_budget = self.budget = budget
        self.tokens = 0
        """The tokens that wait or are being computed."""
        self.recovering = self._closing = False
        self._since_trouble = self._big = 0
        self._rate, self._trimmed = 0.0, time.monotonic()
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="lusifer-model", daemon=True)
        self._thread.start()

    def check_room(self) -> None:
        """Refuse a request early, before its texts are tokenized.

        Raises:
            BusyError: The queue is full.
            StoppedError: The server is stopping.
        """
        if self._closing:
            raise StoppedError("the server is stopping: use another one, or try again later")
        if self.tokens >= self.bound:
            seconds = int(self.tokens / self._rate) + 1 if self._rate else 1
            raise BusyError(self.tokens, self.bound, min(seconds, 60))

    def submit(self, texts: Sequence[str], lengths: Sequence[int], prompt: str | None) -> Future[Done]:
        """Queue the texts of a request.

        Args:
            texts: The texts.
            lengths: The tokens of each text, as the model reads them.
            prompt: The prefix of all texts.

        Returns:
            The future result. If it is cancelled, texts that still wait are dropped.

        Raises:
            BusyError, StoppedError: As `check_room`.
            ValueError: There are no texts.
        """
        if not texts:
            raise ValueError("no texts to embed")
        job = Job(texts, lengths, prompt)
        with self._changed:
            self.check_room()
            self._jobs.append(job)
            self.tokens += sum(lengths)
            self._tell()
            self._changed.notify()
        job.future.add_done_callback(lambda _: self._drop(job))
        return job.future

    def close(self) -> None:
        """Refuse new jobs, finish the queued ones, and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether the thread runs normally: it is not closing and not recovering from a lack of memory."""
        return self._thread.is_alive() and not self.recovering and not self._closing

    def _drop(self, job: Job) -> None:
        """Remove the waiting texts of a job that is cancelled, failed or done."""
        with self._changed:
            if job.waiting:
                self.meter.dropped.inc(len(job.waiting))
                self.tokens -= sum(job.lengths[row] for row in job.waiting)
                job.waiting = []
            if job in self._jobs:
                self._jobs.remove(job)
            self._tell()

    def _tell(self) -> None:
        self.meter.queue_tokens.set(self.tokens)
        self.meter.queue_texts.set(sum(len(job.waiting) for job in self._jobs))

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._jobs and not self._closing:
                    self._changed.wait()
                if not self._jobs:
                    return
                batch = self._next()
            try:
                self._compute(batch)
            except Exception as error:  # the thread must survive any error
                for job, row in batch:
                    self._fail(job, row, error)
            finally:
                with self._changed:
                    self.tokens -= sum(job.lengths[row] for job, row in batch)
                    self._tell()
                self._trim()

    def _next(self) -> list[Row]:
        """Take the rows of a batch: the first row of the first job, and rows of similar length with the same prompt."""
        first = self._jobs[0]
        seed = first.lengths[first.waiting[0]]
        window = sorted(self._window(first.prompt), key=lambda found: abs(found[0].lengths[found[1]] - seed))
        batch: list[Row] = []
        longest = 0
        for job, row in window:
            wider = max(longest, job.lengths[row])
            if not batch or wider * (len(batch) + 1) <= self.budget:
                batch.append((job, row))
                longest = wider
        taken: dict[Job, set[int]] = {}
        for job, row in batch:
            taken.setdefault(job, set()).add(row)
        now = time.perf_counter()
        for job, rows in taken.items():
            job.waiting = [row for row in job.waiting if row not in rows]
            job.began = job.began or now
        self._jobs.rotate(-1)
        self._jobs = deque(job for job in self._jobs if job.waiting)
        return batch

    def _window(self, prompt: str | None) -> list[Row]:
        """Waiting rows with this prompt, from each job in turn, beginning with the first row of the first job."""
        jobs = [job for job in self._jobs if job.prompt == prompt]
        found: list[Row] = []
        tokens = turn = 0
        while jobs:
            for job in jobs:
                found.append((job, job.waiting[turn]))
                tokens += job.lengths[job.waiting[turn]]
                if tokens >= WINDOW * self.budget:
                    return found
            turn += 1
            jobs = [job for job in jobs if len(job.waiting) > turn]
        return found

    def _compute(self, batch: list[Row]) -> None:
        """Embed a batch and distribute the vectors; a failed batch is halved until the error is that of one text."""
        batch = [(job, row) for job, row in batch if not job.future.done()]
        if not batch:
            return
        began = time.perf_counter()
        try:
            vectors = self._encode(batch)
        except Exception as error:
            if _is_out_of_memory(error):
                self._lower(batch)
            if len(batch) > 1:
                half = len(batch) // 2
                for part in (batch[:half], batch[half:]):
                    self._compute(part)
                return
            self._fail(*batch[0], error)
            return
        seconds = time.perf_counter() - began
        self._count(batch, seconds)
        for number, (job, row) in enumerate(batch):
            if np.isfinite(vectors[number]).all():
                self._put(job, row, vectors[number])
            else:
                words = "the vector is not finite (NaN): check the model with `lusifer doctor`"
                self._fail(job, row, VectorError(words, row))
        for job in {job for job, _ in batch}:
            job.computed += seconds
            if not job.left:
                self._finish(job)

    def _encode(self, batch: list[Row]) -> np.ndarray:
        texts = [job.texts[row] for job, row in batch]
        found = self.embedder.encode(texts, prompt=batch[0][0].prompt, batch_size=len(texts), show_progress_bar=False)
        return np.asarray(found, dtype=np.float32)

    def _count(self, batch: list[Row], seconds: float) -> None:
        tokens = sum(job.lengths[row] for job, row in batch)
        self.meter.batch(tokens, len(batch), seconds)
        rate = tokens / max(seconds, 1e-6)
        self._rate = 0.9 * self._rate + 0.1 * rate if self._rate else rate
        self._big = max(self._big, tokens)
        self.recovering = False
        self._since_trouble += 1
        if self.budget < self.full_budget and self._since_trouble >= RECOVERED:
            self.budget, self._since_trouble = min(2 * self.budget, self.full_budget), 0
            self.meter.budget.set(self.budget)

    def _lower(self, batch: list[Row]) -> None:
        """Set the budget to half the size of the batch that ran out of memory, and free unused memory."""
        size = len(batch) * max(job.lengths[row] for job, row in batch)
        self.budget = max(1, min(self.budget, size) // 2)
        self.recovering, self._since_trouble = True, 0
        self.meter.out_of_memory.inc()
        self.meter.budget.set(self.budget)
        LOG.warning("out of memory with a batch of %d tokens: batches now have at most %d", size, self.budget)
        import torch  # by now it is there with the model; a port that is taken is reported without it

        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._trim(now=True)

    def _put(self, job: Job, row: int, vector: np.ndarray) -> None:
        if job.vectors is None:
            job.vectors = np.empty((len(job.texts), len(vector)), dtype=np.float32)
        job.vectors[row] = vector
        job.left -= 1

    def _finish(self, job: Job) -> None:
        queued = (job.began or job.came) - job.came
        self.meter.queued.observe(queued)
        with suppress(InvalidStateError):  # its client has disconnected
            job.future.set_result(Done(job.vectors, queued, job.computed))

    def _fail(self, job: Job, row: int, error: Exception) -> None:
        if not isinstance(error, VectorError):
            LOG.error("a text of %d tokens could not be embedded", job.lengths[row], exc_info=error)
            kind = OutOfMemoryError if _is_out_of_memory(error) else VectorError
            words = "out of memory" if kind is OutOfMemoryError else type(error).__name__
            error = kind(f"the text could not be embedded: {words}", row)
        self.recovering = False
        with suppress(InvalidStateError):
            job.future.set_exception(error)

    def _trim(self, now: bool = False) -> None:
        """Return memory to the system after large batches: the allocator of C keeps what many threads have freed."""
        idle = time.monotonic() - self._trimmed > TRIM_SECONDS
        if now or (idle and self._big > self.full_budget // 2):
            self._trimmed, self._big = time.monotonic(), 0
            trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
            if trim is not None:
                trim(0)


def _is_out_of_memory(error: Exception) -> bool:
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _OUT_OF_MEMORY)
