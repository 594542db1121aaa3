"""Errors as OpenAI's clients read them: a status, and a body with message, type, param and code."""

from __future__ import annotations

from typing import Any

from fastapi.responses import JSONResponse

from lusifer.errors import LusiferError, UsageError, one_line
from lusifer.server.batcher import BusyError, StoppedError

CLIENT_LEFT = 499
"""Status of a request whose client left before it was answered; nobody reads it, the counts have it."""
_TYPES = {401: "authentication_error", 429: "rate_limit_error"}
_CODES = {
    400: "invalid_value", 401: "invalid_api_key", 404: "not_found", 405: "method_not_allowed", 408: "too_slow",
    413: "too_large", 429: "queue_full", 431: "too_large", 500: "internal_error", 503: "not_ready",
}  # fmt: skip


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
        super().__init__(message)
        self.http_status, self.headers = status, headers or {}
        self.param = None if param is None else one_line(param)  # the name of a field may be of any characters
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
