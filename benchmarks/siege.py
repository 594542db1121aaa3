"""A server under siege: what hostile clients get, whether honest ones are answered meanwhile, and what memory it takes.

    python benchmarks/siege.py [--model mini] [--clients 1000] [--connections 10000] [--seconds 600] [--output FILE.md]

One attack after the other on one `lusifer serve`, each with honest clients beside it that ask for one short text at a
time, on a new connection, and check the vector. At the end SIGTERM comes while a request is worked on and slow clients
hang on. An attack counts as survived where every hostile client got what is promised and every honest one its vector.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from lusifer.index.index import Index
from lusifer.io.files import write_file

Address = tuple[str, int]
LONG_TEXT = 2**18
"""Characters of the longest text that the server takes."""
HEAD = b"POST /v1/embeddings HTTP/1.1\r\nHost: siege\r\nContent-Type: application/json\r\n"
DEEP = (
    b"[" * 200_000, b'{"input":' * 50_000, b'{"input": ' + b"9" * 100_000 + b"}", b'{"input": NaN}', b"\xff\xfe{}",
    b'{"input": ' + b"[" * 900 + b"]" * 900 + b"}", b'{"input": "a", "dimensions": 1e400}', b"", b"null",
)  # fmt: skip
TYPES = "application/xml", "multipart/form-data; boundary=x", "text/plain", "application/octet-stream", "\x7f"
TERMS = 50_000
FILTERS = {
    "1" + "+1" * TERMS + " > 0": "400", " OR ".join(["year = 1"] * TERMS): "400",
    " AND ".join(["year"] * 10_000): "400",
    "(" * TERMS: "400", "(" * TERMS + "year = 1" + ")" * TERMS: "400", "NOT " * 20_000 + "year = 1": "400",
    "- " * 40_000 + "1 = 1": "400", ")" * TERMS: "400", "abs(" * 20_000 + "1" + ")" * 20_000: "400",
    f"year IN ({','.join('1' * TERMS)})": "400", "lang = '" + "x" * 2**20: "400", "year = " + "9" * 80_000: "400",
    "lang = 'de'; DROP TABLE documents": "400", "lang = 'de' nonsense": "400", "year = 1) OR (year = 1": "400",
    "id IN (SELECT id FROM documents)": "400", "length(lpad(lang, 2147483647)) > 0": "400",
    "repeat(lang, 999999999) = ''": "400", "regexp_like(lang, '((a{1000}){1000}){1000}')": "400",
    " OR ".join(["year = 1"] * 1_000): "200", f"year IN ({','.join('1' * 10_000)})": "200",
    "(" * 30 + "year = 1" + ")" * 30: "200", "lang LIKE '" + "%a" * 4_000 + "'": "200", "year > 2000": "200",
}  # fmt: skip
"""Conditions, and the status that each is promised: beyond the bounds, of another grammar, or just within both."""
NO_HTTP = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET\r\n\r\n", b"\x00" * 5000, b"PRI * HTTP/2.0\r\n\r\n"


@dataclass(frozen=True)
class Scale:
    """How hard: hostile clients, connections at once, seconds of a full queue, and `body` as the server takes it."""

    clients: int
    connections: int
    seconds: float
    longest: float = 90.0
    lists: int = 400
    characters: int = LONG_TEXT
    body: int = 2**24


@dataclass
class Seen:
    """What came of an attack."""

    name: str
    promised: tuple[str, ...]
    got: Counter[str] = field(default_factory=Counter)
    honest: list[float] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    retried: int = 0
    memory: list[int] = field(default_factory=list)
    note: str = ""
    seconds: float = 0.0

    @property
    def wrong(self) -> int:
        """Hostile clients that got something else than is promised."""
        return sum(count for what, count in self.got.items() if what not in self.promised)


async def speak(address: Address, data: bytes, gap: float = 0.0, longest: float = 90.0, read: bool = True) -> str:
    """Send bytes, with `gap` seconds between two of them, and give the status that came, "closed" or "hangs"."""
    try:
        reader, writer = await asyncio.open_connection(*address, limit=2**24)
    except OSError as error:
        return f"not connected ({error.strerror})"
    try:
        async with asyncio.timeout(longest):
            sending = asyncio.ensure_future(_send(writer, data, gap))
            line = await reader.readline() if read else await _until_closed(writer)
            sending.cancel()
            return line.split(b" ")[1].decode() if line.startswith(b"HTTP/1.1 ") else "closed"
    except TimeoutError:
        return "hangs"
    except OSError:
        return "closed"
    finally:
        writer.transport.abort()


async def _send(writer: asyncio.StreamWriter, data: bytes, gap: float) -> None:
    try:
        for part in (bytes([byte]) for byte in data) if gap else (data,):
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(gap)
    except OSError:  # what the server said of it is read by the other side
        return


async def _until_closed(writer: asyncio.StreamWriter) -> bytes:
    writer.transport.pause_reading()
    while not writer.is_closing():
        writer.write(b" ")  # a connection that is gone is told by what is sent
        await asyncio.sleep(0.5)
    return b""


def request(body: bytes, kind: str | None = None, length: int | None = None) -> bytes:
    """A request for embeddings."""
    head = HEAD if kind is None else HEAD.replace(b"application/json", kind.encode("latin-1"))
    return head + f"Content-Length: {len(body) if length is None else length}\r\n\r\n".encode() + body


async def _all(seen: Seen, work: Iterable[Awaitable[str]]) -> None:
    seen.got.update(await asyncio.gather(*work))


async def slow_headers(address: Address, scale: Scale, seen: Seen) -> None:
    """A byte of the headers a second."""
    await _all(seen, (speak(address, HEAD * 9, 1, scale.longest) for _ in range(scale.clients)))


async def slow_bodies(address: Address, scale: Scale, seen: Seen) -> None:
    """Headers at once, then a byte of the body a second."""

    async def one() -> str:
        reader, writer = await asyncio.open_connection(*address)
        try:
            writer.write(request(b"", length=5000))
            sending = asyncio.ensure_future(_send(writer, b" " * 4000, 1))
            async with asyncio.timeout(scale.longest):
                line = await reader.readline()
            sending.cancel()
            return line.split(b" ")[1].decode() if line else "closed"
        except TimeoutError:
            return "hangs"
        except OSError:
            return "closed"
        finally:
            writer.transport.abort()

    await _all(seen, (one() for _ in range(scale.clients)))


async def half_requests(address: Address, scale: Scale, seen: Seen) -> None:
    """Requests that break off anywhere."""
    whole, chance = request(b'{"input": "water"}'), random.Random(0)

    async def one() -> str:
        _, writer = await asyncio.open_connection(*address)
        writer.write(whole[: chance.randrange(1, len(whole))])
        await writer.drain()
        await asyncio.sleep(chance.random() / 5)
        writer.transport.abort()
        return "left"

    for _ in range(0, scale.clients, 100):
        await _all(seen, (one() for _ in range(min(100, scale.clients))))


async def silent_connections(address: Address, scale: Scale, seen: Seen) -> None:
    """Connections that say nothing, all at once."""
    most, held = 0, 0

    async def one() -> str:
        nonlocal most, held
        reader, writer = await asyncio.open_connection(*address)
        held += 1
        most = max(most, held)
        try:
            async with asyncio.timeout(scale.longest):
                return "closed" if not await reader.read(1) else "answered"
        except TimeoutError:
            return "hangs"
        except OSError:
            return "closed"
        finally:
            held -= 1
            writer.transport.abort()

    tasks = []
    for number in range(scale.connections):
        tasks.append(asyncio.ensure_future(one()))
        if number % 100 == 99:
            await asyncio.sleep(0.05)
    for found in await asyncio.gather(*tasks, return_exceptions=True):
        seen.got[found if isinstance(found, str) else type(found).__name__] += 1
    seen.note = f"at most {most:,} open at once, as clients saw it"


async def full_queue(address: Address, scale: Scale, seen: Seen) -> None:
    """Lists of texts without a pause, so that the queue is full all the time."""
    end, body = time.monotonic() + scale.seconds, {"input": ["water and stone " * 30] * scale.lists}
    url = f"http://{address[0]}:{address[1]}"

    asked = 0

    def over() -> bool:
        return asked >= scale.clients and time.monotonic() > end  # each asks once at least

    async def one() -> None:
        nonlocal asked
        async with httpx.AsyncClient(base_url=url, timeout=None, trust_env=False) as client:
            while not over():
                asked += 1
                try:
                    answer = await client.post("/v1/embeddings", json=body)
                except httpx.HTTPError as error:
                    seen.got[type(error).__name__] += 1
                    continue
                words = answer.status_code != 429 or int(answer.headers.get("retry-after", 0)) > 0
                seen.got[f"{answer.status_code}{'' if words else ' without Retry-After'}"] += 1
                if answer.status_code == 429:
                    await asyncio.sleep(0.2)

    await asyncio.gather(*(one() for _ in range(min(64, scale.clients))))


async def costly_texts(address: Address, scale: Scale, seen: Seen) -> None:
    """The text of most tokens a byte that was found for the tokenizer, as long as it may be."""
    url = f"http://{address[0]}:{address[1]}"
    async with httpx.AsyncClient(base_url=url, timeout=300, trust_env=False) as client:
        chance, most = random.Random(0), (0.0, "a")
        letters = [chr(each) for each in range(0x21, 0x2FFFF) if chr(each).isprintable()]
        for _ in range(40):
            some = chance.sample(letters, 100)
            texts = [letter * 64 for letter in some] + ["".join(pair) * 32 for pair in zip(some, some[1:])]
            answer = await client.post("/tokenize", json={"input": texts})
            if answer.status_code != 200:  # a letter that counts as no text
                continue
            for text, row in zip(texts, answer.json()["data"], strict=True):
                most = max(most, (row["count"] / len(text.encode()), text[:2]))
        text = (most[1] * scale.characters)[: scale.characters]
        began = time.monotonic()
        answers = await asyncio.gather(*(client.post("/v1/embeddings", json={"input": text}) for _ in range(8)))
    seen.got.update(str(answer.status_code) for answer in answers)
    codes = " ".join(f"U+{ord(letter):04X}" for letter in most[1])
    seen.note = f"{most[0]:.2f} tokens a byte ({codes}); 8 of {len(text):,} in {time.monotonic() - began:.1f} s"


async def giant_headers(address: Address, scale: Scale, seen: Seen) -> None:
    """One header of a megabyte, ten thousand of them, and an address of a megabyte."""
    giant = (
        HEAD + b"X: " + b"x" * 2**20 + b"\r\n\r\n", HEAD + b"X: y\r\n" * 10_000 + b"\r\n",
        b"GET /" + b"a" * 2**20 + b" HTTP/1.1\r\nHost: siege\r\n\r\n",
    )  # fmt: skip
    await _all(seen, (speak(address, giant[number % 3]) for number in range(min(300, scale.clients))))


async def tiny_chunks(address: Address, scale: Scale, seen: Seen) -> None:
    """Bodies in chunks of a byte, headers in thousands of lines, and the same behind a body."""
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    some = (
        chunked + b"1\r\n \r\n" * 40_000,
        HEAD + b"X:\r\n" * 50_000 + b"\r\n",
        chunked + b"0\r\n" + b"X:\r\n" * 50_000,
    )
    await _all(seen, (speak(address, some[number % 3]) for number in range(min(300, scale.clients))))


async def giant_bodies(address: Address, scale: Scale, seen: Seen) -> None:
    """Bodies that say they are a gigabyte, and chunks without an end."""
    chunk = b"10000\r\n" + b" " * 2**16 + b"\r\n"
    endless = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * (scale.body * 9 // 2**16)
    declared = request(b" " * scale.body * 9, length=2**30)
    for number in range(min(12, scale.clients)):
        seen.got[await speak(address, (endless, declared)[number % 2])] += 1


async def wrong_bodies(address: Address, scale: Scale, seen: Seen) -> None:
    """JSON that is deep, huge or none, and other types of content."""
    bodies = [request(body) for body in DEEP]
    bodies += [request(b"<input>water</input>", kind) for kind in TYPES]
    await _all(seen, (speak(address, bodies[number % len(bodies)]) for number in range(min(500, scale.clients))))


async def no_http(address: Address, scale: Scale, seen: Seen) -> None:
    """TLS, HTTP/2, zeros and random bytes with an end of headers."""
    chance = random.Random(1)
    some = [*NO_HTTP, *(chance.randbytes(200) + b"\r\n\r\n" for _ in range(50))]
    await _all(seen, (speak(address, each, longest=scale.longest) for each in some[: max(4, scale.clients)]))


async def pipelined(address: Address, scale: Scale, seen: Seen) -> None:
    """Hundreds of requests in one go; each has its answer, in order."""
    count = min(200, scale.clients)

    async def one() -> str:
        reader, writer = await asyncio.open_connection(*address, limit=2**24)
        bodies = [json.dumps({"input": ["water"] * (1 + number % 3)}).encode() for number in range(count)]
        sending = asyncio.ensure_future(_send(writer, b"".join(request(body) for body in bodies), 0))
        try:
            for number in range(count):
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-len"))
                rows = json.loads(await reader.readexactly(length))["data"]
                if len(rows) != 1 + number % 3:
                    return "another's answer"
            return "all in order"
        finally:
            sending.cancel()
            writer.transport.abort()

    await _all(seen, (one() for _ in range(4)))


async def slow_readers(address: Address, scale: Scale, seen: Seen) -> None:
    """Clients that ask for much and read nothing."""
    body = json.dumps({"input": ["water"] * scale.lists * 10}).encode()
    await _all(
        seen,
        (speak(address, request(body), 0, scale.longest, read=False) for _ in range(min(8, scale.clients))),
    )


async def filters(address: Address, scale: Scale, seen: Seen) -> None:
    """Conditions for `/search` that are deep, long, of another grammar, or as large as they may be."""
    head, whole = HEAD.replace(b"/v1/embeddings", b"/search"), list(FILTERS.items())

    async def one(number: int) -> str:
        where, wanted = whole[number % len(whole)]
        body = json.dumps(
            {"query": "water", "where": where, "mode": ("words", "vector", "hybrid")[number % 5 % 3]}
        ).encode()
        began = time.monotonic()
        status = await speak(address, head + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        slowest[time.monotonic() - began] = where
        return status if status == wanted else f"{status} in place of {wanted} ({where[:20]} ...)"

    slowest: dict[float, str] = {}
    for first in range(0, max(len(whole), min(480, scale.clients)), 24):
        await _all(seen, (one(number) for number in range(first, first + 24)))
    seen.note = f"slowest of 24 at once {max(slowest):.1f} s ({slowest[max(slowest)][:20]} ...)"


ATTACKS: dict[Callable[[Address, Scale, Seen], Awaitable[None]], tuple[str, ...]] = {
    slow_headers: ("408", "closed"),
    slow_bodies: ("408", "closed"),
    half_requests: ("left",),
    silent_connections: ("closed",),
    giant_headers: ("431", "closed"),
    tiny_chunks: ("413", "431", "closed"),
    giant_bodies: ("413",),
    wrong_bodies: ("400",),
    no_http: ("400", "404", "405", "408", "431", "505", "closed"),
    pipelined: ("all in order",),
    costly_texts: ("200", "429"),
    slow_readers: ("closed",),
    full_queue: ("200", "429"),
    filters: ("200", "400"),
}
"""What each gets, as docs/how-to/serve.md promises."""


async def honest(address: Address, wanted: Sequence[float], over: asyncio.Event, seen: Seen) -> None:
    """Ask until it is over; a refusal is waited out, as OpenAI's client does, and its time counts."""
    url = f"http://{address[0]}:{address[1]}/v1/embeddings"
    while not over.is_set():
        began = time.monotonic()
        for _ in range(200):
            try:
                async with httpx.AsyncClient(timeout=120, trust_env=False) as client:
                    answer = await client.post(url, json={"input": "Where is the station?"})
            except httpx.HTTPError as error:
                seen.lost.append(type(error).__name__)
                break
            if answer.status_code not in (429, 503):
                found = answer.json()["data"][0]["embedding"] if answer.status_code == 200 else []
                if len(found) != len(wanted) or max(abs(a - b) for a, b in zip(found, wanted)) > 1e-5:
                    seen.lost.append(f"status {answer.status_code}")
                else:
                    seen.honest.append(time.monotonic() - began)
                break
            seen.retried += 1
            await asyncio.sleep(0.5)
        await asyncio.sleep(0.1)


async def attack(
    work: Callable[[Address, Scale, Seen], Awaitable[None]],
    address: Address,
    scale: Scale,
    memory: Callable[[], int] = lambda: 0,
) -> Seen:
    """One attack, with two honest clients beside it and a look at memory twice a second."""
    seen, over, began = Seen(work.__name__.replace("_", " "), ATTACKS[work]), asyncio.Event(), time.monotonic()
    async with httpx.AsyncClient(timeout=120, trust_env=False) as client:
        url = f"http://{address[0]}:{address[1]}/v1/embeddings"
        answer = await client.post(url, json={"input": "Where is the station?"})
    wanted = answer.json()["data"][0]["embedding"]

    async def watch() -> None:
        while not over.is_set():
            seen.memory.append(memory())
            await asyncio.sleep(0.5)

    others = [asyncio.ensure_future(each) for each in (watch(), *(honest(address, wanted, over, seen) for _ in "ab"))]
    await work(address, scale, seen)
    over.set()
    await asyncio.gather(*others)
    seen.seconds = time.monotonic() - began
    return seen


async def stopped(address: Address, process: subprocess.Popen[bytes], scale: Scale) -> Seen:
    """SIGTERM while requests are worked on and slow clients hang on."""
    seen, began = Seen("stop (SIGTERM)", ("200",)), time.monotonic()
    slow = [asyncio.ensure_future(speak(address, HEAD * 9, 1, 60)) for _ in range(min(100, scale.clients))]
    url = f"http://{address[0]}:{address[1]}/v1/embeddings"
    async with httpx.AsyncClient(timeout=120, trust_env=False) as client:
        asked = [
            asyncio.ensure_future(client.post(url, json={"input": ["water and stone " * 30] * 20})) for _ in range(4)
        ]
        await asyncio.sleep(1)
        process.send_signal(signal.SIGTERM)
        for answer in await asyncio.gather(*asked, return_exceptions=True):
            seen.got[str(answer.status_code) if isinstance(answer, httpx.Response) else type(answer).__name__] += 1
    status = await asyncio.to_thread(process.wait, 60)
    seen.seconds = time.monotonic() - began
    seen.note = f"ended with status {status} after {seen.seconds - 1:.1f} s"
    for each in slow:
        each.cancel()
    return seen


def resident(process: int) -> int:
    """Memory of a process in MB."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 2**20


def row(seen: Seen) -> str:
    """A line of the table."""
    got = ", ".join(f"{count:,} {what}" for what, count in seen.got.most_common())
    slowest = f"{max(seen.honest):.2f}" if seen.honest else ""
    memory = f"{max(seen.memory):,}" if seen.memory else ""
    lost = f"{seen.wrong + len(seen.lost)}"
    honest_words = f"{len(seen.honest):,}" + (f" ({seen.retried:,} refusals waited out)" if seen.retried else "")
    return f"| {seen.name} | {got} | {honest_words} | {slowest} | {memory} | {lost} | {seen.note} |"


HEADINGS = (
    "| attack | what they got | honest, answered | slowest, s | memory, MB | wrong or lost | |\n" + "|---" * 7 + "|"
)


async def besiege(model: str, scale: Scale, only: Sequence[str], say: Callable[[str], None]) -> list[str]:
    """All attacks on one server."""
    home = tempfile.TemporaryDirectory()
    index = Index.create(Path(home.name) / "index", model)
    index.add({"id": str(row), "text": f"water {row}", "lang": "de", "year": row} for row in range(1000))
    words = [sys.executable, "-m", "lusifer.cli", "serve", model, "--port", "0", "--index", str(index.folder)]
    process = subprocess.Popen(words, stderr=subprocess.PIPE)
    assert process.stderr is not None
    try:
        line = b""
        while b"http://" not in line:
            line = process.stderr.readline()
            if not line:
                raise SystemExit("the server did not start")
        host, _, port = line.decode().split("http://")[1].split()[0].rstrip("/").rpartition(":")
        address, rows = (host, int(port)), []
        drain = asyncio.get_running_loop().run_in_executor(None, process.stderr.read)
        for work in ATTACKS:
            if not only or work.__name__ in only:
                rows.append(row(await attack(work, address, scale, lambda: resident(process.pid))))
                say(rows[-1])
        rows.append(row(await stopped(address, process, scale)))
        say(rows[-1])
        log = (await drain).decode(errors="replace")
        rows.append(f"\nTracebacks in the server's log: {log.count('Traceback')}.")
        say(rows[-1])
        return rows
    finally:
        process.kill()
        home.cleanup()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="mini")
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--only", nargs="*", default=[], choices=[work.__name__ for work in ATTACKS])
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    most = min(given.connections, hard - 500)
    scale = Scale(given.clients, most, given.seconds)

    def say(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    say(f"files allowed: {soft:,}, raised to {hard:,}; connections: {most:,}\n\n{HEADINGS}")
    rows = asyncio.run(besiege(given.model, scale, given.only, say))
    if given.output:
        with write_file(given.output) as temporary:
            temporary.write_text("\n".join([HEADINGS, *rows]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
