"""Connections with limits of time and number, which uvicorn has not: slow and silent clients do not hold the server up.

A client that sends or reads too slowly is let go, and where there are too many connections the one that has waited
longest without a whole request gives way to the next.
"""

from __future__ import annotations

import re
import socket
import sys
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from lusifer.errors import UsageError
from lusifer.server.errors import ApiError

MOST_HEADERS = 2**14
"""Bytes of the first line and the headers of a request."""
FEW_CHUNKS, CHUNK = 4096, 2**8
"""Chunks of a body that may be of any size, and the bytes that those after them must have in the mean: each takes h11
as long, though it be one byte."""
_END = re.compile(rb"\n\r?\n")
"""Behind the headers, as h11 finds it."""
READ = 2**15
"""Bytes that are read of one client before another has its turn."""
WORKING = (h11.DONE, h11.MUST_CLOSE, h11.CLOSED, h11.ERROR)
"""What h11 calls a client whose request is whole, or that sends none any more."""


@dataclass(frozen=True)
class Patience:
    """How long a client is waited for, in seconds, at which bytes a second, and how many may be connected."""

    headers: float = 20.0
    body: float = 30.0
    rate: int = 2**16
    connections: int = 4096

    def until(self, began: float, came: int) -> float:
        """When a body or an answer must have ended, of which `came` bytes have passed since `began`."""
        return began + self.body + came / self.rate


class Door:
    """What the connections of a server share."""

    def __init__(self, patience: Patience) -> None:
        self.patience = patience
        self.waiting: OrderedDict[Connection, float] = OrderedDict()
        """Connections without a whole request, and since when, the longest first."""

    def look(self, connections: set[Any], now: float) -> None:
        """Let go whoever was waited for long enough; called about once a second."""
        for each in list(connections):
            if isinstance(each, Connection):
                each.look(now)

    def make_room(self, connections: set[Any]) -> bool:
        """Close the connection that has waited longest where there are too many; False if all are being worked for."""
        if len(connections) <= self.patience.connections:
            return True
        while self.waiting:
            other, _ = self.waiting.popitem(last=False)
            if not other.transport.is_closing():
                other.transport.abort()
                return True
        return False


class _Parser(h11.Connection):
    """Holds to limits also where more than they allow is there at once: h11 looks at them only where it waits."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, MOST_HEADERS)
        self._chunks = self._came = 0

    def next_event(self) -> Any:
        """The next part of a request.

        Raises:
            h11.RemoteProtocolError: As h11 does; or the headers are too long, or the chunks of the body too small.
        """
        if self.their_state is h11.IDLE:
            self._chunks = self._came = 0
            data = self.trailing_data[0]
            if len(data) > MOST_HEADERS and not _END.search(data, 0, MOST_HEADERS):
                raise h11.RemoteProtocolError("the headers are too long", error_status_hint=431)
        event = super().next_event()
        if isinstance(event, h11.Data):
            self._chunks, self._came = self._chunks + 1, self._came + len(event.data)
            if self._chunks > FEW_CHUNKS + self._came / CHUNK:
                words = f"the body comes in {self._chunks:,} chunks of {self._came / self._chunks:.0f} bytes"
                raise h11.RemoteProtocolError(words, error_status_hint=413)
        return event


class Connection(H11Protocol):
    """One client: uvicorn's own, and the limits of a `Door`; `settings` are as uvicorn gives them."""

    def __init__(self, *, door: Door, **settings: Any) -> None:
        super().__init__(**settings)
        self.conn = _Parser()
        self.door, self.heard = door, False
        self._unsent: tuple[float, int] | None = None

    def connection_made(self, transport: Any) -> None:
        """Take a client in, or tell it that there are too many."""
        super().connection_made(transport)
        if hasattr(transport, "max_size"):  # of asyncio's: others have their turn after fewer bytes of one client
            transport.max_size = READ
        if self.door.make_room(self.connections):
            self.door.waiting[self] = self.loop.time()
        else:
            words = f"{self.door.patience.connections:,} clients are connected and being answered: try again in 1 s"
            self.refuse(ApiError(503, words, headers={"Retry-After": "1"}))

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the client."""
        self.door.waiting.pop(self, None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; the first byte of a request begins its time."""
        if self.transport.is_closing():
            return
        if not self.heard:
            self.heard = True
            self.door.waiting.pop(self, None)
        super().data_received(data)
        self._note()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self.heard = self.conn.their_state is h11.SEND_BODY or bool(self.conn.trailing_data[0])
        super().on_response_complete()
        self._note()

    def _note(self) -> None:
        """Be among those that are waited for, or not."""
        if self.conn.their_state in WORKING or self.transport.is_closing():
            self.door.waiting.pop(self, None)
        else:
            self.door.waiting.setdefault(self, self.loop.time())

    def look(self, now: float) -> None:
        """Close the connection if its client sends or reads too slowly."""
        self._look_at_answer(now)
        began = self.door.waiting.get(self)
        if began is None or self.transport.is_closing():
            return
        fresh = self.cycle is None or self.cycle.response_complete
        if self.conn.their_state is h11.SEND_BODY:
            if fresh and now > began + self.door.patience.body:  # answered already; else the route counts its time
                self.transport.close()
        elif (self.heard or self.cycle is None) and now > began + self.door.patience.headers:
            if self.heard:
                words = f"the headers were not whole after {self.door.patience.headers:g} s: send them at once"
                self.refuse(ApiError(408, words))
            else:
                self.transport.close()

    def _look_at_answer(self, now: float) -> None:
        size = self.transport.get_write_buffer_size()
        if not size:
            self._unsent = None
            return
        began, most = self._unsent or (now, size)
        self._unsent = began, max(most, size)
        if now > self.door.patience.until(began, self._unsent[1] - size):
            self.transport.abort()

    def refuse(self, error: ApiError) -> None:
        """Answer in place of the routes, and close."""
        self.door.waiting.pop(self, None)
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            answer = error.answer()
            headers = [*answer.raw_headers, (b"connection", b"close")]
            for event in (
                h11.Response(status_code=error.http_status, headers=headers),
                h11.Data(data=bytes(answer.body)),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Say what is wrong with a request that is no HTTP; uvicorn calls it where h11 has raised its error."""
        found = sys.exception()
        status = found.error_status_hint if isinstance(found, h11.RemoteProtocolError) else 400
        mends = {431: f"headers may have {MOST_HEADERS:,} bytes", 413: "send fewer and larger ones"}
        self.refuse(ApiError(status, f"{found or msg}: {mends.get(status, 'send a request of HTTP/1.1')}"))


def listen(host: str, port: int) -> socket.socket:
    """A socket at an address; port 0 takes a free one.

    Raises:
        UsageError: The address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
    except (OSError, OverflowError) as error:
        made.close()
        raise UsageError(f"{host} port {port}: {error}: give another --host or --port") from error
    return made
