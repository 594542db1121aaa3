"""An evaluation folder while it is filled: whose it is, and which rows are done."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from lusifer.errors import DataError, UsageError
from lusifer.evaluation.scores import bootstrap, results
from lusifer.evaluation.suites.rows import Row
from lusifer.io.atomic import write_file

RUN, SCORES, EXAMPLES, PREDICTIONS, VECTORS = "run.json", "scores", "examples", "predictions", "vectors"
Note = Callable[[str], None]


class Folder:
    """One evaluation: a model, a suite, languages, tasks, a set of prompts.

    `scores/TASK.json` holds the finished rows of a task, each with whether it has examples, and `examples/TASK.json`
    what they are made of; mteb's own files are in `results/` and `predictions/`.
    """

    def __init__(self, path: Path, note: Note) -> None:
        """Take a folder, which need not be there yet; `note` gets a sentence for every file that has to be redone."""
        self.path = path
        self._note = note
        self._noted: set[str] = set()

    def claim(self, owner: Mapping[str, Any]) -> None:
        """Make the folder that of one evaluation, or go on with it.

        Args:
            owner: What must be equal for a run to go on: suite, identity of the model, languages, tasks, prompts.

        Raises:
            UsageError: The folder is of another evaluation, holds something else, or does not tell whose it is.
        """
        file = self.path / RUN
        if file.exists():
            known = self._read(RUN)
            if not isinstance(known, dict):
                raise UsageError(
                    f"{file}: damaged, so whose scores are in the folder cannot be told: choose another --output, or "
                    "remove the folder"
                )
            unlike = [key for key in owner if known.get(key) != owner[key]]
            if unlike:
                told = "; ".join(f"{key} {known.get(key)!r} there, {owner[key]!r} now" for key in unlike)
                raise UsageError(f"{self.path}: holds another evaluation ({told}): choose another --output")
            return
        if self.path.is_dir() and any(each.name != ".lock" for each in self.path.iterdir()):
            raise UsageError(f"{self.path}: is not empty and holds no evaluation: choose another --output")
        self._write(RUN, dict(owner))

    def done(self, task: str) -> dict[str, dict[str, Any]]:
        """Read the finished rows of a task by language.

        A row that is not what an evaluation writes, or whose examples do not give its score, counts as none and its
        file is named.
        """
        name = f"{SCORES}/{task}.json"
        found = self._read(name) if (self.path / name).exists() else {}
        if not isinstance(found, dict):
            self._again(self.path / name, "not what an evaluation writes")
            return {}
        made = self.examples(task)
        rows = {}
        for language, kept in found.items():
            problem = _problem(kept, made.get(language))
            if problem:
                self._again(self.path / name, f"{language}: {problem}")
            else:
                rows[language] = kept["entry"]
        return rows

    def keep(self, row: Row, entry: Mapping[str, Any], made: Mapping[str, Any] | None) -> None:
        """Write a finished row. The examples come first: a row with a score has them."""
        rows = self.done(row.task)
        known = {code: each for code, each in self.examples(row.task).items() if code in rows}
        if made is not None:
            known[row.language] = dict(made)
        self._write(f"{EXAMPLES}/{row.task}.json", known)
        rows[row.language] = dict(entry)
        self._write(
            f"{SCORES}/{row.task}.json",
            {code: {"entry": each, "sampled": code in known} for code, each in rows.items()},
        )

    def examples(self, task: str) -> dict[str, Any]:
        """Read the examples of a task by language; none where the file is missing or damaged."""
        found = self._read(f"{EXAMPLES}/{task}.json") if (self.path / EXAMPLES / f"{task}.json").exists() else {}
        if isinstance(found, dict):
            return found
        self._again(self.path / EXAMPLES / f"{task}.json", "not what an evaluation writes")
        return {}

    def tidy(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Drop the examples of rows that have no score: a kill, or a failure after it, leaves them."""
        scored: dict[str, set[str]] = {}
        for entry in entries:
            scored.setdefault(entry["task"], set()).update([entry["language"]] if entry["score"] is not None else [])
        for task, codes in scored.items():
            known = self.examples(task)
            if (self.path / EXAMPLES / f"{task}.json").exists() and not known.keys() <= codes:
                self._write(f"{EXAMPLES}/{task}.json", {code: known[code] for code in known if code in codes})

    def forget(self, result: Path, predicted: Path, split: str, subsets: Sequence[str]) -> None:
        """Take a row out of mteb's own files, so that it is measured and not read; what cannot be read goes whole.

        mteb writes in place: a kill leaves half a file.
        """
        kept = self._read(str(result.relative_to(self.path))) if result.exists() else None
        try:
            left = [part for part in kept["scores"][split] if part["hf_subset"] not in subsets] if kept else []
            if left:
                kept["scores"][split] = left
                self._write(str(result.relative_to(self.path)), kept)
            else:
                result.unlink(missing_ok=True)
        except (KeyError, TypeError):
            result.unlink(missing_ok=True)
        if predicted.exists() and not isinstance(self._read(str(predicted.relative_to(self.path))), dict):
            predicted.unlink()

    def give_up(self) -> None:
        """Take back what a run without a single finished row has written, and nothing else."""
        if (self.path / SCORES).exists():
            return
        self.drop_vectors()
        for name in ("results", PREDICTIONS):
            shutil.rmtree(self.path / name, ignore_errors=True)
        for name in (RUN, ".results.lock"):
            (self.path / name).unlink(missing_ok=True)

    def drop_vectors(self) -> None:
        """Remove what was embedded: nothing is left that needs it."""
        for place in self.path.glob(f"{VECTORS}*"):
            shutil.rmtree(place, ignore_errors=True)

    def _again(self, file: Path, problem: str) -> None:
        words = f"{file}: {problem}: what it held is measured again"
        if words not in self._noted:
            self._noted.add(words)
            self._note(words)

    def _read(self, name: str) -> Any:
        """The content of a file; None where it cannot be read, which is told."""
        file = self.path / name
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            self._again(file, f"damaged ({error})")
            return None

    def _write(self, name: str, content: Any) -> None:
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        with write_file(self.path / name) as temporary:
            temporary.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _problem(kept: Any, made: Any) -> str | None:
    """What is wrong with a finished row and its examples, if anything is."""
    if not isinstance(kept, dict) or kept.keys() != {"entry", "sampled"} or not isinstance(kept["entry"], dict):
        return "not what an evaluation writes"
    try:
        entry = TypeAdapter(results.Entry).validate_python(kept["entry"])
        if entry.score is None or entry.missing:
            return "has no score"
        if not kept["sampled"]:
            return None
        if not isinstance(made, dict):
            return "its examples are missing"
        found = bootstrap.score(bootstrap.Examples(**made))
    except (ValidationError, DataError, TypeError, ValueError) as error:
        return f"not what an evaluation writes ({str(error).splitlines()[0]})"
    return None if abs(found - entry.score) <= results.TOLERANCE else "its examples do not give the score"
