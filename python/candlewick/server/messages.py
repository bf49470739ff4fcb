"""OpenAI's messages and items -> those of `Generator.stream`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from candlewick.server.errors import ApiError

Message = dict[str, Any]


def from_chat(messages: list[Mapping[str, Any]]) -> list[Message]:
    """The messages of a chat completion."""
    return [_message(message, f"messages[{i}]") for i, message in enumerate(messages)]


def _message(message: Mapping[str, Any], place: str) -> Message:
    role, content = message["role"], _text(message.get("content"))
    if role == "tool":
        return {"role": role, "content": content, "tool_call_id": message["tool_call_id"]}
    if role == "assistant":
        calls = message.get("tool_calls")
        if content is None and not calls:
            raise ApiError(
                400, f"`{place}` has neither content nor tool_calls, expected one of them", param=f"{place}.content"
            )
        return {"role": role, "content": content or ""} | ({"tool_calls": calls} if calls else {})
    # What OpenAI's newer models call the system's message.
    return {"role": "system" if role == "developer" else role, "content": content}


def from_items(items: str | list[Mapping[str, Any]], instructions: str | None) -> list[Message]:
    """The input of a response."""
    messages: list[Message] = []
    if instructions:
        messages.append({"role": "system", "content": instructions})
    if isinstance(items, str):
        return [*messages, {"role": "user", "content": items}]
    for i, item in enumerate(items):
        if item.get("type") == "function_call":
            function = {"name": item["name"], "arguments": item["arguments"]}
            call = {"id": item["call_id"], "type": "function", "function": function}
            before = messages[-1] if messages else {}
            if before.get("tool_calls"):
                before["tool_calls"].append(call)
            else:
                messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
        elif item.get("type") == "function_call_output":
            messages.append({"role": "tool", "content": _text(item["output"]), "tool_call_id": item["call_id"]})
        else:
            messages.append(_message(item, f"input[{i}]"))
    return messages


def _text(content: str | Iterable[Mapping[str, str]] | None) -> str | None:
    if content is None or isinstance(content, str):
        return content
    return "".join(part["text"] for part in content)
