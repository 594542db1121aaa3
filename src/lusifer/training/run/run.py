"""A complete run: build the model, then train stage after stage; each stage reads a model folder and writes one."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import transformers
from sentence_transformers import SentenceTransformer

from lusifer.embedder import assemble, contents, folder, golden
from lusifer.errors import LusiferError, UsageError
from lusifer.io.files import expand_user, write_folder, write_json
from lusifer.io.weights import halve
from lusifer.model import adapters, build
from lusifer.model.bases import backbones
from lusifer.model.bases.backbones import compile_layers, refuse_without_compiler
from lusifer.model.delta import Delta
from lusifer.training import checkpoints, processes
from lusifer.training.checkpoints import MODEL, TRAINER_STATE
from lusifer.training.estimate.memory import here, prepare, skeleton
from lusifer.training.folder import BEST, START, RunFolder
from lusifer.training.objectives.examples import AlignmentExamples
from lusifer.training.recipe import start
from lusifer.training.recipe.recipe import Recipe
from lusifer.training.recipe.stage import StageSettings
from lusifer.training.run import bases, card, inputs
from lusifer.training.stages import alignment, contrastive
from lusifer.training.stages.contrastive import PairRows
from lusifer.training.stages.measured import Judge, Watcher
from lusifer.training.stages.stopping import TerminatedError, on_sigterm
from lusifer.training.stages.trainer import MetricsLog, StageTrainer, arguments, free_space_for, refuse_reporters

Listener = Callable[[dict[str, Any]], None]
StageRows = AlignmentExamples | PairRows
_OF_THE_STAGE = shutil.ignore_patterns(checkpoints.CHECKSUMS)
"""Files that are not copied to the finished model: its settings and card differ, so the checksums do not fit."""
KINDS: dict[str, ModuleType] = {"alignment": alignment, "contrastive": contrastive}
"""Kind of a stage -> a module with the functions `refuse`, `examples`, `refuse_rows` and `trainer`."""


def train(recipe: Recipe, output: str | Path, *, resume: bool = False, listen: Listener | None = None) -> Path:
    """Run a recipe to its end.

    Args:
        recipe: The recipe, from `load_recipe`.
        output: The run folder.
        resume: Whether to continue the run in `output`. Otherwise the folder must be new.
        listen: Called with a dictionary for every event: `{"event": "stage", ...}`, `"counts"`, `"data"`, `"step"`,
            `"log"`, `"saved"`, `"damaged"`, `"processes"`, `"best"`, `"best gone"`.

    Returns:
        The folder of the finished model.

    Raises:
        UsageError: The recipe, the bases or the folder do not fit. Nothing was trained.
        LusiferError: Training failed, or another process of the run ended. Checkpoints stay.
    """
    state = processes.start()
    recipe = bases.concrete(recipe)
    listen = listen if listen is not None and state.is_main_process else lambda event: None
    run = RunFolder(expand_user(output).resolve(), recipe)
    bases.refuse_unreadable(recipe, run.root)
    refuse_reporters(recipe)
    with processes.together(), ExitStack() as held:
        if state.is_main_process:  # the others wait for its files
            held.enter_context(RunFolder.start(output, recipe, resume))
            inputs.remember(run, recipe, inputs.fingerprints(recipe))
            bases.take_over_seen(recipe, run)
        state.wait_for_everyone()
        processes.refuse_unshared(run.root)
        recipe = inputs.pinned(recipe, run)
        with state.main_process_first():
            recipe = bases.with_tiny(recipe, run)
        state.wait_for_everyone()
        return _stages(recipe, run, listen)


def _stages(recipe: Recipe, run: RunFolder, listen: Listener) -> Path:
    """Run the stages that are not finished, each from the folder of the previous one, and write the finished model."""
    state = processes.state()
    rows = _refuse_unfit(recipe, run)
    finished = run.model.is_dir()
    before: Path | None = None
    for number, stage in enumerate(recipe.stages, start=1):
        target = run.stage(number, stage.name)
        if state.is_main_process and not finished and (file := checkpoints.damaged(target / MODEL)) is not None:
            listen(_damage(stage.name, file))
            checkpoints.set_aside(target / MODEL)  # it is made again from the last checkpoint
        state.wait_for_everyone()
        if not (target / MODEL).is_dir():
            embedder = _load(before, recipe, run)
            finished = False
            with processes.threads_for(sum(each.numel() for each in embedder.parameters())):
                _stage(recipe, stage, number, run, embedder, rows.pop(number, None), listen)
            del embedder
            gc.collect()  # frees trainer and optimizer, which refer to each other, for the next stage
        before = target / MODEL
    if state.is_main_process and not finished:  # a finished model stays: the user may have edited its card
        _publish(recipe, run, before)
    state.wait_for_everyone()
    return run.model


def _refuse_unfit(recipe: Recipe, run: RunFolder) -> dict[int, StageRows]:
    """Check all stages that have not begun, so that a mistake in the last one is found now and not after days.

    Returns:
        Number of a stage, from 1 -> its rows, which are on disk.
    """
    waiting = [
        (number, stage) for number, stage in enumerate(recipe.stages, start=1) if not run.begun(number, stage.name)
    ]
    for _, stage in waiting:
        _refuse_settings(recipe, stage)
    found = {}
    for number, stage in waiting:
        kind = KINDS[stage.kind]
        found[number] = kind.examples(recipe, stage, recipe.seed + number)
        if number > 1:  # the first stage begins at once, and refuses them with the tokenizer that it has
            kind.refuse_rows(recipe, stage, found[number])
    return found


def _refuse_settings(recipe: Recipe, stage: StageSettings) -> None:
    if stage.compile:
        try:
            refuse_without_compiler(torch.device(here()))
        except UsageError as error:
            raise UsageError(f"stages.{stage.name}.compile: {error}") from error
    both = (("encoder", recipe.model.encoder), ("llm", recipe.model.llm))
    encoder, llm = (build.read_config(base.base(), backbone) for backbone, base in both)
    stage.refuse_llm(llm, backbones.is_decoder(llm))
    try:
        skeleton(recipe, stage, encoder, llm)
    except UsageError as error:
        raise UsageError(f"stages.{stage.name}: {error}") from error
    KINDS[stage.kind].refuse(recipe, stage)


def _damage(stage: str, file: Path) -> dict[str, str]:
    """Make the event of a folder that is set aside because of a damaged file."""
    return {"event": "damaged", "stage": stage, "file": str(file), "kept": checkpoints.DAMAGED + file.parent.name}


def _load(path: Path | None, recipe: Recipe, run: RunFolder) -> SentenceTransformer:
    """Build or load the model of a stage: from the bases, from `model.start`, or from the folder of the stage before.

    A half-precision backbone keeps adapters of earlier stages as separate layers: merged, it would have to be float32.
    """
    if path is None and recipe.model.start is not None:
        embedder = bases.start_model(recipe)
        where = start.folder(recipe.model.start.path, recipe.model.start.revision)
        assemble.lusifer_model(embedder).delta = Delta.of_folder(where) or Delta(inputs.records(recipe, run))
        return embedder
    if path is None:
        embedder = bases.build_model(recipe, getattr(torch, recipe.model.dtype.frozen))
        assemble.lusifer_model(embedder).delta = Delta(inputs.records(recipe, run))
        return embedder
    device, kernel = str(processes.state().device), recipe.model.attn_implementation
    embedder = folder.load(
        path, device, attn_implementation=kernel, bases=bases.paths(recipe, path), merge_adapters=False
    )
    delta = Delta.of_folder(path)
    assemble.lusifer_model(embedder).delta = delta and delta.at(inputs.records(recipe, run))
    embedder.prompts = bases.prompts(recipe)  # the folder may have older prompts: a later stage may have changed
    return embedder


def _publish(recipe: Recipe, run: RunFolder, last: Path) -> None:
    """Write the finished model from the last stage: with all weights to `model`, and as a delta to `delta`."""
    places = bases.paths(recipe, last)
    if not contents.is_delta(last):
        embedder = folder.load(last, "cpu", bases=places)
        with write_folder(run.model) as temporary:
            shutil.copytree(last, temporary, ignore=_OF_THE_STAGE, dirs_exist_ok=True)
            # Not the card of the stage: it has another recipe if the stage was taken over from another run.
            (temporary / "README.md").write_text(card.card(run, len(recipe.stages), embedder), encoding="utf-8")
            golden.write(embedder, temporary)
        return
    with write_folder(run.delta) as temporary:  # before `model`, whose existence means that the run is finished
        shutil.copytree(last, temporary, ignore=_OF_THE_STAGE, dirs_exist_ok=True)
        contents.shorten_tokenizer(temporary)
        found = contents.read(temporary / "config.json", dict)
        found["bases"] = Delta.of_folder(last).at(inputs.records(recipe, run)).bases
        if recipe.model.dtype.finished != "auto":
            found["tower_dtypes"] = dict.fromkeys(adapters.BACKBONES, recipe.model.dtype.finished)
        write_json(temporary / "config.json", found)
        if recipe.model.dtype.added == "float16":
            halve(temporary, contents.ADVICE)
        embedder = folder.load(temporary, "cpu", bases=places)
        model = assemble.lusifer_model(embedder)
        model.delta = Delta.of_folder(temporary)
        # The card of the stage counts adapters separately, and a loaded model has them merged.
        (temporary / "README.md").write_text(card.card(run, len(recipe.stages), embedder), encoding="utf-8")
        golden.write(embedder, temporary)
    model.delta = None
    folder.save(embedder, run.model, card.card(run, len(recipe.stages), embedder), finished=True)


def _stage(
    recipe: Recipe,
    stage: StageSettings,
    number: int,
    run: RunFolder,
    embedder: SentenceTransformer,
    rows: StageRows | None,
    listen: Listener,
) -> None:
    """Train a stage from its start or its last checkpoint, and write its model folder."""
    target = run.stage(number, stage.name)
    target.mkdir(parents=True, exist_ok=True)
    seed = recipe.seed + number
    transformers.set_seed(seed)
    model = assemble.lusifer_model(embedder)
    prepare(model, stage)
    about = {"space": bases.space(recipe, stage), "matryoshka_dims": getattr(stage, "matryoshka_dims", None)}
    before = {key: getattr(model.config, key) for key in about}
    model.config.update(about)
    if model.delta is not None:
        model.delta = model.delta.during(model, stage.name, dict(stage.train), dict(stage.lora))
    model.to(here())
    if stage.compile:
        compile_layers(model)
    state = processes.state()
    checkpoint = _last_checkpoint(target, stage.name, listen)
    free_space_for(target, stage, model)
    listen({"event": "counts", "stage": stage.name, "parts": [asdict(row) for row in adapters.report(model)]})
    kind = KINDS[stage.kind]
    rows = kind.examples(recipe, stage, seed) if rows is None else rows
    if state.is_main_process:
        data = card.data(recipe, stage, rows, inputs.digests(recipe, stage, run))
        card.keep(target, data, rows)
        embedder.prompts |= card.prompts(run, number)  # before the trainer saves them in a checkpoint
        listen({"event": "data", "stage": stage.name, **data})
    if number == 1 and recipe.model.start is None and not (checkpoint and stage.train.connector):
        bases.start_from_words(embedder, recipe, rows.first(bases.WORD_TEXTS))
    length = embedder.max_seq_length
    embedder.max_seq_length = min(stage.max_length or length, length)
    settings = arguments(recipe, stage, target, rows.steps, seed, bool(stage.bf16))
    trainer = kind.trainer(recipe, stage, embedder, rows, settings)
    trainer.max_seq_length = length
    done = trainer.first_step = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
    if state.is_main_process:
        run.trim_metrics(stage.name, done)
    judge = _measure(trainer, stage, rows, run, listen)
    listen({"event": "stage", "stage": stage.name, "steps": rows.steps, "done": done})
    _train(trainer, checkpoint, done, rows.steps, stage.name, run)
    best = judge and judge.finish(trainer.state)
    if best and best["kept"] and not best["step"]:
        model.config.update(before)  # the stage ends with its initial weights
    if state.is_main_process:
        if best:
            write_json(target / BEST, best)  # before the card, which reads it
        embedder.max_seq_length = length
        _save(embedder, number, run, lambda event: listen({"stage": stage.name, **event}))
    state.wait_for_everyone()


def _last_checkpoint(target: Path, stage: str, listen: Listener) -> Path | None:
    """Find the last checkpoint of a stage; report damaged ones, and a changed number of processes."""
    state = processes.state()
    with state.main_process_first():
        found = checkpoints.last_checkpoint(target, lambda file: listen(_damage(stage, file)))
    if found is not None and (before := checkpoints.processes_of(found)) != state.num_processes:
        listen({"event": "processes", "stage": stage, "before": before, "now": state.num_processes})
    return found


def _save(embedder: SentenceTransformer, number: int, run: RunFolder, listen: Listener) -> None:
    """Write the model folder of a finished stage."""
    target, model = run.stage(number, run.recipe.stages[number - 1].name), assemble.lusifer_model(embedder)
    model.cpu()  # merging in float32 may need more memory than the optimizer leaves on the GPU
    layers = len(list(adapters.adapted_layers(model)))
    embedder.eval()
    folder.save(embedder, target / MODEL, card.card(run, number, embedder))
    checkpoints.seal(target / MODEL)
    for name in (START, checkpoints.CHECKSUMS):
        (target / name).unlink(missing_ok=True)
    listen({"event": "saved", "adapted_layers": layers, "folder": str(target / MODEL)})


def _measure(
    trainer: StageTrainer, stage: StageSettings, rows: StageRows, run: RunFolder, listen: Listener
) -> Judge | None:
    """Add the callbacks that log, watch and score a stage; return the one that scores it, if there is one."""
    log = MetricsLog(run, stage.name, lambda row, steps: listen({"event": "log", "steps": steps, **row}))
    trainer.add_callback(log)
    if stage.watch is not None:
        trainer.add_callback(Watcher(stage.watch, trainer, log))
    judge = None
    if rows.held is not None:
        judge = Judge(stage.evaluate, rows.held, trainer, rows.steps, lambda row: listen({"stage": stage.name, **row}))
        trainer.add_callback(judge)
    trainer.remove_callback(transformers.PrinterCallback)
    return judge


def _train(trainer: StageTrainer, checkpoint: Path | None, done: int, steps: int, stage: str, run: RunFolder) -> None:
    """Train exactly from step `done` to the last one.

    Raises:
        TerminatedError: SIGTERM came; a checkpoint was saved.
        LusiferError: There were too few rows.
    """
    if done >= steps:  # killed after its last step: transformers would train one more step
        trainer._load_from_checkpoint(str(checkpoint))
        trainer.state = transformers.TrainerState.load_from_json(str(checkpoint / TRAINER_STATE))
        return
    with on_sigterm(trainer) as callback:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if callback.stopped:
        step = trainer.state.global_step
        raise TerminatedError(
            f"SIGTERM: stopped after step {step} of {steps} of stage {stage}, and saved: continue with `{run.resume}`"
        )
    if trainer.state.global_step != steps:
        raise LusiferError(
            f"training ended at step {trainer.state.global_step} of {steps}, because rows ran out; the checkpoints "
            "stay: lower batch_size or max_steps, and start a new run in another --output"
        )
