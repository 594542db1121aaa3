"""In workers of Ray: the same bytes as here, also when one of them is killed in the middle."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from lusifer.cli import main
from lusifer.errors import DataError, UsageError
from lusifer.serving import bulk, cluster
from lusifer.serving.bulk import Window
from lusifer.serving.files import TextRow

pytestmark = pytest.mark.slow


def workers() -> list[int]:
    """Processes of Ray's below this one that embed."""
    parents, named = {}, []
    for place in Path("/proc").iterdir():
        try:
            words, stat = (place / "cmdline").read_bytes(), (place / "stat").read_text()
        except (OSError, ValueError):
            continue
        if place.name.isdecimal():
            parents[int(place.name)] = int(stat.rpartition(")")[2].split()[1])
            named += [int(place.name)] if words.startswith(b"ray::MapWorker") else []
    found = []
    for process in named:
        above = process
        while above in parents and above != os.getpid():
            above = parents[above]
        found += [process] if above == os.getpid() else []
    return found


def test_two_workers_one_of_them_killed_give_the_bytes_of_one_process(model_folder, tmp_path, monkeypatch):
    import ray

    monkeypatch.chdir(tmp_path)
    rows = [{"id": number, "text": f"water {number} " + "stone " * (number % 9)} for number in range(100)]
    Path("in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    call = ["embed", str(model_folder), "--input", "in.jsonl", "--shard-rows", "5", "--output"]
    assert main([*call, "here"]) == 0
    killed = []

    def kill_one(report) -> None:
        if 0 < report.rows < 50 and not killed:
            killed.append(workers()[0])
            os.kill(killed[0], signal.SIGKILL)

    whole = bulk.run
    monkeypatch.setattr(
        bulk, "run", lambda job, engine, tell: whole(job, engine, lambda report: (tell(report), kill_one(report)))
    )
    assert main([*call, "there", "--engine", "ray", "--workers", "2"]) == 0
    assert killed and not ray.is_initialized()  # the cluster was its own
    here, there = ({file.name: file.read_bytes() for file in Path(name).iterdir()} for name in ("here", "there"))
    assert here == there and len(here) == 21


def test_what_goes_wrong_in_a_worker_is_raised_here(model_folder):
    batch = {"window": [cluster._pack(Window(0, 0, [TextRow("in.txt line 1", "water " * 100)]))]}
    for wish, kind, words in (
        ({"dimensions": 7}, UsageError, "--dimensions 7: this model was trained for all 48"),
        ({"refuse_long": True}, DataError, r"in\.txt line 1: 203 tokens, but the model reads 64"),
    ):
        with pytest.raises(kind, match=words):
            cluster._taken(cluster.EmbedWorker(cluster.WorkerWish(str(model_folder), **wish))(batch))
    window, vectors, report = cluster._taken(cluster.EmbedWorker(cluster.WorkerWish(str(model_folder)))(batch))
    assert (window.rows[0].place, vectors.shape, report.cut) == ("in.txt line 1", (1, 48), 1)


def test_a_window_travels_whole():
    window = Window(3, 21, [TextRow("a line 1", "水 🙂 \u2028", 7), TextRow("b", "x", "seven"), TextRow("c", "y")])
    assert cluster._unpack(cluster._pack(window)) == window


def test_several_devices_are_several_workers(model_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("in.txt").write_text("water\n")
    call = ["embed", str(model_folder), "--input", "in.txt", "--output", "o.npy", "--engine", "ray"]
    assert main([*call, "--device", "cuda:0,cuda:1"]) == 2
    assert "a worker has one device" in capsys.readouterr().err
