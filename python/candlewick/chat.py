"""`Chat`: a conversation that remembers, branches, goes back, and can be saved."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any, Literal, cast

from candlewick import structured
from candlewick.errors import Error, InvalidRequestError, SessionError
from candlewick.stream import TextStream

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from typing_extensions import Self, Unpack

    from candlewick.generator import Generator, Options
    from candlewick.stream import ToolCall

Overflow = Literal["error", "truncate_oldest"]
Message = dict[str, Any]

OTHER_NAMES = (("max_tokens", "max_new_tokens"), ("repetition_penalty", "repeat_penalty"))
"""Arguments of `Generator.stream` that have two names: ours, and another library's."""


class Chat:
    """A conversation with a model, made by `Generator.chat`.

    Each answer is what `Generator.stream` gives for `messages`, but only what is new since the last turn is computed.
    `fork` and `rewind` cost next to nothing. What makes that possible is kept with the generator, in a memory that all
    conversations share and that one context bounds; a conversation that was pushed out of it is read again.

    An answer that is still being written when `send`, `fork`, `rewind` or `save` is called ends there, as if cancelled.
    """

    def __init__(
        self,
        generator: Generator,
        system: str | None,
        messages: Sequence[Mapping[str, Any]] | None,
        overflow: Overflow,
        defaults: Options,
    ) -> None:
        # Says what is wrong with them before anything is done with them.
        given = [] if messages is None else messages
        generator._native.session(_plain(generator, given, {}))
        start: list[Message] = [dict(m) for m in given]
        if system is not None:
            if start and start[0].get("role") == "system":
                raise InvalidRequestError(
                    "system= is given, and messages begin with a system message: give one of them"
                )
            start.insert(0, {"role": "system", "content": system})
        if overflow not in ("error", "truncate_oldest"):
            raise InvalidRequestError(f'overflow is {overflow!r}, expected "error" or "truncate_oldest"')
        self._generator = generator
        self._overflow: Overflow = overflow
        self._defaults: Options = {}
        self._defaults = self._merged(defaults)
        self._messages = start
        self._session = generator._native.session(_plain(generator, start, {}))
        # The answer that is being written, or that has ended and is not in the messages yet, and what was before
        self._stream: TextStream | None = None
        self._before = start
        self._lock = threading.RLock()

    def send(self, text: str | Message | Sequence[Message], **options: Unpack[Options]) -> TextStream:
        """Says something, and gives the answer as it is written.

        When the answer ends, it is added to `messages`. If it is cancelled, what there is of it stays; if there is
        nothing of it, or it fails before its first word, the question is taken back too.

        Args:
            text: The user's message; or a message, or several, as dicts, such as the results of the functions that the
                last answer called: ``{"role": "tool", "tool_call_id": ..., "content": ...}``.
            **options: As for `Generator.stream`, but for ``raw``; they come before the conversation's defaults.

        Raises:
            ContextLengthError: The conversation does not fit in the context, and ``overflow`` is ``"error"`` or nothing
                is left to forget. The conversation is as it was before.
            InvalidRequestError: An argument is out of range.
        """
        with self._lock:
            self._end()
            given = self._merged(options)
            said = [text] if isinstance(text, dict) else text
            new = [dict(m) for m in said] if isinstance(said, (list, tuple)) else [{"role": "user", "content": said}]
            messages = [*self._messages, *new]
            if self._overflow == "truncate_oldest":
                messages = self._fitting(messages, given)
            stream = self._generator.stream(messages, **given)
            stream._native.hold(self._session)
            self._before, self._messages, self._stream = self._messages, messages, stream
            return stream

    def fork(self) -> Self:
        """Another conversation that has come the same way and goes on on its own; it shares this one's memory."""
        with self._lock:
            self._end()
            fork = object.__new__(type(self))
            fork.__dict__.update(self.__dict__)
            fork._messages = [dict(m) for m in self._messages]
            fork._session = self._session.fork()
            fork._lock = threading.RLock()
            return fork

    def rewind(self, n: int = 1) -> None:
        """Takes back the last ``n`` turns: the user's message of each, and what followed it.

        Raises:
            InvalidRequestError: There are not so many.
        """
        with self._lock:
            self._end()
            starts = _turns(self._messages)
            if isinstance(n, bool) or not isinstance(n, int):
                raise TypeError(f"n must be int, not {type(n).__name__}")
            if not 0 <= n <= len(starts):
                raise InvalidRequestError(f"n is {n}, expected 0 to {len(starts)}: the turns that there are")
            if n:
                self._messages = self._messages[: starts[-n]]

    @property
    def messages(self) -> list[Message]:
        """What was said so far, the system message first; a copy, which can be changed."""
        with self._lock:
            self._settle()
            return [dict(m) for m in self._messages]

    @property
    def generator(self) -> Generator:
        """Who answers."""
        return self._generator

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the conversation to a file: its messages, and what the model has computed of them.

        The file is complete or not there, and an earlier one of this name stays until then. It takes
        ``gen.info["kv_bytes_per_token"]`` for each token, and can be loaded with the same model and ``kv_type`` alone,
        on any machine. The first time, the model's file is read whole, for its SHA-256.

        Raises:
            OSError: It cannot be written.
        """
        with self._lock:
            self._end()
            text = json.dumps(self._messages, ensure_ascii=False)
            plain = _plain(self._generator, self._messages, self._defaults)
            self._generator._native.save_session(path, text, plain)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        generator: Generator,
        *,
        overflow: Overflow = "error",
        **defaults: Unpack[Options],
    ) -> Self:
        """The conversation that `save` wrote; ``overflow`` and ``defaults`` are as for `Generator.chat`.

        Raises:
            SessionError: The file is damaged, or was saved with another model, another ``kv_type`` or another version.
            OSError: It cannot be read.
        """
        text, session = generator._native.load_session(path)
        try:
            chat = cls(generator, None, json.loads(text), overflow, defaults)
        except (ValueError, TypeError) as error:
            if isinstance(error, Error) and not isinstance(error, InvalidRequestError):
                raise
            raise SessionError(f"`{path}` holds no messages: {error}") from error
        chat._session = session
        return chat

    def __len__(self) -> int:
        """Turns so far: messages of the user."""
        return len(_turns(self.messages))

    def __bool__(self) -> bool:
        """True: a conversation is there also before anything was said."""
        return True

    def __repr__(self) -> str:
        n = len(self)
        return f"<Chat of {n} turn{'' if n == 1 else 's'} with {self._generator!r}>"

    def __reduce__(self) -> str:
        raise TypeError(
            "a Chat belongs to its generator and cannot be pickled or copied: use chat.save(path), or fork()"
        )

    def _settle(self) -> None:
        """Takes in an answer that has ended."""
        stream = self._stream
        if stream is None or stream.finish_reason is None:
            return
        # Another thread may still be in the step that a cancellation ends.
        stream._native.end()
        self._stream = None
        if stream.finish_reason == "cancelled" and not stream.text:
            self._messages = self._before
            return
        answer: Message = {"role": "assistant", "content": stream.text}
        if calls := stream.tool_calls:
            answer = {"role": "assistant", "content": None, "tool_calls": [_written(call) for call in calls]}
        self._messages = [*self._messages, answer]

    def _end(self) -> None:
        if self._stream is not None:
            self._stream.cancel()
        self._settle()

    def _merged(self, options: Options) -> Options:
        """The conversation's defaults with ``options`` in their place; either name of an argument replaces both."""
        known = (type(self._generator).stream.__kwdefaults__ or {}).keys() - {"raw"}
        if unknown := options.keys() - known:
            raise TypeError(
                f"a Chat has no argument {sorted(unknown)[0]!r}, expected some of {', '.join(sorted(known))}"
            )
        replaced = {other for name in options for names in OTHER_NAMES if name in names for other in names}
        kept = {name: value for name, value in self._defaults.items() if name not in replaced}
        return cast("Options", {**kept, **options})

    def _fitting(self, messages: list[Message], given: Options) -> list[Message]:
        """Without the oldest turns, where all of them leave no room for the answer."""
        native, n_ctx = self._generator._native, self._generator.n_ctx
        limit = given.get("max_tokens") or given.get("max_new_tokens")
        limit = limit if isinstance(limit, int) else None

        def fits(messages: list[Message], room: int) -> bool:
            return len(native.encode_prompt(_plain(self._generator, messages, given), False)) + room <= n_ctx

        starts = _turns(messages)
        if len(starts) < 2 or fits(messages, limit or 1):
            return messages
        # More than just enough, or every further turn would begin with forgetting, and with reading all the rest.
        room = limit or n_ctx // 4
        shorter = (messages[: starts[0]] + messages[start:] for start in starts[1:])
        # At last the newest turn alone: it may leave room for a short answer.
        return next((m for m in shorter if fits(m, room)), messages[: starts[0]] + messages[starts[-1] :])


def _turns(messages: list[Message]) -> list[int]:
    """Where each turn begins: at a message of the user."""
    return [i for i, message in enumerate(messages) if message.get("role") == "user"]


def _plain(generator: Generator, messages: Any, given: Options) -> Any:
    """The messages as the model is given them, with the functions that it may call and has called written out."""
    arguments = {name: given.get(name) for name in structured.NAMES}
    return structured.read({**arguments, "raw": False}, messages, generator.apply_chat_template)[0]


def _written(call: ToolCall) -> dict[str, Any]:
    """A call in OpenAI's form, which a file can hold."""
    arguments = json.dumps(call.arguments, ensure_ascii=False)
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}
