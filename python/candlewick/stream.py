"""Streams of text and of tokens, and what a finished generation looks like."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar

from candlewick import shading, trace
from candlewick.errors import InvalidRequestError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

    from candlewick import _native
    from candlewick.structured import Reader
    from candlewick.trace import Origin

FinishReason = Literal["stop", "length", "cancelled", "tool_calls"]
T = TypeVar("T")
Item = tuple[int, str, float, list[tuple[int, str, float, bytes]]]
"""A token as the native stream gives it: id, text, logprob, alternatives."""


class TopLogprob(NamedTuple):
    """A token that could have come, named as in OpenAI's API."""

    id: int
    """Its id in the vocabulary."""
    text: str
    """Its text by itself, invalid UTF-8 as U+FFFD; for a special token its spelling, such as ``<|end|>``."""
    logprob: float
    """Natural-log probability under the model, before penalties, temperature and filters."""
    bytes: bytes
    """What it adds to a text; nothing for special tokens."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON, as OpenAI's API has it."""
        return {"id": self.id, "token": self.text, "logprob": self.logprob, "bytes": list(self.bytes)}


class Token(NamedTuple):
    """One generated token."""

    id: int
    """Its id in the vocabulary."""
    text: str
    """The text that became certain with it: empty while a character or a stop string may be incomplete."""
    logprob: float
    """Natural-log probability under the model, before penalties, temperature and filters."""
    top_logprobs: tuple[TopLogprob, ...] = ()
    """The likeliest tokens in its place, likeliest first: as many as ``logprobs`` asked for."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON, as OpenAI's API has it."""
        return {
            "id": self.id,
            "token": self.text,
            "logprob": self.logprob,
            "bytes": list(self.text.encode()),
            "top_logprobs": [other.to_dict() for other in self.top_logprobs],
        }


def _token(item: Item) -> Token:
    id, text, logprob, alternatives = item
    return Token(id, text, logprob, tuple(TopLogprob(*alternative) for alternative in alternatives))


@dataclass(frozen=True)
class Usage:
    """Counts of tokens, named as in OpenAI's API."""

    prompt_tokens: int
    """Tokens of the prompt, chat template and BOS included."""
    completion_tokens: int
    """Generated tokens, the one that ended the stream included."""
    cached_tokens: int = 0
    """Prompt tokens that were not computed again: an earlier prompt or answer began with the same ones."""
    accepted_tokens: int = 0
    """Generated tokens that ``speculative`` guessed right: they came with an earlier token's step."""

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens

    def to_dict(self) -> dict[str, int]:
        """For JSON."""
        return {**dataclasses.asdict(self), "total_tokens": self.total_tokens}


@dataclass(frozen=True)
class Timings:
    """How long things took; ``None`` is not known yet."""

    ttft_s: float | None
    """Seconds from the first ``next()``, where reading the prompt starts, to the first token."""
    prompt_tps: float | None
    """Prompt tokens per second until the first token, those that were computed (not `Usage.cached_tokens`)."""
    generation_tps: float | None
    """Tokens per second between the first token and the last."""
    recompute_s: float
    """Seconds of the generation that went into reading all tokens again, which happens once when a model with long
    rope (Phi-3-128k, Phi-3.5, Phi-4-mini) outgrows its original context; 0.0 where it did not."""

    def to_dict(self) -> dict[str, float | None]:
        """For JSON."""
        return dataclasses.asdict(self)


def _settle(future: asyncio.Future[Any], item: Any, error: BaseException | None) -> None:
    # A task that was cancelled has cancelled it.
    if future.done():
        return
    if error is None:
        future.set_result(item)
    else:
        future.set_exception(error)


class _Stream(Generic[T]):
    """What text and token streams share."""

    def __init__(self, native: _native.Stream, reader: Reader | None, origin: Origin) -> None:
        self._native = native
        self._reader = reader
        self._origin = origin
        self._calls: list[ToolCall] | None = None

    def _next(self) -> T | None:
        raise NotImplementedError

    def _await(self, deliver: Callable[[Any, BaseException | None], object]) -> None:
        """Has ``deliver`` called from another thread with what `_read` makes an item of."""
        raise NotImplementedError

    def _read(self, item: Any) -> T | None:
        raise NotImplementedError

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        item = self._next()
        if item is None:
            raise StopIteration
        return item

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        # Whoever gets here has it; for everybody else it would be a third of the import.
        import asyncio

        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._await(lambda item, error: loop.call_soon_threadsafe(_settle, future, item, error))
        try:
            item = self._read(await future)
        except BaseException:
            # The task was cancelled or is being taken down; what the step raised has ended the stream already.
            self.cancel()
            raise
        if item is None:
            raise StopAsyncIteration
        return item

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def cancel(self) -> None:
        """End the stream, from any thread; what it gave so far stays readable.

        A step that runs in another thread ends after the layer it is in. A stream that has ended stays as it is.
        """
        self._native.cancel()

    def close(self) -> None:
        """The same as `cancel`, under the name that generators have."""
        self.cancel()

    async def aclose(self) -> None:
        """The same as `cancel`, under the name that asynchronous generators have."""
        self.cancel()

    @property
    def text(self) -> str:
        """All text so far."""
        return self._native.text

    @property
    def tokens(self) -> tuple[Token, ...]:
        """All tokens so far, however the stream is read."""
        return tuple(map(_token, self._native.tokens))

    @property
    def finish_reason(self) -> FinishReason | None:
        """``"stop"``, ``"length"``, ``"cancelled"`` or ``"tool_calls"``; ``None`` while it runs."""
        return "tool_calls" if self.tool_calls else self._native.finish_reason

    @property
    def stop_reason(self) -> str | int | None:
        """The stop string, or the id of the token, that ended the stream; ``None`` otherwise."""
        return self._native.stop_reason

    @property
    def partial(self) -> Any:
        """The JSON value that the text so far has, while it is being written; ``None`` before it begins.

        A string is there as far as it is written. A number, ``true``, ``false`` or ``null`` at the end of the text may
        go on and is left out until something follows, and so is a key without a value.
        """
        # A quarter of the import's time for everybody else: json, and the patterns.
        import json

        from candlewick.partial import partial

        if self._complete:
            try:
                return json.loads(self.text)
            except ValueError:
                pass
        return partial(self.text)

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The calls that the finished answer asks for; none while it runs, or where it is in words."""
        if self._calls is None and self._complete and self._reader is not None and self._reader.calls is not None:
            self._calls = self._reader.calls(self.text)
        return self._calls or []

    @property
    def _complete(self) -> bool:
        """Ended by itself: by no limit and no stop string."""
        return self._native.finish_reason == "stop" and not isinstance(self._native.stop_reason, str)

    @property
    def _parser(self) -> Callable[[str], Any] | None:
        return self._reader.parse if self._reader is not None and self._complete else None

    @property
    def usage(self) -> Usage:
        """Counts so far."""
        prompt, completion, accepted, cached = self._native.usage
        return Usage(prompt, completion, cached_tokens=cached, accepted_tokens=accepted)

    @property
    def timings(self) -> Timings:
        """Times so far."""
        ttft_s, generation_s, recompute_s = self._native.timings
        usage = self.usage
        return Timings(
            ttft_s=ttft_s,
            prompt_tps=(usage.prompt_tokens - usage.cached_tokens) / ttft_s if ttft_s else None,
            generation_tps=(usage.completion_tokens - 1) / generation_s if generation_s else None,
            recompute_s=recompute_s,
        )

    @property
    def seed(self) -> int:
        """The seed in use: passing it again gives the same text."""
        return self._native.seed

    def __repr__(self) -> str:
        state = self.finish_reason or "running"
        text = self.text
        shown = text if len(text) <= 60 else text[:57] + "..."
        return f"<{type(self).__name__} {state}, {self.usage.completion_tokens} tokens, {shown!r}>"

    def _repr_html_(self) -> str:
        """The text so far with each token shaded by its probability, for notebooks."""
        note = "" if self.finish_reason else "(running)"
        return shading.html(shading.items(self.tokens), note)


class TextStream(_Stream[str]):
    """The text of one generation, as it is written.

    Iterating, with ``for`` or ``async for``, gives non-empty pieces of text; joined they are `text`. No piece ends
    inside a character, and no part of a stop string is given. Leaving a ``with`` block cancels the stream.
    """

    def _next(self) -> str | None:
        return self._native.next_text()

    def _await(self, deliver: Callable[[Any, BaseException | None], object]) -> None:
        self._native.await_text(deliver)

    def _read(self, item: str | None) -> str | None:
        return item

    def completion(self) -> Completion:
        """The result, once the stream has ended.

        Raises:
            InvalidRequestError: It still runs.
        """
        if self.finish_reason is None:
            raise InvalidRequestError("the stream still runs: read it to its end, or cancel() it")
        return Completion(
            text=self.text,
            finish_reason=self.finish_reason,
            stop_reason=self.stop_reason,
            usage=self.usage,
            timings=self.timings,
            seed=self.seed,
            tokens=self.tokens,
            tool_calls=self.tool_calls,
            _parse=self._parser,
            _prompt_ids=tuple(self._native.prompt_ids),
            _origin=self._origin,
        )


class TokenStream(_Stream[Token]):
    """The tokens of one generation: as `TextStream`, but each item is a `Token`."""

    def _next(self) -> Token | None:
        return self._read(self._native.next_token())

    def _await(self, deliver: Callable[[Any, BaseException | None], object]) -> None:
        self._native.await_token(deliver)

    def _read(self, item: Item | None) -> Token | None:
        return None if item is None else _token(item)


@dataclass(frozen=True)
class ToolCall:
    """A call that the model asks for."""

    id: str
    """Names the call in the message that answers it (``"tool_call_id"``)."""
    name: str
    """The function."""
    arguments: dict[str, Any]
    """Its arguments, as JSON has them; they fit the function's schema."""


@dataclass(frozen=True)
class Completion:
    """A finished generation; ``str()`` gives its text."""

    text: str
    """The generated text."""
    finish_reason: FinishReason
    """Why it ended."""
    stop_reason: str | int | None = field(repr=False)
    """The stop string, or the id of the token, that ended it."""
    usage: Usage = field(repr=False)
    """Counts of tokens."""
    timings: Timings = field(repr=False)
    """How long it took."""
    seed: int
    """The seed that gives this text again."""
    tokens: tuple[Token, ...] = field(repr=False, default=())
    """What was generated, token by token, the one that ended it included."""
    tool_calls: list[ToolCall] = field(default_factory=list, repr=False)
    """The calls that it asks for."""
    _parse: Callable[[str], Any] | None = field(default=None, repr=False, compare=False)
    _prompt_ids: tuple[int, ...] = field(repr=False, default=())
    _origin: Origin | None = field(repr=False, compare=False, default=None)

    @property
    def logprobs(self) -> tuple[float, ...]:
        """The natural-log probability of each of `tokens` under the model."""
        return tuple(token.logprob for token in self.tokens)

    @property
    def parsed(self) -> Any:
        """What the text says, with ``json_schema``: an object of the type that was given, or else plain JSON data.

        ``None`` where there was no ``json_schema``, or the text is not complete.

        Raises:
            pydantic.ValidationError: A validator of the model's own refuses the text.
            ValueError: A dataclass's ``__post_init__`` does.
        """
        return None if self._parse is None else self._parse(self.text)

    def __str__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        """The text with each token shaded by its probability, for notebooks."""
        return shading.html(shading.items(self.tokens))

    def to_dict(self) -> dict[str, Any]:
        """For JSON, with OpenAI's names where it has them; ``"logprobs"`` is ``None`` unless they were asked for."""
        asked = self._origin is not None and self._origin.arguments.get("logprobs") is not None
        return {
            "text": self.text,
            "finish_reason": self.finish_reason,
            "stop_reason": self.stop_reason,
            "tool_calls": [dataclasses.asdict(call) for call in self.tool_calls],
            "logprobs": {"content": [token.to_dict() for token in self.tokens]} if asked else None,
            "usage": self.usage.to_dict(),
            "timings": self.timings.to_dict(),
            "seed": self.seed,
        }

    def trace(self) -> dict[str, Any]:
        """All that is needed to generate this again, for ``json.dump`` and ``candlewick replay``.

        It holds the package's version, the model's name, path and SHA-256 (the file is read for it once), the ids of
        the prompt and of the answer, every parameter, the seed, and what it ran on. The generator must still be open.

        Raises:
            InvalidRequestError: The generator is closed or gone.
        """
        return trace.record(self)
