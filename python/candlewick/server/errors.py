"""What goes wrong, in the form of OpenAI's API."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from candlewick.errors import ContextLengthError, Error, InvalidRequestError, OutOfMemoryError

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}


class ApiError(Exception):
    """An answer that is an error.

    Args:
        status: The HTTP status.
        message: What was found, what was expected and what to do.
        param: The field of the request that it is about.
        code: A word for programs, such as ``"context_length_exceeded"``.
        retry_after_s: When it may be worth another try.
        close: The connection ends with the answer: what else comes on it is not read.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: int | None = None,
        close: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code
        self.headers: dict[str, str] = {}
        if retry_after_s is not None:
            self.headers["retry-after"] = str(retry_after_s)
        if close:
            self.headers["connection"] = "close"
        if status == 401:
            self.headers["www-authenticate"] = "Bearer"

    def body(self) -> dict[str, Any]:
        """The JSON of the answer."""
        kind = _TYPES.get(self.status, "invalid_request_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


def from_exception(error: Exception, request: Mapping[str, Any]) -> ApiError | None:
    """What the generator's exceptions are to a client; ``None`` for one that is a fault of this program."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, ContextLengthError):
        param = next((name for name in ("messages", "prompt", "input") if name in request), None)
        return ApiError(400, str(error), param=param, code="context_length_exceeded")
    if isinstance(error, InvalidRequestError):
        # The messages begin with what they are about.
        found = re.match(r"\w+", str(error))
        param = found[0] if found and found[0] in request else None
        return ApiError(400, str(error), param=param, code="invalid_value")
    if isinstance(error, OutOfMemoryError):
        return ApiError(503, str(error), code="out_of_memory", retry_after_s=5)
    if isinstance(error, RecursionError):
        # JSON can be read deeper than it can be gone through.
        return ApiError(400, "something in the request has brackets in each other too deep", code="invalid_value")
    if isinstance(error, Error):
        return ApiError(500, str(error))
    return None
