"""`lusifer check`: what a recipe trains and costs, without a download."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from lusifer.cli import terminal
from lusifer.cli.train import RecipeArgument, SetOption, VariantOption

if TYPE_CHECKING:
    from rich.table import Table

    from lusifer.training.estimate.cost import SourceLoad, StageEstimate
    from lusifer.training.estimate.totals import Totals
    from lusifer.training.recipe.recipe import Recipe

GIB = 2**30
WIDTH = 110
NOTE = (
    "Parameters are exact. Memory and FLOPs are estimates, not measurements: one step is run on tensors without "
    "memory (the meta device). Memory is for texts of maximum length on one device: first on a GPU, where `auto` is "
    "16 bit, then on the device of this machine. With --gpus N each card needs as much. The libraries need about half "
    "a GiB more, and on a CPU the allocator of the system may hold 1.3 to 1.7 times the requested memory. Hours are "
    "for one device at the assumed utilization that is shown; --gpus N divides them by N, as if communication took no "
    "time. Energy is that of the cards alone, always at the power of their data sheets. Where the LLM "
    "reads texts and its tokenizer cannot be read quickly here, they are counted in tokens of the encoder. The first "
    "lines of a run show the real time of a step. Sources: training/estimate (memory.py, cost.py, lengths.py, "
    "totals.py, cards.toml)."
)


SHORT_NOTE = (
    "Parameters are exact. The rest is estimated, not measured: memory for texts of full length, hours at an assumed "
    "utilisation. `--details` shows the parts, memory and sources of each stage, and what the numbers mean."
)


def check(
    recipe: RecipeArgument,
    set_: SetOption = None,
    variant: VariantOption = None,
    gpus: Annotated[
        int, typer.Option(min=1, help="Number of cards that share the work, each with the complete model.")
    ] = 1,
    memory: Annotated[
        float | None,
        typer.Option(
            min=0.001, help="GiB of a card; suggests one change that makes the recipe fit, or halves its time."
        ),
    ] = None,
    details: Annotated[
        bool, typer.Option("--details", help="Also print parts, memory and sources of each stage.")
    ] = False,
) -> None:
    """Show what a recipe trains and needs, without a download."""
    terminal.quiet()
    terminal.say(describe(recipe, set_ or [], variant, gpus, memory, details))


def describe(
    recipe: str,
    overrides: Sequence[str] = (),
    variant: str | None = None,
    gpus: int = 1,
    memory: float | None = None,
    details: bool = False,
) -> str:
    """Read a recipe (see `load_recipe`) and report parameters, memory, hours and steps; downloads nothing.

    Raises:
        UsageError: The recipe is wrong, or a base is unknown on this machine.
    """
    from rich.console import Console

    from lusifer.training.recipe.load import load_recipe

    loaded = load_recipe(recipe, overrides, variant=variant)  # a misspelt key is reported before torch is imported
    from lusifer.training.estimate import totals
    from lusifer.training.estimate.cost import estimate

    console = Console(width=WIDTH, highlight=False, markup=False)
    with console.capture() as text:
        console.print(f"{loaded.name}: the recipe is valid")
        stages = estimate(loaded)
        console.print("", _totals(totals.total(stages, gpus), gpus), "", _stages(stages), sep="\n")
        for stage in stages:
            if details:
                console.print("", _parts(stage), _cost(stage), _sources(stage), sep="\n")
            if stage.load.dropped:
                console.print(f"stage {stage.name}: dropped by english_only: {', '.join(stage.load.dropped)}")
        for line in _lengths(stages):
            console.print(line)
        if memory is not None:
            again = partial(_again, recipe, overrides, variant)
            console.print(totals.advise(stages, loaded, again, memory))
        console.print(f"\n{NOTE if details else SHORT_NOTE}")
    return "\n".join(line.rstrip() for line in text.get().splitlines())


def _again(recipe: str, overrides: Sequence[str], variant: str | None, more: list[str]) -> Recipe:
    """Read the recipe again with more changes."""
    from lusifer.training.recipe.load import load_recipe

    return load_recipe(recipe, [*overrides, *more], variant=variant)


def _totals(found: Totals, gpus: int) -> Table:
    """Make the table of memory, hours and energy of all stages."""
    from lusifer.training.estimate.cost import cards

    where = f"peak memory of a GPU (stage {found.peak_stage})"
    rows = [(where, _size(found.peak), ""), ("peak memory of this machine's device", _size(found.here), "")]
    for name, card in cards().items():
        energy = found.kwh[name]
        fits = not card["gib"] or found.peak <= card["gib"] * GIB or found.hours[name] is None
        words = terminal.duration(found.hours[name]) + ("" if fits else ", does not fit")
        many = f"{gpus} x {name}" if gpus > 1 and card["gib"] else name
        rows.append((many, words, _energy(energy)))
    return _table(("all stages", "value", "energy"), rows)


def _energy(kwh: float | None) -> str:
    if kwh is None:
        return ""
    return "< 0.1 kWh" if kwh < 0.1 else f"{kwh:.1f} kWh" if kwh < 10 else f"{kwh:,.0f} kWh"


def _stages(stages: Sequence[StageEstimate]) -> Table:
    """A row for each stage."""
    rows = []
    for stage in stages:
        parameters, trainable = _counts(stage)
        sizes = (_size(stage.memory.total), _size(stage.here.total))
        name = stage.name if stage.name == stage.kind else f"{stage.name} ({stage.kind})"
        rows.append((name, f"{parameters:,}", f"{trainable:,}", *sizes, _number(stage.load.steps)))
    return _table(("stage", "parameters", "trains", "memory of a GPU", "memory here", "steps"), rows)


def _counts(stage: StageEstimate) -> tuple[int, int]:
    """Parameters, and how many of them train."""
    return sum(part.parameters for part in stage.parts), sum(part.trainable for part in stage.parts)


def _lengths(stages: Sequence[StageEstimate]) -> list[str]:
    """Give a line for each way in which the lengths of texts were found, with the number of sources and rows."""
    loads = {source.name: source for stage in stages for source in stage.load.sources}
    counted = [source for source in loads.values() if source.counted]
    guessed = [source for source in loads.values() if source.measured and not source.counted]
    missing = [source for source in loads.values() if not source.measured]
    lines = []
    if counted:
        lines.append(f"{_of(counted, loads)}: lengths counted in tokens, from {_looked(counted)}")
    if guessed:
        words = f"{_of(guessed, loads)}: lengths estimated from characters, from {_looked(guessed)}"
        lines.append(f"{words}: the tokenizer of the encoder is not on this machine, or has no fast form")
    if missing:
        words = f"{_of(missing, loads)} are not on this machine"
        lines.append(f"{words}: their texts are counted at maximum length, so hours and energy are upper bounds")
    return lines


def _of(some: Sequence[SourceLoad], loads: Mapping[str, SourceLoad]) -> str:
    return f"{len(some)} of {len(loads)} sources"


def _looked(sources: Sequence[SourceLoad]) -> str:
    return f"the first {sum(source.looked for source in sources):,} rows"


def _parts(stage: StageEstimate) -> Table:
    """Make the table of parameters by part."""
    rows = [
        (part.part, f"{part.parameters:,}", f"{part.trainable:,}" if part.trainable else "-")
        for part in stage.parts
        if part.parameters
    ]
    parameters, trainable = _counts(stage)
    rows.append(("all", f"{parameters:,}", f"{trainable:,}"))
    return _table(("part", "parameters", "trainable"), rows, f"stage {stage.name} ({stage.kind})")


def _cost(stage: StageEstimate) -> Table:
    """Make the table of memory and hours of a stage."""
    from lusifer.training.estimate.cost import cards

    rows = [
        (f"memory: {name}", *(_size(getattr(memory, name)) for memory in (stage.memory, stage.here)))
        for name in ("weights", "gradients", "optimizer", "activations", "total")
    ]
    rows += [("steps", _number(stage.load.steps)), ("FLOPs a step", f"{stage.flops:.2e}")]
    if (scores := stage.load.scores) is not None:
        share = (
            ""
            if stage.scoring is None or not stage.load.steps
            else (f", {stage.scoring / (stage.scoring + stage.load.steps * stage.flops):.0%} of the FLOPs")
        )
        rows.append(("scores on held-out pairs", f"{_number(scores.times)} of {_number(scores.rows)} rows{share}"))
    for name, card in cards().items():
        fits = not card["gib"] or stage.memory.total <= card["gib"] * GIB or stage.hours[name] is None
        words = terminal.duration(stage.hours[name]) + ("" if fits else ", does not fit")
        rows.append((f"{name} at {card['utilisation']:.0%} of {card['tflops']:g} TFLOP/s", words))
    return _table(("estimate", "value", "this machine"), rows)


def _sources(stage: StageEstimate) -> Table:
    """Make the table of rows and steps by source."""
    rows = []
    for source in stage.load.sources:
        tokens = f"{source.tokens:.0f}" if source.measured else f"up to {source.tokens:.0f}"
        cut = f"{source.cut:.1%}" if source.measured else "unknown"
        rows.append((source.name, _number(source.rows), tokens, cut, _number(source.steps)))
    return _table(("source", "rows", "tokens a text", "truncated", "steps"), rows)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None) -> Table:
    """Make a table whose first column is on the left and the others on the right."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.0f}"


def _size(count: int) -> str:
    return f"{count / GIB:.2f} GiB" if count >= GIB / 10 else f"{count / 2**20:.1f} MiB"
