"""What all stages come to, and the change that fits a card or halves the time."""

from __future__ import annotations

import pytest

from lusifer.cli.check import describe
from lusifer.errors import UsageError
from lusifer.training.estimate import totals
from lusifer.training.estimate.cost import StageEstimate, StageLoad, cards
from lusifer.training.estimate.memory import Memory
from lusifer.training.recipe.load import load_recipe

GIB = 2**30


def stage(name: str, gib: float, hours: float | None, work: float | None = 1.0) -> StageEstimate:
    memory = Memory(0, 0, 0, round(gib * GIB))
    by_card = dict.fromkeys(cards(), hours)
    return StageEstimate(name, "contrastive", [], StageLoad([], [], 1), memory, memory, 1.0, None, by_card, work)


def test_stages_add_up():
    found = totals.total([stage("one", 3, 2.0), stage("two", 5, 6.0), stage("three", 4, 1.0)])
    assert (found.peak, found.peak_stage, found.here) == (5 * GIB, "two", 5 * GIB)
    assert found.hours["H100 80 GB"] == 9.0 and found.kwh["H100 80 GB"] == pytest.approx(9 * 0.7)
    assert found.kwh["2 CPU cores"] is None
    unknown = totals.total([stage("one", 3, 2.0), stage("two", 5, None)])
    assert set(unknown.hours.values()) == set(unknown.kwh.values()) == {None}


def test_more_cards_divide_the_hours_and_neither_memory_nor_energy():
    one, four = (totals.total([stage("one", 3, 8.0)], gpus) for gpus in (1, 4))
    assert four.hours["A100 80 GB"] == one.hours["A100 80 GB"] / 4 == 2.0
    assert (four.peak, four.kwh) == (one.peak, one.kwh)
    assert four.hours["2 CPU cores"] == one.hours["2 CPU cores"]  # those of this machine are no cards


def advise(monkeypatch, gib: float, stages: list[StageEstimate], after: dict[str, StageEstimate]) -> tuple[str, list]:
    """The advice for `tiny`, whose changed stages are estimated as `after` says by the end of a change."""
    tried: list[str] = []

    def load(more: list[str]) -> list[str]:
        tried.append(more[0].split(".", 2)[2])
        if tried[-1] not in after:
            raise UsageError("refused")
        return tried[-1]

    monkeypatch.setattr(totals, "estimate", lambda change, names: [after[change]])
    return totals.advise(stages, load_recipe("tiny"), load, gib), tried


def test_the_first_change_that_fits_is_named(monkeypatch):
    large, fits = stage("contrastive", 30, 1.0), stage("contrastive", 20, 1.0)
    stages, rest = [stage("alignment", 26, 1.0), large], {"gradient_checkpointing=true": large}
    found, tried = advise(monkeypatch, 24, stages, rest | {"mini_batch_size=4": fits, "max_length=32": fits})
    assert found.startswith("to fit in 24 GiB: --set stages.contrastive.mini_batch_size=4 (stage contrastive: 30.0 GiB")
    assert found.endswith("-> 20.0 GiB; too large as well: alignment)")
    assert tried[0] == "gradient_checkpointing=true" and tried[-1] == "mini_batch_size=4"
    found, _ = advise(monkeypatch, 10, stages, rest | {"mini_batch_size=4": fits})
    assert found.endswith(
        "does not fit in 10 GiB by one change; nearest: --set stages.contrastive.mini_batch_size=4, 20.0 GiB"
    )


def test_where_it_fits_a_change_that_halves_the_time_is_named(monkeypatch):
    stages = [stage("alignment", 5, 1.0, 1.0), stage("contrastive", 5, 9.0, 9.0)]
    less, half = stage("contrastive", 8, 1.0, 6.0), stage("contrastive", 5, 1.0, 4.0)
    found, _ = advise(monkeypatch, 24, stages, {"gradient_cache=false": less, "max_length=32": half})
    assert found == "to halve the time: --set stages.contrastive.max_length=32 (50% of the FLOPs, in 24 GiB)"
    found, _ = advise(monkeypatch, 24, stages, {"gradient_cache=false": less})
    assert found.endswith(
        "halves the time; most saves --set stages.contrastive.gradient_cache=false (70% of the FLOPs)"
    )
    found, _ = advise(monkeypatch, 6, stages, {"gradient_cache=false": less})  # too large then
    assert found == "fits in 6 GiB; no one change in stage contrastive halves the time"
    found, _ = advise(monkeypatch, 24, [stage("contrastive", 5, None, None)], {})
    assert "unknown" in found


def test_half_the_encoder_is_the_last_change_and_said_to_be_another_model(monkeypatch):
    stages = [stage("alignment", 26, 1.0, 3.0), stage("contrastive", 30, 1.0, 9.0)]
    asked: list[object] = []

    def changed(change: list[str], names: list[str] | None) -> list[StageEstimate]:
        asked.append(names)
        return [stage("alignment", 12, 1.0, 2.0), stage("contrastive", 14, 1.0, 4.0)]

    def load(more: list[str]) -> list[str]:
        if more != ["model.encoder.layers=1"]:  # the tiny encoder has two
            raise UsageError("refused")
        return more

    monkeypatch.setattr(totals, "estimate", changed)
    recipe = load_recipe("tiny")
    found = totals.advise(stages, recipe, load, 24)
    sizes = "(stage contrastive: 30.0 GiB -> 14.0 GiB; another model: fewer encoder layers, so retrain and score it)"
    assert found == f"to fit in 24 GiB: --set model.encoder.layers=1 {sizes}"  # and alignment fits as well
    assert "nearest: --set model.encoder.layers=1, 14.0 GiB; another model" in totals.advise(stages, recipe, load, 8)
    assert totals.advise(stages, recipe, load, 40).startswith(
        "to halve the time: --set model.encoder.layers=1 (50% of the FLOPs, in 40 GiB; another model"
    )
    assert asked == [None] * 3  # all stages
    one = load_recipe("tiny", ["model.encoder.layers=1"])
    assert not [change for change in totals._smaller(one, "contrastive") if "layers" in change]


@pytest.mark.slow
def test_the_command_says_both():
    text = describe("tiny", gpus=2, memory=8.0)
    assert all(
        words in text for words in ("all stages", "2 x H100 80 GB", "peak memory of a GPU (stage alignment)", "kWh")
    )
    assert "halve" in text and "upper bounds" not in text
