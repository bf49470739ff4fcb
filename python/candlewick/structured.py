"""The arguments that constrain a text: what the core is told, and what becomes of the finished text."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from candlewick.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable

    from candlewick.stream import ToolCall

NAMES = ("json_schema", "regex", "grammar", "tools", "tool_choice")
"""The arguments of `Generator.stream` that are read here."""

_FLAGS = {re.IGNORECASE: "i", re.DOTALL: "s", re.VERBOSE: "x"}


@dataclass(frozen=True)
class Reader:
    """Reads a complete text: as a value, or as calls."""

    parse: Callable[[str], Any] | None = None
    calls: Callable[[str], list[ToolCall]] | None = None
    marker: str | None = None
    """What a text that calls begins with, and no other does."""


def read(
    arguments: dict[str, Any], prompt: Any, apply_chat_template: Callable[[Any], str]
) -> tuple[Any, tuple[str, Any] | None, Reader | None]:
    """Takes the constraints out of ``arguments``: the prompt as it must be then, what the core is told, the reader."""
    json_schema, regex, grammar, tools, tool_choice = (arguments.pop(name) for name in NAMES)
    given = {"json_schema": json_schema, "regex": regex, "grammar": grammar, "tools": tools}
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise InvalidRequestError(f"{' and '.join(names)} are given, and a text can follow one of them: give one")
    conversation = _conversation(prompt, arguments["raw"])
    calls_before = conversation is not None and _uses_tools(conversation)
    if tools is not None or tool_choice is not None or calls_before:
        # A conversation without calls does not wait for this import.
        from candlewick.tools import call_prefix, calls_in, messages_with, plain_messages
        from candlewick.tools import read as read_tools

        chosen = read_tools(tools, tool_choice)
        if conversation is not None and (chosen or calls_before):
            in_template = _takes({"role": "system", "content": "x", "tools": "[]"}, apply_chat_template)
            has_role = in_template and _takes({"role": "tool", "content": "x"}, apply_chat_template)
            conversation = plain_messages(conversation, in_template, has_role)
            prompt = messages_with(chosen, conversation, in_template) if chosen else conversation
        else:
            # The prompt is the caller's own writing.
            in_template = False
        if chosen:
            prefix = call_prefix(in_template)
            reader = Reader(calls=functools.partial(calls_in, prefix=prefix), marker=f"{prefix}[")
            return prompt, chosen.constraint(prefix), reader
    if json_schema is not None:
        from candlewick.schema import shape

        found = shape(json_schema)
        return prompt, ("json_schema", found.schema), Reader(parse=found.read)
    if regex is not None:
        return prompt, ("regex", _pattern(regex)), None
    if grammar is not None:
        return prompt, ("grammar", grammar), None
    return prompt, None, None


def _conversation(prompt: Any, raw: bool) -> list[Mapping[str, Any]] | None:
    """The messages of a prompt that goes through the chat template; ``None`` for another, or one with other faults."""
    if isinstance(prompt, str):
        return None if raw else [{"role": "user", "content": prompt}]
    if isinstance(prompt, Sequence) and prompt and all(isinstance(message, Mapping) for message in prompt):
        return None if raw else list(prompt)
    return None


def _uses_tools(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a call, or the result of one, is among the messages."""
    return any(message.get("role") == "tool" or message.get("tool_calls") for message in messages)


def _takes(message: dict[str, str], apply_chat_template: Callable[[Any], str]) -> bool:
    """Whether the chat template has a place for a message."""
    try:
        apply_chat_template([message, {"role": "user", "content": "x"}])
    except InvalidRequestError:
        return False
    return True


def _pattern(regex: Any) -> Any:
    """The text of a pattern, compiled or not, with its flags in front."""
    if not isinstance(regex, re.Pattern) or not isinstance(regex.pattern, str):
        return regex
    flags = re.RegexFlag(regex.flags) & ~re.UNICODE
    letters = "".join(letter for flag, letter in _FLAGS.items() if flags & flag)
    if rest := flags & ~(re.IGNORECASE | re.DOTALL | re.VERBOSE):
        raise InvalidRequestError(
            f"regex has the flags {rest!r}, expected re.IGNORECASE, re.DOTALL or re.VERBOSE at most"
        )
    return f"(?{letters}:{regex.pattern})" if letters else regex.pattern
