"""``/v1/responses``, as far as it needs no memory between requests: nothing is stored.

The answer is one item, a message or the calls of functions. Streamed, each item is announced, written piece by piece,
and then given whole; at the end comes all of the response.
"""

from __future__ import annotations

import itertools
import time
import uuid
from typing import TYPE_CHECKING, Any

from candlewick.server import messages, options
from candlewick.server.answers import together
from candlewick.server.calls import Begin, CallReader, Words
from candlewick.server.service import Job

if TYPE_CHECKING:
    from candlewick.server.reply import Reply
    from candlewick.server.service import Service
    from candlewick.stream import TokenStream


async def answer(service: Service, body: dict[str, Any], reply: Reply) -> None:
    """Answers a conversation."""
    given = {
        **options.sampling(body),
        **options.format_of(body.get("text", {}).get("format")),
        **options.functions(body),
        "max_tokens": options.max_tokens(body, ("max_output_tokens",), service.generator.n_ctx),
    }
    conversation = messages.from_items(body["input"], body.get("instructions"))
    async with service.answering([Job(conversation, given)]) as [stream]:
        response = _Response(service.model, body, stream, reply)
        await response.begin()
        async for _, piece in together([stream]):
            await response.add("" if piece is None else piece.text, piece is None)
        await response.end()


class _Response:
    """A response that grows."""

    def __init__(self, model: str, body: dict[str, Any], stream: TokenStream, reply: Reply) -> None:
        self._stream = stream
        self._reply = reply
        self._streams = bool(body.get("stream"))
        self._numbers = itertools.count()
        marker = stream._reader.marker if stream._reader is not None else None
        self._reader = CallReader(marker, one=body.get("parallel_tool_calls") is False)
        # The item that is being written
        self._item: dict[str, Any] | None = None
        self._all: dict[str, Any] = {
            "id": f"resp_{uuid.uuid4().hex}",
            "object": "response",
            "created_at": int(time.time()),
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "instructions": body.get("instructions"),
            "max_output_tokens": body.get("max_output_tokens"),
            "metadata": body.get("metadata", {}),
            "model": model,
            "output": [],
            "parallel_tool_calls": body.get("parallel_tool_calls", True),
            "previous_response_id": None,
            "store": False,
            "temperature": body.get("temperature", 1.0),
            "text": body.get("text", {"format": {"type": "text"}}),
            "tool_choice": body.get("tool_choice", "auto"),
            "tools": body.get("tools", []),
            "top_p": body.get("top_p", 1.0),
            "truncation": "disabled",
            "usage": None,
        }

    async def begin(self) -> None:
        await self._event("response.created", response=self._all)
        await self._event("response.in_progress", response=self._all)

    async def add(self, text: str, last: bool) -> None:
        """Takes in a piece of the answer."""
        for part in self._reader.finish() if last else self._reader.feed(text):
            if isinstance(part, Words):
                if self._item is None:
                    await self._begin_message()
                await self._write("response.output_text.delta", part.text, content_index=0, logprobs=[])
            elif isinstance(part, Begin):
                await self._end_item()
                await self._begin_item("fc", "function_call", call_id=part.id, name=part.name, arguments="")
            else:
                await self._write("response.function_call_arguments.delta", part.text)
        if self._reader.enough:
            self._stream.cancel()

    async def end(self) -> None:
        """The last events, or all of the answer at once."""
        cut = self._stream.finish_reason == "length"
        if self._item is None and not self._all["output"]:
            await self._begin_message()
        await self._end_item("incomplete" if cut else "completed")
        self._all["status"] = "incomplete" if cut else "completed"
        if cut:
            self._all["incomplete_details"] = {"reason": "max_output_tokens"}
        usage = self._stream.usage
        self._all["usage"] = {
            "input_tokens": usage.prompt_tokens,
            "input_tokens_details": {"cached_tokens": usage.cached_tokens},
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage.total_tokens,
        }
        await self._event(f"response.{self._all['status']}", response=self._all)
        if self._streams:
            await self._reply.end()
        else:
            await self._reply.json(self._all)

    async def _begin_message(self) -> None:
        await self._begin_item("msg", "message", role="assistant", content=[])
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        await self._event("response.content_part.added", **self._place(), content_index=0, part=part)
        assert self._item is not None
        self._item["content"].append(part)

    async def _begin_item(self, prefix: str, kind: str, **fields: Any) -> None:
        self._item = {"id": f"{prefix}_{uuid.uuid4().hex}", "type": kind, "status": "in_progress", **fields}
        await self._event("response.output_item.added", output_index=len(self._all["output"]), item=self._item)

    async def _write(self, event: str, text: str, **fields: Any) -> None:
        assert self._item is not None
        if self._item["type"] == "message":
            self._item["content"][0]["text"] += text
        else:
            self._item["arguments"] += text
        await self._event(event, **self._place(), delta=text, **fields)

    async def _end_item(self, status: str = "completed") -> None:
        item = self._item
        if item is None:
            return
        if item["type"] == "message":
            part = item["content"][0]
            await self._event(
                "response.output_text.done", **self._place(), content_index=0, text=part["text"], logprobs=[]
            )
            await self._event("response.content_part.done", **self._place(), content_index=0, part=part)
        else:
            await self._event(
                "response.function_call_arguments.done",
                **self._place(),
                name=item["name"],
                arguments=item["arguments"],
            )
        item["status"] = status
        await self._event("response.output_item.done", output_index=len(self._all["output"]), item=item)
        self._all["output"].append(item)
        self._item = None

    def _place(self) -> dict[str, Any]:
        assert self._item is not None
        return {"item_id": self._item["id"], "output_index": len(self._all["output"])}

    async def _event(self, kind: str, /, **fields: Any) -> None:
        if self._streams:
            await self._reply.event({"type": kind, "sequence_number": next(self._numbers), **fields}, kind)
