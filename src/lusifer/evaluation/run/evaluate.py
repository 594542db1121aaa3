"""Score a model on a suite: a model in, an evaluation folder out."""

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
DRAWN = 200  # texts of all languages together in a picture of the vectors, as in the paper's figure 6


@dataclass(frozen=True)
class Options:
    """How a model is scored.

    Attributes:
        suite: One of `suite.names()`.
        data: Folder with the files of the offline suite, or the file of the suite "mine"; None for the others.
        documents: Of the suite "mine", where its documents come from; None: they are in `data`.
        languages: Codes; None takes the 14 of the paper, of the suite "mine" all that are there.
        tasks: Names of tasks; None takes all of the suite.
        instructed: Whether queries get the instruction of their task; None: if the model is one of ours and its folder
            has any prompt. Else its own prompts named "query" and "document" or "passage" stand before the texts.
        minutes: Rows that are not begun by then are left for the next run.
        devices: Where to embed, in a process for each if there are several; empty takes the best one here.
        against: An embedder that makes the vectors of documents in place of the model; None leaves them to the model.
        dtype: Number format to load the model in, as in "bfloat16"; None takes that of its folder.
        seed: Of the bootstrap intervals.
        command: What was typed, for the record.
        chosen: What `select` gives, where that was asked before; None: it is asked now.
        language_gap: Whether the gap between languages is measured after the rows, where the suite has parallel text.
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
        """Choose what is measured, before a model is loaded or trained; errors as of `suite.choose`."""
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
    """Score a model, going on where an earlier run into the same folder stopped.

    Args:
        model: A folder or hub name, or the embedder itself.
        options: What to measure and how.
        output: The evaluation folder; None keeps nothing.
        name: What to call the model in tables; None takes the folder's name.
        progress: Called after each row and, behind the rows, each language of the gap: how many so far, of how many,
            and the seconds left of all of it, None where unknown.
        note: Called with a sentence for every file that has to be made again, and for files and scripts that were
            taken for a language.

    Returns:
        The summary, as `summary.json` in the folder holds it.

    Raises:
        DataError: A file of the offline suite is damaged, or there is none.
        LusiferError: Nothing at all could be measured.
        MissingExtraError: mteb is not installed.
        UsageError: A language, task or suite is unknown, the output folder holds another evaluation, or the embedder
            `against` which the model is scored has vectors of another size.
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
        scored.use(chosen.rows[0])  # its own prompts serve every row: a bad one is said before anything is measured
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
    """Whose an evaluation folder is, in words that a message can name."""
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
    """Name and identity of the embedder of the documents, where that is another one."""
    if not isinstance(model, IndexedModel):
        return None
    return {"name": model.index.name, "identity": model.index.identity}


def _embedder_of_index(options: Options, device: str | None) -> ScoredModel:
    """What embeds the documents, by the last part of its name; a package without the word for it."""
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
    """Measure the gap between languages; where that fails, scores are still scores."""
    if deadline is not None and time.monotonic() >= deadline:
        note(f"the gap between languages: not measured: {runner.LATE}; the next call goes on")
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
    # A picture with a mark for each of many languages cannot be read.
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
    """The output folder, held by this process, or one that is gone afterwards."""
    if output is None:
        with tempfile.TemporaryDirectory(prefix="lusifer-evaluation-") as path:
            yield Path(path)
        return
    made = not output.exists()
    output.mkdir(parents=True, exist_ok=True)
    refusal = f"{output}: another process evaluates into it: wait for it, or choose another --output"
    try:
        with locked(output / ".lock", refusal, remove=True):
            yield output
    finally:
        if made and output.is_dir() and not any(output.iterdir()):
            output.rmdir()
