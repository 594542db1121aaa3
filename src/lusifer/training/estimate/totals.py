"""The totals of all stages of a recipe, and one change that makes it fit a card or halves its time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from lusifer.errors import UsageError
from lusifer.training.estimate.cost import StageEstimate, base_config, cards, estimate
from lusifer.training.recipe.recipe import Recipe

GIB = 2**30
FEWER = 6
"""How often the mini-batch is halved at most to fit the memory."""
_MODEL = "model."
"""The start of a change that concerns all stages."""


@dataclass(frozen=True)
class Totals:
    """The totals of all stages.

    Args:
        peak: The largest memory of one GPU, in bytes.
        peak_stage: The name of the stage with that memory.
        here: The largest memory of this machine's device, in bytes.
        hours: Name of a card -> hours. None if the steps of a stage are unknown.
        kwh: Name of a card -> energy in kWh. None if the hours or the power of the card are unknown.
    """

    peak: int
    peak_stage: str
    here: int
    hours: dict[str, float | None]
    kwh: dict[str, float | None]


def total(stages: Sequence[StageEstimate], gpus: int = 1) -> Totals:
    """Add up the stages of a recipe on one or several cards, each with the complete model.

    Assumptions: the work is divided evenly, communication takes no time (so the energy is that of one card), a card
    always draws the power that its vendor states, and the rest of the computer draws none.

    Args:
        stages: The estimates of the stages.
        gpus: The number of cards.
    """
    largest = max(stages, key=lambda stage: stage.memory.total)
    hours, kwh = {}, {}
    for name, card in cards().items():
        each = [stage.hours[name] for stage in stages]
        alone = None if None in each else sum(each)
        hours[name] = None if alone is None else alone / gpus if card["gib"] else alone
        kwh[name] = None if alone is None or "watts" not in card else alone * card["watts"] / 1000
    here = max(stage.here.total for stage in stages)
    return Totals(largest.memory.total, largest.name, here, hours, kwh)


def advise(stages: Sequence[StageEstimate], recipe: Recipe, load: Callable[[list[str]], Recipe], gib: float) -> str:
    """Name one change that makes the recipe fit a card, or if it fits, one that halves its time.

    A change of a stage is estimated in that stage, a change of the model in all. The last change that is tried is
    half the layers of the encoder, which trains another model: the text says so.

    Args:
        stages: The estimates of the stages.
        recipe: The recipe.
        load: Reads the recipe again with additional `--set` values.
        gib: The memory of the card, in GiB.
    """
    largest = max(stages, key=lambda stage: stage.memory.total)
    if largest.memory.total > gib * GIB:
        best = None
        for change in _smaller(recipe, largest.name):
            after = _changed(load, change, largest.name, stages)
            if after is None:
                continue
            found = next(stage for stage in after if stage.name == largest.name)
            if found.memory.total <= gib * GIB:
                sizes = f"stage {largest.name}: {_size(largest.memory.total)} -> {_size(found.memory.total)}"
                sizes += _beside(after, largest.name, gib) + _other_model(change)
                return f"to fit in {gib:g} GiB: --set {change} ({sizes})"
            best = min(best or (found.memory.total, change), (found.memory.total, change))
        nearest = "" if best is None else f"; nearest: --set {best[1]}, {_size(best[0])}{_other_model(best[1])}"
        return f"stage {largest.name} does not fit in {gib:g} GiB by one change{nearest}"
    known = [stage for stage in stages if stage.work is not None]
    if len(known) < len(stages):
        return f"fits in {gib:g} GiB; no advice on time, because the number of steps is unknown"
    longest, whole = max(known, key=lambda stage: stage.work), sum(stage.work for stage in known)
    best = None
    for change in _shorter(recipe, longest.name):
        after = _changed(load, change, longest.name, stages)
        if after is None or any(stage.work is None or stage.memory.total > gib * GIB for stage in after):
            continue
        share = sum(stage.work for stage in after) / whole
        best = min(best or (share, change), (share, change))
        if share <= 0.5:
            told = f"{share:.0%} of the FLOPs, in {gib:g} GiB{_other_model(change)}"
            return f"to halve the time: --set {change} ({told})"
    nearest = ""
    if best is not None and best[0] <= 0.99:
        nearest = f"; most saves --set {best[1]} ({best[0]:.0%} of the FLOPs{_other_model(best[1])})"
    return f"fits in {gib:g} GiB; no one change in stage {longest.name} halves the time{nearest}"


def _beside(stages: Sequence[StageEstimate], name: str, gib: float) -> str:
    """Name the other stages that do not fit either."""
    others = [stage.name for stage in stages if stage.name != name and stage.memory.total > gib * GIB]
    return f"; too large as well: {', '.join(others)}" if others else ""


def _size(count: int) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB / 10 else f"{count / 2**20:.1f} MiB"


def _other_model(change: str) -> str:
    """Warn of a change that trains another model, with other scores."""
    return "; another model: fewer encoder layers, so retrain and score it" if change.startswith(_MODEL) else ""


def _changed(
    load: Callable[[list[str]], Recipe], change: str, name: str, stages: Sequence[StageEstimate]
) -> list[StageEstimate] | None:
    """Estimate the stages after a change of one stage or of the model; None if the recipe refuses the change."""
    try:
        found = estimate(load([change]), None if change.startswith(_MODEL) else [name])
    except UsageError:
        return None
    new = {stage.name: stage for stage in found}
    return [new.get(stage.name, stage) for stage in stages]


def _fewer_layers(recipe: Recipe) -> Iterator[str]:
    """Yield the change to half the layers of the encoder, the one change here that trains another model."""
    layers = base_config(recipe.model.encoder, "encoder").num_hidden_layers
    if layers > 1:
        yield f"{_MODEL}encoder.layers={layers // 2}"


def _smaller(recipe: Recipe, name: str) -> Iterator[str]:
    """Yield changes that save memory, first those that do not change the result of a step."""
    stage = next(stage for stage in recipe.stages if stage.name == name)
    before = f"stages.{name}"
    if not stage.gradient_checkpointing:
        yield f"{before}.gradient_checkpointing=true"
    if getattr(stage, "gradient_cache", True) is False:
        yield f"{before}.gradient_cache=true"
    rows = stage.mini_batch_size
    for _ in range(FEWER):
        if rows % 2 or getattr(stage, "mini_batch_tokens", None) or getattr(stage, "gradient_cache", True) is False:
            break
        rows //= 2
        yield f"{before}.mini_batch_size={rows}"
    if stage.bf16 is False:
        yield f"{before}.bf16=auto"
    yield f"{before}.max_length={max(8, recipe.longest(stage) // 2)}"
    yield from _fewer_layers(recipe)


def _shorter(recipe: Recipe, name: str) -> Iterator[str]:
    """Yield changes that save time, first those that do not change the result of a step."""
    stage = next(stage for stage in recipe.stages if stage.name == name)
    if stage.gradient_checkpointing:
        yield f"stages.{name}.gradient_checkpointing=false"
    if getattr(stage, "gradient_cache", False):
        yield f"stages.{name}.gradient_cache=false"
    yield f"stages.{name}.max_length={max(8, recipe.longest(stage) // 2)}"
    yield from _fewer_layers(recipe)
