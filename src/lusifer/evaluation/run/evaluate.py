"""Evaluate a model on a suite and write an evaluation folder."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from lusifer import __version__, extras, language_gap, languages
from lusifer.errors import LusiferError
from lusifer.evaluation.run import runner
from lusifer.evaluation.run.against import IndexedModel
from lusifer.evaluation.run.encoder import ScoredModel, default_prompt, load_model
from lusifer.evaluation.run.runner import Result
from lusifer.evaluation.scores import bootstrap
from lusifer.evaluation.scores.averages import MANY
from lusifer.evaluation.scores.folder import EvaluationFolder
from lusifer.evaluation.search.collection import Searched
from lusifer.evaluation.suites import suite
from lusifer.evaluation.suites.suite import LOCAL, Selection
from lusifer.evaluation.tasks.rows import fingerprint
from lusifer.io import names
from lusifer.io.files import locked

PACKAGES = ("torch", "transformers", "sentence-transformers", "mteb", "scikit-learn", "numpy")
DRAWN = 200  # texts of all languages together in the t-SNE figure, as in the paper's figure 6


@dataclass(frozen=True)
class Options:
    """Options of an evaluation.

    Attributes:
        suite: Name of the suite, one of `suite.names()`.
        data: Folder of evaluation files, or the file of questions of the suite `mine`; None for suites without files.
        languages: Codes of languages; None for the 14 of the paper (suite `mine`: all).
        tasks: Names of tasks; None for all of the suite.
        instructed: Whether queries get the instruction of their task; None: only Lusifer models with any prompt. Other
            models use their own prompts named "query" and "document" (or "passage").
        minutes: Time budget; rows that have not begun by then are left for the next call. None for no limit.
        devices: Devices to embed on, with one process each if there are several; empty for the best one.
        dtype: Dtype to load the model in, such as "bfloat16"; None for that of its folder.
        against: Embedder that makes the vectors of documents; None for the model itself.
        seed: Seed of the bootstrap intervals.
        command: The command line, for the record.
        documents: The documents of the suite `mine`; None if they are in `data`.
        chosen: Result of an earlier call of `select`; None to call it.
        language_gap: Whether to measure the gap between languages after the rows, if the suite has parallel text.
    """

    suite: str = "offline"
    data: Path | None = None
    languages: Sequence[str] | None = None
    tasks: Sequence[str] | None = None
    instructed: bool | None = None
    minutes: float | None = None
    devices: Sequence[str] = ()
    dtype: str | None = None
    against: str | os.PathLike[str] | SentenceTransformer | None = None
    seed: int = 0
    command: str = ""
    documents: Path | Searched | None = None
    chosen: Selection | None = None
    language_gap: bool = True

    def select(self) -> Selection:
        """Choose the rows before a model is loaded or trained; raises the errors of `suite.choose`."""
        return suite.choose(self.suite, self.data, self.languages, self.tasks, self.against is not None, self.documents)


def evaluate(
    model: str | os.PathLike[str] | SentenceTransformer,
    options: Options,
    output: Path | None = None,
    *,
    name: str | None = None,
    progress: Callable[[int, int, float | None], None] | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Evaluate a model, or resume an evaluation in the same folder.

    Args:
        model: A folder, a name on the Hugging Face Hub, or the embedder itself.
        options: The options.
        output: The evaluation folder; None to store nothing.
        name: Name of the model in tables; None for the name of the folder.
        progress: Function that is called after each row, and after each language of the gap: steps done, steps in all,
            and the remaining seconds (None if unknown).
        note: Function that gets a message for every file whose rows are measured again, and for files and scripts that
            are read as a language.

    Returns:
        The summary, as in `summary.json` of the folder.

    Raises:
        DataError: A file of a local suite is damaged, or the folder has none.
        LusiferError: Nothing could be measured.
        MissingExtraError: mteb is not installed.
        UsageError: A language, task or suite is unknown, the output folder holds another evaluation, or the vectors of
            `against` have another dimension.
    """
    extras.need("eval", "mteb")
    deadline = None if options.minutes is None else time.monotonic() + 60 * options.minutes
    chosen = options.chosen or options.select()
    for words in chosen.notes:
        note(words)
    device = None if not options.devices else options.devices[0] if len(options.devices) == 1 else "cpu"
    scored = load_model(model, name, device, options.instructed, options.dtype, options.suite in LOCAL)
    if options.against is not None:
        scored = IndexedModel(scored, _embedder_of_index(options, device))
    if not scored.instructed and chosen.rows:
        scored.use(chosen.rows[0])  # all rows have the same prompts; a prompt that is too long is reported now
    with _held(output) as path, scored.spread(options.devices):
        folder = EvaluationFolder(path, note)
        folder.claim(_owner(chosen, scored))
        parallel = chosen.parallel if options.language_gap else None
        pace = runner.Pace(chosen, [*map(len, (parallel or {}).values())], progress)
        entries = runner.run(chosen, scored, folder, deadline, pace)
        if all(entry["missing"] for entry in entries):
            folder.discard()
            tried = [entry for entry in entries if (entry["language"], entry["task"]) not in chosen.absent]
            first = (tried or entries)[0]
            raise LusiferError(f"nothing could be measured: {first['task']}: {first['missing']}")
        summary = _summary(options, scored, chosen, _with_intervals(entries, folder, options.seed))
        folder.finish(summary)
        if parallel is not None:
            _measure_gap(parallel, scored, folder, note, pace, deadline)
    return summary


def _owner(chosen: Selection, model: ScoredModel) -> dict[str, Any]:
    """Give the keys that identify an evaluation; error messages name them."""
    return {
        "suite": chosen.suite,
        "model": model.identity,
        "against": _index(model) and _index(model)["identity"],
        "languages": sorted({row.language for row in chosen.rows}),
        "tasks": sorted({row.task for row in chosen.rows}),
        "instructions": model.instructed,
        "data": dict(chosen.digests),
        "rows": fingerprint(chosen.rows, model.instructed),
    }


def _index(model: ScoredModel) -> dict[str, str] | None:
    """Give name and identity of the embedder of the documents; None for the model itself."""
    if not isinstance(model, IndexedModel):
        return None
    return {"name": model.index.name, "identity": model.index.identity}


def _embedder_of_index(options: Options, device: str | None) -> ScoredModel:
    """Load the embedder of the documents; its name is the last part of its path, without the prefix of packages."""
    other = options.against
    name = None
    if not isinstance(other, SentenceTransformer):
        name = Path(os.fspath(other).removeprefix(names.PACKAGE)).name
    return load_model(other, name, device, unit=options.suite in LOCAL)


def _measure_gap(
    texts: Mapping[str, Sequence[str]],
    model: ScoredModel,
    folder: EvaluationFolder,
    note: Callable[[str], None],
    pace: runner.Pace,
    deadline: float | None,
) -> None:
    """Measure the gap between languages; the scores are valid even if this fails."""
    if deadline is not None and time.monotonic() >= deadline:
        note(f"the gap between languages: not measured: {runner.LATE}; run the same command again to resume")
        return

    def embed(rows: Sequence[str]) -> Any:
        made = model.vectors(rows)
        pace.step(len(rows))
        return made

    few = max(language_gap.K + 1, DRAWN // len(texts)) if len(texts) <= MANY else DRAWN // len(languages.paper())
    try:
        gap = language_gap.measure(embed, texts)
    except LusiferError as error:
        note(f"the gap between languages: not measured: {error}")
        return
    # A figure with a mark for each of many languages would be unreadable.
    paper = [row.code for row in languages.paper()]
    drawn = [code for code in texts if code in paper or len(texts) <= MANY]
    folder.write_gap(gap, {code: model.vectors(texts[code][:few]) for code in drawn})


def _summary(options: Options, model: ScoredModel, chosen: Selection, entries: list[Result]) -> dict[str, Any]:
    embedder = model.embedder
    return {
        "format": 2,
        "suite": chosen.suite,
        "model": {
            "name": model.name,
            "identity": model.identity,
            "dimension": embedder.get_embedding_dimension(),
            "max_tokens": embedder.max_seq_length,
            "against": _index(model),
        },
        "settings": {
            "seed": options.seed,
            "bootstrap": {"resamples": bootstrap.RESAMPLES, "interval": bootstrap.LEVEL},
            "instructions": model.instructed,
            "unit_vectors": chosen.suite in LOCAL,
            "dtype": model.dtype,
            "default_prompt": default_prompt(embedder),
            **chosen.facts,
        },
        "versions": {
            "lusifer": __version__,
            "python": platform.python_version(),
            **{package: version(package) for package in PACKAGES},
        },
        "command": options.command,
        "data": dict(chosen.digests),
        "seconds": round(sum(entry["seconds"] or 0 for entry in entries), 1),
        "scores": entries,
    }


def _with_intervals(entries: list[Result], folder: EvaluationFolder, seed: int) -> list[Result]:
    found = []
    for entry in entries:
        examples = folder.finished(entry["task"])[1].get(entry["language"])
        ends = None if examples is None else bootstrap.interval(bootstrap.Examples(**examples), seed)
        found.append(entry | ({"low": round(ends[0], 4), "high": round(ends[1], 4)} if ends else {}))
    return found


@contextmanager
def _held(output: Path | None) -> Iterator[Path]:
    """Lock the output folder for this process, or use a temporary one."""
    if output is None:
        with tempfile.TemporaryDirectory(prefix="lusifer-evaluation-") as path:
            yield Path(path)
        return
    made = not output.exists()
    output.mkdir(parents=True, exist_ok=True)
    refusal = f"{output}: another process writes its evaluation here: wait for it, or choose another --output"
    try:
        with locked(output / ".lock", refusal, remove=True):
            yield output
    finally:
        if made and output.is_dir() and not any(output.iterdir()):
            output.rmdir()
