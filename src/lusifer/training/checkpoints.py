"""Checkpoints and their checksums, which show whether a checkpoint is complete and undamaged.

A checkpoint of step N is in `checkpoint-N` of its stage's folder. It is complete once transformers has written
`trainer_state.json`, its last file; then the checksums of the files that a resumed run reads are written. The finished
model of a stage has checksums too. If a file was changed or lost since, the folder is set aside, and the run continues
from an earlier state.
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
"""The prefix of the new name of a damaged folder that was set aside."""
_EDITED = {"README.md", CHECKSUMS}
"""Files without a checksum: the user may edit the card, and the checksums do not contain themselves."""


def seal(folder: Path, names: Iterable[str] = ("**/*",)) -> None:
    """Write the SHA-256 of files in a folder to its `checksums.json`.

    Args:
        folder: The folder; its files must be complete.
        names: Patterns below `folder`. The default is every file except the card.
    """
    files = {file for name in names for file in folder.glob(name) if file.is_file() and file.name not in _EDITED}
    write_json(folder / CHECKSUMS, {str(file.relative_to(folder)): sha256(file) for file in sorted(files)})


def seal_checkpoint(folder: Path) -> None:
    """Write the checksums of the files that a resumed run reads from a checkpoint."""
    seal(folder, (*NEEDED, TRAINER_STATE))


def damaged(folder: Path) -> Path | None:
    """Find the first file of a folder that is missing or differs from its checksum; None if there is none.

    A folder without checksums gives None too: an older version wrote it, or the run was killed before the checksums.
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
    """The folder of the checkpoint of a step.

    Args:
        stage: The folder of the stage.
        step: The step.
    """
    return stage / f"checkpoint-{step}"


def last_checkpoint(stage: Path, tell: Callable[[Path], None] = lambda file: None) -> Path | None:
    """Find the newest complete checkpoint of a stage; None if there is none.

    Incomplete checkpoints of a killed run are deleted. A checkpoint that was damaged later is set aside, and so is one
    with a pickle that torch refuses to load.

    Args:
        stage: The folder of the stage.
        tell: Called with the damaged file of a checkpoint before it is set aside.
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
            # Older ones without a state, also with checksums: the run was killed while it deleted an old checkpoint.
            for half in (folder for folder in found if not (folder / TRAINER_STATE).is_file()):
                shutil.rmtree(half)
            return newest
    return None


def holds_any(stage: Path) -> bool:
    """Whether a stage has a checkpoint that is or was complete, or a folder that was set aside."""
    return any(map(_was_whole, stage.glob("checkpoint-*"))) or any(stage.glob(f"{DAMAGED}*"))


def processes_of(folder: Path) -> int:
    """The number of processes that wrote a checkpoint: one writes `rng_state.pth`, several `rng_state_0.pth` etc."""
    return len(list(folder.glob("rng_state_*.pth"))) or 1


def set_aside(folder: Path) -> None:
    """Rename a damaged folder, so that no run reads it again; an older folder of the new name is deleted."""
    kept = folder.with_name(DAMAGED + folder.name)
    shutil.rmtree(kept, ignore_errors=True)
    folder.rename(kept)


def _damaged_checkpoint(folder: Path) -> Path | None:
    """The first damaged file. Without checksums, the files that a resumed run needs are checked for their format."""
    if (folder / CHECKSUMS).is_file():
        found = damaged(folder)
    else:
        found = next((folder / name for name in _broken(folder)), None)
    return found or next((file for file in sorted(folder.glob("*.pt*")) if not _loads(file)), None)


def _was_whole(folder: Path) -> bool:
    """Whether a checkpoint was complete once. Checksums are written after `trainer_state.json`."""
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
    """The step of a checkpoint; None for another folder, such as checkpoint-500-copy."""
    number = folder.name.removeprefix("checkpoint-")
    return int(number) if number.isdecimal() else None


def _is_json(file: Path) -> bool:
    try:
        json.loads(file.read_text(encoding="utf-8"))
    except ValueError:  # not UTF-8 or not JSON
        return False
    return True


def _loads(file: Path) -> bool:
    """Whether torch can load a file without running pickled code; the tensors are not read."""
    import torch
    from transformers.trainer_pt_utils import safe_globals  # the types in random states

    try:
        with safe_globals():
            torch.load(file, map_location="meta", weights_only=True, mmap=True)
    except (OSError, MemoryError):
        raise
    except Exception:  # a damaged pickle or archive raises many kinds; the caller names the file
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
"""Files that a resumed run reads, next to `trainer_state.json`, and a check of each without checksums."""
