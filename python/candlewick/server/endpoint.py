"""An endpoint that takes JSON: reads it, answers, and stops when nobody listens any more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect, Request

from candlewick.server.errors import ApiError, from_exception
from candlewick.server.reading import read
from candlewick.server.reply import Reply

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from candlewick.server.checking import Schema
    from candlewick.server.service import Service

log = logging.getLogger(__name__)

Answer = Callable[["Service", "dict[str, Any]", Reply], Awaitable[None]]


class Endpoint:
    """Gives ``answer`` what was asked, once it fits ``schema``."""

    def __init__(self, service: Service, schema: Schema, answer: Answer) -> None:
        self._service = service
        self._schema = schema
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reply = Reply(send)
        body: dict[str, Any] = {}
        try:
            body = await read(Request(scope, receive), self._schema, self._service.limits)
            self._service.check_model(body["model"])
            await _heard(receive, self._within_limits(body, reply))
        except ClientDisconnect:
            pass
        except Exception as error:
            said = from_exception(error, body)
            if said is None:
                log.exception("a request failed")
                said = ApiError(500, "something went wrong in this server, which has it in its log")
            await reply.fail(said)

    async def _within_limits(self, body: dict[str, Any], reply: Reply) -> None:
        limit = self._service.limits.request_s
        try:
            await asyncio.wait_for(self._answer(self._service, body, reply), limit)
        except asyncio.TimeoutError:
            raise ApiError(
                503,
                f"the answer was not complete within {limit:g} s, which is the limit here",
                code="timeout",
                retry_after_s=5,
            ) from None


async def _heard(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Does the work while the client is there.

    Raises:
        ClientDisconnect: It left, and the work was cancelled.
    """
    task = asyncio.create_task(work)
    gone = asyncio.create_task(_gone(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        task.result()
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
