"""The evaluation folder: everything that writes and reads what `lusifer evaluate` leaves.

run.json             whose evaluation it is
scores/TASK.json     the finished rows of a task, by language, with which a next call goes on
examples/TASK.json   what each score was computed from, by language
details/TASK.json    what a task of ours has to say beside its scores, by language
summary.json         all entries; gap.json and islands.safetensors: the gap between languages
results/             mteb's own files

Older versions wrote predictions/ and vectors*/ as well, which nothing reads.
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
    """One evaluation: a model, a suite, languages, tasks, a set of prompts."""

    def __init__(self, path: Path, note: Callable[[str], None] = lambda _: None) -> None:
        """Take a folder, which need not be there yet; `note` gets a sentence for every file that has to be redone."""
        self.path = path
        self._note = note
        self._noted: set[str] = set()
        self._tasks: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
        self._told: dict[str, dict[str, Any]] = {}  # details

    def claim(self, owner: Mapping[str, Any]) -> None:
        """Make the folder that of one evaluation, or go on with it where all of `owner` is as it was.

        Raises:
            UsageError: The folder is of another evaluation, holds something else, or does not say whose it is.
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
        """Write a finished row. Examples and details come first: a row with a score has them."""
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
        """Write `summary.json`, and drop what a kill or an older version leaves: what has no score, vectors."""
        for place in self.path.glob("vectors*"):
            shutil.rmtree(place, ignore_errors=True)
        for task in {entry["task"] for entry in summary["scores"]}:
            _, known = self.finished(task)
            for folder, kept in ((EXAMPLES, known), (DETAILS, self._told[task])):
                if (self._read(f"{folder}/{task}.json") or {}).keys() != kept.keys():
                    self._write(f"{folder}/{task}.json", kept)
        self._write(SUMMARY, summary)

    def forget(self, result: Path, split: str, subsets: Sequence[str]) -> None:
        """Take a row out of mteb's own file, so that it is measured and not read; what cannot be read goes whole.

        mteb writes in place: a kill leaves half a file.
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
        """Take back what a run without a single finished row has written, and nothing else."""
        if not (self.path / SCORES).exists():
            shutil.rmtree(self.path / RESULTS, ignore_errors=True)
            (self.path / RUN).unlink(missing_ok=True)

    def write_gap(self, gap: Gap, vectors: Mapping[str, np.ndarray] | None = None) -> None:
        """Write how far apart the languages are, and vectors of a few texts by language, (n, d), for a picture."""
        self._write(GAP, asdict(gap))
        if vectors is not None:
            tensors = {code: np.ascontiguousarray(rows, dtype=np.float16) for code, rows in vectors.items()}
            with write_file(self.path / ISLANDS) as temporary:
                temporary.write_bytes(save(tensors))

    def read_gap(self) -> Gap | None:
        """Read the gap between languages; None where the suite measures none.

        Raises:
            DataError: The file is damaged.
        """
        file = self.path / GAP
        return parse(Gap, file) if file.is_file() else None

    def data_revisions(self) -> dict[str, str]:
        """Give the revision of the data by task, as mteb wrote it beside the scores; only of tasks that have one."""
        found = {}
        for file in sorted((self.path / RESULTS).rglob("*.json")):
            known = self._read(file.relative_to(self.path)) or {}
            if isinstance(known.get("dataset_revision"), str) and isinstance(known.get("task_name"), str):
                found[known["task_name"]] = known["dataset_revision"]
        return found

    def read_islands(self) -> dict[str, np.ndarray] | None:
        """Read the vectors for a picture, (n, d) by language in the paper's order; None where there are none.

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
        """Give the finished rows of a task by language, and the examples of those that have any; both are read once.

        A row that is not what an evaluation writes, or whose examples do not give its score, counts as none and its
        file is named.
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
                    reason = f"not what an evaluation writes ({str(error).splitlines()[0]})"
                    self._again(f"{self.path / name}: {language}: {reason}; its row is measured again")
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
        """The content of a file; None where there is none, or where it is damaged, which is noted."""
        file = self.path / name
        try:
            return read_json(file, "its rows are measured again", kind=dict) if file.exists() else None
        except DataError as error:
            self._again(str(error))
            return None

    def _write(self, name: str | Path, content: Any) -> None:
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path / name, content)
