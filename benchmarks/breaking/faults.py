"""The faults: each breaks the run of a bench, resumes it, and says what came of it (WrongError: what must not)."""

from __future__ import annotations

import json
import os
import random
import re
import resource
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from safetensors.torch import load_file

from breaking.bench import STEPS, Bench, WrongError, at_write, disk, grow


def kill(bench: Bench, draw: random.Random) -> str:
    """SIGKILL at a random moment, and in one of three once more while it resumes."""
    bench.signalled(signal.SIGKILL, draw)
    if draw.random() < 1 / 3 and (bench.run / "recipe.yaml").is_file():
        child = bench.start("--resume")
        time.sleep(draw.uniform(0, bench.seconds))
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        bench.ended(child)
    return bench.resumes()


def kill_at_write(bench: Bench, draw: random.Random) -> str:
    """SIGKILL at the moment at which a random file is opened, renamed or removed."""
    place = draw.randrange(bench.writes) + 1
    ended = bench.attempt(hook=lambda: at_write(place, bench.run, None))
    if ended.status not in (-signal.SIGKILL, 0):
        raise WrongError(f"status {ended.status}: {ended.said[-1500:]}")
    return bench.resumes()


def term(bench: Bench, draw: random.Random) -> str:
    """SIGTERM at a random moment: within a stage it saves and says so, elsewhere there is nothing to save."""
    ended = bench.signalled(signal.SIGTERM, draw)
    if ended.status not in (-signal.SIGTERM, 0):
        step = f"step [1-{STEPS}] of {STEPS} of stage .*"
        bench.refused(ended, f"SIGTERM: stopped after {step}, and saved: continue with .* --resume", (143,))
        step = re.search(r"after step (\d)", ended.error)[1]
        if not list(bench.run.glob(f"checkpoints/*/checkpoint-{step}/checksums.json")):
            raise WrongError(f"no checkpoint {step}")
    saved = "saved first" if ended.status == 143 else "outside of steps" if ended.status else "had ended"
    return f"{bench.resumes()}, {saved}"


def full_disk(bench: Bench, draw: random.Random) -> str:
    """A disk of a random size, too small for most; with more space it goes on."""
    size = int(bench.bytes * draw.uniform(0.02, 1.2))
    with disk(bench.run.parent, size):
        ended = bench.attempt()
        if ended.status:
            bench.refused(ended, "No space left|cannot be written|are free for them|free some space")
        grow(bench.run.parent, 4 * bench.bytes)
        return bench.resumes()


def file_limit(bench: Bench, draw: random.Random) -> str:
    """No file may be larger than a random size; without the limit it goes on."""
    size = int(draw.uniform(0, 400_000))
    ended = bench.attempt(hook=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)))
    if ended.status:
        bench.refused(ended, "File too large|cannot be written|torch could not write")
    return bench.resumes()


def nan(bench: Bench, draw: random.Random) -> str:
    """A weight becomes NaN before a random step."""
    place = draw.randrange(2 * STEPS)
    ended = bench.attempt(hook=lambda: _nan_at(place))
    bench.refused(ended, r"the loss is nan at step \d; the batch is in .*start a new run in another --output", (1,))
    for file in bench.run.glob("checkpoints/*/checkpoint-*/trainable.safetensors"):
        if not all(torch.isfinite(tensor).all() for tensor in load_file(file).values()):
            raise WrongError(f"{file} has NaN")
    return bench.resumes()


def _nan_at(place: int) -> None:
    import transformers

    step, done = transformers.Trainer.training_step, 0

    def broken(self: transformers.Trainer, model: torch.nn.Module, *rest: object, **more: object) -> torch.Tensor:
        nonlocal done
        if done == place:
            next(p for name, p in model.named_parameters() if p.requires_grad).data.fill_(float("nan"))
        done += 1
        return step(self, model, *rest, **more)

    transformers.Trainer.training_step = broken


def damaged_checkpoint(bench: Bench, draw: random.Random) -> str:
    """A file of the newest checkpoint is gone, cut or has another byte."""
    bench.killed(draw)
    if (bench.run / "model").is_dir():
        return "had ended"
    stage = sorted((bench.run / "checkpoints").glob("*/checkpoint-*/checksums.json"))[-1].parent.parent
    if (stage / "model").is_dir():
        return damaged_stage(bench, draw, stage / "model")
    for folder in stage.glob("checkpoint-*"):  # killed just before its checksums: a resume would use it, undamaged
        if not (folder / "checksums.json").is_file():
            shutil.rmtree(folder)
    newest = max(stage.glob("checkpoint-*/checksums.json"), key=lambda file: int(file.parent.name[11:])).parent
    file = newest / draw.choice(sorted(json.loads((newest / "checksums.json").read_text(encoding="utf-8"))))
    damage(file, draw)
    return bench.resumes(named=f"{file}: missing or damaged")


def damaged_model(bench: Bench, draw: random.Random) -> str:
    """A file of the first stage's finished model is gone, cut or has another byte."""
    child = bench.start()
    while not list(bench.run.glob("checkpoints/02-contrast/checkpoint-*/checksums.json")):
        time.sleep(0.005)
        if os.waitpid(child, os.WNOHANG)[0]:
            raise WrongError("it ended before a checkpoint of its second stage")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return damaged_stage(bench, draw, bench.run / "checkpoints" / "01-align" / "model")


def damaged_stage(bench: Bench, draw: random.Random, model: Path) -> str:
    """Damage a file of a stage's model, and resume."""
    sums = model / "checksums.json"
    if not sums.is_file():  # killed before
        return bench.resumes()
    file = model / draw.choice(sorted(json.loads(sums.read_text(encoding="utf-8"))))
    damage(file, draw)
    return bench.resumes(named=f"{file}: missing or damaged")


def damage(file: Path, draw: random.Random) -> None:
    """Remove a file, cut it, or change a bit."""
    whole, how = file.read_bytes(), draw.choice(("gone", "cut", "bit"))
    if how == "gone" or not whole:
        file.unlink()
        return
    place = draw.randrange(len(whole))
    changed = bytes([whole[place] ^ 1 << draw.randrange(8)])
    file.write_bytes(whole[:place] if how == "cut" else whole[:place] + changed + whole[place + 1 :])


def other_recipe(bench: Bench, draw: random.Random) -> str:
    """A key that decides what is learned is changed before the resume."""
    bench.killed(draw)
    change = draw.choice(("learning_rate=0.002", "batch_size=8", "max_steps=7", "warmup_steps=2", "max_length=40"))
    ended = bench.attempt("--resume", "--set", f"stages.align.{change}")
    key = change.partition("=")[0]
    bench.refused(ended, rf"the recipe changed in stages\.align\.{key}: resume with that file as the recipe", (2,))
    return bench.resumes()


def other_data(bench: Bench, draw: random.Random) -> str:
    """A row of what a stage has read is changed before the resume."""
    bench.killed(draw)
    file = bench.data[0]
    whole = file.read_text(encoding="utf-8")
    lines = whole.splitlines(keepends=True)
    number = draw.randrange(len(lines))
    lines[number] = json.dumps({"text": "Another text stands here now."}) + "\n"
    file.write_text("".join(lines), encoding="utf-8")
    try:
        bench.refused(
            bench.attempt("--resume"),
            "passages.jsonl has changed since this run read it .*: put it back, or start a new run",
            (1, 2),
        )
    finally:
        file.write_text(whole, encoding="utf-8")
    return bench.resumes()


FAULTS: dict[str, tuple[int, Callable[[Bench, random.Random], str]]] = {
    "kill": (25, kill),
    "kill-at-write": (20, kill_at_write),
    "term": (15, term),
    "full-disk": (8, full_disk),
    "file-limit": (4, file_limit),
    "damaged-checkpoint": (12, damaged_checkpoint),
    "damaged-model": (4, damaged_model),
    "nan": (4, nan),
    "other-recipe": (4, other_recipe),
    "other-data": (4, other_data),
}
"""Name -> how many of a hundred, and what does it."""
