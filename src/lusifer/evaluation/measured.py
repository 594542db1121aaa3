"""An evaluation folder while it is filled: whose it is, and which rows are done."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lusifer.errors import UsageError
from lusifer.evaluation.rows import Row
from lusifer.folders import write_file

RUN, SCORES, EXAMPLES, PREDICTIONS, VECTORS = "run.json", "scores", "examples", "predictions", "vectors"
FIELDS = ("language", "task", "metric", "split", "subsets", "score", "missing")
Note = Callable[[str], None]


class Folder:
    """One evaluation: a model, a suite, a set of prompts.

    `scores/TASK.json` holds the finished rows of a task and `examples/TASK.json` what they are made of; mteb's own
    files are in `results/` and `predictions/`.
    """

    def __init__(self, path: Path, note: Note) -> None:
        """Take a folder, which need not be there yet; `note` gets a sentence for every file that has to be redone."""
        self.path = path
        self._note = note

    def claim(self, owner: Mapping[str, Any]) -> None:
        """Make the folder that of one evaluation, or go on with it.

        Args:
            owner: What must be equal for a run to go on: suite, identity of the model, fingerprint of the rows.

        Raises:
            UsageError: The folder is of another evaluation, or it holds something else.
        """
        known = self._read(RUN)
        if known is not None:
            unlike = [key for key in owner if known.get(key) != owner[key]]
            if unlike:
                told = "; ".join(f"{key} {known.get(key)!r} there, {owner[key]!r} now" for key in unlike)
                raise UsageError(f"{self.path}: holds another evaluation ({told}): choose another --output")
            return
        if self.path.is_dir() and any(self.path.iterdir()) and not (self.path / RUN).exists():
            raise UsageError(f"{self.path}: is not empty and holds no evaluation: choose another --output")
        self._write(RUN, dict(owner))

    def done(self, task: str) -> dict[str, dict[str, Any]]:
        """Read the finished rows of a task by language; a damaged file counts as none and is named."""
        found = self._read(f"{SCORES}/{task}.json")
        if isinstance(found, dict) and all(
            isinstance(entry, dict) and all(field in entry for field in FIELDS) for entry in found.values()
        ):
            return found
        if found is not None:
            self._note(f"{self.path / SCORES / task}.json: not what an evaluation writes: the task is measured again")
        return {}

    def keep(self, row: Row, entry: Mapping[str, Any], made: Mapping[str, Any] | None) -> None:
        """Write a finished row. The examples come first: a row with a score has them."""
        if made is not None:
            known = self._read(f"{EXAMPLES}/{row.task}.json") or {}
            self._write(f"{EXAMPLES}/{row.task}.json", known | {row.language: made})
        self._write(f"{SCORES}/{row.task}.json", self.done(row.task) | {row.language: dict(entry)})

    def examples(self, task: str) -> dict[str, Any]:
        """Read the examples of a task by language."""
        return self._read(f"{EXAMPLES}/{task}.json") or {}

    def mend(self, file: Path) -> None:
        """Remove one of mteb's files if it cannot be read: mteb writes them in place, and a kill leaves half of one."""
        if file.exists() and self._read(str(file.relative_to(self.path))) is None:
            file.unlink()

    def _read(self, name: str) -> Any:
        file = self.path / name
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            self._note(f"{file}: damaged ({error}): what it held is measured again")
            return None

    def _write(self, name: str, content: Any) -> None:
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        with write_file(self.path / name) as temporary:
            temporary.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
