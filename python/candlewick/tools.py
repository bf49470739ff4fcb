"""Functions that a model may call: their descriptions, the prompt that lists them, and the calls in its answer.

Where the chat template has a place for tools (Phi-4-mini's has), they are listed there and calls are written as that
model was taught, ``functools[{"name": ..., "arguments": {...}}, ...]``. Elsewhere the system message ends with a list
of the functions and asks for the same JSON list without the word in front; results go back as a user's message.
"""

from __future__ import annotations

import collections.abc
import inspect
import json
import os
import re
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from candlewick import schema
from candlewick.errors import InvalidRequestError
from candlewick.stream import ToolCall

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_MARKER = "functools"
_CHOICES = '"auto", "none", "required" or {"name": ...}'


@dataclass(frozen=True)
class Tool:
    """A function as models are told of it."""

    name: str
    description: str
    parameters: dict[str, Any]
    """A JSON Schema of the arguments, which are an object."""


@dataclass(frozen=True)
class Tools:
    """The functions of a request, and which of them the answer may or must call."""

    tools: list[Tool]
    choice: str | Tool

    def constraint(self, prefix: str) -> tuple[str, tuple[str, bool, list[tuple[str, str]]]]:
        """What the core makes the grammar of."""
        callable_ = [self.choice] if isinstance(self.choice, Tool) else self.tools
        functions = [(t.name, schema.dumps(t.parameters, f"the parameters of the tool `{t.name}`")) for t in callable_]
        return "tools", (prefix, self.choice == "auto", functions)

    def listed(self) -> str:
        """The functions as JSON, for the prompt."""
        tools = [{"name": t.name, "description": t.description, "parameters": t.parameters} for t in self.tools]
        return json.dumps(tools, ensure_ascii=False)


def read(tools: Any, choice: Any) -> Tools | None:
    """The arguments ``tools`` and ``tool_choice``; ``None`` where no function may be called."""
    if tools is None:
        if choice is not None:
            raise InvalidRequestError("tool_choice is given without tools: give both")
        return None
    if not isinstance(tools, collections.abc.Sequence) or isinstance(tools, (str, bytes)):
        raise TypeError(f"tools must be a list of functions or schemas, not {type(tools).__name__}")
    if not tools:
        raise InvalidRequestError("tools is an empty list, expected at least one function (or None)")
    described = [describe(tool, f"tools[{i}]") for i, tool in enumerate(tools)]
    names = [tool.name for tool in described]
    for name in names:
        if names.count(name) > 1:
            raise InvalidRequestError(f"tools has two functions called {name!r}")
    choice = _choice(choice, described)
    return None if choice == "none" else Tools(described, choice)


def _choice(choice: Any, tools: list[Tool]) -> str | Tool:
    if choice is None:
        return "auto"
    if isinstance(choice, str):
        if choice in ("auto", "none", "required"):
            return choice
        raise InvalidRequestError(f"tool_choice is {choice!r}, expected {_CHOICES}")
    name = None
    if isinstance(choice, collections.abc.Mapping):
        function = choice.get("function")
        name = function.get("name") if isinstance(function, collections.abc.Mapping) else choice.get("name")
    if not isinstance(name, str):
        raise InvalidRequestError(f"tool_choice is {choice!r}, expected {_CHOICES}")
    for tool in tools:
        if tool.name == name:
            return tool
    raise InvalidRequestError(f"tool_choice names {name!r}, and tools has {', '.join(t.name for t in tools)}")


def describe(tool: Any, place: str = "the tool") -> Tool:
    """A function with annotations, or a schema in OpenAI's form, as models are told of it.

    Raises:
        InvalidRequestError: It has a part that cannot be described.
    """
    if isinstance(tool, collections.abc.Mapping):
        return _from_schema(tool, place)
    if callable(tool):
        return _from_function(tool, place)
    raise TypeError(f"{place} must be a function or a schema (dict), not {type(tool).__name__}")


def _from_schema(tool: Mapping[str, Any], place: str) -> Tool:
    function = tool.get("function", tool) if tool.get("type", "function") == "function" else None
    if not isinstance(function, collections.abc.Mapping) or not isinstance(function.get("name"), str):
        raise InvalidRequestError(
            f'{place} is {tool!r}, expected {{"type": "function", "function": {{"name": ..., "parameters": ...}}}}'
        )
    name = _checked(function["name"], place)
    known = {"type", "name", "description", "parameters", "strict"}
    if unknown := sorted(str(key) for key in function if key not in known):
        raise InvalidRequestError(f"{place} has the key {unknown[0]!r}, expected name, description, parameters, strict")
    parameters = function.get("parameters")
    if parameters is None:
        parameters = {"type": "object", "properties": {}, "additionalProperties": False}
    if not isinstance(parameters, collections.abc.Mapping) or parameters.get("type") != "object":
        raise InvalidRequestError(f'the parameters of the tool `{name}` are no schema of "type": "object"')
    return Tool(name, str(function.get("description") or ""), dict(parameters))


def _checked(name: str, place: str) -> str:
    if not _NAME.fullmatch(name):
        raise InvalidRequestError(f"{place} is called {name!r}, expected 1 to 64 of a-z, A-Z, 0-9, _ and -")
    return name


def _from_function(function: Callable[..., Any], place: str) -> Tool:
    name = getattr(function, "__name__", None)
    if not isinstance(name, str):
        raise InvalidRequestError(f"{place} is {function!r}, which has no name: wrap it in a function (def)")
    _checked(name, place)
    try:
        parameters = inspect.signature(function).parameters
        # A class is described by how it is made.
        described = function.__init__ if isinstance(function, type) else function  # type: ignore[misc]
        hints = typing.get_type_hints(described, include_extras=True)
    except (TypeError, ValueError, NameError) as error:
        raise InvalidRequestError(f"the signature of the tool `{name}` cannot be read: {error}") from None
    for parameter in parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise InvalidRequestError(
                f"the tool `{name}` has the parameter `{parameter}`, which cannot be given by name: describe the tool "
                "with a schema, or wrap it in a function without it"
            )
        if parameter.name not in hints:
            raise InvalidRequestError(
                f"the parameter `{parameter.name}` of the tool `{name}` has no annotation, expected one such as "
                f"`{parameter.name}: str`"
            )
    summary, about = _docstring(inspect.getdoc(function) or "")
    extra: dict[str, dict[str, Any]] = {key: {"description": text} for key, text in about.items() if key in parameters}
    for parameter in parameters.values():
        if isinstance(parameter.default, (str, int, float)):
            extra.setdefault(parameter.name, {})["default"] = parameter.default
    describer = schema.Describer()
    described_parameters = describer.object(
        {key: hints[key] for key in parameters},
        [key for key, parameter in parameters.items() if parameter.default is parameter.empty],
        f"the tool `{name}`",
        extra,
    )
    return Tool(name, summary, describer.whole(described_parameters))


def _docstring(text: str) -> tuple[str, dict[str, str]]:
    """What a Google-style docstring says of the function, and of each argument."""
    sections = re.split(r"(?m)^(Args|Arguments|Parameters|Returns|Yields|Raises|Examples?|Notes?):[ \t]*$", text)
    about: dict[str, str] = {}
    for title, body in zip(sections[1::2], sections[2::2], strict=True):
        if title not in ("Args", "Arguments", "Parameters"):
            continue
        for entry in re.split(r"\n(?=\S)", inspect.cleandoc(body)):
            if found := re.match(r"\*{0,2}(\w+)\s*(?:\([^)]*\))?:\s*(.*)", entry, re.DOTALL):
                about[found[1]] = " ".join(found[2].split())
    return sections[0].strip(), about


def call_prefix(template_takes_tools: bool) -> str:
    """What calls begin with: the word that Phi-4-mini was taught, or nothing."""
    return _MARKER if template_takes_tools else ""


def messages_with(tools: Tools, messages: Sequence[Mapping[str, Any]], in_template: bool) -> list[Mapping[str, Any]]:
    """The messages with a system message, their own or a new one, that lists the functions."""
    form = f'{call_prefix(in_template)}[{{"name": "...", "arguments": {{...}}}}]'
    ask = f"To call functions, answer with nothing but a JSON list of the calls: {form}"
    if tools.choice == "auto":
        ask += "\nWhere none is needed, answer in words."
    first, rest = (messages[0], messages[1:]) if messages and messages[0].get("role") == "system" else ({}, messages)
    if first.get("tools") is not None:
        raise InvalidRequestError('the system message has "tools", and tools= is given too: give one of them')
    content = first.get("content", "You are a helpful assistant with some tools.")
    if in_template:
        system = {"role": "system", "content": f"{content}\n{ask}", "tools": tools.listed()}
    else:
        system = {"role": "system", "content": f"{content}\n\nThese functions can be called:\n{tools.listed()}\n{ask}"}
    return [system, *rest]


def plain_messages(
    messages: Sequence[Mapping[str, Any]], in_template: bool, template_has_role: bool
) -> list[Mapping[str, Any]]:
    """The messages with calls and their results written out, as the template can show them."""
    plain: list[Mapping[str, Any]] = []
    names: dict[Any, str] = {}
    results: list[str] = []

    def flush() -> None:
        if results:
            plain.append({"role": "user", "content": "\n".join(results)})
            results.clear()

    for i, message in enumerate(messages):
        if message.get("role") == "tool":
            if unknown := sorted(set(message) - {"role", "content", "tool_call_id", "name"}):
                raise InvalidRequestError(
                    f"prompt[{i}] has the key {unknown[0]!r}, expected role, content, tool_call_id and name"
                )
            if template_has_role:
                plain.append({"role": "tool", "content": message.get("content")})
            else:
                name = message.get("name") or names.get(message.get("tool_call_id"), "the call")
                results.append(f"Result of {name}: {message.get('content')}")
            continue
        flush()
        if calls := message.get("tool_calls"):
            written = []
            for call in calls:
                key, name, arguments = _written(call, f"prompt[{i}]")
                names[key] = name
                written.append({"name": name, "arguments": arguments})
            text = json.dumps(written, ensure_ascii=False, separators=(",", ":"))
            said = message.get("content") or ""
            message = {key: value for key, value in message.items() if key != "tool_calls"}
            # As it was generated: a call is all of an answer.
            message["content"] = said if said.endswith(text) else said + call_prefix(in_template) + text
        plain.append(message)
    flush()
    return plain


def _written(call: Any, place: str) -> tuple[Any, str, Any]:
    """The id, the name and the arguments of a call: a `ToolCall`, or OpenAI's form."""
    if isinstance(call, ToolCall):
        return call.id, call.name, call.arguments
    function = call.get("function", call) if isinstance(call, collections.abc.Mapping) else {}
    if not isinstance(function, collections.abc.Mapping) or "name" not in function or "arguments" not in function:
        raise InvalidRequestError(
            f'{place}["tool_calls"] holds {call!r}, expected a ToolCall or '
            '{"id": ..., "type": "function", "function": {"name": ..., "arguments": ...}}'
        )
    arguments = function["arguments"]
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError as error:
            raise InvalidRequestError(f'{place}["tool_calls"] has arguments that are not JSON: {error}') from None
    return call.get("id"), function["name"], arguments


def calls_in(text: str, prefix: str) -> list[ToolCall]:
    """The calls that a complete text consists of; none where it is an answer in words."""
    if not text.startswith(prefix + "["):
        return []
    return [
        ToolCall(f"call_{os.urandom(12).hex()}", c["name"], c["arguments"]) for c in json.loads(text[len(prefix) :])
    ]
