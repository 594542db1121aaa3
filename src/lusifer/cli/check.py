"""`lusifer check`: what a recipe will cost, before anything is downloaded."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from lusifer.training.estimate.cost import StageEstimate
    from lusifer.training.run.measure import Measured

GIB = 2**30
WIDTH = 110


def check(recipe: str, overrides: Sequence[str] = (), variant: str | None = None, measure: int | None = None) -> str:
    """Read a recipe and say what trains, memory, hours and steps per source. Downloads nothing.

    Args:
        recipe: A YAML file, or the name of a recipe in the package.
        overrides: "key.path=value" each.
        variant: One of the recipe's variants.
        measure: Steps of every stage to train on this device, beside the one that is not counted; None trains nothing.

    Returns:
        What to print.

    Raises:
        UsageError: The recipe is wrong, a base is unknown on this machine, or what is to be measured is not on it.
    """
    from rich.console import Console

    from lusifer.training.estimate.cost import estimate
    from lusifer.training.recipe.load import load_recipe

    loaded = load_recipe(recipe, overrides, variant=variant)
    stages, measured = estimate(loaded), []
    if measure is not None:
        from lusifer.training.run.measure import measure as train_some

        measured = train_some(recipe, measure, overrides, variant)
    text = io.StringIO()
    show(Console(file=text, width=WIDTH, highlight=False), loaded.name, stages, measured)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def show(console: Console, name: str, stages: list[StageEstimate], measured: Sequence[Measured] = ()) -> None:
    """Print estimates.

    Args:
        console: Where to.
        name: Of the recipe.
        stages: Of `estimate`.
        measured: Of `measure`, stage by stage, or nothing.
    """
    console.print(f"{name}: the recipe is valid")
    for stage, found in zip_longest(stages, measured):
        console.print()
        tables = [_parts(stage), _cost(stage), _sources(stage)]
        if found is not None:
            tables.insert(2, _measured(stage, found))
        for table in tables:
            console.print(table)
        if stage.load.dropped:
            console.print(f"dropped by english_only: {', '.join(stage.load.dropped)}")
        if stage.watch:
            console.print(stage.watch)
    said = (
        "\nParameters are exact. Memory is counted by running a step on tensors without memory, FLOPs and hours are by "
        "formula: estimates, not measurements. Memory is for texts of full length on one device: first on a GPU, with "
        "`auto` as 16 bit, then on the device of this machine; the libraries come on top (about half a GiB), and "
        "on a CPU the system's allocator may hold 1.3 to 1.7 times as much as it is asked for. Hours are on one "
        "device at the utilisation shown, which is assumed; `--measure 3` trains a few steps here instead "
        "(training/memory.py, estimate.py, cards.toml)."
    )
    console.print(said)


def _measured(stage: StageEstimate, found: Measured) -> Table:
    """Seconds and memory of the steps that were trained, and what they come to."""
    table = _table(None, f"measured here, {len(found.seconds)} steps", "value")
    table.add_row("seconds a step", f"{found.step:.3g}")
    table.add_row("seconds, shortest and longest step", f"{min(found.seconds):.3g} to {max(found.seconds):.3g}")
    if found.memory is not None:
        table.add_row("memory", _gib(found.memory))
    hours = None if stage.load.steps is None else found.step * stage.load.steps / 3600
    table.add_row("the whole stage on this device", "unknown" if hours is None else _time(hours))
    return table


def _parts(stage: StageEstimate) -> Table:
    """Parameters by part."""
    table = _table(f"stage {stage.name} ({stage.kind})", "part", "parameters", "trains")
    for part in stage.parts:
        if part.parameters:
            table.add_row(part.part, f"{part.parameters:,}", f"{part.trainable:,}" if part.trainable else "-")
    table.add_row(
        "all", f"{sum(part.parameters for part in stage.parts):,}", f"{sum(part.trainable for part in stage.parts):,}"
    )
    return table


def _cost(stage: StageEstimate) -> Table:
    """Memory and hours."""
    from lusifer.training.estimate.cost import cards

    table = _table(None, "estimate", "value", "this machine")
    memory = stage.memory
    for name in ("weights", "gradients", "optimizer", "activations", "total"):
        table.add_row(f"memory: {name}", *(_gib(getattr(each, name)) for each in (memory, stage.here)))
    table.add_row("steps", _number(stage.load.steps))
    table.add_row("FLOPs a step", f"{stage.flops:.2e}")
    for name, card in cards().items():
        hours = stage.hours[name]
        words = "unknown" if hours is None else _time(hours)
        if card["gib"] and memory.total > card["gib"] * GIB:
            words += ", does not fit"
        table.add_row(f"{name} at {card['utilisation']:.0%} of {card['tflops']:g} TFLOP/s", words)
    return table


def _sources(stage: StageEstimate) -> Table:
    """Rows and steps by source."""
    table = _table(None, "source", "rows", "tokens a text", "texts cut", "steps")
    for source in stage.load.sources:
        tokens = f"{source.tokens:.0f}" if source.measured else f"up to {source.tokens:.0f}"
        cut = f"{source.cut:.1%}" if source.measured else "unknown"
        table.add_row(source.name, _number(source.rows), tokens, cut, _number(source.steps))
    return table


def _table(title: str | None, *columns: str) -> Table:
    """An empty table: words on the left, numbers on the right."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", overflow="fold")
    return table


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.0f}"


def _time(hours: float) -> str:
    if hours >= 0.1:
        return f"{hours:,.2f} h"
    return f"{hours * 60:.1f} min" if hours >= 1 / 60 else f"{hours * 3600:.1f} s"


def _gib(value: int) -> str:
    return f"{value / GIB:.2f} GiB" if value >= GIB / 10 else f"{value / 2**20:.1f} MiB"
