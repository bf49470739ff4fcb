"""``/v1/chat/completions``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from candlewick.server import messages, options
from candlewick.server.answers import Piece, together
from candlewick.server.calls import Arguments, Begin, CallReader, Words
from candlewick.server.errors import ApiError
from candlewick.server.logprobs import content
from candlewick.server.service import Job, usage

if TYPE_CHECKING:
    from candlewick.server.reply import Reply
    from candlewick.server.service import Service
    from candlewick.stream import Token, TokenStream

Delta = dict[str, Any]


async def answer(service: Service, body: dict[str, Any], reply: Reply) -> None:
    """Answers a conversation."""
    if body.get("top_logprobs") and not body.get("logprobs"):
        raise ApiError(400, "`top_logprobs` is given without `logprobs`: true: give both", param="top_logprobs")
    conversation = messages.from_chat(body["messages"])
    given = {
        **options.sampling(body),
        **options.format_of(body.get("response_format")),
        **options.functions(body),
        "max_tokens": options.max_tokens(body, ("max_tokens", "max_completion_tokens"), service.generator.n_ctx),
        "logprobs": body.get("top_logprobs"),
    }
    n = body.get("n", 1)
    jobs = [Job(conversation, {**given, "seed": seed}) for seed in options.seeds(body, n)]
    async with service.answering(jobs) as streams:
        choices = [_Choice(stream, body) for stream in streams]
        if body.get("stream"):
            await _stream(service, body, reply, streams, choices)
        else:
            await _whole(service, reply, streams, choices)


async def _whole(service: Service, reply: Reply, streams: Sequence[TokenStream], choices: list[_Choice]) -> None:
    async for i, piece in together(streams):
        for _ in choices[i].deltas(piece):
            pass
    await reply.json(
        {
            **service.head("chatcmpl", "chat.completion"),
            "choices": [{"index": i, **choice.result()} for i, choice in enumerate(choices)],
            "usage": usage(streams, len(streams)),
        }
    )


async def _stream(
    service: Service, body: dict[str, Any], reply: Reply, streams: Sequence[TokenStream], choices: list[_Choice]
) -> None:
    head = service.head("chatcmpl", "chat.completion.chunk")
    counted = body.get("stream_options", {}).get("include_usage")
    if counted:
        head["usage"] = None

    async def chunk(i: int, delta: Delta, logprobs: Any = None, **more: Any) -> None:
        choice = {"index": i, "delta": delta, "logprobs": logprobs, "finish_reason": None, **more}
        await reply.event({**head, "choices": [choice]})

    for i in range(len(choices)):
        await chunk(i, {"role": "assistant", "content": ""})
    async for i, piece in together(streams):
        for delta, logprobs in choices[i].deltas(piece):
            await chunk(i, delta, logprobs)
        if piece is None:
            await chunk(i, {}, finish_reason=choices[i].finish_reason, candlewick=choices[i].about())
    if counted:
        await reply.event({**head, "choices": [], "usage": usage(streams, len(streams))})
    await reply.event("[DONE]")
    await reply.end()


class _Choice:
    """One answer, taken apart into words and calls."""

    def __init__(self, stream: TokenStream, body: dict[str, Any]) -> None:
        marker = stream._reader.marker if stream._reader is not None else None
        self._stream = stream
        self._reader = CallReader(marker, one=body.get("parallel_tool_calls") is False)
        self._tells_logprobs = bool(body.get("logprobs"))
        self._tokens: list[Token] = []
        self._content = ""
        self._calls: list[dict[str, Any]] = []
        self._logprobs: list[dict[str, Any]] = []

    def deltas(self, piece: Piece | None) -> Iterator[tuple[Delta, Any]]:
        """What a piece of the answer adds to the message, with the log-probabilities of that."""
        if piece is not None:
            self._tokens += piece.tokens
        for part in self._reader.finish() if piece is None else self._reader.feed(piece.text):
            if isinstance(part, Words):
                self._content += part.text
                yield {"content": part.text}, self._taken()
            elif isinstance(part, Begin):
                self._calls.append(_call(part))
                yield {"tool_calls": [{"index": part.call, **_call(part)}]}, None
            elif isinstance(part, Arguments):
                self._calls[part.call]["function"]["arguments"] += part.text
                yield {"tool_calls": [{"index": part.call, "function": {"arguments": part.text}}]}, None
        if self._reader.enough:
            self._stream.cancel()

    def _taken(self) -> dict[str, Any] | None:
        tokens, self._tokens = self._tokens, []
        if not self._tells_logprobs:
            return None
        told = content(tokens)
        self._logprobs += told
        return {"content": told, "refusal": None}

    @property
    def finish_reason(self) -> str | None:
        if self._calls and self._stream.finish_reason != "length":
            return "tool_calls"
        return self._stream.finish_reason

    def about(self) -> dict[str, Any]:
        """What OpenAI's API has no place for."""
        return {"seed": self._stream.seed, "timings": self._stream.timings.to_dict()}

    def result(self) -> dict[str, Any]:
        """The choice of an answer that is complete."""
        message: dict[str, Any] = {"role": "assistant", "content": self._content, "refusal": None}
        if self._calls:
            message |= {"content": None, "tool_calls": self._calls}
        tells = self._tells_logprobs and not self._calls
        return {
            "message": message,
            "logprobs": {"content": self._logprobs, "refusal": None} if tells else None,
            "finish_reason": self.finish_reason,
            "candlewick": self.about(),
        }


def _call(begin: Begin) -> dict[str, Any]:
    return {"id": begin.id, "type": "function", "function": {"name": begin.name, "arguments": ""}}
