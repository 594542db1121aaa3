"""Training on three processes is that of one, and one that dies ends the others with words; as benchmarks/processes.py.

The benchmark has every stage, place and way, and torchrun.
"""

import importlib
import multiprocessing.forkserver
import os
from pathlib import Path
from types import ModuleType

import pytest

from lusifer.errors import UsageError
from lusifer.training import processes as joined
from lusifer.training.recipe.load import load_recipe
from lusifer.training.stages import alignment, trainer
from support import processes
from support.training import free_port

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("processes")


@pytest.mark.slow
def test_three_processes_learn_what_one_does(benchmark: ModuleType, tmp_path: Path) -> None:
    """Also from texts of other processes: negatives, and those that a contrast with the LLM's own vectors compares."""
    recipe = benchmark.prepare(tmp_path, ("predict", "tokens", "kept"))
    one, three = (["train", str(recipe), "--output", str(tmp_path / name)] for name in ("one", "three"))
    alone = processes.lusifer(tmp_path, *one, name="alone")
    processes.run_ranks(processes.command, tuple(three), tmp_path, free_port(), 3)
    assert alone.wait() == 0, alone.stderr
    found = benchmark.differences(tmp_path / "one", tmp_path / "three")
    assert [row.stage for row in found] == ["predict", "tokens", "kept"]
    for row in found:
        assert row.steps == 3
        assert max(row.loss, row.gradient, row.weights) < 2e-5, row


@pytest.mark.slow
@pytest.mark.parametrize(("place", "way"), [("joined", "error"), ("loss", "kill"), ("step", "nan")])
def test_one_that_dies_ends_the_others_with_words(benchmark: ModuleType, tmp_path: Path, place: str, way: str) -> None:
    recipe = benchmark.prepare(tmp_path, ("predict", "infonce"))
    death = benchmark.dies(processes.CONTEXT, place, way, 2, recipe, free_port(), 1)
    assert death.held, death
    assert "start all processes again with --resume" in death.said[0] or way == "nan"
    kept = [file.name for file in tmp_path.rglob("bad-batch*")]
    assert kept.count("bad-batch-1.safetensors") == (way == "nan")  # of the process whose loss it was


def test_what_torchrun_says_of_any_failure_is_no_line_of_ours(benchmark: ModuleType) -> None:
    """Its report must name the process that died, and our line is looked for apart from it."""
    report = "ChildFailedError:\n=====\nFailures:\n[1]:\n  rank      : 0 (local_rank: 0)\n-----\n"
    report += "Root Cause (first observed failure):\n[0]:\n  host      : localhost\n  rank      : 1 (local_rank: 1)\n"
    assert benchmark.blames(report, 1) and not benchmark.blames(report, 0)
    for blamed in (True, False):
        death = benchmark.Death("step", "kill", 2, "torchrun", [1], [report], 1.0, blamed)
        assert death.held == blamed and not death.told
    assert not benchmark.Death("step", "kill", 2, "none", [1, 1], [report], 1.0).held


@pytest.mark.slow
def test_the_server_that_forks_has_one_thread() -> None:
    """A lock that another one holds in the moment of a fork is held in the child for ever."""
    one = processes.CONTEXT.Process(target=int)
    one.start()
    one.join()
    server = multiprocessing.forkserver._forkserver._forkserver_pid
    names = [Path(f"/proc/{server}/task/{task}/comm").read_text() for task in os.listdir(f"/proc/{server}/task")]
    assert len(names) == 1, names


def test_what_three_processes_cannot_share_is_refused(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = benchmark.prepare(tmp_path, ("distill", "infonce"))
    monkeypatch.setattr(joined.state(), "num_processes", 3)
    distill, infonce = load_recipe(recipe).stages
    assert trainer.sharers(infonce) == 3
    assert alignment.micro_batches(distill) == {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    larger = load_recipe(recipe, ["stages.distill.mini_batch_size=6", "stages.infonce.batch_size=8"]).stages
    with pytest.raises(UsageError, match="distill compares the 6 texts of a mini-batch, and a process has 4"):
        alignment.micro_batches(larger[0])
    with pytest.raises(UsageError, match="batch_size: 8 is not a multiple of the 3 processes"):
        trainer.sharers(larger[1])
