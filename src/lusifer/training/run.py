"""A whole run: build, then stage after stage; each stage reads a model folder and writes one."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate import PartialState
from sentence_transformers import SentenceTransformer

from lusifer.embedder import assemble, folder
from lusifer.errors import LusiferError, UsageError
from lusifer.model import adapters, build, probes, tiny
from lusifer.model.lusifer import LusiferModel
from lusifer.model.tokenizer import check_tokenizers, read_tokenizer
from lusifer.prompts import prompt
from lusifer.training import align, contrast, describe, inputs, recipe_io
from lusifer.training.recipe import AlignmentStage, ContrastiveStage, Recipe
from lusifer.training.record import RunFolder, last_checkpoint
from lusifer.training.trainer import MetricsLog, arguments, free_space_for

Listener = Callable[[dict[str, Any]], None]
PROBE_TEXTS = ("The river rises in spring.", "Сколько стоит билет до города?", "水", "How long is a day on Mars?")


def train(
    recipe_path: str | Path,
    output: str | Path,
    *,
    overrides: Sequence[str] = (),
    resume: bool = False,
    listen: Listener | None = None,
) -> Path:
    """Run a recipe from where it stands to its end.

    Args:
        recipe_path: a YAML file or the name of a recipe in the package.
        output: the run folder.
        overrides: "key.path=value" each.
        resume: go on with what `output` holds; without it the folder must be new.
        listen: is called with a dict for every event: `{"event": "stage", ...}`, `"counts"`,
            `"data"`, `"step"`, `"log"`, `"saved"`.

    Returns:
        The folder of the finished model.

    Raises:
        UsageError: the recipe, the bases or the folder do not fit; nothing was trained.
        LusiferError: training failed; checkpoints stay.
    """
    _refuse_data_parallel()
    recipe = recipe_io.load(recipe_path, overrides)
    state = PartialState(cpu=not torch.cuda.is_available())
    if listen is None or not state.is_main_process:
        listen = _silence
    run = RunFolder(Path(output).expanduser().resolve())
    if not resume:
        _refuse_unreadable_bases(recipe)
    with ExitStack() as held:
        if state.is_main_process:  # the others wait for what the first one writes
            held.enter_context(RunFolder.start(output, recipe, resume))
        with state.main_process_first():
            recipe = _with_tiny_bases(recipe, run)
        if state.is_main_process:
            inputs.remember(run.root, inputs.fingerprints(recipe))
        state.wait_for_everyone()
        return _stages(inputs.pinned(recipe, run.root), run, listen)


def _stages(recipe: Recipe, run: RunFolder, listen: Listener) -> Path:
    """Run the stages that are not done yet, each from the folder of the one before, and publish the last."""
    frozen = _dtype(recipe.model.dtype.frozen)
    _refuse_wide_matryoshka(recipe, frozen)
    state = PartialState()
    before: Path | None = None
    for number, stage in enumerate(recipe.stages, start=1):
        target = run.stage(number, stage.name)
        if not (target / "model").is_dir():
            embedder = _build(recipe, frozen) if before is None else _load(before, recipe)
            _stage(recipe, stage, number, run, embedder, frozen, listen)
            del embedder
            gc.collect()  # trainer and optimizer are a circle of references: the next stage needs their memory
        before = target / "model"
    if state.is_main_process:
        run.publish(before)
    state.wait_for_everyone()
    return run.model


def _load(path: Path, recipe: Recipe) -> SentenceTransformer:
    """The model that a stage before wrote, with the recipe's attention kernel (a folder does not keep it)."""
    return folder.load(path, attn_implementation=recipe.model.attn_implementation)


def _silence(event: dict[str, Any]) -> None:
    """Nobody listens."""


def _stage(
    recipe: Recipe,
    stage: AlignmentStage | ContrastiveStage,
    number: int,
    run: RunFolder,
    embedder: SentenceTransformer,
    frozen: torch.dtype,
    listen: Listener,
) -> None:
    """Train one stage from its start or its last checkpoint and write its model folder."""
    target = run.stage(number, stage.name)
    target.mkdir(parents=True, exist_ok=True)
    seed = recipe.seed + number
    transformers.set_seed(seed)
    model = assemble.lusifer_model(embedder)
    _prepare(model, stage)
    model.to(_device())
    state = PartialState()
    with state.main_process_first():
        checkpoint = last_checkpoint(target)
    free_space_for(target, stage, model)
    counts = [asdict(row) for row in adapters.report(model)]
    listen({"event": "counts", "stage": stage.name, "parts": counts})
    kind = align if isinstance(stage, AlignmentStage) else contrast
    rows = kind.examples(recipe, stage, seed)
    data = describe.data(recipe, stage, rows)
    if state.is_main_process:
        describe.keep(target, data)
    listen({"event": "data", "stage": stage.name, **data})
    length = embedder.max_seq_length
    embedder.max_seq_length = min(stage.max_length or length, length)
    settings = arguments(stage, target, rows.steps, seed, _mixed(stage))
    settings |= _batches(stage)
    trainer = kind.trainer(recipe, stage, embedder, model, rows, settings, frozen)
    done = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
    if state.is_main_process:
        run.trim_metrics(stage.name, done)
    trainer.add_callback(
        MetricsLog(run, stage.name, lambda row, steps: listen({"event": "log", "steps": steps, **row}))
    )
    trainer.remove_callback(transformers.PrinterCallback)
    listen({"event": "stage", "stage": stage.name, "steps": rows.steps, "done": done})
    if done < rows.steps:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    else:  # killed after its last step: transformers would train one more
        trainer._load_from_checkpoint(str(checkpoint))
    if state.is_main_process:
        model.cpu()  # merged in float32 it may not fit beside the optimizer
        merged = adapters.merge(model)
        embedder.eval()
        embedder.max_seq_length = length
        folder.save(embedder, target / "model", describe.card(run, number, embedder))
        written = str(target / "model")
        listen({"event": "saved", "stage": stage.name, "merged_layers": merged, "folder": written})
    state.wait_for_everyone()


def _build(recipe: Recipe, frozen: torch.dtype) -> SentenceTransformer:
    """The model of step 0, probed: what is not bidirectional or depends on padding is refused before it trains."""
    settings = recipe.model
    # A tower that will train whole is never rounded first.
    whole = {tower: any(getattr(s.train, tower) == "full" for s in recipe.stages) for tower in adapters.TOWERS}
    dtypes = {tower: torch.float32 if trains else frozen for tower, trains in whole.items()}
    encoder = build.Base(settings.encoder.path, settings.encoder.revision, dtypes["encoder"])
    llm = build.Base(settings.llm.path, settings.llm.revision, dtypes["llm"])
    tokenizer = read_tokenizer(build.resolve(encoder.path), encoder.revision)
    check_tokenizers(tokenizer)
    model = build.join(
        build.read_backbone(encoder, "encoder", settings.attn_implementation),
        build.read_backbone(llm, "llm", settings.attn_implementation),
        recipe.seed,
        connector_type=settings.connector.type,
        connector_kwargs=settings.connector_kwargs(),
        num_soft_tokens=settings.connector.num_soft_tokens,
        pooling=settings.pooling,
        output_projection=settings.output_projection,
        include_prompt=settings.include_prompt,
    )
    length = min(recipe.max_length, model.config.max_position_embeddings)
    embedder = assemble.assemble(model, tokenizer, prompts=_prompts(recipe), max_seq_length=length)
    features = tokenizer(list(PROBE_TEXTS), padding=True, return_tensors="pt")
    found = probes.run_probes(model, features["input_ids"], features["attention_mask"])
    failed = [probe for probe in found if not probe.ok]
    if failed:
        raise LusiferError("; ".join(f"{probe.name}: no ({probe.detail})" for probe in failed))
    return embedder


def _refuse_data_parallel() -> None:
    """One process that sees several GPUs: transformers would spread each batch, and a step not be the recipe's."""
    if "WORLD_SIZE" not in os.environ and torch.cuda.device_count() > 1:
        raise UsageError(
            f"{torch.cuda.device_count()} GPUs are visible to one process: start with torchrun, or set "
            "CUDA_VISIBLE_DEVICES=0"
        )


def _refuse_unreadable_bases(recipe: Recipe) -> None:
    """Read both configurations before the run folder exists: a wrong name must not leave a run behind."""
    for tower in adapters.TOWERS:
        base = getattr(recipe.model, tower)
        if not base.path.startswith("tiny:"):
            build.read_config(build.Base(base.path, base.revision), tower)


def _refuse_wide_matryoshka(recipe: Recipe, frozen: torch.dtype) -> None:
    """Compare with the LLM's width now, not when a stage before has trained for days."""
    stages = [stage for stage in recipe.stages if isinstance(stage, ContrastiveStage) and stage.matryoshka_dims]
    if not stages:
        return
    width = build.read_config(build.Base(recipe.model.llm.path, recipe.model.llm.revision, frozen), "llm").hidden_size
    for stage in stages:
        if max(stage.matryoshka_dims) > width:
            raise UsageError(
                f"stages.{stage.name}.matryoshka_dims: {max(stage.matryoshka_dims)} is more than the {width} "
                "dimensions of the vector"
            )


def _with_tiny_bases(recipe: Recipe, run: RunFolder) -> Recipe:
    """Put folders in the place of `tiny:encoder` and `tiny:llm`, made from the seed inside the run folder."""
    paths = {"encoder": recipe.model.encoder.path, "llm": recipe.model.llm.path}
    if not any(path.startswith("tiny:") for path in paths.values()):
        return recipe
    made = dict(zip(("tiny:encoder", "tiny:llm"), tiny.make_tiny_bases(run.root / "bases", recipe.seed), strict=True))
    bases = {
        tower: getattr(recipe.model, tower).model_copy(update={"path": str(made.get(path, path))})
        for tower, path in paths.items()
    }
    return recipe.model_copy(update={"model": recipe.model.model_copy(update=bases)})


def _prompts(recipe: Recipe) -> dict[str, str]:
    """What the model folder remembers: `query` and `document`, and each instruction it was trained with."""
    found = {"query": "", "document": ""}
    for stage in recipe.stages:
        if not isinstance(stage, ContrastiveStage):
            continue
        for source in stage.data:
            if source.instruction:
                found.setdefault(source.instruction, prompt(source.instruction, "query"))
    return found


def _prepare(model: LusiferModel, stage: AlignmentStage | ContrastiveStage) -> None:
    """Freeze, and attach adapters; what trains is float32 (AdamW's steps are lost in half precision).

    Nothing is rounded here: a tower that a stage before has trained came out in float32 and stays so.
    """
    whole = {tower: getattr(stage.train, tower) == "full" for tower in adapters.TOWERS}
    parts = whole | {"connector": stage.train.connector, "output_projection": stage.train.output_projection}
    for tower, trains in whole.items():
        if trains:
            getattr(model, tower).float()
    adapters.freeze(model, parts)
    for tower in adapters.TOWERS:
        lora = getattr(stage.lora, tower)
        if getattr(stage.train, tower) == "lora" and lora is not None:
            adapters.attach(model, tower, lora.r, lora.alpha, lora.dropout, lora.targets)


def _batches(stage: AlignmentStage | ContrastiveStage) -> dict[str, int]:
    """Rows a process holds and micro-batches a step, from the batch over all processes."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))  # set by torchrun
    if stage.batch_size % processes:
        raise LusiferError(f"{stage.name}: batch_size {stage.batch_size} is no multiple of {processes} processes")
    share = stage.batch_size // processes
    if isinstance(stage, ContrastiveStage):
        return {"per_device_train_batch_size": share}
    mini = min(stage.mini_batch_size, share)
    if share % mini:
        raise LusiferError(f"{stage.name}: {share} rows a process are no multiple of mini_batch_size {mini}")
    return {"per_device_train_batch_size": mini, "gradient_accumulation_steps": share // mini}


def _mixed(stage: AlignmentStage | ContrastiveStage) -> bool:
    if stage.bf16 == "auto":
        return build.frozen_dtype() == torch.bfloat16
    return bool(stage.bf16)


def _dtype(name: str) -> torch.dtype:
    return build.frozen_dtype() if name == "auto" else getattr(torch, name)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
