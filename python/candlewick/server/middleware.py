"""What happens to every request before an endpoint sees it: it gets a number and a line in the log, and needs a key."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import time
import uuid
from collections.abc import Collection
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders

from candlewick.server.errors import ApiError
from candlewick.server.reply import Reply

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from candlewick.server.metrics import Metrics

log = logging.getLogger(__name__)

_REQUEST_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)
# Those that are counted one by one; what else is asked for would be labels without end.
_COUNTED = frozenset(
    ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/models", "/health", "/metrics", "/"]
)
_OPEN = frozenset(["/health", "/openapi.json"])


def _path(scope: Scope) -> str:
    """Where the request goes, wherever the application is mounted."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


class Observed:
    """Counts requests, writes a line for each, and gives each an ``X-Request-Id``, its own or a new one."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        # As nginx has it: nobody was there to answer.
        status = 499

        async def observe(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                headers["x-content-type-options"] = "nosniff"
            await send(message)

        try:
            await self._app(scope, receive, observe)
        except Exception:
            log.exception("a request failed (%s)", request_id)
            if status == 499:
                await Reply(observe).fail(ApiError(500, "something went wrong in this server, which has it in its log"))
        finally:
            took_s = time.monotonic() - started
            path = _path(scope)
            self._metrics.requests.add(1, path if path in _COUNTED else "other", str(status))
            self._metrics.request_s.observe(took_s)
            # Without what follows "?" and without headers: neither is a place for keys, and yet they are found there.
            log.info("%s %.200r %d %.3f s (%s)", scope["method"], path, status, took_s, request_id)


class Guarded:
    """Asks for a key, but for the page, ``/health`` and ``/openapi.json``.

    Without keys, any is accepted. Then a server for this machine alone answers to no other name than this machine's:
    else a page in its browser could reach it under a name of its own that leads here (DNS rebinding).
    """

    def __init__(
        self, app: ASGIApp, keys: Collection[str], hosts: Collection[str] | None, page: Collection[str]
    ) -> None:
        self._app = app
        self._open = _OPEN.union(page)
        self._digests = [_digest(key) for key in keys]
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            error = self._key(scope, headers) if self._digests else self._host(headers)
            if error is not None:
                await Reply(send).fail(error)
                return
        await self._app(scope, receive, send)

    def _key(self, scope: Scope, headers: Headers) -> ApiError | None:
        if _path(scope) in self._open:
            return None
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            return ApiError(
                401,
                "no API key was given: send the header `Authorization: Bearer KEY`",
                code="missing_api_key",
                close=True,
            )
        given = _digest(key.strip())
        # All of them, always: how long it takes tells nothing.
        if not sum([hmac.compare_digest(given, digest) for digest in self._digests]):
            return ApiError(401, "the API key is not one of this server's", code="invalid_api_key", close=True)
        return None

    def _host(self, headers: Headers) -> ApiError | None:
        host = headers.get("host", "")
        name = re.sub(r":\d*$", "", host).strip("[]").lower()
        if self._hosts is None or name in self._hosts:
            return None
        return ApiError(
            403,
            f"this server answers to {', '.join(sorted(self._hosts))} alone and was called {host[:100]!r}: start it "
            "with an API key, or with the host that it should be reached under",
            code="unknown_host",
            close=True,
        )


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
