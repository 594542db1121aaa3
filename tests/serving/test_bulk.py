"""Long inputs: window by window, stopped anywhere, and the same bytes in the end."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lusifer import load
from lusifer.errors import DataError, UsageError
from lusifer.io.files import locked
from lusifer.serving import bulk, encode, shards
from lusifer.serving.files import TextSource
from lusifer.serving.forms import VectorForm

WORDS = "river воды 水 नदी maji نهر stone Straße 🙂 naïve".split()
ROWS = 7


class Killed(BaseException):
    """What no code catches: as far as files go, the process is gone."""


class Counting:
    """An embedder whose vector of a text is its length, its first letter and the number of words; and no torch."""

    max_seq_length, default_prompt_name, prompts = None, None, {}

    def __init__(self) -> None:
        self.device = type("Device", (), {"type": "cpu"})()
        self.asked: list[dict] = []

    def tokenizer(self, texts: list[str], **_: object) -> dict[str, list[list[int]]]:
        return {"input_ids": [[0] * len(text.split()) for text in texts]}

    def encode(self, texts: list[str], **asked: object) -> np.ndarray:
        self.asked.append({"texts": list(texts), **asked})
        return np.array([[len(text), ord(text[0]), len(text.split())] for text in texts], dtype=np.float32)


def write_rows(file: Path, count: int, **fields: object) -> Path:
    chance = random.Random(count)
    with file.open("w", encoding="utf-8") as out:
        for number in range(count):
            row = {"id": number, "text": " ".join(chance.choices(WORDS, k=chance.randint(1, 30)))} | fields
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
    return file


def do(file: Path, output: Path, embedder=None, form: VectorForm | None = None, **wishes) -> encode.EmbedReport:
    engine = wishes.pop("engine", None) or bulk.local(embedder or Counting(), None)
    job = bulk.EmbedJob(TextSource(str(file)), output, form or VectorForm(), **{"rows": ROWS} | wishes)
    return bulk.run(job, engine)


def content(place: Path) -> dict[str, bytes]:
    """Every byte of an output, file or folder, and nothing else lies beside it."""
    assert not place.with_name(place.name + bulk.UNFINISHED).exists()
    files = [place] if place.is_file() else sorted(place.rglob("*"))
    return {file.name: file.read_bytes() for file in files}


def counting(moment: int, then: Callable[[], None]) -> Callable[[Callable], Callable]:
    """What wraps functions so that before the `moment`th call of any of them `then` is called."""
    calls = count(1)

    def step(function: Callable) -> Callable:
        def call(*words, **named):
            if next(calls) == moment:
                then()
            return function(*words, **named)

        return call

    return step


def stopping(monkeypatch: pytest.MonkeyPatch, moment: int) -> None:
    """Stop the work like a kill does at the `moment`th of the steps by which files change."""

    def kill() -> None:
        raise Killed

    step = counting(moment, kill)
    for module, name in ((shards, "write_vectors"), (shards, "sha256"), (shards, "write_json"), (shards.os, "fsync"),
                         (bulk, "write_vectors"), (bulk, "embed_rows"), (shutil, "rmtree")):  # fmt: skip
        monkeypatch.setattr(module, name, step(getattr(module, name)))


@pytest.mark.parametrize("name", ["o.npy", "o.parquet", "o.jsonl", "folder"])
def test_work_that_is_stopped_anywhere_ends_with_the_same_bytes(tmp_path, name):
    file = write_rows(tmp_path / "in.jsonl", 4 * ROWS + 3)
    whole = do(file, tmp_path / "whole" / name)
    wanted = content(tmp_path / "whole" / name)
    stopped = 0
    for moment in range(1, 40):
        target = tmp_path / str(moment) / name
        with pytest.MonkeyPatch.context() as patch:
            stopping(patch, moment)
            try:
                do(file, target)
            except Killed:
                stopped += 1
                assert name == "folder" or not target.exists() or target.read_bytes() == wanted[name]
        assert do(file, target) == whole
        assert content(target) == wanted
    assert 15 < stopped < 39  # every moment was tried, and the last ones lie behind the end


def killed(file: Path, target: Path, moment: int, **wishes) -> bool:
    """Whether a process that does the work was killed before the `moment`th of its calls that change a folder."""
    child = os.fork()
    if child == 0:
        step = counting(moment, lambda: os.kill(os.getpid(), signal.SIGKILL))
        for name in ("replace", "unlink", "rmdir", "truncate"):
            setattr(os, name, step(getattr(os, name)))
        do(file, target, **wishes)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("name", ["o.npy", "folder"])
def test_a_process_that_is_killed_leaves_what_the_same_call_goes_on_with(tmp_path, name):
    file = write_rows(tmp_path / "in.jsonl", 2 * ROWS + 3)
    whole = do(file, tmp_path / "whole" / name)
    wanted = content(tmp_path / "whole" / name)
    for moment in count(1):
        target = tmp_path / str(moment) / name
        alive = not killed(file, target, moment)
        made = (target.with_name(target.name + bulk.UNFINISHED) / "_manifest.json").is_file()
        asked = Counting()
        assert do(file, target, asked) == whole
        assert content(target) == wanted
        assert not (made and asked.asked)  # what is there as a whole is not made again
        left = [each.name for each in target.parent.rglob(".*")]
        assert not left, left
        if alive:
            break
    assert moment > 8


@pytest.mark.parametrize("begun", ["finished", "stopped"])
def test_a_process_that_is_killed_while_it_throws_other_work_away_leaves_none_of_it(tmp_path, begun):
    class Other(Counting):
        def encode(self, texts: list[str], **asked: object) -> np.ndarray:
            return super().encode(texts, **asked) + 1000

    file = write_rows(tmp_path / "in.jsonl", 2 * ROWS + 3)
    do(file, tmp_path / "whole", about={"model": "new"})
    wanted = content(tmp_path / "whole")
    for moment in count(1):
        target = tmp_path / str(moment) / "folder"
        if begun == "finished":
            do(file, target, Other(), about={"model": "old"})
        else:
            assert killed(file, target, 4, embedder=Other(), about={"model": "old"})
        alive = not killed(file, target, moment, about={"model": "new"}, fresh=True)
        do(file, target, about={"model": "new"}, fresh=True)
        assert content(target) == wanted, moment
        if alive:
            break
    assert moment > 8


def test_half_a_line_and_a_lost_shard_are_made_again_and_no_more(tmp_path):
    file, target = write_rows(tmp_path / "in.jsonl", 5 * ROWS), tmp_path / "o.npy"
    do(file, tmp_path / "whole.npy")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bulk, "_join", lambda *_: None)
        do(file, target)
    place = tmp_path / "o.npy.unfinished"
    log = (place / "_shards.jsonl").read_bytes().splitlines(keepends=True)
    (place / "_shards.jsonl").write_bytes(b"".join(log[:4]) + log[4][:50])
    (place / "shard-0000001.npy").unlink()
    (place / "shard-0000002.npy").write_bytes(b"short")
    embedder = Counting()
    do(file, target, embedder)
    assert sum(len(call["texts"]) for call in embedder.asked) == 3 * ROWS
    assert content(target)["o.npy"] == (tmp_path / "whole.npy").read_bytes()


def test_a_folder_holds_every_row_once_with_its_id_and_a_manifest(tmp_path):
    file = write_rows(tmp_path / "in.jsonl", 3 * ROWS + 2)
    do(file, tmp_path / "folder", about={"model": "m"})
    table = parquet.read_table(tmp_path / "folder")
    texts = [json.loads(line)["text"] for line in file.read_text("utf-8").splitlines()]
    assert table["id"].to_pylist() == list(range(3 * ROWS + 2))
    assert table["text"].to_pylist() == texts
    assert [row[0] for row in table["embedding"].to_pylist()] == [len(text) for text in texts]
    said = json.loads((tmp_path / "folder" / "_manifest.json").read_text())
    assert (said["rows"], said["dimension"], said["settings"]["model"]) == (3 * ROWS + 2, 3, "m")
    assert [row["first"] for row in said["shards"]] == [0, 7, 14, 21]
    assert said["tokens"] == sum(len(text.split()) for text in texts)
    embedder = Counting()
    assert do(file, tmp_path / "folder", embedder, about={"model": "m"}).rows == 3 * ROWS + 2
    assert not embedder.asked  # it is done


@pytest.mark.parametrize(
    ("ids", "found"),
    [
        ([1, 2], [1, 2]),
        ([1, "b"], ["1", "b"]),
        (["a", None], None),
        ([1, 2.5], None),
        ([1, True], None),
        ([2**63, 1], None),
    ],
)
def test_ids_are_of_one_kind_or_left_out(tmp_path, ids, found):
    file = tmp_path / "in.jsonl"
    file.write_text("".join(json.dumps({"id": each, "text": "x"}) + "\n" for each in ids))
    do(file, tmp_path / "o.parquet")
    table = parquet.read_table(tmp_path / "o.parquet")
    assert (table["id"].to_pylist() if "id" in table.column_names else None) == found
    if found is None:
        with pytest.raises(DataError, match=r"line [12]: its 'id' is .*: give a text or an integer as id"):
            TextSource(str(file), id_field="id").check()


@pytest.mark.parametrize("change", ["input", "model", "rows", "form"])
def test_other_work_is_not_gone_on_with(tmp_path, change):
    file = write_rows(tmp_path / "in.jsonl", 3 * ROWS)

    def broken(plan: bulk.WindowPlan) -> Iterator:
        yield next(iter(bulk.local(Counting(), None)(plan)))
        raise Killed

    with pytest.raises(Killed):
        bulk.run(bulk.EmbedJob(TextSource(str(file)), tmp_path / "o.npy", about={"model": "a"}, rows=ROWS), broken)
    wishes = {"about": {"model": "b" if change == "model" else "a"}, "rows": ROWS - (change == "rows")}
    wishes |= {"form": VectorForm(precision="binary")} if change == "form" else {}
    if change == "input":
        write_rows(file, 3 * ROWS, text="another")
    with pytest.raises(UsageError, match=r"o\.npy\.unfinished: was begun by another call \(.*add --fresh"):
        do(file, tmp_path / "o.npy", **wishes)
    do(file, tmp_path / "o.npy", **wishes, fresh=True)
    assert len(np.load(tmp_path / "o.npy")) == 3 * ROWS
    assert not (tmp_path / "o.npy.unfinished").exists()


def test_other_work_of_a_process_that_still_runs_is_not_to_be_discarded(tmp_path):
    (tmp_path / "_job.json").write_text('{"settings": {"input": "other"}}')
    (tmp_path / ".lock").touch()  # of a killed process
    with pytest.raises(UsageError, match="was begun by another call .* add --fresh to discard it"):
        shards.refuse_other(tmp_path, {"input": "mine"})
    with locked(tmp_path / ".lock", ""), pytest.raises(UsageError, match="another process embeds into it: wait for it"):
        shards.refuse_other(tmp_path, {"input": "mine"})


def test_long_texts_may_be_refused_later_unless_one_was_cut_already(tmp_path):
    file, target = write_rows(tmp_path / "in.jsonl", 3 * ROWS), tmp_path / "folder"

    class Short(Counting):
        max_seq_length = 20

    short = Short()
    do(file, target, engine=bulk.local(short, 20))
    with pytest.raises(UsageError, match=r"folder: an earlier call truncated \d+ texts, the first .*--fresh"):
        do(file, target, engine=bulk.local(short, 20), refuse_long=True)
    with pytest.raises(DataError, match="tokens, but the model reads 20"):
        do(file, target, engine=bulk.local(short, 20, refuse_long=True), refuse_long=True, fresh=True)
    assert not (target / "_manifest.json").exists()
    do(file, target, engine=bulk.local(short, 20))
    assert (target / "_manifest.json").exists()


def test_a_folder_of_others_is_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    file = write_rows(tmp_path / "in.jsonl", 3)
    for fresh in (False, True):
        with pytest.raises(UsageError, match="has other files"):
            do(file, tmp_path / "mine", fresh=fresh)
    assert [each.name for each in (tmp_path / "mine").iterdir()] == ["letter.txt"]


def test_shards_whose_job_is_lost_are_not_thrown_away_unasked(tmp_path):
    file, target = write_rows(tmp_path / "in.jsonl", 3 * ROWS), tmp_path / "folder"
    assert killed(file, target, 8)
    (target / "_job.json").unlink()
    before = sorted(each.name for each in target.glob("shard-*"))
    with pytest.raises(UsageError, match="has other files"):
        do(file, target)
    assert before and sorted(each.name for each in target.glob("shard-*")) == before
    assert do(file, target, fresh=True).rows == 3 * ROWS


def test_an_input_that_changes_meanwhile_is_told(tmp_path):
    file = write_rows(tmp_path / "in.jsonl", 2 * ROWS)
    job = bulk.EmbedJob(TextSource(str(file)), tmp_path / "o.npy", rows=ROWS)
    job.look()
    write_rows(file, 2 * ROWS - 1)
    with pytest.raises(DataError, match=r"14 texts were counted and 13 (were )?read: the input has changed"):
        bulk.run(job, bulk.local(Counting(), None))
    assert not (tmp_path / "o.npy").exists()


@given(st.lists(st.integers(1, 500), min_size=1, max_size=60), st.integers(1, 2000))
def test_batches_for_several_devices_stay_within_the_budget(lengths, budget):
    found = list(encode._even(lengths, budget))
    assert sorted(row for rows, _ in found for row in rows) == list(range(len(lengths)))
    for rows, size in found:
        assert size * max(lengths[row] for row in rows) <= max(budget, *(lengths[row] for row in rows))
    assert len({size for _, size in found}) == len(found)


@pytest.mark.slow
def test_two_devices_give_the_vectors_of_one_in_order(model_folder, tmp_path, forked_pools):
    file, embedder = write_rows(tmp_path / "in.jsonl", 40), load(model_folder, device="cpu")
    job = bulk.EmbedJob(TextSource(str(file)), tmp_path / "two.npy", rows=40)
    with encode.spread(embedder, ["cpu", "cpu"]) as pool:
        bulk.run(job, bulk.local(embedder, 64, pool=pool, batch_tokens=64))
    texts = [row.text for row in TextSource(str(file)).records()]
    assert np.abs(np.load(tmp_path / "two.npy") - embedder.encode(texts)).max() < 1e-6


def test_a_real_model_gives_the_vectors_of_encode_whatever_the_windows(model_folder, tmp_path):
    embedder = load(model_folder, device="cpu")
    file = write_rows(tmp_path / "in.jsonl", 20)
    seen = []
    job = bulk.EmbedJob(TextSource(str(file)), tmp_path / "o.npy", rows=ROWS)
    report = bulk.run(job, bulk.local(embedder, embedder.max_seq_length), lambda r: seen.append((r.rows, r.tokens)))
    texts = [row.text for row in TextSource(str(file)).records()]
    assert report.rows == 20 and [rows for rows, _ in seen] == [0, 7, 14, 20]
    lengths = [min(64, n) for n in encode.token_counts(embedder, texts)]
    assert seen[-1][1] == report.tokens == sum(lengths)
    found = np.load(tmp_path / "o.npy", mmap_mode="r")
    assert np.abs(found - embedder.encode(texts)).max() < 1e-6
