"""Processes wait for the first one, a launcher's other ways are refused, and a run folder is one that all share."""

import os
import re
import socket
from pathlib import Path

import pytest
import torch
from accelerate import DistributedType, PartialState
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env

import lusifer
from lusifer.errors import UsageError
from lusifer.training import processes
from support.processes import Started, run_ranks, start_ranks
from support.slow_rank import ALONE, join_within, look_for, train
from support.training import free_port

SMALL = [
    "stages.0.max_steps=1", "stages.1.max_steps=1", "stages.0.batch_size=8", "stages.0.mini_batch_size=4",
    "stages.0.watch={every: 1, parallel: sample}",
]  # fmt: skip


def words(output: Path) -> tuple[str, ...]:
    return ("tiny", "--output", str(output), *(word for key in SMALL for word in ("--set", key)))


def both(work: object, given: tuple, folder: Path) -> list[tuple[int, Started]]:
    """Two ranks that may fail: status and process of each."""
    ranks = start_ranks(work, given, folder, free_port())
    return [(rank.wait(), rank) for rank in ranks]


@pytest.mark.slow
def test_others_wait_for_a_first_process_that_is_later_than_the_librarys_limit(tmp_path: Path) -> None:
    first, _ = run_ranks(train, (0.4, 0.6, None, *words(tmp_path / "run")), tmp_path, free_port())
    assert set(re.findall(r"late: (\S+)", first.stderr)) == set(ALONE)  # perhaps behind a bar of the library


@pytest.mark.slow
def test_without_our_limit_the_same_run_ends(tmp_path: Path) -> None:
    ranks = both(train, (0.4, 0.6, 0.4 / 3600, *words(tmp_path / "run")), tmp_path)
    assert any(status for status, _ in ranks)
    assert "imed out" in "".join(rank.stderr for _, rank in ranks)


@pytest.mark.slow
def test_a_folder_that_one_process_does_not_see_is_named_by_all(tmp_path: Path) -> None:
    for name in ("0", "1", "shared"):
        (tmp_path / name).mkdir()
    for status, rank in both(look_for, (str(tmp_path), str(tmp_path / "shared")), tmp_path):
        assert status
        assert re.search(r"process 1 does not see .* a folder that all nodes share", rank.stderr)
    assert not [*(tmp_path / "shared").iterdir(), *(tmp_path / "0").iterdir()]


@pytest.mark.slow
def test_a_process_that_never_comes_is_not_waited_for_as_long_as_the_first_may_work(tmp_path: Path) -> None:
    """One that died while it began, on another machine than its launcher."""
    (first,) = start_ranks(join_within, (0.03,), tmp_path, free_port(), come=1)
    assert first.wait() == 1
    assert "LusiferError: the processes of this run did not all join within 0.03 minutes" in first.stderr


@pytest.mark.slow
def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        (first,) = start_ranks(join_within, (0.1,), tmp_path, port, come=1)
        assert first.wait() == 1
    assert f"LusiferError: port {port} is in use, perhaps by another run" in first.stderr


def launched(*options: str) -> dict[str, str]:
    """What `accelerate launch` with some options adds to the environment of each process."""
    common = ["--num_processes", "2", "--num_machines", "1", "--main_process_port", "29511"]
    parsed, _, _ = _validate_launch_command(launch_command_parser().parse_args([*common, *options, "script.py"]))
    return {key: value for key, value in prepare_multi_gpu_env(parsed).items() if os.environ.get(key) != value}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--use_fsdp", "--mixed_precision", "no"], "FSDP is not supported"),
        (["--use_fsdp", "--fsdp_version", "2", "--mixed_precision", "no"], "FSDP is not supported"),
        (["--multi_gpu", "--mixed_precision", "bf16"], "a stage decides this: launch with --mixed_precision no"),
        (["--multi_gpu", "--mixed_precision", "no", "--dynamo_backend", "inductor"], "launch with --dynamo_backend no"),
    ],
)
def test_what_a_launcher_would_change_is_refused(
    monkeypatch: pytest.MonkeyPatch, options: list[str], words: str
) -> None:
    for key, value in launched(*options).items():
        monkeypatch.setenv(key, value)
    with pytest.raises(UsageError, match=re.escape(words)):
        processes.start()


@pytest.mark.parametrize(
    "name", ["ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_MEGATRON_LM", "ACCELERATE_USE_PARALLELISM_CONFIG"]
)
def test_other_ways_of_splitting_a_model_are_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "true")
    with pytest.raises(UsageError, match="is not supported, only data parallelism: start with `torchrun"):
        processes.start()
    monkeypatch.setenv(name, "false")
    assert processes.start().num_processes == 1


@pytest.mark.parametrize(("kind", "visible", "refused"), [("NO", 2, True), ("NO", 1, False), ("MULTI_GPU", 8, False)])
def test_only_one_process_alone_may_not_see_several_gpus(
    monkeypatch: pytest.MonkeyPatch, kind: str, visible: int, refused: bool
) -> None:
    """With torchrun a process may see all GPUs, or by CUDA_VISIBLE_DEVICES one of its own."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)
    monkeypatch.setattr(PartialState(cpu=True), "distributed_type", DistributedType[kind])
    if refused:
        with pytest.raises(UsageError, match="2 GPUs are visible to one process: start with torchrun"):
            processes.start()
    else:
        assert processes.start().is_main_process


def test_one_process_of_torchrun_is_no_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of `--nproc-per-node 1` on a machine with several GPUs accelerate does not say NO: it takes the first GPU."""
    here = PartialState(cpu=True)
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert here._prepare_backend(cpu=False)[1] == DistributedType.NO
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert here._prepare_backend(cpu=False)[1] == DistributedType.MULTI_GPU


def test_the_variables_of_a_launcher_are_read_by_accelerate_alone() -> None:
    asks = re.compile(r"WORLD_SIZE|LOCAL_RANK|[\"']RANK[\"']")
    files = Path(lusifer.__file__).parent.rglob("*.py")
    assert not [str(file) for file in files if asks.search(file.read_text(encoding="utf-8"))]
