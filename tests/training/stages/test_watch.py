"""A stage that is watched: training does not notice, what is measured is the model, and it can end the stage."""

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

import lusifer
from lusifer import language_gap
from lusifer.errors import LusiferError, UsageError
from lusifer.io import parallel_text
from lusifer.training.stages.watch import Course, Watcher
from support.small_run import same, train, unfinish

pytestmark = pytest.mark.slow

BOTH = ["stages.align.watch={every: 1}", "stages.contrast.watch={every: 3}"]
CHECKPOINTS = ["stages.align.save_steps=1", "stages.align.keep_checkpoints=9"]
SHORT = "stages.contrast.max_steps=1"


@pytest.fixture(scope="module")
def watched(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small run, both stages watched and none chosen from."""
    output = tmp_path_factory.mktemp("watched") / "run"
    train(recipe, output, overrides=BOTH)
    return output


def rows(run: Path, stage: str, kind: str = "watch") -> list[dict[str, Any]]:
    found = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [row for row in found if row["stage"] == stage and kind in row]


def says(monkeypatch: pytest.MonkeyPatch, values: Sequence[float]) -> None:
    """Let measurement after step N give `values[N - 1]`."""
    on_step_end = Watcher.on_step_end

    def at_step(self: Watcher, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.value = values[state.global_step - 1]
        on_step_end(self, args, state, control, **kwargs)

    monkeypatch.setattr(Watcher, "on_step_end", at_step)
    monkeypatch.setattr(Watcher, "measure", lambda self: SimpleNamespace(mean=lambda name: self.value, against={}))


def of_step(run: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / "01-align" / f"checkpoint-{step}" / "model.safetensors")


def is_of_step(run: Path, step: int, plain: Path) -> bool:
    """Whether the first stage's model is what a run without a watch had after `step`."""
    model = load_file(run / "checkpoints" / "01-align" / "model" / "model.safetensors")
    return all(torch.equal(model[name], tensor) for name, tensor in of_step(plain, step).items())


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
    assert row["value"] == pytest.approx(found.mean("retrieval"), abs=1)
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


@pytest.fixture(scope="module")
def plain(one_stage: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first stage without a watch, a checkpoint a step."""
    output = tmp_path_factory.mktemp("plain") / "run"
    train(one_stage, output, overrides=CHECKPOINTS)
    return output


def test_a_stage_ends_when_it_gets_no_better_and_its_model_is_the_best(
    recipe: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    says(monkeypatch, [10, 30, 20, 40])
    settings = [*CHECKPOINTS, SHORT, "stages.align.watch={every: 1, patience: 1}"]
    events: list[dict[str, Any]] = []
    train(recipe, tmp_path / "run", overrides=settings, listen=events.append)
    assert [row["watch"]["stopped"] for row in rows(tmp_path / "run", "align")] == [None, None, 3]
    assert [event["step"] for event in events if event["event"] == "log" and "watch" in event] == [1, 2, 3]
    assert is_of_step(tmp_path / "run", 2, plain) and not is_of_step(tmp_path / "run", 3, plain)
    assert (tmp_path / "run" / "model").is_dir()  # the next stage was run
    told = json.loads((tmp_path / "run" / "checkpoints" / "01-align" / "watch.json").read_text())
    assert (told["best"], told["best_step"], told["stopped"], told["model_step"]) == (30, 2, 3, 2)
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "steps: 2 of 4, 8 rows each" in card
    assert "the model is that of step 2, the best by it (30), and the stage was ended by it at step 3" in card
    for step in (1, 2, 3):
        broken = unfinish(tmp_path / "run", tmp_path / f"broken-{step}", "01-align", step)
        train(recipe, broken, overrides=settings, resume=True)
        assert same(tmp_path / "run", broken)
        assert rows(broken, "align") == rows(tmp_path / "run", "align")


@pytest.mark.parametrize(
    ("values", "patience", "step"),
    [
        ([10, 30, 20, 20], "9", 2),
        ([10, 30, 20, 30], "9", 4),
        ([10, 30, 30, 20], "9", 3),
        ([10, 30, 20, 20], "null", 4),
    ],
)
def test_which_model_is_taken_where_the_stage_runs_to_its_end(
    one_stage: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    values: list[float], patience: str, step: int,
) -> None:  # fmt: skip
    says(monkeypatch, values)
    settings = [f"stages.align.watch={{every: 1, patience: {patience}}}"]
    train(one_stage, tmp_path / "run", overrides=settings)
    assert len(rows(tmp_path / "run", "align")) == 4
    assert is_of_step(tmp_path / "run", step, plain)


@pytest.fixture(scope="module")
def worse(one_stage: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A run whose stage was best at its first step, and its settings."""
    settings = ["stages.align.watch={every: 1, patience: 9}"]
    output = tmp_path_factory.mktemp("worse") / "run"
    with pytest.MonkeyPatch.context() as patch:
        says(patch, [30, 20, 20, 20])
        train(one_stage, output, overrides=settings)
    return output, settings


@pytest.mark.parametrize("name", ["watch.json", "best.safetensors"])
@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_checkpoint_that_lost_what_was_decided_is_refused(
    one_stage: Path, worse: tuple[Path, list[str]], tmp_path: Path, name: str, damage: str
) -> None:
    run, settings = worse
    broken = unfinish(run, tmp_path / "broken", "01-align", 2)
    file = broken / "checkpoints" / "01-align" / "checkpoint-2" / name
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(LusiferError, match=rf"{name}: missing or damaged; remove .*checkpoint-2 to resume"):
        train(one_stage, broken, overrides=settings, resume=True)


def test_parallel_text_that_changed_is_refused_by_a_resume(one_stage: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    lines = [json.dumps({"en": f"Sentence {n}.", "sw": f"Sentensi {n}."}) for n in range(12)]
    file.write_text("\n".join(lines))
    settings = [f"stages.align.watch={{every: 4, parallel: '{file}'}}"]
    train(one_stage, tmp_path / "run", overrides=settings)
    broken = unfinish(tmp_path / "run", tmp_path / "broken", "01-align", 2)
    file.write_text("\n".join(lines[::-1]))
    with pytest.raises(UsageError, match=r"stages\.align\.watch\.parallel: rows\.jsonl is not what it was"):
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
    watcher = Watcher(Watch(), model, 48, lambda row, state: None)
    seen: list[tuple[int, bool]] = []
    encode = watcher.embedder.encode

    def embed(texts: list[str], **kwargs: Any) -> Any:
        torch.rand(3)
        vectors = encode(texts, **kwargs)
        seen.append((model.max_seq_length, any(module.training for module in watcher.model.modules())))
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


@given(values=st.lists(st.integers(0, 3), min_size=1, max_size=12), patience=st.integers(1, 4) | st.none())
def test_a_course_keeps_the_best_and_ends_in_time(values: list[int], patience: int | None) -> None:
    course, seen = Course(), []
    for step, value in enumerate(values, start=1):
        best = course.add(step, value, patience)
        seen.append(value)
        assert course.best == max(seen)
        assert course.best_step == max(place for place, old in enumerate(seen, start=1) if old == max(seen))
        assert best == (course.best_step == step)
        rose = seen.index(max(seen)) + 1
        assert course.waited == step - rose
        assert (course.stopped is not None) == (patience is not None and step - rose >= patience)
        if course.stopped is not None:
            break
