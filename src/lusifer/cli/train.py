"""`lusifer train`, and `lusifer ablate` for the variants of a recipe."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lusifer import extras
from lusifer.cli import terminal
from lusifer.cli.evaluate import Data, listed
from lusifer.cli.models import DtypeOption
from lusifer.errors import LusiferError, UsageError
from lusifer.io.files import expand_user, refuse_unwritable, write_file

if TYPE_CHECKING:
    from lusifer.training.recipe.recipe import Recipe
    from lusifer.training.run.share import SharedStages

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of a packaged recipe.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a key of the recipe, as in stages.contrastive.max_steps=100."
    ),
]
VariantOption = Annotated[str | None, typer.Option("--variant", help="Train this variant of the recipe.")]
SAMPLE = "sample:"
FIRST_ROWS = 1000
"""Rows of each file that are read before torch is imported; all others are read before the bases."""
_SCORE = "eval_ndcg@10"
_LARGER_CLUSTERS = ": most clusters are smaller than a batch; cluster again with `--min-points` of batch_size or more"


def train(
    recipe: RecipeArgument,
    output: Annotated[Path, typer.Option(help="The run folder.")],
    resume: Annotated[bool, typer.Option("--resume", help="Resume the run in --output.")] = False,
    set_: SetOption = None,
    variant: VariantOption = None,
) -> None:
    """Train a model from a recipe, one stage after another."""
    from lusifer.training.folder import RunFolder
    from lusifer.training.recipe.load import load_recipe

    loaded = load_recipe(recipe, set_ or [], variant=variant)  # errors in it are reported before torch is imported
    RunFolder(expand_user(output).resolve(), loaded).refuse(output, resume)
    refuse_unwritable(output, "folder")
    if not resume:
        refuse_first_rows(loaded)
    terminal.quiet()
    from lusifer.training import processes
    from lusifer.training.run import run

    first = processes.start().is_main_process  # a launcher starts several processes
    if first and not resume and (slow := slow_stages(loaded)) is not None:
        terminal.note(slow)
    if first and not resume and (sample := on_the_sample(loaded)) is not None:
        terminal.note(sample)
    at: dict[str, Any] = {}
    try:
        with listener() as listen:
            model = run.train(loaded, output, resume=resume, listen=follow(loaded, at, listen))
    except KeyboardInterrupt:
        if first and (output / "recipe.yaml").is_file():  # otherwise nothing can be resumed
            terminal.note(f"{output}: {stopped(output, at)}; repeat the command with --resume to continue")
        raise
    if first:
        done = "trained" if at else "was trained already, nothing was done"
        terminal.note(f"{model}: {done}; check it with `lusifer doctor {model}`")


def follow(
    recipe: Recipe, at: dict[str, Any], listen: Callable[[dict[str, Any]], None]
) -> Callable[[dict[str, Any]], None]:
    """Record the stage and the step of a run in `at`, and pass its events on.

    How many rows a stage never reads matters for data of the user: for the packaged sample the line is left out.
    """
    own = {each.name for each in recipe.stages if not all((one.path or "").startswith(SAMPLE) for one in each.data)}

    def hear(event: dict[str, Any]) -> None:
        if event["event"] == "stage":
            at.update(stage=event["stage"], steps=event["steps"], step=event.get("done", 0))
        elif event["event"] == "step":
            at["step"] = event["step"]
        elif event["event"] == "data" and event["stage"] not in own:
            event = event | {"objectives": {}}
        listen(event)

    return hear


def stopped(output: Path, at: dict[str, Any]) -> str:
    """Say at which step a run was interrupted, and which step its last checkpoint has."""
    if not at:
        return "stopped before a step"
    place = f"stopped at step {at['step']:,} of {at['steps']:,} of stage {at['stage']}"
    found = output.glob("checkpoints/*/checkpoint-*")
    saved = [each.name for each in found if each.parent.name.partition("-")[2] == at["stage"]]  # 01-STAGE
    steps = [int(step) for name in saved if (step := name.rpartition("-")[2]).isdigit()]
    if not steps:
        return f"{place}, before the first checkpoint of this stage, which begins again"
    return f"{place}, saved up to step {max(steps):,}"


def refuse_first_rows(recipe: Recipe) -> None:
    """Read the first rows of every local file of a recipe, which show a missing column or a file of a few rows.

    Raises:
        DataError: A row is wrong; the message names file, line and column.
        UsageError: A source has fewer rows than a batch.
    """
    from lusifer.data import batches, sources
    from lusifer.io.rows import BadRows

    for stage in recipe.stages:
        trained = recipe.sources(stage)
        for number, source in enumerate([*trained, *(stage.evaluate.data if stage.evaluate else [])]):
            spec, found = recipe.spec(stage, source), 0
            for file in sources.files(spec.path) if spec.path else ():
                bad = BadRows(spec.skip_bad)
                rows = sources.read_file(file, source.row_kind, spec.fields, bad, rename=spec.rename)
                found += sum(1 for _ in islice(rows, FIRST_ROWS))
            in_batch = number < len(trained) and getattr(source, "in_batch_negatives", False)
            if in_batch and 0 < found < min(stage.batch_size, FIRST_ROWS):
                # Held-out rows and known answers lower the number that fits, so it is not known yet.
                raise UsageError(batches.few_rows(spec.path, found, stage.batch_size, fit=None))


def on_the_sample(recipe: Recipe) -> str | None:
    """Say which stages train on the packaged sample, because users may take it for their own data."""
    stages = [each for each in recipe.stages if any((source.path or "").startswith(SAMPLE) for source in each.data)]
    if not stages:
        return None
    names = ", ".join(stage.name for stage in stages)
    own = f"--set stages.{stages[-1].name}.data.0.path=FILE"
    return f"{names}: trains on the packaged sample; to train on your own rows add {own}"


def slow_stages(recipe: Recipe) -> str | None:
    """Say which stages use bfloat16 although the processor has no instructions for it."""
    from lusifer.serving.encode import slow_format
    from lusifer.training import processes

    stages = [stage.name for stage in recipe.stages if stage.bf16 is True]
    slow = slow_format(processes.state().device, "bfloat16") if stages else None
    if slow is None:
        return None
    changes = [*(f"stages.{name}.bf16=false" for name in stages), "model.dtype.frozen=float32"]
    return f"{', '.join(stages)}: {slow}: {' '.join(f'--set {change}' for change in changes)}"


def ablate(
    recipe: RecipeArgument,
    output: Annotated[
        Path, typer.Option(help="Folder for the run and the evaluation of each variant, and the tables.")
    ],
    data: Data = None,
    suite: Annotated[str, typer.Option(help="Suite, as for `lusifer evaluate`.")] = "offline",
    languages: Annotated[
        str | None, typer.Option(help="Codes of languages (en,es); by default the 14 of the paper.")
    ] = None,
    tasks: Annotated[str | None, typer.Option(help="Names of tasks (STS17,XNLI); by default all of the suite.")] = None,
    only: Annotated[str | None, typer.Option(help="Variants (full,alignment-only); by default all.")] = None,
    dtype: DtypeOption = None,
    set_: SetOption = None,
) -> None:
    """Train and evaluate every variant of a recipe. Repeat a call to resume an interrupted one."""
    from lusifer.training.recipe.load import load_recipe

    every = load_recipe(recipe, check_files=False).variant_names
    names = _chosen(every, only)
    # An error in the last variant is reported before the first one trains.
    recipes = {name: load_recipe(recipe, set_ or [], variant=name) for name in names}
    refuse_unwritable(output, "folder")
    from lusifer.evaluation.suites import suite as suites

    suites.choose(suite, data, listed(languages, "--languages"), listed(tasks, "--tasks"))  # likewise
    extras.need("report", "matplotlib")
    terminal.quiet()
    from lusifer.training.run import share

    changes = [word for change in set_ or [] for word in ("--set", change)]
    given = {"--data": data, "--suite": suite, "--languages": languages, "--tasks": tasks, "--dtype": dtype}
    words = [str(word) for option, value in given.items() if value is not None for word in (option, value)]
    for name in names:
        run, scores = output / name / "run", output / name / "scores"
        terminal.note(f"{name}: training")
        others = {each: output / each / "run" for each in every if each != name}
        if (shared := share.begin(recipes[name], run, others)) is not None:
            terminal.note(f"{name}: {_shared_line(shared)}")
        # Resuming a finished run takes seconds; a run of another recipe is refused.
        resume = ["--resume"] if (run / "recipe.yaml").is_file() else []
        _command(["train", recipe, "--output", str(run), "--variant", name, *changes, *resume])
        terminal.note(f"{name}: scoring")
        _command(["evaluate", str(run / "model"), "--output", str(scores), "--name", name, *words], quiet=True)
    _compare(names, output)


def _chosen(known: Sequence[str], only: str | None) -> list[str]:
    """Give the variants to run, in the order of the recipe."""
    asked = listed(only, "--only") or list(known)
    unknown = [name for name in asked if name not in known]
    if unknown:
        raise UsageError(f"--only {unknown[0]}: no such variant: choose from {', '.join(known)}")
    if len(known) < 2:
        raise UsageError("the recipe has no variants to compare: add `variants:` to it (docs/how-to/evaluate.md)")
    return [name for name in known if name in asked]


def _command(words: list[str], quiet: bool = False) -> None:
    """Run a Lusifer command in a process of its own, which frees the memory of a model before the next one."""
    done = subprocess.run(
        [sys.executable, "-m", "lusifer.cli", *words], stdout=subprocess.DEVNULL if quiet else None, check=False
    )
    if done.returncode:
        raise LusiferError(f"lusifer {' '.join(words)}: failed with status {done.returncode}; its error is above")


def _shared_line(shared: SharedStages) -> str:
    """Say which stages a run took from another one."""
    return f"{', '.join(shared.stages)} copied from {shared.run}, which trained the same"


def _compare(names: list[str], output: Path) -> None:
    """Print and write the table, with the stages that were trained once, and write the page with the charts."""
    from lusifer.evaluation.report import card, facts, page
    from lusifer.training.run.share import SharedStages

    shared = {name: found for name in names if (found := SharedStages.of(output / name / "run"))}
    lines = [f"{name}: {_shared_line(found)}" for name, found in shared.items()]
    (scores,) = facts.read([output / name / "scores" for name in names])
    text = card.markdown(scores)
    if lines:
        text += "\nStages that were trained once:\n\n" + "".join(f"- {line}\n" for line in lines)
    terminal.say(text, nl=False)
    for file, words in (("ablation.md", text), ("ablation.html", page.page([scores], lines))):
        with write_file(output / file) as temporary:
            temporary.write_text(words, encoding="utf-8")
        terminal.note(f"{output / file} written")


@contextmanager
def listener() -> Iterator[Callable[[dict[str, Any]], None]]:
    """Give a listener for a training run: a bar for each stage on a terminal, the plain lines of `say` elsewhere."""
    if not terminal.interactive():
        yield say
        return
    with terminal.StageBar() as bar:
        words = {}  # the texts behind the numbers of the bar

        def show(event: dict[str, Any]) -> None:
            match event:
                case {"event": "stage", "stage": stage, "steps": steps}:
                    bar.open(stage, steps, event.get("done", 0))
                    words.clear()
                case {"event": "step", "step": step}:
                    bar.update(completed=step)
                case {"event": "log"}:
                    if "loss" in event:
                        words["loss"] = f"loss {event['loss']:.4g}"
                    if "watch" in event:
                        words["watch"] = _watched(event["watch"])
                    if _SCORE in event:
                        words["score"] = f"ndcg@10 {event[_SCORE]:.3f}"
                    bar.update(words=", ".join(words.values()))
                case _:
                    bar.close()  # between two stages
                    say(event)

        yield show


def say(event: dict[str, Any]) -> None:
    """Print one event of a training run as lines on standard error."""
    for line in _lines(event):
        terminal.note(f"{event['stage']}: {line}")


def _lines(event: dict[str, Any]) -> Iterator[str]:
    match event:
        case {"event": "counts", "parts": parts}:
            for part in parts:
                trains = f"{part['trainable']:,} of {part['parameters']:,} parameters train"
                yield f"{part['part']}: {trains} ({part['trainable_tensors']} tensors)"
        case {"event": "data"}:
            yield from _data_lines(event)
        case {"event": "stage", "steps": steps}:
            yield f"{steps} steps" + (f", of which {event['done']} are already done" if event.get("done") else "")
        case {"event": "log", "loss": _}:
            keys = [key for key in ("loss", "learning_rate", "grad_norm") if key in event]
            numbers = ", ".join(f"{key} {event[key]:.4g}" for key in keys)
            yield f"step {event['step']} of {event['steps']}: {numbers}, {event['seconds']:.3g} s a step"
        case {"event": "log", "watch": watch}:
            yield f"step {event['step']} of {event['steps']}: {_watched(watch)}"
        case {"event": "log", **rest} if _SCORE in rest:
            scores = ", ".join(
                f"{key.removeprefix('eval_')} {rest[key]:.3f}" for key in rest if key.startswith("eval_")
            )
            yield f"step {rest['step']} of {rest['steps']}: held-out pairs: {scores}"
        case {"event": "damaged", "file": file, "kept": kept}:
            yield f"{file}: missing or damaged: resuming from the checkpoint before it; its folder is now {kept}"
        case {"event": "processes", "before": before, "now": now}:
            yield f"the checkpoint was made with {before} processes, this run has {now}: same batches, other dropout"
        case {"event": "best gone", "step": step}:
            yield f"the weights of step {step}, the best so far, are gone: the best of the later steps will be saved"
        case {"event": "best", "step": step, "score": score, "first": first, "last": last, "kept": kept}:
            taken = "" if kept else "; the last weights are saved"
            yield f"best at step {step}: ndcg@10 {score:.3f}; last {last:.3f}; before training {first:.3f}{taken}"
            if step == 0 and kept:
                yield "no step beat the start, so this stage changes nothing: give more or harder held-out rows"
        case {"event": "saved", "adapted_layers": layers, "folder": folder}:
            yield f"{layers} layers with adapters, {folder} written"


def _data_lines(event: dict[str, Any]) -> Iterator[str]:
    """Give warnings and counts for the rows of a stage."""
    for source in event["sources"]:
        if source["dropped"]:
            dropped = f"{source['dropped']:,} more dropped: no negative was found for them"
            yield f"{source['name']}: {source['rows']:,} rows, {dropped}"
        if removed := source.get("removed"):
            yield f"{source['name']}: {removed:,} negatives removed, which answer their query in this or another row"
        if mixed := source.get("mixed"):
            advice = "" if mixed * 2 <= source["steps"] else _LARGER_CLUSTERS
            yield f"{source['name']}: {mixed:,} of {source['steps']:,} steps mix clusters{advice}"
    for name, reads in event["objectives"].items():
        if reads["unread"]:
            share = f"{reads['unread']:,} of its {reads['rows']:,} rows are never read"
            yield f"{name}: {share} in {reads['steps']:,} steps: give more steps, or a larger weight for it"
    if "evaluate" in event:
        yield _held_line(event["evaluate"])
    for message in event["skipped"]:
        yield f"bad row left out: {message}"
    for source in event["left_out"]:
        yield f"{source['name']}: left out: its language is {source['language']}, and english_only is set"


def _held_line(counts: dict[str, int] | None) -> str:
    """Describe the rows that a stage is scored on."""
    if counts is None:
        return "evaluate: fewer than 10 rows can be held out: all train, nothing is scored, the last weights are saved"
    left_out = (
        f"; {counts['left_out']:,} more are not used, because training reads their texts" if counts["left_out"] else ""
    )
    sizes = f"{counts['queries']:,} queries among {counts['documents']:,} texts"
    return f"evaluate: {counts['rows']:,} held-out rows, which do not train: {sizes}{left_out}"


def _watched(row: dict[str, Any]) -> str:
    """Write one measurement of the gap between languages."""
    means = row["means"]
    return f"retrieval {means['retrieval']:.4g} %, margin {means['margin']:.4g}, shift {means['shift']:.4g}"
