"""A stage that is watched: training does not notice, and what is measured is the model."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import lusifer
from lusifer import language_gap
from lusifer.errors import LusiferError, UsageError
from lusifer.io import parallel_text
from lusifer.training.stages.measured import Watcher
from support.small_run import same, train, unfinish

pytestmark = pytest.mark.slow

BOTH = ["stages.align.watch={every: 1}", "stages.contrast.watch={every: 3}"]


@pytest.fixture(scope="module")
def watched(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small run, both stages watched."""
    output = tmp_path_factory.mktemp("watched") / "run"
    train(recipe, output, overrides=BOTH)
    return output


def rows(run: Path, stage: str, kind: str = "watch") -> list[dict[str, Any]]:
    found = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [row for row in found if row["stage"] == stage and kind in row]


def test_training_does_not_notice(finished: Path, watched: Path) -> None:
    assert same(finished, watched)
    for stage in ("align", "contrast"):
        kept = [[(row["step"], row["loss"]) for row in rows(run, stage, "loss")] for run in (finished, watched)]
        assert kept[0] == kept[1]


def test_it_is_measured_every_so_many_steps_and_at_the_end(watched: Path) -> None:
    assert [row["step"] for row in rows(watched, "align")] == [1, 2, 3, 4]
    assert [row["step"] for row in rows(watched, "contrast")] == [3, 4]
    assert all(len(row["watch"]["retrieval"]) == 13 for row in rows(watched, "align"))


@pytest.mark.parametrize("stage", ["01-align", "02-contrast"])
def test_what_is_measured_is_the_model_in_the_checkpoint(watched: Path, stage: str) -> None:
    model = lusifer.load(watched / "checkpoints" / stage / "checkpoint-4", device="cpu")
    found = language_gap.measure(lambda texts: model.encode(list(texts)), parallel_text.sample().texts)
    row = rows(watched, stage[3:])[-1]["watch"]
    assert row["means"]["retrieval"] == pytest.approx(found.mean("retrieval"), abs=1)
    for name in ("margin", "shift", "anisotropy"):
        assert row["means"][name] == pytest.approx(found.mean(name), abs=1e-5)


def test_mixed_precision_of_the_stage_is_not_in_the_measurement(recipe: Path, tmp_path: Path) -> None:
    last = ["stages.align.max_steps=1", "stages.contrast.bf16=true", "stages.contrast.watch={every: 4}"]
    train(recipe, tmp_path / "run", overrides=last)
    test_what_is_measured_is_the_model_in_the_checkpoint(tmp_path / "run", "02-contrast")


@pytest.mark.parametrize(("stage", "step"), [("01-align", 2), ("02-contrast", 2)])
def test_a_resumed_run_is_watched_as_an_unbroken_one(
    recipe: Path, watched: Path, tmp_path: Path, stage: str, step: int
) -> None:
    broken = unfinish(watched, tmp_path / "broken", stage, step)
    train(recipe, broken, overrides=BOTH, resume=True)
    assert same(watched, broken)
    for name in ("align", "contrast"):
        assert rows(broken, name) == rows(watched, name)
        assert (watched / "model" / "README.md").read_text() == (broken / "model" / "README.md").read_text()


def test_parallel_text_that_changed_is_refused_by_a_resume(one_stage: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    lines = [json.dumps({"en": f"Sentence {n}.", "sw": f"Sentensi {n}."}) for n in range(12)]
    file.write_text("\n".join(lines))
    settings = [f"stages.align.watch={{every: 4, parallel: '{file}'}}"]
    train(one_stage, tmp_path / "run", overrides=settings)
    broken = unfinish(tmp_path / "run", tmp_path / "broken", "01-align", 2)
    file.write_text("\n".join(lines[::-1]))
    with pytest.raises(UsageError, match=r"stages\.align\.watch\.parallel: rows\.jsonl has changed since"):
        train(one_stage, broken, overrides=settings, resume=True)
    with pytest.raises(UsageError, match=r"the recipe changed in stages\.align\.watch\.every"):
        train(one_stage, broken, overrides=[settings[0].replace("every: 4", "every: 2")], resume=True)


def test_the_model_is_left_as_it_was(watched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lusifer.training.recipe.data import Watch

    model = lusifer.load(watched / "model", device="cpu").train()
    for module in list(model.modules())[::3]:
        module.training = False
    model.max_seq_length = 16
    before = [module.training for module in model.modules()]
    watcher = Watcher(Watch(), SimpleNamespace(embedder=model, max_seq_length=48), SimpleNamespace())
    seen: list[tuple[int, bool]] = []
    encode = watcher.embedder.encode

    def embed(texts: list[str], **kwargs: Any) -> Any:
        torch.rand(3)
        vectors = encode(texts, **kwargs)
        seen.append((model.max_seq_length, any(module.training for module in watcher.embedder.modules())))
        return vectors * float("nan") if broken else vectors

    monkeypatch.setattr(watcher.embedder, "encode", embed)
    state = torch.get_rng_state()
    broken = False
    watcher.measure()
    assert set(seen) == {(48, False)}
    broken = True
    with pytest.raises(LusiferError, match="is not finite"):
        watcher.measure()
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == before and model.max_seq_length == 16
