"""Checkpoints that are whole, and those that are not any more: what they hold is known by its checksums.

A checkpoint of step N lies in `checkpoint-N` of its stage's folder and counts once transformers has written
`trainer_state.json`, its last file; then the checksums of what a resume reads are put beside it. The finished model of
a stage has them as well. A file that was changed or lost since, by a failing disk or an editor, is found by them: the
folder is set aside, and the run goes on from what was written before it.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from safetensors import SafetensorError, safe_open

from lusifer.errors import LusiferError
from lusifer.io.files import read_json, sha256, write_json
from lusifer.io.weights import TRAINABLE

MODEL = "model"
CHECKSUMS = "checksums.json"
TRAINER_STATE = "trainer_state.json"
DAMAGED = "damaged-"
"""Begins the name under which a damaged folder is kept beside the others."""
_EDITED = {"README.md", CHECKSUMS}
"""In a finished folder: files whose text its owner may change."""


def seal(folder: Path, names: Iterable[str] = ("**/*",)) -> None:
    """Write the SHA-256 of files of a folder into its `checksums.json`.

    Args:
        folder: With the files, written to their ends.
        names: Patterns below `folder`; by default every file but the card.
    """
    files = {file for name in names for file in folder.glob(name) if file.is_file() and file.name not in _EDITED}
    write_json(folder / CHECKSUMS, {str(file.relative_to(folder)): sha256(file) for file in sorted(files)})


def seal_checkpoint(folder: Path) -> None:
    """Write the checksums of what a resume reads from a checkpoint."""
    seal(folder, (*NEEDED, TRAINER_STATE))


def damaged(folder: Path) -> Path | None:
    """Find the first file of a sealed folder that is missing or has other bytes; None where all are as they were.

    A folder without checksums is of an earlier version, or its writer was killed just before: nothing is known of it.
    """
    file = folder / CHECKSUMS
    if not file.is_file():
        return None
    try:
        known = read_json(file, "", kind=dict)
    except LusiferError:
        return file
    return next((folder / name for name, digest in known.items() if not _has(folder / name, digest)), None)


def checkpoint(stage: Path, step: int) -> Path:
    """The folder of one checkpoint of a stage."""
    return stage / f"checkpoint-{step}"


def last_checkpoint(stage: Path, tell: Callable[[Path], None] = lambda file: None) -> Path | None:
    """The newest whole checkpoint of a stage, or None.

    Halves that a killed run left are removed. One that was whole once and is not any more is set aside, and so is one
    with a pickle that torch refuses to load, whatever its checksums say.

    Args:
        stage: The folder of the stage.
        tell: Is called with the damaged file of each checkpoint that is set aside, before it is.
    """
    found = sorted((folder for folder in stage.glob("checkpoint-*") if _step(folder) is not None), key=_step)
    while found:
        newest = found.pop()
        if not _was_whole(newest):
            shutil.rmtree(newest)
        elif (file := _damaged_checkpoint(newest)) is not None:
            tell(file)
            set_aside(newest)
        else:
            # Behind a whole one also what was sealed: a run that was killed while it removed an old checkpoint left it.
            for half in (folder for folder in found if not (folder / TRAINER_STATE).is_file()):
                shutil.rmtree(half)
            return newest
    return None


def holds_any(stage: Path) -> bool:
    """Whether a stage has left a checkpoint that is or was whole, or a folder that was set aside."""
    return any(map(_was_whole, stage.glob("checkpoint-*"))) or any(stage.glob(f"{DAMAGED}*"))


def processes_of(folder: Path) -> int:
    """How many processes wrote a checkpoint: one writes `rng_state.pth`, several `rng_state_0.pth` and on."""
    return len(list(folder.glob("rng_state_*.pth"))) or 1


def set_aside(folder: Path) -> None:
    """Rename a damaged folder, so that no run reads it again; one of the same name makes room."""
    kept = folder.with_name(DAMAGED + folder.name)
    shutil.rmtree(kept, ignore_errors=True)
    folder.rename(kept)


def _damaged_checkpoint(folder: Path) -> Path | None:
    """The first damaged file; of a checkpoint without checksums those that a resume needs are looked at."""
    if (folder / CHECKSUMS).is_file():
        found = damaged(folder)
    else:
        found = next((folder / name for name in _broken(folder)), None)
    return found or next((file for file in sorted(folder.glob("*.pt*")) if not _loads(file)), None)


def _was_whole(folder: Path) -> bool:
    """Checksums are written last of all: where they are, `trainer_state.json` was there before it was lost."""
    return (folder / TRAINER_STATE).is_file() or (folder / CHECKSUMS).is_file()


def _broken(folder: Path) -> Iterator[str]:
    for name, whole in {**NEEDED, TRAINER_STATE: _is_json}.items():
        files = list(folder.glob(name))
        if not files or not all(map(whole, files)):
            yield name
    several = {file.name for file in folder.glob("rng_state_*.pth")}
    yield from sorted({f"rng_state_{number}.pth" for number in range(len(several))} - several)


def _has(file: Path, digest: object) -> bool:
    return file.is_file() and sha256(file) == digest


def _step(folder: Path) -> int | None:
    """The step of a checkpoint, None for a folder that only begins like one (checkpoint-500-copy)."""
    number = folder.name.removeprefix("checkpoint-")
    return int(number) if number.isdecimal() else None


def _is_json(file: Path) -> bool:
    try:
        json.loads(file.read_text(encoding="utf-8"))
    except ValueError:  # not UTF-8 or not JSON
        return False
    return True


def _loads(file: Path) -> bool:
    """Whether torch loads a file without running code that is pickled in it; tensors themselves are not read."""
    import torch
    from transformers.trainer_pt_utils import safe_globals  # what random states are made of

    try:
        with safe_globals():
            torch.load(file, map_location="meta", weights_only=True, mmap=True)
    except (OSError, MemoryError):
        raise
    except Exception:  # what is wrong in a pickle or an archive has many names; the caller says which file it is
        return False
    return True


def _is_safetensors(file: Path) -> bool:
    try:
        with safe_open(file, framework="pt"):
            return True
    except SafetensorError:
        return False


NEEDED = {
    TRAINABLE: _is_safetensors,
    "optimizer.pt": zipfile.is_zipfile,  # torch.save writes archives, whose table of contents is at the end
    "scheduler.pt": zipfile.is_zipfile,
    "rng_state*.pth": zipfile.is_zipfile,
}
"""What a resume reads beside the state, and how to tell that it is whole without checksums."""
