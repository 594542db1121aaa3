"""Errors as OpenAI's clients read them, with a status, message, type, param and code; and as the log has them."""

from __future__ import annotations

import logging
from typing import Any

from fastapi.responses import JSONResponse

from lusifer.errors import LusiferError, UsageError, one_line, visible
from lusifer.server.batcher import BusyError, StoppedError

MOST_REPEATED = 200
"""Characters that are repeated of a value that a client sent."""
MOST_SAID = 2000
"""Characters of an error, whatever it repeats."""
MOST_LOGGED = 500
"""Characters of a line of the log."""
TRACE = 60
"""Lines of a traceback in the log: its beginning and its end."""
CLIENT_LEFT = 499
"""Status of a request whose client left before it was answered; nobody reads it, the counts have it."""
_TYPES = {401: "authentication_error", 429: "rate_limit_error"}
_CODES = {
    400: "invalid_value", 401: "invalid_api_key", 404: "not_found", 405: "method_not_allowed", 408: "too_slow",
    413: "too_large", 429: "queue_full", 431: "too_large", 500: "internal_error", 503: "not_ready",
}  # fmt: skip


def cut(text: str, most: int = MOST_REPEATED) -> str:
    """A text, or its beginning and its end where it has more than `most` characters."""
    return text if len(text) <= most else f"{text[: most * 3 // 4]} ... {text[5 - most // 4 :]}"


class ApiError(LusiferError):
    """A request that gets no answer.

    Args:
        status: Of HTTP.
        message: One line: what is wrong, where, what to do.
        param: The field that is to blame, with the number of a text where it is one of a list.
        code: For programs; by default one for the status.
        headers: More headers of the answer.
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
        self.param = None if param is None else one_line(cut(param))  # the name of a field may be of any characters
        self.code = code or _CODES.get(status, "error")

    def answer(self) -> JSONResponse:
        """The answer in OpenAI's form."""
        kind = _TYPES.get(self.http_status, "server_error" if self.http_status >= 500 else "invalid_request_error")
        body: dict[str, Any] = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        return JSONResponse({"error": body}, self.http_status, self.headers)


def as_api_error(error: Exception) -> ApiError:
    """What a request gets for an error of the rooms below, and for one that nobody expected."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, BusyError):
        return ApiError(429, str(error), headers={"Retry-After": str(error.seconds)})
    if isinstance(error, StoppedError):
        return ApiError(503, str(error), headers={"Retry-After": "5"})
    if isinstance(error, UsageError):
        return ApiError(400, str(error))
    words = (
        str(error) if isinstance(error, LusiferError) else f"{type(error).__name__} in the server; its log says more"
    )
    return ApiError(500, words)


class LogLine(logging.Formatter):
    """Each record as one line of at most `MOST_LOGGED` characters, whatever a client sent.

    What would steer a terminal, or begin another line, is spelt out. The lines of a traceback are set in, so that none
    of them can be taken for a record.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The text of a record, without a line end behind it."""
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
