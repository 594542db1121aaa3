"""Write and read the folder of an evaluation.

run.json             the model, suite and settings of the evaluation
scores/TASK.json     the finished rows of a task by language; a later call does not measure them again
examples/TASK.json   the examples behind each score, by language
details/TASK.json    more results of a task, by language
summary.json         all entries
gap.json, islands.safetensors  the gap between languages
results/             mteb's own files

Older versions also wrote predictions/ and vectors*/, which are not read.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from lusifer.errors import DataError, UsageError
from lusifer.evaluation.scores.averages import order_of
from lusifer.evaluation.scores.results import AGAIN, DETAILS, EXAMPLES, SUMMARY, Entry, examples_of, parse
from lusifer.io.files import read_json, write_file, write_json
from lusifer.language_gap import Gap

RUN, SCORES, RESULTS = "run.json", "scores", "results"
GAP, ISLANDS = "gap.json", "islands.safetensors"
_ENTRY = TypeAdapter(Entry)


class EvaluationFolder:
    """The folder of one evaluation: a model, a suite, languages, tasks and prompts."""

    def __init__(self, path: Path, note: Callable[[str], None] = lambda _: None) -> None:
        """Use a folder, which may not exist yet.

        Args:
            path: The folder.
            note: Function that gets a message for every file whose rows must be measured again.
        """
        self.path = path
        self._note = note
        self._noted: set[str] = set()
        self._tasks: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
        self._told: dict[str, dict[str, Any]] = {}  # details

    def claim(self, owner: Mapping[str, Any]) -> None:
        """Begin an evaluation in the folder, or resume it if `owner` has not changed.

        Args:
            owner: Key -> value that identify the evaluation, such as the model, the suite and the settings.

        Raises:
            UsageError: The folder has another evaluation or other files, or its `run.json` is damaged.
        """
        file = self.path / RUN
        if file.exists():
            known = read_json(file, "choose another --output, or remove the folder", UsageError, dict)
            other = [key for key in owner if known.get(key) != owner[key]]
            if other:
                words = "; ".join(f"{key} {known.get(key)!r} there, {owner[key]!r} now" for key in other)
                raise UsageError(f"{self.path}: holds another evaluation ({words}): choose another --output")
            return
        if self.path.is_dir() and any(each.name != ".lock" for each in self.path.iterdir()):
            raise UsageError(f"{self.path}: is not empty and holds no evaluation: choose another --output")
        self._write(RUN, dict(owner))

    def keep(
        self,
        task: str,
        language: str,
        entry: Mapping[str, Any],
        examples: Mapping[str, Any] | None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Write a finished row; examples and details are written first, so that no row lacks them after a kill.

        Args:
            task: Name of the task.
            language: The code of the language.
            entry: The entry of the summary.
            examples: The examples of the score; None without any.
            details: More results of the task; None without any.
        """
        rows, known = self.finished(task)
        known.pop(language, None)
        if examples is not None:
            known[language] = dict(examples)
        self._write(f"{EXAMPLES}/{task}.json", known)
        told = self._told[task]
        told.pop(language, None)
        if details is not None:
            told[language] = dict(details)
            self._write(f"{DETAILS}/{task}.json", told)
        rows[language] = dict(entry)
        content = {
            code: {"entry": each, "sampled": code in known, "detailed": code in told} for code, each in rows.items()
        }
        self._write(f"{SCORES}/{task}.json", content)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write `summary.json`; remove vectors of older versions, and examples and details without a score."""
        for place in self.path.glob("vectors*"):
            shutil.rmtree(place, ignore_errors=True)
        for task in {entry["task"] for entry in summary["scores"]}:
            _, known = self.finished(task)
            for folder, kept in ((EXAMPLES, known), (DETAILS, self._told[task])):
                if (self._read(f"{folder}/{task}.json") or {}).keys() != kept.keys():
                    self._write(f"{folder}/{task}.json", kept)
        self._write(SUMMARY, summary)

    def forget(self, result: Path, split: str, subsets: Sequence[str]) -> None:
        """Remove a row from mteb's own file, so that mteb measures it again.

        A file that cannot be read is deleted: mteb writes in place, so a kill leaves half a file.

        Args:
            result: The file of mteb, relative to the folder.
            split: The split of the row.
            subsets: The subsets of the row.
        """
        known = self._read(result)
        try:
            known["scores"][split] = [part for part in known["scores"][split] if part["hf_subset"] not in subsets]
            whole = not known["scores"][split]
        except (KeyError, TypeError):
            whole = True
        if whole:
            result.unlink(missing_ok=True)
        else:
            self._write(result, known)

    def discard(self) -> None:
        """Remove the files of a run that finished no row; files of finished rows stay."""
        if not (self.path / SCORES).exists():
            shutil.rmtree(self.path / RESULTS, ignore_errors=True)
            (self.path / RUN).unlink(missing_ok=True)

    def write_gap(self, gap: Gap, vectors: Mapping[str, np.ndarray] | None = None) -> None:
        """Write the gap between languages.

        Args:
            gap: The gap.
            vectors: Language -> vectors of a few texts for the figure, float, (n, d); None for no figure.
        """
        self._write(GAP, asdict(gap))
        if vectors is not None:
            tensors = {code: np.ascontiguousarray(rows, dtype=np.float16) for code, rows in vectors.items()}
            with write_file(self.path / ISLANDS) as temporary:
                temporary.write_bytes(save(tensors))

    def read_gap(self) -> Gap | None:
        """Read the gap between languages; None if it was not measured.

        Raises:
            DataError: The file is damaged.
        """
        file = self.path / GAP
        return parse(Gap, file) if file.is_file() else None

    def data_revisions(self) -> dict[str, str]:
        """Give the revision of each task's data, from mteb's files; only for tasks with a revision."""
        found = {}
        for file in sorted((self.path / RESULTS).rglob("*.json")):
            known = self._read(file.relative_to(self.path)) or {}
            if isinstance(known.get("dataset_revision"), str) and isinstance(known.get("task_name"), str):
                found[known["task_name"]] = known["dataset_revision"]
        return found

    def read_islands(self) -> dict[str, np.ndarray] | None:
        """Read the vectors for the figure: language -> float32, (n, d), in the paper's order; None without any.

        Raises:
            DataError: The file is damaged.
        """
        file = self.path / ISLANDS
        if not file.is_file():
            return None
        try:
            found = load_file(file)
        except (SafetensorError, OSError) as error:
            raise DataError(f"{file}: damaged ({error}); {AGAIN}") from error
        return {code: found[code].astype(np.float32) for code in order_of(found)}

    def finished(self, task: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read the finished rows of a task, once.

        A damaged row, or one whose examples do not give its score, is left out, and `note` gets the name of its file.

        Args:
            task: Name of the task.

        Returns:
            Language -> entry; and language -> examples, for rows with examples.
        """
        if task not in self._tasks:
            name = f"{SCORES}/{task}.json"
            made = self._read(f"{EXAMPLES}/{task}.json") or {}
            told = self._read(f"{DETAILS}/{task}.json") or {}
            rows = {}
            for language, known in (self._read(name) or {}).items():
                try:
                    entry = _ENTRY.validate_python(known["entry"])
                    if entry.score is None or entry.missing:
                        raise DataError("no score")
                    if known["sampled"]:
                        examples_of(made.get(language) or {}, entry.score)
                    if known.get("detailed") and not isinstance(told.get(language), dict):
                        raise DataError("no details")
                except (DataError, KeyError, TypeError, ValueError) as error:
                    reason = f"damaged ({str(error).splitlines()[0]})"
                    self._again(f"{self.path / name}: {language}: {reason}; this row is measured again")
                else:
                    rows[language] = known["entry"]
            self._tasks[task] = rows, {code: each for code, each in made.items() if code in rows}
            self._told[task] = {code: each for code, each in told.items() if code in rows}
        return self._tasks[task]

    def _again(self, words: str) -> None:
        if words not in self._noted:
            self._noted.add(words)
            self._note(words)

    def _read(self, name: str | Path) -> dict[str, Any] | None:
        """Read a file; None if it does not exist, or if it is damaged, which is noted."""
        file = self.path / name
        try:
            return read_json(file, "its rows are measured again", kind=dict) if file.exists() else None
        except DataError as error:
            self._again(str(error))
            return None

    def _write(self, name: str | Path, content: Any) -> None:
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path / name, content)
