"""How much is done at once, and how long anything may take."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

from candlewick.server.errors import ApiError


@dataclass(frozen=True)
class Limits:
    """What the server takes on; beyond it requests are refused with 413, 429 or 503."""

    max_running: int = 32
    """Answers that are written at the same time; a request with ``n=3`` asks for three."""
    max_waiting: int = 64
    """Requests that wait for their turn; further ones are answered 429 with ``Retry-After``."""
    request_s: float = 600.0
    """Seconds from a request's arrival to the end of its answer."""
    body_s: float = 30.0
    """Seconds in which a request's headers, and then its body, must have come, and in which a client that lets its
    answer pile up must take some of it."""
    body_bytes: int = 4 << 20
    """The largest body of a request."""
    connections: int = 512
    """Connections that are open at the same time; requests on further ones are answered 503."""


class Gate:
    """Lets so many answers run, and so many requests wait, first come, first served."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._closed = False
        # How long an answer takes, about
        self._usual_s = 1.0
        self.running = 0

    @property
    def waiting(self) -> int:
        """Requests that wait for their turn."""
        return len(self._waiting)

    @contextlib.asynccontextmanager
    async def places(self, n: int) -> AsyncIterator[None]:
        """Room for ``n`` answers, when it is there.

        Raises:
            ApiError: Too many wait already, or the server is about to end.
        """
        if self._closed:
            raise _closing()
        if self._waiting or self.running + n > self._limits.max_running:
            await self._turn(n)
        else:
            self.running += n
        started = time.monotonic()
        try:
            yield
        finally:
            self._usual_s += 0.1 * (time.monotonic() - started - self._usual_s)
            self._leave(n)

    async def _turn(self, n: int) -> None:
        if len(self._waiting) >= self._limits.max_waiting:
            wait_s = self._usual_s * (1 + len(self._waiting) / self._limits.max_running)
            raise ApiError(
                429,
                f"{self.running} answers are being written and {self.waiting} requests wait, which is all that this "
                "server takes: try again later",
                code="rate_limit_exceeded",
                retry_after_s=min(max(math.ceil(wait_s), 1), 60),
            )
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((n, turn))
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                # The turn came, and at the same time the request was given up.
                self._leave(n)
            elif (n, turn) in self._waiting:
                self._waiting.remove((n, turn))
                self._let_in()
            raise

    def _leave(self, n: int) -> None:
        self.running -= n
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self.running + self._waiting[0][0] <= self._limits.max_running:
            n, turn = self._waiting.popleft()
            if not turn.done():
                self.running += n
                turn.set_result(None)

    def close(self) -> None:
        """Refuses those that wait and those that come; what runs goes on."""
        self._closed = True
        while self._waiting:
            _, turn = self._waiting.popleft()
            if not turn.done():
                turn.set_exception(_closing())


def _closing() -> ApiError:
    return ApiError(503, "this server is about to end: try again, or ask another", retry_after_s=5, close=True)
