"""What the endpoints share: the model, the places for answers, and the counts."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from candlewick import __version__
from candlewick.generator import Generator, Prompt
from candlewick.server.errors import ApiError
from candlewick.server.limits import Gate, Limits
from candlewick.server.metrics import Metrics
from candlewick.stream import TokenStream


class Job(NamedTuple):
    """An answer that is wanted: the arguments of `Generator.stream_tokens`."""

    prompt: Prompt
    options: dict[str, Any]


@dataclass
class Service:
    """One model that answers."""

    generator: Generator
    model: str
    """The name that requests give."""
    limits: Limits
    created: int = field(default_factory=lambda: int(time.time()))
    """When it began, in Unix seconds: the age of the model, as far as anybody asks."""

    def __post_init__(self) -> None:
        self.gate = Gate(self.limits)
        self.metrics = Metrics()
        self.fingerprint = f"candlewick-{__version__}"
        # Templates, tokenizers and grammars: a long prompt keeps one of these busy, and not the event loop.
        self._executor = ThreadPoolExecutor(4, "candlewick-server")

    @contextlib.asynccontextmanager
    async def answering(self, jobs: Sequence[Job]) -> AsyncIterator[list[TokenStream]]:
        """The streams of the jobs, once it is their turn; leaving cancels those that still run.

        Raises:
            ApiError: Too many wait already, or there are more jobs than may ever run at once.
        """
        if len(jobs) > self.limits.max_running:
            raise ApiError(
                400, f"{len(jobs)} answers are asked for, expected at most {self.limits.max_running}", param="n"
            )
        arrived = time.monotonic()
        async with self.gate.places(len(jobs)):
            began = time.monotonic()
            self.metrics.queue_s.observe(began - arrived)
            streams = await self._start(jobs)
            try:
                yield streams
            finally:
                for stream in streams:
                    stream.cancel()
                    self.metrics.count(stream, began - arrived)

    async def _start(self, jobs: Sequence[Job]) -> list[TokenStream]:
        loop = asyncio.get_running_loop()
        starts = [functools.partial(self.generator.stream_tokens, job.prompt, **job.options) for job in jobs]
        try:
            return await asyncio.gather(*(loop.run_in_executor(self._executor, start) for start in starts))
        except TypeError as error:
            # What the schemas leave open, such as the description of a function.
            raise ApiError(400, str(error), code="invalid_type") from None

    def check_model(self, name: str) -> None:
        """Passes if it is this one.

        Raises:
            ApiError: It is another.
        """
        if name != self.model:
            raise ApiError(
                404,
                f"the model {name[:100]!r} does not exist here, expected {self.model!r}",
                param="model",
                code="model_not_found",
            )

    def head(self, prefix: str, kind: str) -> dict[str, Any]:
        """What every answer, and each part of one that is streamed, begins with."""
        return {
            "id": f"{prefix}-{uuid.uuid4().hex}",
            "object": kind,
            "created": int(time.time()),
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }

    def close(self) -> None:
        """Lets the threads go."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def usage(streams: Sequence[TokenStream], n: int = 1) -> Mapping[str, Any]:
    """Counts of all answers, of which ``n`` in a row share a prompt."""
    prompt = sum(stream.usage.prompt_tokens for stream in streams[::n])
    completion = sum(stream.usage.completion_tokens for stream in streams)
    cached = sum(stream.usage.cached_tokens for stream in streams[::n])
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
