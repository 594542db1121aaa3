"""The same training on one process and on several: losses, gradients, weights, and what happens when one dies.

    python benchmarks/processes.py [--processes 2,3] [--output benchmarks/results/processes.md]

One recipe has a stage for every way in which processes depend on each other: the objectives of stage 1, and of stage 2
both losses with and without in-batch negatives, mini-batches by tokens, Matryoshka dimensions, and the contrast with
the LLM's own vectors. It is trained by `lusifer train` alone and under torchrun (gloo), without dropout, which each
process draws for itself. Then runs are started in which one process dies in a given place, in a given way, with
torchrun and without: the others must end, with words, within `SECONDS`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import pkgutil
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from pathlib import Path
from unittest import mock

import torch
from bench import processor
from safetensors.torch import load_file

from lusifer.io.weights import TRAINABLE
from lusifer.model.build import make_tiny_bases
from lusifer.training import processes

BATCH = 12
"""Rows of a step: 2, 3, 4 and 6 processes can share them. Neither file of rows is a multiple of it."""
ROWS = 31
HEAD = """
name: processes
seed: 3
max_length: 48
model:
  encoder: {path: ENCODER}
  llm: {path: LLM}
stages:
"""
PLAIN = (
    "train: {encoder: lora, connector: true}, lora: {encoder: {dropout: 0.0}}, "
    "data: [{path: pairs.jsonl, role: passage_and_query}]"
)
PAIRS = (
    "kind: contrastive, hard_negatives: 1, train: {encoder: lora, llm: lora, output_projection: true}, "
    "lora: {encoder: {dropout: 0.0}, llm: {dropout: 0.0}}"
)
OWN = "data: [{path: pairs.jsonl, in_batch_negatives: false}]"
STAGES = {
    "predict": f"kind: alignment, objectives: {{reconstruction: 1, completion: 1}}, {PLAIN}",
    "distill": f"kind: alignment, objectives: {{distill: 1}}, distill_contrast: 0.5, {PLAIN}",
    "infonce": f"{PAIRS}, data: [{{path: pairs.jsonl}}]",
    "infonce-own": f"{PAIRS}, {OWN}",
    "ntxent": f"loss: ntxent_l2, {PAIRS}, data: [{{path: pairs.jsonl}}]",
    "ntxent-own": f"loss: ntxent_l2, {PAIRS}, {OWN}",
    "tokens": f"mini_batch_tokens: 96, {PAIRS}, data: [{{path: pairs.jsonl}}]",
    "once": f"gradient_cache: false, mini_batch_tokens: 96, {PAIRS}, data: [{{path: pairs.jsonl}}]",
    "matryoshka": f"matryoshka_dims: [8, 16], {PAIRS}, data: [{{path: pairs.jsonl}}]",
    "kept": f"distill: 1, distill_contrast: 0.5, {PAIRS}, data: [{{path: pairs.jsonl}}]",
}
"""Stages by name, each one pass over the rows: the last step is filled up with rows of the next pass."""
COMMON = f"batch_size: {BATCH}, mini_batch_size: 2, epochs: 1, learning_rate: 1.0e-4, warmup_steps: 0, logging_steps: 1"
PATCHED = {
    "joined": ("lusifer.training.run.bases.concrete", 1),
    "reading": ("lusifer.training.run.run._refuse_unfit", 1),
    "step": ("lusifer.training.stages.alignment.AlignmentTrainer.compute_loss", 5),
    "loss": ("lusifer.training.stages.losses.ByLength.calculate_loss", 2),
    "saving": ("lusifer.training.stages.trainer.StageTrainer._save", 2),
    "publishing": ("lusifer.training.run.run._publish", 1),
}
"""Where a process may die: by name, a function and which of its calls; `loss` is of stage 2, before the gather."""
PLACES = ("before joining", *PATCHED)
COMPUTED = ("step", "loss")
ALONE = ("saving", "publishing")
WAYS = ("kill", "error", "nan")
OFTEN = ("stages.0.save_steps=1", "stages.1.save_steps=1")
JOIN_SECONDS = 10
MINUTES = processes.JOIN_MINUTES
SECONDS = 30
"""Longest time from a death to the end of all, on a busy machine."""
LONGEST = 120.0
GONE = ("another process of this run has ended", "did not all join", "the loss is nan")
"""Our own lines: torchrun says much of any failure."""


def prepare(folder: Path, stages: Sequence[str] | None = None) -> Path:
    """Write bases without dropout, rows of very different lengths, and the recipe of some stages; gives the recipe."""
    encoder, llm = make_tiny_bases(folder / "bases", 0)
    config = json.loads((encoder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (encoder / "config.json").write_text(json.dumps(config))
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (llm / "modules.json").write_text(json.dumps(modules))  # a decoder that is an embedder as well
    (llm / "1_Pooling").mkdir()
    width = json.loads((llm / "config.json").read_text())["hidden_size"]
    pooling = {"word_embedding_dimension": width, "pooling_mode_mean_tokens": True}
    (llm / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    rows = (
        {"query": f"question {n}", "positive": [f"text {n} " * (1 + n % 9)], "negative": [f"other {n} " * (1 + n % 5)]}
        for n in range(ROWS)
    )
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [f"  - {{name: {name}, {COMMON}, {STAGES[name]}}}\n" for name in stages or STAGES]
    recipe = folder / "recipe.yaml"
    recipe.write_text(HEAD.replace("ENCODER", str(encoder)).replace("LLM", str(llm)) + "".join(lines))
    return recipe


@dataclass(frozen=True)
class Difference:
    """Of one stage on several processes beside one: steps, and the largest difference.

    Of loss and gradient norm it is relative, of a trained number as it is.
    """

    stage: str
    steps: int
    loss: float
    gradient: float
    weights: float


def differences(one: Path, other: Path) -> list[Difference]:
    """Compare two run folders stage by stage.

    Raises:
        ValueError: They have not the same stages, steps and tensors.
    """
    found = []
    for folder in sorted((one / "checkpoints").iterdir()):
        name = folder.name.partition("-")[2]
        mine, theirs = (_rows(run, name) for run in (one, other))
        last = max(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
        weights, others = (load_file(run / last.relative_to(one) / TRAINABLE) for run in (one, other))
        if len(mine) != len(theirs) or not mine or weights.keys() != others.keys():
            raise ValueError(f"{name}: {len(mine)} steps and {len(theirs)}, or other tensors")
        loss, gradient = (max(abs(a[k] - b[k]) / abs(a[k]) for a, b in zip(mine, theirs, strict=True)) for k in (0, 1))
        apart = max(float((weights[key] - others[key]).abs().max()) for key in weights)
        found.append(Difference(name, len(mine), loss, gradient, apart))
    return found


def _rows(run: Path, stage: str) -> list[tuple[float, float]]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [(row["loss"], row["grad_norm"]) for row in lines if row["stage"] == stage and "loss" in row]


def die(place: str, way: str, moment: str, *words: str) -> int:
    """Be one process of `lusifer WORDS` that dies.

    Args:
        place: One of `PLACES`.
        way: One of `WAYS`.
        moment: The file that is written right before.
        words: Of the command line.
    """
    from lusifer.cli import main

    def end(*_: object) -> None:
        Path(moment).write_text(str(time.time()))
        if way == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError("the disk of this process is gone")

    if place == "before joining":
        end()
    name, times = PATCHED[place]
    real, calls = pkgutil.resolve_name(name), iter(range(1, 1_000))

    def instead(*args: object, **keywords: object) -> object:
        if next(calls) != times:
            return real(*args, **keywords)
        if way != "nan":
            end()
        Path(moment).write_text(str(time.time()))
        return real(*args, **keywords) * float("nan")

    with mock.patch(name, instead):
        return main(list(words))


def run_rank(rank: int, count: int, port: int, dying: int, file: str, death: tuple[str, ...], words: list[str]) -> None:
    """What a forked process does: be rank `rank` of `count`, with the variables that a launcher sets."""
    target = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(target, 1)
    os.dup2(target, 2)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_PORT": str(port)}
    os.environ |= {"LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "HF_HUB_OFFLINE": "1"}
    torch.set_num_threads(1)
    processes.JOIN_MINUTES = JOIN_SECONDS / 60
    if rank == dying:
        sys.exit(die(*death, *words))
    from lusifer.cli import main

    sys.exit(main(words))


@dataclass(frozen=True)
class Death:
    """One run in which a process died: the exit statuses, what was said, and the seconds that the others lived on.

    Under torchrun what all say is one text, and `blamed` tells whether it names the process that died as the cause.
    """

    place: str
    way: str
    count: int
    launcher: str
    statuses: list[int | None]
    said: list[str]
    seconds: float
    blamed: bool = False

    @property
    def told(self) -> bool:
        """Whether the others said in a line of ours why they end."""
        return all(any(word in text for word in GONE) for text in self.said)

    @property
    def held(self) -> bool:
        """Whether all ended badly, in time, and with words on why.

        Those are our line; torchrun may end the others before they see that one is gone, and then names that one.
        """
        words = self.blamed if self.launcher == "torchrun" else self.told
        return all(self.statuses) and self.seconds < SECONDS and words


def blames(text: str, dying: int) -> bool:
    """Whether torchrun, whose report this is, names process `dying` as the first to fail."""
    return re.search(rf"Root Cause[^=]*?\n\s*rank\s*: {dying} ", text) is not None


def dies(context: BaseContext, place: str, way: str, count: int, recipe: Path, port: int, dying: int = 0) -> Death:
    """Start `count` forked processes of which one dies, and wait for the others; none is left when this returns.

    They are started by `context` and meet at `port`; number `dying` is the one.
    """
    folder, words = _run_of(recipe)
    death = (place, way, str(folder / "moment"))
    files = [folder / f"{rank}.txt" for rank in range(count)]
    ranks = [
        context.Process(target=run_rank, args=(rank, count, port, dying, str(file), death, words))
        for rank, file in enumerate(files)
    ]
    try:
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join(LONGEST)
        ended = time.time()
    finally:
        for rank in ranks:
            if rank.exitcode is None:
                rank.kill()
    said = [file.read_text() for number, file in enumerate(files) if number != dying]
    moment = float((folder / "moment").read_text())
    return Death(place, way, count, "none", [rank.exitcode for rank in ranks], said, ended - moment)


def _run_of(recipe: Path) -> tuple[Path, list[str]]:
    """A new folder beside a recipe, and the words that train it there."""
    folder = Path(tempfile.mkdtemp(dir=recipe.parent))
    return folder, [
        "train",
        str(recipe),
        "--output",
        str(folder / "run"),
        *(w for key in OFTEN for w in ("--set", key)),
    ]


def under_torchrun(place: str, way: str, count: int, recipe: Path, dying: int = 1) -> Death:
    """The same, as users start it; what torchrun and all processes say is one text."""
    folder, words = _run_of(recipe)
    rank = [__file__, "--die", place, way, str(dying), str(folder / "moment"), *words]
    done = torchrun(count, rank)
    moment = float((folder / "moment").read_text())
    text, seconds = done.stdout + done.stderr, time.time() - moment
    return Death(place, way, count, "torchrun", [done.returncode], [text], seconds, blames(text, dying))


def torchrun(count: int, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a script under torchrun, on a port of its own."""
    launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={count}", f"--master-port={free_port()}"]
    more = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *launcher, *words], env=os.environ | more, capture_output=True, text=True, check=False
    )


def free_port() -> int:
    """A port that nobody listens on, below those that the system gives to outgoing connections."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def compared(counts: Sequence[int], folder: Path) -> list[str]:
    """Rows of a table: every stage on so many processes under torchrun beside one process."""
    recipe, lines = prepare(folder), []
    for count in (1, *counts):
        words = ["-m", "lusifer.cli", "train", str(recipe), "--output", str(folder / f"run-{count}")]
        done = torchrun(count, words)
        if done.returncode:
            raise SystemExit(done.stderr)
        for row in differences(folder / "run-1", folder / f"run-{count}") if count > 1 else ():
            lines.append(
                f"| {row.stage} | {count} | {row.steps} | {row.loss:.0e} | {row.gradient:.0e} | {row.weights:.0e} |"
            )
    return lines


def killed(counts: Sequence[int], folder: Path) -> list[Death]:
    """All deaths: without a launcher in each place and way, first process and last; under torchrun one of them."""
    recipe = prepare(folder, ("predict", "infonce"))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sentence_transformers", "lusifer.cli.train", "lusifer.training.run.run"])
    found = []
    for count in counts:
        for place in PLACES:
            for way in WAYS if place in COMPUTED else WAYS[:2]:
                # The first process alone saves and publishes.
                for dying in (0,) if place in ALONE else (0, count - 1):
                    found.append(_said(dies(context, place, way, count, recipe, free_port(), dying)))
            found.append(_said(under_torchrun(place, "kill", count, recipe, 0 if place in ALONE else count - 1)))
    return found


def _said(death: Death) -> Death:
    """Say how a run ended, and all that was said where it was not as promised."""
    held = "held" if death.held else "NOT HELD"
    line = "with our line" if death.told else "without our line"
    _say(f"{held}: {death.place}, {death.way}, {death.count}, launcher {death.launcher}, {death.seconds:.1f} s, {line}")
    if not death.held:
        _say(f"{death.statuses} " + "\n".join(death.said))
    return death


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def main() -> None:
    """Run both parts and write the page."""
    if sys.argv[1:2] == ["--die"]:  # as one process that torchrun started
        place, way, dying, moment, *words = sys.argv[2:]
        from lusifer.cli import main as command

        sys.exit(die(place, way, moment, *words) if os.environ["RANK"] == dying else command(words))
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--processes", default="2,3")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    counts = [int(count) for count in given.processes.split(",")]
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        rows = compared(counts, Path(first))
        _say("\n".join(rows))
        deaths = killed(counts, Path(second))
    text = PAGE.format(
        counts=given.processes, rows="\n".join(rows), deaths="\n".join(_death_rows(deaths)), batch=BATCH, data=ROWS,
        join=JOIN_SECONDS, seconds=SECONDS, minutes=MINUTES, machine=processor(), cores=len(os.sched_getaffinity(0)),
    )  # fmt: skip
    _say(text)
    if given.output:
        given.output.write_text(text, encoding="utf-8")


def _death_rows(deaths: Sequence[Death]) -> list[str]:
    kinds: dict[tuple[str, str], list[Death]] = {}
    for death in deaths:
        kinds.setdefault((death.place, death.launcher), []).append(death)
    return [
        f"| {place} | {launcher} | {len(some)} | {sum(each.held for each in some)} "
        f"| {sum(not each.held for each in some)} | {sum(each.told for each in some)} "
        f"| {max(each.seconds for each in some):.1f} |"
        for (place, launcher), some in kinds.items()
    ]


PAGE = """# One process and several

By `python benchmarks/processes.py --processes {counts} --output benchmarks/results/processes.md`, on {cores} cores of
{machine}, in float32, with gloo; random bases without dropout, {data} rows, {batch} a step.

Largest difference between one process and several over the steps of a stage, under torchrun. Loss and gradient norm
are compared relative to their size, and the trained parameters after the last step by their absolute difference.

| stage | processes | steps | loss | gradient norm | trained numbers |
|---|--:|--:|--:|--:|--:|
{rows}

Runs in which one process died: by SIGKILL, by an error, or by a loss that is NaN only there. "As promised" means that
all processes ended with an error within {seconds} seconds, and that the others printed Lusifer's message about it.
torchrun ends the others as soon as it notices the death, sometimes before that message. Under torchrun, "as promised"
means that torchrun names the process that died, and the column "our line" counts the runs that also had the message.
If a process dies before all have connected, and there is no launcher, the others wait {join} seconds for it here,
{minutes} minutes by default.

| it died | launcher | runs | as promised | not | our line | longest, seconds |
|---|---|--:|--:|--:|--:|--:|
{deaths}
"""

if __name__ == "__main__":
    main()
