"""Errors in the form of OpenAI's API (status, message, type, param, code), and the lines of the log."""

from __future__ import annotations

import logging
from typing import Any

from fastapi.responses import JSONResponse

from lusifer.errors import LusiferError, UsageError, one_line, visible
from lusifer.server.batcher import BusyError, StoppedError

MOST_REPEATED = 200
"""The most characters of a client's value that an error repeats."""
MOST_SAID = 2000
"""The most characters of an error."""
MOST_LOGGED = 500
"""The most characters of a line in the log."""
TRACE = 60
"""The most lines of a traceback in the log, from its beginning and its end."""
CLIENT_LEFT = 499
"""The status of a request whose client disconnected before the answer; only the metrics show it."""
_TYPES = {401: "authentication_error", 429: "rate_limit_error"}
_CODES = {
    400: "invalid_value", 401: "invalid_api_key", 404: "not_found", 405: "method_not_allowed", 408: "too_slow",
    413: "too_large", 429: "queue_full", 431: "too_large", 500: "internal_error", 503: "not_ready",
}  # fmt: skip


def cut(text: str, most: int = MOST_REPEATED) -> str:
    """Return a text, shortened to its beginning and end if it has more than `most` characters."""
    return text if len(text) <= most else f"{text[: most * 3 // 4]} ... {text[5 - most // 4 :]}"


class ApiError(LusiferError):
    """An error that a client gets as its answer.

    Args:
        status: The HTTP status.
        message: One line: what is wrong, where, what to do.
        param: The field that is wrong, with the number of the text if it is a list.
        code: A code for programs; None is the default of the status.
        headers: Additional headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(cut(message, MOST_SAID))
        self.http_status, self.headers = status, headers or {}
        self.param = None if param is None else one_line(cut(param))  # a client may send any characters as a field name
        self.code = code or _CODES.get(status, "error")

    def answer(self) -> JSONResponse:
        """Return the response in the form of OpenAI's API."""
        kind = _TYPES.get(self.http_status, "server_error" if self.http_status >= 500 else "invalid_request_error")
        body: dict[str, Any] = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        return JSONResponse({"error": body}, self.http_status, self.headers)


def as_api_error(error: Exception) -> ApiError:
    """Convert any exception to the error that a client gets; unexpected ones become status 500."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, BusyError):
        return ApiError(429, str(error), headers={"Retry-After": str(error.seconds)})
    if isinstance(error, StoppedError):
        return ApiError(503, str(error), headers={"Retry-After": "5"})
    if isinstance(error, UsageError):
        return ApiError(400, str(error))
    words = (
        str(error) if isinstance(error, LusiferError) else f"{type(error).__name__} in the server: see the server's log"
    )
    return ApiError(500, words)


class LogLine(logging.Formatter):
    """Formats each record as one line of at most `MOST_LOGGED` characters.

    Characters that would control a terminal or begin another line are escaped. The lines of a traceback are indented,
    so that they cannot be mistaken for records.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a record, without a line end."""
        lines = [f"lusifer: {_logged(record.getMessage())}"]
        if record.exc_info:
            trace = self.formatException(record.exc_info).splitlines()
            if len(trace) > TRACE:
                trace = [*trace[: TRACE // 2], "...", *trace[-TRACE // 2 :]]
            lines += [f"    {_logged(line)}" for line in trace]
        return "\n".join(lines)


def _logged(text: str) -> str:
    spelt = visible(cut(text, MOST_LOGGED))
    for end in "\n\u2028\u2029":
        spelt = spelt.replace(end, f"\\u{ord(end):04x}")
    return cut(spelt, MOST_LOGGED)
