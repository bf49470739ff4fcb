"""Runs the application on uvicorn: connections that say nothing are closed, and a signal to end lets answers end."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from candlewick.server.limits import Limits

BACKLOG = 512


def listen(host: str, port: int) -> socket.socket:
    """A socket for `run`.

    Args:
        host: The address or the name to listen on.
        port: The port; 0 is any that is free.

    Raises:
        OSError: The port is taken, or the address is not this machine's.
    """
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise OSError(f"cannot listen on {host} port {port}: {error.strerror}") from None


def address(listener: socket.socket) -> str:
    """Where it can be reached: ``"http://127.0.0.1:8000"``."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def run(app: Starlette, listener: socket.socket, ready: Callable[[], None]) -> None:
    """Serves until a signal ends it.

    Args:
        app: What `create_app` made.
        listener: What `listen` gave.
        ready: Called once requests are answered.
    """
    # uvicorn gives a signal on once it is done with it; everything is done then.
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        Server(app, ready).run([listener])
    finally:
        signal.signal(signal.SIGTERM, before)


class Server(uvicorn.Server):
    """uvicorn, set up for ``app``; ``ready`` is called once requests are answered."""

    def __init__(self, app: Starlette, ready: Callable[[], None]) -> None:
        limits = app.state.service.limits
        config = uvicorn.Config(
            app,
            loop="asyncio",
            http=_protocol(limits),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=limits.connections,
            # Every answer is over by then.
            timeout_graceful_shutdown=int(limits.request_s + limits.body_s) + 1,
        )
        super().__init__(config)
        self._app = app
        self._ready = ready

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Those that wait are told at once; what is being written is finished."""
        super().handle_exit(sig, frame)
        self._loop.call_soon_threadsafe(self._app.state.service.gate.close)


def _protocol(limits: Limits) -> type[asyncio.Protocol]:
    class Protocol(H11Protocol):
        """Closes a connection on which a request does not go on, or an answer is not taken: uvicorn waits for ever."""

        _patience: asyncio.TimerHandle | None = None
        _jam: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._wait()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._answers():
                self._wait_no_more()
            elif self._patience is None:
                self._wait()

        def pause_writing(self) -> None:
            super().pause_writing()
            # Not `close`, which would wait until all was taken.
            self._jam = self.loop.call_later(limits.body_s, self.transport.abort)

        def resume_writing(self) -> None:
            if self._jam is not None:
                self._jam.cancel()
            super().resume_writing()

        def connection_lost(self, exc: Exception | None) -> None:
            self._wait_no_more()
            if self._jam is not None:
                self._jam.cancel()
            super().connection_lost(exc)

        def _answers(self) -> bool:
            """A request has come, and its answer is not complete."""
            return self.cycle is not None and not self.cycle.response_complete

        def _wait(self) -> None:
            self._patience = self.loop.call_later(limits.body_s, self._give_up)

        def _wait_no_more(self) -> None:
            if self._patience is not None:
                self._patience.cancel()
                self._patience = None

        def _give_up(self) -> None:
            if not self._answers():
                self.transport.close()

    return Protocol
