"""Embed a file of texts of any length, window by window; interrupted work can continue.

A window has some thousand rows. Its vectors depend only on its texts, the model and the settings. So interrupted work
continues with the first missing window, and the result has the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lusifer.errors import DataError, UsageError
from lusifer.io.files import refuse_unwritable, write_json
from lusifer.serving.encode import EmbedReport, embed_rows
from lusifer.serving.files import WITH_IDS, WRITERS, TextRow, TextSource, write_vectors
from lusifer.serving.forms import CALIBRATION_TEXTS, VectorForm
from lusifer.serving.shards import ShardFolder, read_settings

if TYPE_CHECKING:
    from lusifer.serving.encode import Embedder

ROWS_AT_ONCE = 8192
"""Rows of a window: enough for batches of similar lengths, and small in memory next to the model."""
CHARACTERS_AT_ONCE = 2**24
"""The most characters of a window, for long texts."""
UNFINISHED = ".unfinished"
"""Added to the name of an output: the folder with the finished windows."""


@dataclass(frozen=True)
class Window:
    """Rows that are embedded together; `first` is the number of the first one in the input, from 0."""

    number: int
    first: int
    rows: list[TextRow]


@dataclass(frozen=True)
class TextSurvey:
    """The facts of the input after it was read once.

    rows: The number of rows.
    windows: The number of windows.
    id_kind: "int" or "str" if all rows have an id; else None.
    digest: A SHA-256 of all texts and ids.
    """

    rows: int
    windows: int
    id_kind: str | None
    digest: str


Progress = Callable[[EmbedReport], None]


@dataclass
class EmbedJob:
    """An input, an output and the settings between them.

    Args:
        source: The texts.
        output: A `.npy`, `.parquet` or `.jsonl` file, or a folder of shards.
        form: How vectors are written.
        about: Name -> value of everything else that vectors depend on. Unfinished work with other values is refused.
        shard_form: The ending of the shards in a folder.
        rows: The rows of a window, and so of a shard.
        fresh: Whether to discard the unfinished work of another call.
        refuse_long: Whether to refuse earlier work in which texts were truncated.
        survey: Set by `look`.
    """

    source: TextSource
    output: Path
    form: VectorForm = field(default_factory=VectorForm)
    about: dict[str, Any] = field(default_factory=dict)
    shard_form: str = ".parquet"
    rows: int = ROWS_AT_ONCE
    fresh: bool = False
    refuse_long: bool = False
    survey: TextSurvey | None = None

    @property
    def in_shards(self) -> bool:
        """Whether the output is a folder."""
        return is_folder(self.output)

    def windows(self) -> Iterator[Window]:
        """Read the input in windows; ids are converted to the kind of the survey."""
        kind = self.survey.id_kind if self.survey else None
        number = first = 0
        for rows in _cut(self.source.records(), self.rows):
            yield Window(number, first, [replace(row, id=_as(kind, row.id)) for row in rows])
            number, first = number + 1, first + len(rows)

    def look(self, see: Callable[[TextRow], None] | None = None) -> TextSurvey:
        """Read the entire input once, before a model is loaded.

        Args:
            see: Called with every row.

        Returns:
            The facts of the input.

        Raises:
            DataError: There is no text, or one cannot be embedded.
        """
        digest, kinds, rows, windows = hashlib.sha256(), set(), 0, 0
        for found in _cut(self.source.records(), self.rows):
            rows, windows = rows + len(found), windows + 1
            for row in found:
                kinds.add(type(row.id))
                digest.update(f"{len(row.text)} {row.id!r} {row.text}".encode())
                if see is not None:
                    see(row)
        if not rows:
            raise DataError(f"{self.source.name}: no texts: give an input with at least one")
        kind = None if type(None) in kinds else "int" if kinds == {int} else "str"
        self.survey = TextSurvey(rows, windows, kind, digest.hexdigest())
        return self.survey

    def begun(self) -> dict[str, Any] | None:
        """The settings of what an earlier call has made of the output; None: nothing, or it is to be thrown away."""
        return None if self.fresh else read_settings(self.place)

    @property
    def place(self) -> Path:
        """The folder of shards: the output, or the one beside it until it is done."""
        return self.output if self.in_shards else self.output.with_name(self.output.name + UNFINISHED)

    def settings(self) -> dict[str, Any]:
        """Return the settings that unfinished work must share with this job to be continued."""
        survey = self.survey or self.look()
        whole = {"input": survey.digest, "rows": survey.rows, "rows of a shard": self.rows}
        shards = {"format": self.shard_form if self.in_shards else ".npy"}
        said = self.form.said()
        return self.about | whole | shards | {key: said[key] for key in ("dimensions", "precision")}


@dataclass(frozen=True)
class WindowPlan:
    """The windows of a job that are to be embedded; a process on another machine can read them from the input too.

    Args:
        job: The job.
        done: The numbers of the windows that are finished.
        step: If above 0, a single window with every `step`th row of the input is embedded instead.
    """

    job: EmbedJob
    done: frozenset[int] = frozenset()
    step: int = 0

    def windows(self) -> Iterator[Window]:
        """Read the input and yield the windows to embed."""
        if self.step:
            records = self.job.source.records()
            yield Window(0, 0, [row for number, row in enumerate(records) if number % self.step == 0])
            return
        yield from (window for window in self.job.windows() if window.number not in self.done)


Engine = Callable[[WindowPlan], Iterable[tuple[Window, np.ndarray, EmbedReport]]]
"""Embeds windows, in any order; yields each with its vectors, (n, d) float32, and its counts."""


def is_folder(output: Path) -> bool:
    """Whether an output is a folder of shards: a name without an ending, or an existing folder."""
    return output.suffix.lower() not in WRITERS and (not output.suffix or output.is_dir())


def local(embedder: Embedder, limit: int | None, progress: Progress | None = None, **settings: Any) -> Engine:
    """Return an engine that embeds in this process.

    Args:
        embedder: The model.
        limit: The most tokens that the model reads; None: no limit.
        progress: Called with the report of the window after every batch.
        settings: Other arguments of `embed_rows`.
    """

    def embed(plan: WindowPlan) -> Iterator[tuple[Window, np.ndarray, EmbedReport]]:
        for window in plan.windows():
            report = EmbedReport(limit=limit)
            pairs = [(row.place, row.text) for row in window.rows]
            yield window, embed_rows(embedder, pairs, report, progress=progress, **settings), report

    return embed


def run(job: EmbedJob, engine: Engine, progress: Progress | None = None) -> EmbedReport:
    """Run a job, or the rest of an interrupted one; the output appears when all is done.

    Args:
        job: The job.
        engine: Embeds the windows.
        progress: Called with the report of all finished windows, before the first window and after each.

    Returns:
        The counts of the entire job.

    Raises:
        UsageError: The output, or its unfinished work, is from a call with other settings.
        DataError: A text cannot be embedded or is too long, or the input has changed meanwhile.
        LusiferError: A vector is not finite, or the disk is full.
    """
    survey = job.survey or job.look()
    if survey.windows == 1 and not job.in_shards:
        form = _calibrated(job, engine)
        (found,) = engine(WindowPlan(job))
        window, vectors, report = found
        written = form.apply(vectors)
        write_vectors(job.output, survey.rows, [(window.rows, written)])
        _note_calibration(job.output, form)
        return replace(report, dimension=written.shape[1])
    refuse_unwritable(job.place, "folder")
    with ShardFolder.opened(job.place, job.settings(), fresh=job.fresh) as shards:
        if _is_done(job, shards):
            return shards.report(survey.windows)
        form = shards.form(job.form, partial(_calibrated, job, engine))
        report = shards.report(survey.windows)
        if progress is not None:
            progress(report)
        for window, vectors, counted in engine(WindowPlan(job, frozenset(shards.done))):
            written = form.apply(vectors)
            counted.dimension = written.shape[1]
            shards.add(window.number, window.first, window.rows, written, counted)
            report.add(counted)
            if progress is not None:
                progress(report)
        report = shards.report(survey.windows)
        if report.rows != survey.rows:
            words = f"{survey.rows:,} texts were counted and {report.rows:,} read"
            raise DataError(f"{words}: the input has changed: run the call again")
        if job.in_shards:
            shards.finish(form.said())
        else:
            _join(job, shards, form)
    return report


def _is_done(job: EmbedJob, shards: ShardFolder) -> bool:
    """Whether nothing is left to do; work that cannot be continued is refused, or discarded with `fresh`."""
    before = shards.report(job.survey.windows)
    if job.refuse_long and before.cut:
        if not job.fresh:
            words = f"an earlier call truncated {before.cut:,} texts, the first {before.first_cut}"
            raise UsageError(f"{shards.path}: {words}: leave --on-long error out, or add --fresh to start again")
        shards.restart()
    if shards.finished and not job.in_shards:  # a call was killed before it removed the shards
        if job.output.exists():
            shards.remove()
            return True
        shards.restart()
    return shards.finished


def _join(job: EmbedJob, shards: ShardFolder, form: VectorForm) -> None:
    """Join the shards into one file, and remove them."""
    needs_rows = job.output.suffix.lower() in WITH_IDS
    windows: Iterable[Window] = job.windows() if needs_rows else (Window(n, 0, []) for n in sorted(shards.done))
    batches = ((window.rows, np.load(shards.file(window.number))) for window in windows)
    write_vectors(job.output, job.survey.rows, batches)
    _note_calibration(job.output, form)
    shards.finish(form.said())
    shards.remove()


def _calibrated(job: EmbedJob, engine: Engine) -> VectorForm:
    """The form of the vectors; ranges, if it needs them, are from texts at regular distances in the input."""
    if not job.form.needs_ranges:
        return job.form
    step = -(-job.survey.rows // CALIBRATION_TEXTS)
    ((_, vectors, _),) = engine(WindowPlan(job, step=step))
    which = "all" if step == 1 else f"one in {step:,} from the first on"
    return job.form.calibrated(vectors, f"{len(vectors):,} texts of {job.source.name}, {which}")


def _note_calibration(output: Path, form: VectorForm) -> None:
    if form.ranges is not None:
        write_json(output.with_name(output.name + ".calibration.json"), form.said())


def _cut(rows: Iterable[TextRow], most: int) -> Iterator[list[TextRow]]:
    """Split rows into lists of at most `most` rows; a list ends with the row that reaches `CHARACTERS_AT_ONCE`."""
    found: list[TextRow] = []
    characters = 0
    for row in rows:
        found.append(row)
        characters += len(row.text)
        if len(found) >= most or characters >= CHARACTERS_AT_ONCE:
            yield found
            found, characters = [], 0
    if found:
        yield found


def _as(kind: str | None, value: int | str | None) -> int | str | None:
    """An id, converted to the kind of all rows."""
    return None if kind is None else str(value) if kind == "str" else value
