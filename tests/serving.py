"""A server in a thread of this process, for the tests that ask it something."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx

from candlewick import Generator
from candlewick.server import create_app
from candlewick.server.run import Server, address, listen
from candlewick.server.service import Service

HAIKU: dict[str, Any] = {"model": "demo", "messages": [{"role": "user", "content": "Write a haiku about rain"}]}


class Serving:
    """The running server: where it is, and what it counts."""

    def __init__(self, url: str, service: Service) -> None:
        self.url = url
        self.service = service

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        return httpx.post(self.url + path, json=body, timeout=60, **options)

    def is_idle(self) -> bool:
        """No answer is written and none waits."""
        return self.service.gate.running == 0 and self.service.gate.waiting == 0


@contextlib.contextmanager
def serving(generator: Generator, **options: Any) -> Iterator[Serving]:
    app = create_app(generator, model="demo", **options)
    ready = threading.Event()
    with listen("127.0.0.1", 0) as listener:
        server = Server(app, ready.set)
        thread = threading.Thread(target=server.run, args=([listener],))
        url = address(listener)
        thread.start()
        try:
            assert ready.wait(30)
            yield Serving(url, app.state.service)
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


def eventually(true: Callable[[], bool], within_s: float = 20) -> None:
    """Waits until it is so."""
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end, "it did not become true"
        time.sleep(0.01)


def events(response: httpx.Response) -> Iterator[Any]:
    """The data of server-sent events, up to ``[DONE]``."""
    for line in response.iter_lines():
        if line.startswith("data: ") and line != "data: [DONE]":
            yield json.loads(line[len("data: ") :])
