"""Connections with limits of time and number, which uvicorn lacks, so that slow or silent clients cannot block it.

A client that sends or reads too slowly is disconnected. If there are too many connections, the one that has waited
longest without a complete request is closed.
"""

from __future__ import annotations

import errno
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
"""The most bytes of the first line and the headers of a request."""
FEW_CHUNKS, CHUNK = 4096, 2**8
"""The number of chunks of a body that may have any size, and the mean bytes that further ones need: a chunk of one byte
takes h11 as long as a large one."""
_END = re.compile(rb"\n\r?\n")
"""The end of the headers, as h11 finds it."""
WAITING = 2048
"""How many clients may wait for the server to begin; uvicorn takes as many."""
READ = 2**15
"""The most bytes that are read from one client before it is another's turn."""
WORKING = (h11.DONE, h11.MUST_CLOSE, h11.CLOSED, h11.ERROR)
"""The states of h11 in which a request is complete, or no further one will come."""


@dataclass(frozen=True)
class Patience:
    """The limits for slow clients, and the number of connections.

    headers: Seconds until the headers must be complete.
    body: Seconds until a body or an answer must be complete, plus one second for every `rate` bytes.
    rate: Bytes per second.
    connections: The most connections.
    """

    headers: float = 20.0
    body: float = 30.0
    rate: int = 2**16
    connections: int = 4096

    def until(self, began: float, came: int) -> float:
        """Return when a body or an answer must be complete that began at `began` and has `came` bytes so far."""
        return began + self.body + came / self.rate


class Door:
    """The state that all connections of a server share."""

    def __init__(self, patience: Patience) -> None:
        self.patience = patience
        self.waiting: OrderedDict[Connection, float] = OrderedDict()
        """Connections without a complete request -> since when, the longest first."""

    def look(self, connections: set[Any], now: float) -> None:
        """Disconnect clients that are too slow; called about once a second.

        Args:
            connections: All connections of the server.
            now: The time of the event loop.
        """
        for each in list(connections):
            if isinstance(each, Connection):
                each.look(now)

    def make_room(self, connections: set[Any]) -> bool:
        """Close the connection that has waited longest if there are too many; return False if none can be closed."""
        if len(connections) <= self.patience.connections:
            return True
        while self.waiting:
            other, _ = self.waiting.popitem(last=False)
            if not other.transport.is_closing():
                other.transport.abort()
                return True
        return False


class _Parser(h11.Connection):
    """An h11 parser that enforces its limits also if all data arrive at once; h11 checks them only while it waits."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, MOST_HEADERS)
        self._chunks = self._came = 0

    def next_event(self) -> Any:
        """Return the next part of a request.

        Raises:
            h11.RemoteProtocolError: As h11; or the headers are too long, or the chunks of the body too small.
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
    """A connection of uvicorn with the limits of a `Door`; `settings` are the arguments of uvicorn."""

    def __init__(self, *, door: Door, **settings: Any) -> None:
        super().__init__(**settings)
        self.conn = _Parser()
        self.door, self.heard = door, False
        self._unsent: tuple[float, int] | None = None

    def connection_made(self, transport: Any) -> None:
        """Accept a client, or refuse it if there are too many connections."""
        super().connection_made(transport)
        if hasattr(transport, "max_size"):  # of asyncio's: others have their turn after fewer bytes of one client
            transport.max_size = READ
        if self.door.make_room(self.connections):
            self.door.waiting[self] = self.loop.time()
        else:
            words = f"{self.door.patience.connections:,} clients are connected and being answered: try again in 1 s"
            self.refuse(ApiError(503, words, headers={"Retry-After": "1"}))

    def connection_lost(self, exc: Exception | None) -> None:
        """Remove the client from the waiting ones."""
        self.door.waiting.pop(self, None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse data; the first byte of a request starts its time limit."""
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
        """Add the connection to the waiting ones, or remove it, by the state of its request."""
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
            if fresh and now > began + self.door.patience.body:  # already answered; before that the route has the limit
                self.transport.close()
        elif (self.heard or self.cycle is None) and now > began + self.door.patience.headers:
            if self.heard:
                words = f"the headers were not complete after {self.door.patience.headers:g} s: send them at once"
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
        """Answer with an error instead of the routes, and close the connection."""
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
        """Answer a request that is not valid HTTP; uvicorn calls this when h11 has raised an error."""
        found = sys.exception()
        status = found.error_status_hint if isinstance(found, h11.RemoteProtocolError) else 400
        mends = {431: f"send at most {MOST_HEADERS:,} bytes", 413: "send fewer and larger ones"}
        self.refuse(ApiError(status, f"{found or msg}: {mends.get(status, 'send an HTTP/1.1 request')}"))


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket at an address, before models are loaded.

    It listens at once, so that a second server at the address is refused now and not after it has loaded its models.
    Clients that connect meanwhile wait, and are answered when the server runs.

    Args:
        host: The host name or address.
        port: The port; 0 takes a free one.

    Raises:
        UsageError: The address is not available.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(WAITING)
    except (OSError, OverflowError) as error:
        made.close()
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        why = "in use by another program" if taken else getattr(error, "strerror", None) or error
        raise UsageError(f"{host} port {port}: {why}: give another --host or --port") from error
    return made
