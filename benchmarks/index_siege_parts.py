"""What `index_siege.py` attacks with and compares by: an embedder that draws vectors, documents, work, and a check."""

from __future__ import annotations

import json
import os
import random
import re
import select
import signal
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import index_kill
import numpy as np
import torch

from lusifer.calibration.fit import Parties, fit
from lusifer.calibration.statistics import LanguageStatistics
from lusifer.errors import LusiferError, UsageError
from lusifer.index import index as index_file
from lusifer.index import models, table, writing
from lusifer.index.index import Index
from lusifer.index.passages import joined
from lusifer.index.reindex import reindex

WINDOW = 20
"""Documents of a commit here."""
PATIENCE = 120
"""Seconds after which a process hangs."""
Say = Callable[[list[Any]], None]


class Child:
    """A fork of this process, which has imported what takes its time; it says lines of JSON, then ends."""

    def __init__(self, work: Callable[[Say], Any]) -> None:
        self._read, output = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            self._run(work, output)
        os.close(output)
        self.lines: list[list[Any]] = []
        self._rest, self.status = b"", None

    @staticmethod
    def _run(work: Callable[[Say], Any], output: int) -> None:
        def say(what: list[Any]) -> None:
            os.write(output, json.dumps(what).encode() + b"\n")

        small_steps()
        try:
            say(["end", work(say)])
        except LusiferError as error:
            say(["refused", str(error)])
        except BaseException as error:  # noqa: BLE001 - whatever it is, it should have been said in words
            say(["raw", f"{type(error).__name__}: {error}"[:300], traceback.format_exc()[-1500:]])
        os._exit(0)

    def wait(self, until: str | None = None, seconds: float = PATIENCE) -> list[Any]:
        """Read until it says `until` or has ended; the last line, ["hangs"], or ["died", signal]."""
        end = time.monotonic() + seconds
        while self.status is None and not (self.lines and self.lines[-1][0] == until):
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._read], [], [], left)[0]:
                return ["hangs"]
            part = os.read(self._read, 65536)
            *whole, self._rest = (self._rest + part).split(b"\n")
            self.lines += map(json.loads, whole)
            if not part:
                self.status = os.waitpid(self.pid, 0)[1]
                os.close(self._read)
        if self.status is None or (self.lines and self.lines[-1][0] in ("end", "refused", "raw")):
            return self.lines[-1]
        return ["died", os.WTERMSIG(self.status)]

    def kill(self) -> list[Any]:
        """End it by SIGKILL; what it had said, as `wait` gives it."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        return self.wait()

    @property
    def done(self) -> int:
        """How many documents it said to be committed."""
        return max((line[1] for line in self.lines if line[0] == "done"), default=0)


class Drawn(torch.nn.Sequential):
    """In place of a model: counts words as tokens, and draws a vector from a text; another `seed` is another model."""

    device, prompts, default_prompt_name, max_seq_length = torch.device("cpu"), {}, None, 24
    tokenizer = staticmethod(index_kill.Words.tokenizer)

    def __init__(self, seed: int) -> None:
        super().__init__(torch.nn.Linear(1, 1))
        torch.nn.init.constant_(self[0].weight, seed)
        torch.nn.init.zeros_(self[0].bias)
        self.seed = seed

    def encode(self, texts: Sequence[str], **_: Any) -> np.ndarray:
        """(n, 32), of length 1."""
        return index_kill.Words.encode([f"{self.seed} {text}" for text in texts])


def small_steps() -> None:
    """Let every few documents be a commit, files be joined often, and files of older versions be removed at once."""
    table.MANY_FRAGMENTS, table.MANY_UNINDEXED, table.KEPT = 6, 200, timedelta(seconds=1)
    writing.DOCUMENTS_AT_ONCE = index_file.DOCUMENTS_AT_ONCE = WINDOW
    writing.TIDY_EVERY = 2


def document(number: int, version: int) -> dict[str, Any]:
    """A document of one to five passages, with a word that no other one has."""
    text = f"w{number}x{version} {index_kill.text_of(number, version)}"
    return {"id": f"d{number}", "text": text, "version": version, "lang": ("en", "sw")[number % 2]}


def statistics(seed: int, prompt: str = "") -> LanguageStatistics:
    """Language statistics of the model of that seed, by drawn vectors."""
    made, _, _ = models.describe(Drawn(seed))
    chance = np.random.default_rng(seed)
    vectors = {code: chance.standard_normal((6, 32)) for code in ("en", "sw")}
    asked = Parties(made.name, made.identity, made.identity, made.query or prompt, made.document or prompt)
    return fit(vectors, vectors, asked, "drawn")


@dataclass
class State:
    """What an index must hold: number of a document -> version, and the seed of its model."""

    documents: dict[int, int] = field(default_factory=dict)
    seed: int = 0

    def plan(self, work: str, chance: random.Random) -> Plan:
        """A call of `work` on this index, and what it makes of it."""
        start, there = max(self.documents, default=-1) + 1, sorted(self.documents)
        if work == "add":
            return Plan(work, dict.fromkeys(range(start, start + 3 * WINDOW), 0), [], self.seed)
        if work == "update":
            some = chance.sample(there, min(len(there), 2 * WINDOW))
            new = {one: self.documents[one] + 1 for one in some} | dict.fromkeys(range(start, start + 5), 0)
            return Plan(work, dict(sorted(new.items())), [], self.seed)
        if work == "delete":
            return Plan(work, {}, chance.sample(there, min(len(there), 2 * WINDOW + 5)), self.seed)
        return Plan(work, {}, [], self.seed + (work == "reindex"))


@dataclass
class Plan:
    """One call: documents put there (number -> version), documents taken out, and the model that it leaves."""

    work: str
    put: dict[int, int]
    gone: list[int]
    seed: int

    def run(self, folder: Path, seed: int, say: Say) -> None:
        """Do it, in an index of the model `seed`; `say` is told how many documents are done."""
        if self.work == "create":
            Index.create(folder, Drawn(seed))
            return
        if self.work in ("reindex", "offsets"):
            given = {"offsets": statistics(seed), "language_field": "lang"} if self.work == "offsets" else {}
            reindex(folder, Drawn(self.seed), **given)
            return
        opened = Index.open(folder, Drawn(seed))
        made = [document(number, version) for number, version in self.put.items()]
        if self.work == "add":
            opened.add(made, progress=lambda done: say(["done", done]))
        elif self.work == "update":
            opened.update(made, progress=lambda done: say(["done", done]))
        elif self.work == "delete":
            opened.delete([f"d{number}" for number in self.gone])
        else:
            opened.optimize()


def check(folder: Path, state: State, plan: Plan | None, done: int) -> tuple[State, list[str]]:
    """Compare an index with what was committed in it, read and asked in every way.

    Args:
        folder: Of the index.
        state: What was there before the plan.
        plan: What was begun and may be there or not; None is nothing.
        done: How many of its documents were said to be committed.

    Returns:
        What is there, and what is wrong.
    """
    wrong: list[str] = []
    opened, seed = _opened(folder, {state.seed, plan.seed if plan else state.seed})
    found, halves = _documents(opened)
    wrong += [f"{id} is a half" for id in halves]
    sure = dict(list(plan.put.items())[:done]) if plan else {}
    for number in {*state.documents, *found, *(plan.put if plan else ())}:
        may = {sure[number]} if number in sure else {state.documents.get(number)}
        if plan and number not in sure:
            may |= {plan.put[number]} if number in plan.put else {None} if number in plan.gone else set()
        version = found.get(number, (None, ""))[0]
        if version not in may:
            wrong.append(f"d{number} has version {version}, expected {may}")
        elif version is not None and found[number][1] != document(number, version)["text"]:
            wrong.append(f"d{number} has another text")
    wrong += _whole_windows(plan, found, done)
    now = State({number: version for number, (version, _) in sorted(found.items())}, seed)
    return now, wrong + asked(opened, now)


def _opened(folder: Path, seeds: Iterable[int]) -> tuple[Index, int]:
    """The index, by the model that made it."""
    about = models.IndexModel.from_dict(table.PassageTable(folder).about)
    seed = next(seed for seed in seeds if models.known(Drawn(seed)).identity == about.identity)
    return Index.open(folder, Drawn(seed)), seed


def _documents(opened: Index) -> tuple[dict[int, tuple[int, str]], list[str]]:
    """Number -> version and text of each document, and the ids of those that are no whole ones."""
    rows = list(opened._table.passages())
    parts: dict[str, list[int]] = {}
    for row in rows:
        parts.setdefault(row["id"], [row["chunk_count"]]).append(row["chunk"])
    halves = [id for id, (count, *own) in parts.items() if sorted(own) != list(range(count))]
    whole = [row for row in rows if row["id"] not in halves]
    return {int(each.id[1:]): (each.fields["version"], each.text) for each in joined(whole)}, halves


def _whole_windows(plan: Plan | None, found: Mapping[int, tuple[int, str]], done: int) -> list[str]:
    """A commit is there whole or not at all."""
    put = list(plan.put.items()) if plan else []
    windows = [put[at : at + WINDOW] for at in range(done, len(put), WINDOW)]
    there = [sum(found.get(number, (None,))[0] == version for number, version in each) for each in windows]
    return [f"{n} of {len(each)} documents of a commit" for n, each in zip(there, windows) if n not in (0, len(each))]


def asked(opened: Index, state: State) -> list[str]:
    """Whether every document of an index is found: by its vector, by its words, and through a filter."""
    wrong: list[str] = []
    ids = {f"d{number}" for number in state.documents}
    if opened.ids() != ids:
        wrong.append(f"ids: {len(opened.ids() ^ ids)} too many or missing")
    plain = opened.model.offsets is None
    if plain and state.documents:
        rows, matrix = opened.held()
        for row, vector, meant in zip(rows, matrix, opened.embedder.encode(list(map(_passage, rows))), strict=True):
            if abs(float(vector @ meant) - 1) > 1e-4:
                wrong.append(f"{row['id']} has the vector of another text")
    for number, version in state.documents.items():
        words = [hit.id for hit in opened.search(f"w{number}x{version}", mode="words", top_k=3)[0]]
        if words[:1] != [f"d{number}"]:
            wrong.append(f"d{number} is not found by its words: {words}")
    some = random.Random(len(ids)).sample(sorted(state.documents.items()), min(10, len(ids)))
    for number, version in some:
        first = next(row for row in opened._table.passages() if row["id"] == f"d{number}" and not row["chunk"])
        vectors = opened.embedder.encode([_passage(first)])
        hits = [
            opened.search("x", vectors=vectors, top_k=1, where=where)[0] for where in (None, f"version = {version}")
        ]
        if plain and [hit.id for each in hits for hit in each] != [f"d{number}"] * 2:
            wrong.append(f"d{number} is not found by its vector")
    return wrong


def _passage(row: Mapping[str, Any]) -> str:
    """What was embedded of a row."""
    return row["text"] if row["chunk_count"] == 1 else row["text"].strip()


def in_turn(plan: Plan, folder: Path, seeds: Iterable[int], say: Say) -> int:
    """Make a call as soon as nobody else writes, by the model that the index has then; how often it was refused."""
    refused = 0
    while True:
        try:
            plan.run(folder, _opened(folder, seeds)[1], say)
            return refused
        except UsageError as error:
            if not re.search("another process writes|was embedded anew meanwhile|gives other vectors", str(error)):
                raise
            refused += 1
            time.sleep(0.05)


def reads(folder: Path, kept: Mapping[int, int], seeds: Iterable[int], say: Say) -> None:
    """Search without end for documents that nobody changes, and say how often; one that is not found ends it."""
    opened, done = _opened(folder, seeds)[0], 0
    say(["begins"])
    while True:
        for number, version in kept.items():
            wanted = f"d{number}"
            try:
                found = opened.search(f"w{number}x{version}", mode="words", top_k=1)[0]
            except LusiferError as error:  # as `reindex` promises
                if "was embedded anew" not in str(error):
                    raise
                opened = _opened(folder, seeds)[0]
                continue
            if [hit.id for hit in found] != [wanted]:
                raise ValueError(f"{wanted} is not found by its words: {found}")
            text = document(number, version)["text"]
            if text[found[0].start : found[0].end] != found[0].text:
                raise ValueError(f"{wanted} has another text")
            done += 1
            say(["read", done])
