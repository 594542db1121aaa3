"""`lusifer check`: what a recipe will train and cost, before anything is downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lusifer.cli import terminal
from lusifer.cli.train import RecipeArgument, SetOption, VariantOption

if TYPE_CHECKING:
    from rich.table import Table

    from lusifer.training.estimate.cost import StageEstimate

GIB = 2**30
WIDTH = 110
NOTE = (
    "Parameters are exact. Memory and FLOPs are counted by running a step on tensors without memory: estimates, not "
    "measurements. Memory is for texts of full length on one device: first on a GPU, with "
    "`auto` as 16 bit, then on the device of this machine; the libraries come on top (about half a GiB), and "
    "on a CPU the system's allocator may hold 1.3 to 1.7 times as much as it is asked for. Hours are on one "
    "device at the utilisation shown, which is assumed; a run says in its first lines what a step takes "
    "(training/estimate: memory.py, cost.py, cards.toml)."
)


def check(recipe: RecipeArgument, set_: SetOption = None, variant: VariantOption = None) -> None:
    """Say what a recipe would train, and what it needs, before anything is downloaded."""
    terminal.quiet()
    terminal.say(describe(recipe, set_ or [], variant))


def describe(recipe: str, overrides: Sequence[str] = (), variant: str | None = None) -> str:
    """Read a recipe (see `load_recipe`) and say what trains, memory, hours and steps per source. Downloads nothing.

    Raises:
        UsageError: The recipe is wrong, or a base is unknown on this machine.
    """
    from rich.console import Console

    from lusifer.training.recipe.load import load_recipe

    loaded = load_recipe(recipe, overrides, variant=variant)  # a misspelt key is reported before torch is imported
    from lusifer.training.estimate.cost import estimate

    console = Console(width=WIDTH, highlight=False, markup=False)
    with console.capture() as text:
        console.print(f"{loaded.name}: the recipe is valid")
        for stage in estimate(loaded):
            console.print("", _parts(stage), _cost(stage), _sources(stage), sep="\n")
            if stage.load.dropped:
                console.print(f"dropped by english_only: {', '.join(stage.load.dropped)}")
        console.print(f"\n{NOTE}")
    return "\n".join(line.rstrip() for line in text.get().splitlines())


def _parts(stage: StageEstimate) -> Table:
    """Parameters by part."""
    rows = [
        (part.part, f"{part.parameters:,}", f"{part.trainable:,}" if part.trainable else "-")
        for part in stage.parts
        if part.parameters
    ]
    parameters, trainable = (sum(getattr(part, key) for part in stage.parts) for key in ("parameters", "trainable"))
    rows.append(("all", f"{parameters:,}", f"{trainable:,}"))
    return _table(("part", "parameters", "trains"), rows, f"stage {stage.name} ({stage.kind})")


def _cost(stage: StageEstimate) -> Table:
    """Memory and hours."""
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
        rows.append(("scores on held pairs", f"{_number(scores.times)} of {_number(scores.rows)} rows{share}"))
    for name, card in cards().items():
        fits = not card["gib"] or stage.memory.total <= card["gib"] * GIB or stage.hours[name] is None
        words = terminal.duration(stage.hours[name]) + ("" if fits else ", does not fit")
        rows.append((f"{name} at {card['utilisation']:.0%} of {card['tflops']:g} TFLOP/s", words))
    return _table(("estimate", "value", "this machine"), rows)


def _sources(stage: StageEstimate) -> Table:
    """Rows and steps by source."""
    rows = []
    for source in stage.load.sources:
        tokens = f"{source.tokens:.0f}" if source.measured else f"up to {source.tokens:.0f}"
        cut = f"{source.cut:.1%}" if source.measured else "unknown"
        rows.append((source.name, _number(source.rows), tokens, cut, _number(source.steps)))
    return _table(("source", "rows", "tokens a text", "texts cut", "steps"), rows)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None) -> Table:
    """A table with words on the left and numbers on the right."""
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
