"""Many prompts at once: `Generator.generate_batch`."""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING

from candlewick.errors import Error, InvalidRequestError
from candlewick.progress import PROMPTS, reporting

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from candlewick.generator import Generator, Options, Prompt
    from candlewick.progress import Report
    from candlewick.stream import Completion, TextStream

AT_ONCE = 16
"""Sequences in a pass. With more, each token takes longer and all of them as long; memory is for so many."""

MOST_SEED = 2**64


def generate_batch(
    generator: Generator,
    prompts: Iterable[Prompt],
    return_exceptions: bool,
    progress: bool | Report,
    options: Options,
) -> list[Completion | BaseException]:
    """As `Generator.generate_batch` describes it."""
    listed = _listed(prompts)
    batch = _Batch(generator, listed, options, return_exceptions)
    with reporting(progress, unit=PROMPTS) as report:
        try:
            for done in batch.run():
                if report is not None:
                    report(done, len(listed), "generating")
        finally:
            # Ctrl-C, an error, or what `progress` raised: nothing runs any more after this.
            batch.end()
    return batch.results


class _Batch:
    def __init__(self, generator: Generator, prompts: list[Prompt], options: Options, return_exceptions: bool) -> None:
        self._generator = generator
        self._prompts = prompts
        self._options = options
        self._return_exceptions = return_exceptions
        self._running: dict[int, TextStream] = {}
        self._ended: queue.SimpleQueue[tuple[int, BaseException | None]] = queue.SimpleQueue()
        self._results: dict[int, Completion | BaseException] = {}

    @property
    def results(self) -> list[Completion | BaseException]:
        return [self._results[i] for i in range(len(self._prompts))]

    def run(self) -> Iterator[int]:
        """How many are done, after each that is."""
        for i in range(len(self._prompts)):
            while len(self._running) == AT_ONCE:
                yield self._wait()
            self._start(i)
        while self._running:
            yield self._wait()

    def end(self) -> None:
        for stream in self._running.values():
            stream.cancel()
        for stream in self._running.values():
            stream._native.end()

    def _start(self, i: int) -> None:
        try:
            stream = self._generator.stream(self._prompts[i], **self._seeded(i))
            self._running[i] = stream
            stream._native.await_end(lambda _, error: self._ended.put((i, error)))
        except Exception as error:
            self._running.pop(i, None)
            self._fail(i, error)

    def _seeded(self, i: int) -> Options:
        seed = self._options.get("seed")
        if not isinstance(seed, int) or isinstance(seed, bool):
            return self._options
        return {**self._options, "seed": (seed + i) % MOST_SEED if 0 <= seed < MOST_SEED else seed}

    def _wait(self) -> int:
        while True:
            try:
                # With a limit, because Windows hears no Ctrl-C meanwhile.
                i, error = self._ended.get(timeout=0.1)
                break
            except queue.Empty:
                pass
        stream = self._running.pop(i)
        if error is None:
            self._results[i] = stream.completion()
        else:
            self._fail(i, error)
        return len(self._results)

    def _fail(self, i: int, error: BaseException) -> None:
        if not self._return_exceptions:
            if isinstance(error, Error):
                raise type(error)(f"prompts[{i}]: {error}") from error
            raise error
        self._results[i] = error


def _listed(prompts: Iterable[Prompt]) -> list[Prompt]:
    """A list of prompts; one prompt, which is a sequence too, is told from several."""
    if isinstance(prompts, str):
        raise InvalidRequestError("prompts is one string, expected a list of prompts: write [prompt]")
    listed = list(prompts)
    if listed and isinstance(listed[0], (int, dict)):
        one = "a list of token ids" if isinstance(listed[0], int) else "a list of messages"
        raise InvalidRequestError(f"prompts is {one}, which is one prompt, expected a list of prompts: write [prompt]")
    return listed
