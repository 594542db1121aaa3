"""Lay siege to an index on disk: kills, a full disk, two writers and a reader, flipped bytes.

    python benchmarks/index_siege.py [--times 40] [--seed 0] [--only kill,disk,writers,bytes] [--output FILE]

Each attack is a call of add, update, delete, optimize, reindex, reindex with offsets, or create, in a process of its
own. Afterwards another process opens the index and compares it with what was committed: every document there, none a
half, each found by vector, by words and through a filter; then the same call is made again and must end well. The
vectors are drawn from the texts, since what is tested is not the model. As root a small file system in memory is
filled; else files are bounded in size.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import index_siege_parts as parts
import lancedb  # noqa: F401 - once, before the forks
from bench import processor
from index_siege_parts import Child, Drawn, Plan, State

from lusifer.index.index import Index
from lusifer.index.table import is_table

KINDS = {"data": "/data/", "versions": "/_versions/", "words": "/_indices/", "offsets": "/offsets-"}
"""Files of an index, by a part of their path."""
WORKS = ("add", "update", "delete", "optimize", "reindex", "offsets", "create")


class Siege:
    """The attacks, what came of them, and what was wrong."""

    def __init__(self, place: Path, times: int, seed: int) -> None:
        self.place, self.times, self.chance = place, times, random.Random(seed)
        self.rows: list[tuple[str, int, str, int]] = []
        self.wrong: list[str] = []

    def note(self, what: str, times: int, came: Counter[str], wrong: list[str]) -> None:
        """A row of the page."""
        said = ", ".join(f"{n} {words}" for words, n in sorted(came.items()))
        self.rows.append((what, times, said, len(wrong)))
        self.wrong += [f"{what}: {each}" for each in wrong]
        sys.stdout.write(f"{what}: {times} times: {said}; wrong {len(wrong)} {wrong[:3]}\n")
        sys.stdout.flush()

    def made(self, name: str, count: int = 60) -> tuple[Path, State]:
        """A new index with some documents, in a folder of that name."""
        folder = self.place / name
        shutil.rmtree(folder, ignore_errors=True)

        def work(_: parts.Say) -> None:
            Index.create(folder, Drawn(0)).add(parts.document(number, 0) for number in range(count))

        said = Child(work).wait()
        if said[0] != "end":
            raise RuntimeError(f"no index could be made: {said}")
        return folder, State(dict.fromkeys(range(count), 0))

    def look(self, folder: Path, state: State, plan: Plan | None, done: int = 0) -> tuple[State, list[str]]:
        """Compare an index, in a process of its own."""

        def work(_: parts.Say) -> list[Any]:
            now, wrong = parts.check(folder, state, plan, done)
            return [list(now.documents.items()), now.seed, wrong]

        said = Child(work).wait()
        if said[0] != "end":
            return state, [f"cannot be compared: {said}"]
        documents, seed, wrong = said[1]
        return State({int(number): version for number, version in documents}, seed), wrong

    def attack(self, work: str, run: Callable[[Plan, Path, State], tuple[Child, list[Any]]], what: str) -> None:
        """Attack a call again and again; `run` does it, and gives the process that made the call and how it ended."""
        came, wrong = Counter(), []
        folder, state = self.made("attacked")
        for number in range(1, self.times + 1):
            if not 60 <= len(state.documents) <= 300:
                folder, state = self.made("attacked")
            if work == "create":
                shutil.rmtree(folder)
                state = State()
            plan = state.plan(work, self.chance)
            child, said = run(plan, folder, state)
            came[{"died": "killed in the middle", "end": "had ended before"}.get(said[0], said[0])] += 1
            if said[0] == "refused" and "No space left" not in said[1] and "File too large" not in said[1]:
                wrong.append(f"{number}: {said}")
            elif said[0] not in ("died", "end", "refused"):
                wrong.append(f"{number}: {said}")
            if work == "create" and not is_table(folder):
                came["no index was there yet"] += 1
            else:
                state, more = self.look(folder, state, plan, child.done)
                wrong += [f"{number}: {each}" for each in more]
            state, more = self.again(folder, state, plan)
            wrong += [f"{number}, called again: {each}" for each in more]
        self.note(f"{what} during {work}", self.times, came, wrong)

    def again(self, folder: Path, before: State, plan: Plan) -> tuple[State, list[str]]:
        """Make the call that was attacked once more, as a user would, and compare."""
        if plan.work == "add" or plan.work == "create":  # what is there is no longer new
            put = plan.put or dict.fromkeys(range(60), 0)
            put = {number: version for number, version in put.items() if number not in before.documents}
            plan = Plan(plan.work, put, [], plan.seed)

        def work(say: parts.Say) -> None:
            if plan.work == "create" and not is_table(folder):
                plan.run(folder, before.seed, say)
            (Plan("add", plan.put, [], plan.seed) if plan.work == "create" else plan).run(folder, before.seed, say)

        said = Child(work).wait()
        if said[0] != "end":
            return before, [f"the call cannot be made: {said}"]
        state, wrong = self.look(folder, before, plan, len(plan.put))
        missed = [f"d{number} is still there" for number in plan.gone if number in state.documents]
        return state, wrong + missed + ([f"the model is {state.seed}"] if state.seed != plan.seed else [])

    def kills(self, work: str) -> None:
        """SIGKILL at a random moment of a call."""
        longest = [0.5]

        def run(plan: Plan, folder: Path, state: State) -> tuple[Child, list[Any]]:
            child = begun(plan, folder, state)
            child.wait("begins")
            began = time.monotonic()
            time.sleep(self.chance.uniform(0, longest[0]))
            said = child.kill()
            if said[0] == "end":  # it was shorter than thought
                longest[0] = max(0.02, 0.8 * min(longest[0], time.monotonic() - began))
            else:
                longest[0] *= 1.08
            return child, said

        self.attack(work, run, "SIGKILL")

    def disks(self, work: str) -> None:
        """A disk that is full after a random number of bytes."""

        def run(plan: Plan, folder: Path, state: State) -> tuple[Child, list[Any]]:
            most = int(2 ** self.chance.uniform(8, 19))
            with full(self.place, most) as bound:
                child = begun(plan, folder, state, bound)
                return child, child.wait()

        self.attack(work, run, "a full disk")

    def writers(self, work: str) -> None:
        """Two calls on one index at once, and a reader all the while."""
        came, wrong = Counter(), []
        folder, state = self.made("attacked")
        for number in range(1, self.times + 1):
            if not 60 <= len(state.documents) <= 300:
                folder, state = self.made("attacked")
            mine = state.plan(work, self.chance)
            other = Plan(
                "add", dict.fromkeys(range(10_000 * number, 10_000 * number + parts.WINDOW), 0), [], state.seed
            )
            seeds = {state.seed, mine.seed}
            kept = {one: version for one, version in state.documents.items() if one not in {*mine.put, *mine.gone}}
            reader = Child(partial(parts.reads, folder, kept, seeds))
            reader.wait("begins")
            both = [Child(partial(parts.in_turn, plan, folder, seeds)) for plan in (mine, other)]
            said = [child.wait() for child in both]
            came["calls refused, and made again"] += sum(each[1] for each in said if each[0] == "end")
            wrong += [f"{number}: {each}" for each in said if each[0] != "end"]
            reader.wait(seconds=0.1)  # what it has said until now
            ended = reader.kill()
            came["searches meanwhile"] += max((line[1] for line in reader.lines if line[0] == "read"), default=0)
            wrong += [f"{number}, reader: {ended}"] if ended[0] != "died" else []
            put = {one: version for plan in (mine, other) for one, version in plan.put.items()}
            state, more = self.look(folder, state, Plan(work, put, mine.gone, mine.seed), len(put))
            wrong += [f"{number}: {each}" for each in more]
            wrong += [f"{number}: d{one} is still there" for one in mine.gone if one in state.documents]
        self.note(f"two writers and a reader, {work} beside add", self.times, came, wrong)

    def flips(self, kind: str) -> None:
        """Some bytes of a file are others: the index gives what it held, or says that it is damaged."""
        came, wrong = Counter(), []
        source, state = self.made("whole", 120)
        plan = Plan("offsets", {}, [], 0)
        if kind == "offsets":
            Child(lambda say: plan.run(source, 0, say)).wait()
        files = [file for file in sorted(source.rglob("*")) if file.is_file() and KINDS[kind] in str(file)]
        for number in range(1, self.times + 1):
            folder = self.place / "attacked"
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(source, folder)
            file = folder / self.chance.choice(files).relative_to(source)
            content = bytearray(file.read_bytes())
            for _ in range(self.chance.choice((1, 1, 4, 64))):
                content[self.chance.randrange(len(content))] ^= self.chance.randrange(1, 256)
            file.write_bytes(content)

            def work(_: parts.Say, folder: Path = folder) -> list[str]:
                found = parts.check(folder, state, None, 0)[1]
                Plan("add", {10_000: 0}, [], 0).run(folder, 0, lambda _: None)
                return found

            said = Child(work).wait()
            if said[0] == "end":
                came["other content, not noticed" if said[1] else "did not matter"] += 1
            else:
                came["named" if said[0] == "refused" else said[0]] += 1
            if said[0] != "refused" and (said[0] != "end" or said[1]):
                wrong.append(f"{number}: {file.relative_to(folder)}: {said}")
        self.note(f"bytes of {kind} flipped", self.times, came, wrong)


def begun(plan: Plan, folder: Path, state: State, bound: int | None = None) -> Child:
    """A process that makes a call; no file of it becomes larger than `bound` bytes."""

    def work(say: parts.Say) -> None:
        if bound is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (bound, resource.RLIM_INFINITY))
        say(["begins"])
        plan.run(folder, state.seed, say)

    return Child(work)


@contextmanager
def full(place: Path, left: int) -> Iterator[int | None]:
    """Leave so many bytes on the file system, if it is the small one; else give a bound for every file."""
    if not place.is_mount():
        yield left
        return
    ballast = place / "ballast"
    status = os.statvfs(place)
    size = max(0, status.f_bavail * status.f_bsize - left)
    with ballast.open("wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, size) if size else None
    try:
        yield None
    finally:
        ballast.unlink()


@contextmanager
def small_disk(size: str) -> Iterator[Path]:
    """A folder for the siege: a file system in memory of that size where this process may mount one."""
    with tempfile.TemporaryDirectory() as place:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place]
        mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0
        try:
            yield Path(place)
        finally:
            if mounted:
                subprocess.run(["umount", "--lazy", place], check=True)


def main(words: list[str] | None = None) -> int:
    """Lay siege; status 1 if anything was wrong."""
    warnings.filterwarnings("ignore", "lancedb fork support")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="kill,disk,writers,bytes")
    parser.add_argument("--works", default=",".join(WORKS))
    parser.add_argument("--no-mount", action="store_true", help="bound files in place of a small file system")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args(words)
    holder = tempfile.TemporaryDirectory() if given.no_mount else small_disk("24m")
    with holder as place:
        siege = Siege(Path(place), given.times, given.seed)
        for kind in given.only.split(","):
            for work in KINDS if kind == "bytes" else given.works.split(","):
                attack = {"kill": siege.kills, "disk": siege.disks, "writers": siege.writers, "bytes": siege.flips}[
                    kind
                ]
                if work != "create" or kind != "writers":
                    attack(work)
                if given.output:
                    given.output.write_text(
                        page(siege, given, not given.no_mount and os.geteuid() == 0), encoding="utf-8"
                    )
    return int(bool(siege.wrong))


def page(siege: Siege, given: argparse.Namespace, filled: bool) -> str:
    """The counts as Markdown."""
    full_disk = "a small file system in memory was filled" if filled else "no file could become larger than a bound"
    lines = [
        f"An index of 60 to 300 documents attacked, seed {given.seed}; of a full disk, {full_disk}. After each attack",
        "the index was compared with what had been committed (every document, whole, by vector, by words and through a",
        f"filter), and the call was made again. On {len(os.sched_getaffinity(0))} cores of {processor()}.",
        f"By `python benchmarks/index_siege.py --times {given.times} --seed {given.seed} --only {given.only}`.",
        "", "| attack | times | what came of it | wrong or lost |", "|---|--:|---|--:|",
        *(f"| {what} | {times} | {said} | {wrong} |" for what, times, said, wrong in siege.rows), "",
    ]  # fmt: skip
    wrong = [f"- {' '.join(each.split())[:400]}" for each in siege.wrong[:40]]
    return "\n".join(lines + (["What was wrong:", "", *wrong, ""] if wrong else []))


if __name__ == "__main__":
    raise SystemExit(main())
