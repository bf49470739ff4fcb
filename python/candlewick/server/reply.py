"""An answer on its way to the client: one JSON object, or server-sent events."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from candlewick.server.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import Send


def dumps(value: Any) -> bytes:
    """Compact JSON in UTF-8."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


class Reply:
    """Begins when its first part is sent: until then an error still has a status of its own."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status: int | None = None

    async def json(self, value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """All of the answer."""
        body = dumps(value)
        await self._begin(
            status, {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
        )
        await self._send({"type": "http.response.body", "body": body})

    async def event(self, value: Any, name: str | None = None) -> None:
        """One event of a stream."""
        if self.status is None:
            # nginx would hold events back; caches have no business with them.
            headers = {
                "content-type": "text/event-stream; charset=utf-8",
                "cache-control": "no-cache",
                "x-accel-buffering": "no",
            }
            await self._begin(200, headers)
        head = b"" if name is None else f"event: {name}\n".encode()
        data = value.encode() if isinstance(value, str) else dumps(value)
        await self._send({"type": "http.response.body", "body": head + b"data: " + data + b"\n\n", "more_body": True})

    async def end(self) -> None:
        """The end of a stream of events."""
        await self._send({"type": "http.response.body", "body": b""})

    async def fail(self, error: ApiError) -> None:
        """The error: as the answer, or as the last event of one that has begun."""
        if self.status is None:
            await self.json(error.body(), error.status, error.headers)
        else:
            await self.event(error.body())
            await self.end()

    async def _begin(self, status: int, headers: Mapping[str, str]) -> None:
        self.status = status
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})
