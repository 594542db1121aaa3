"""The outermost layer of the server: API keys, request ids, times in the headers, and errors in one form."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from lusifer.server.errors import ApiError
from lusifer.server.metrics import Metrics
from lusifer.server.served import Timing

LOG = logging.getLogger(__name__)
OPEN = ("/health",)
"""The routes that need no key."""
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Keys:
    """API keys, stored as digests; without keys every request is accepted."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = [_digest(key) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def fit(self, authorization: str) -> bool:
        """Whether a header `Authorization` has a key: as Bearer, or as the password of Basic, as browsers send it.

        All keys are compared in constant time, so that the time of an answer reveals nothing.
        """
        kind, _, given = authorization.partition(" ")
        if kind.lower() == "basic":
            try:
                given = base64.b64decode(given.strip(), validate=True).decode().partition(":")[2]
            except ValueError:  # not base64, not ASCII, or not UTF-8 inside
                given = ""
        elif kind.lower() != "bearer":
            given = ""
        digest = _digest(given.strip())
        return any([hmac.compare_digest(digest, known) for known in self._digests])


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


class Gate:
    """The ASGI layer around the routes.

    Args:
        app: The routes.
        keys: The API keys.
        metrics: Gets the counts of requests.
    """

    def __init__(self, app: Any, keys: Keys, metrics: Metrics) -> None:
        self.app, self.keys, self.metrics = app, keys, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, by the ASGI protocol."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 0
        timing = scope["lusifer.timing"] = Timing()
        identity = secrets.token_hex(8)

        async def told(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                more = _headers(timing, time.perf_counter() - began) | {"x-request-id": identity}
                pairs = [(name.encode(), words.encode()) for name, words in more.items()]
                message = message | {"headers": [*message.get("headers", []), *pairs]}
            await send(message)

        try:
            if self.keys and scope["path"] not in OPEN:
                self._check(scope)
            await self.app(scope, receive, told)
        except ApiError as error:
            LOG.info("%s %s %d: %s", scope["method"], scope["path"], error.http_status, error)
            await error.answer()(scope, receive, told)
        except Exception:  # the routes have answered and logged it
            if not status:
                raise
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - began)

    def _check(self, scope: Scope) -> None:
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        if not self.keys.fit(given.decode("utf-8", "replace")):
            words = "the API key is wrong" if given else "an API key is required"
            challenge = {"WWW-Authenticate": 'Basic realm="lusifer: any name, the API key as password"'}
            raise ApiError(401, f"{words}: send `Authorization: Bearer KEY`", headers=challenge)


def _headers(timing: Timing, total: float) -> dict[str, str]:
    """Headers with times in ms, under the names of text-embeddings-inference and as `server-timing` for browsers."""
    found = {"x-total-time": f"{1000 * total:.1f}"}
    if timing.tokens:
        parts = {"tokenization": timing.tokenize, "queue": timing.queue, "inference": timing.inference}
        found |= {f"x-{name}-time": f"{1000 * seconds:.1f}" for name, seconds in parts.items()}
        found |= {"x-compute-tokens": str(timing.tokens), "x-compute-characters": str(timing.characters)}
        found["server-timing"] = ", ".join(f"{name};dur={1000 * each:.1f}" for name, each in parts.items())
    if timing.truncated is not None:
        found["x-truncated-texts"] = str(timing.truncated)
    if timing.unscored:
        found["x-unscored-texts"] = str(timing.unscored)
    return found
