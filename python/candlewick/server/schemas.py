"""JSON Schemas of what the endpoints take: `checking` goes by them, and the OpenAPI document shows them."""

from __future__ import annotations

from typing import Any

from candlewick.server.checking import Schema

MAX_CHOICES = 16
"""Answers to one prompt (``n``), and prompts of one request of ``/v1/completions``."""


def text(**limits: Any) -> Schema:
    return {"type": "string", **limits}


def number(low: float, high: float) -> Schema:
    return {"type": "number", "minimum": low, "maximum": high}


def integer(low: int, high: int | None = None) -> Schema:
    return {"type": "integer", "minimum": low} | ({} if high is None else {"maximum": high})


def array(items: Schema, low: int = 0, high: int | None = None) -> Schema:
    return {"type": "array", "items": items, "minItems": low} | ({} if high is None else {"maxItems": high})


def record(required: dict[str, Schema], optional: dict[str, Schema] | None = None, *, others: bool = False) -> Schema:
    """An object; what is optional may be null too, which says the same as leaving it out."""
    optional = {name: _nullable(field) for name, field in (optional or {}).items()}
    return {
        "type": "object",
        "properties": {**required, **optional},
        "required": list(required),
        "additionalProperties": others,
    }


def _nullable(schema: Schema) -> Schema:
    if "anyOf" in schema:
        return {**schema, "anyOf": [*schema["anyOf"], {"type": "null"}]}
    if "type" not in schema:
        return schema
    both = {**schema, "type": [schema["type"], "null"]}
    if "enum" in schema:
        both["enum"] = [*schema["enum"], None]
    return both


BOOLEAN: Schema = {"type": "boolean"}
ANY_OBJECT: Schema = {"type": "object"}

_SAMPLING: dict[str, Schema] = {
    "temperature": number(0, 2),
    "top_p": number(0, 1),
}
_MORE_SAMPLING: dict[str, Schema] = {
    **_SAMPLING,
    "frequency_penalty": number(-2, 2),
    "presence_penalty": number(-2, 2),
    "logit_bias": {
        "type": "object",
        "propertyNames": {"type": "string", "pattern": "^[0-9]{1,9}$"},
        "additionalProperties": number(-100, 100),
        "maxProperties": 1000,
    },
    "seed": integer(-(2**63), 2**64 - 1),
    "stop": {"anyOf": [text(minLength=1), array(text(minLength=1), 0, 16)]},
    "n": integer(1, MAX_CHOICES),
    # Not of OpenAI's API, but of most servers that speak it.
    "top_k": integer(0, 1_000_000),
    "min_p": number(0, 1),
    "repetition_penalty": number(0.01, 10),
}
_STREAMING: dict[str, Schema] = {
    "stream": BOOLEAN,
    "stream_options": record({}, {"include_usage": BOOLEAN, "include_obfuscation": BOOLEAN}),
}
# Taken and without effect here: who asks, what it is filed under, how it is billed, how hard to think.
_WITHOUT_EFFECT: dict[str, Schema] = {
    "user": text(),
    "metadata": ANY_OBJECT,
    "store": BOOLEAN,
    "service_tier": text(),
    "safety_identifier": text(),
    "prompt_cache_key": text(),
    "prompt_cache_retention": text(),
}

_PART = record({"type": {"const": "text", "type": "string"}, "text": text()}, others=True)
_CONTENT: Schema = {"anyOf": [text(), array(_PART, 1)]}
_NAME = text(pattern="^[a-zA-Z0-9_-]{1,64}$")
_CALL = record(
    {
        "id": text(),
        "type": {"const": "function", "type": "string"},
        "function": record({"name": _NAME, "arguments": text()}, others=True),
    },
    others=True,
)


def _message(role: str, required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    return record({"role": {"const": role, "type": "string"}, **required}, optional, others=True)


MESSAGE: Schema = {
    "anyOf": [
        *(_message(role, {"content": _CONTENT}, {"name": text()}) for role in ("system", "developer", "user")),
        _message("assistant", {}, {"content": _CONTENT, "tool_calls": array(_CALL, 1), "name": text()}),
        _message("tool", {"content": _CONTENT, "tool_call_id": text()}),
    ]
}

_FUNCTION = record({"name": _NAME}, {"description": text(), "parameters": ANY_OBJECT, "strict": BOOLEAN}, others=True)
_FUNCTION_TYPE: Schema = {"const": "function", "type": "string"}
_CHOICE: Schema = {"type": "string", "enum": ["none", "auto", "required"]}

CHAT: Schema = record(
    {"model": text(), "messages": array(MESSAGE, 1)},
    {
        **_MORE_SAMPLING,
        **_STREAMING,
        **_WITHOUT_EFFECT,
        "max_tokens": integer(1),
        "max_completion_tokens": integer(1),
        "logprobs": BOOLEAN,
        "top_logprobs": integer(0, 20),
        "response_format": {
            "anyOf": [
                record({"type": {"const": "text", "type": "string"}}),
                record({"type": {"const": "json_object", "type": "string"}}),
                record(
                    {
                        "type": {"const": "json_schema", "type": "string"},
                        "json_schema": record(
                            {"name": text(), "schema": ANY_OBJECT}, {"description": text(), "strict": BOOLEAN}
                        ),
                    }
                ),
            ]
        },
        "tools": array(record({"type": _FUNCTION_TYPE, "function": _FUNCTION}), 0, 128),
        "tool_choice": {"anyOf": [_CHOICE, record({"type": _FUNCTION_TYPE, "function": record({"name": _NAME})})]},
        "parallel_tool_calls": BOOLEAN,
        "reasoning_effort": text(),
        "verbosity": text(),
        "modalities": array({"type": "string", "enum": ["text"]}),
    },
)

_IDS = array(integer(0, 2**31 - 1), 1)

COMPLETION: Schema = record(
    {
        "model": text(),
        "prompt": {
            "anyOf": [text(), array(text(), 1, MAX_CHOICES), _IDS, array(_IDS, 1, MAX_CHOICES)],
        },
    },
    {
        **_MORE_SAMPLING,
        **_STREAMING,
        "user": text(),
        "max_tokens": integer(1),
        "logprobs": integer(0, 20),
        "best_of": integer(1, MAX_CHOICES),
        "echo": {"type": "boolean", "enum": [False]},
        "suffix": {"type": "string", "enum": [""]},
    },
)

_OUTPUT_TEXT = record({"type": {"const": "output_text", "type": "string"}, "text": text()}, others=True)
_INPUT_TEXT = record({"type": {"const": "input_text", "type": "string"}, "text": text()}, others=True)
_ITEM_CONTENT: Schema = {"anyOf": [text(), array({"anyOf": [_INPUT_TEXT, _OUTPUT_TEXT]}, 1)]}

ITEM: Schema = {
    "anyOf": [
        record(
            {
                "role": {"type": "string", "enum": ["user", "assistant", "system", "developer"]},
                "content": _ITEM_CONTENT,
            },
            {"type": {"type": "string", "enum": ["message"]}},
            others=True,
        ),
        record(
            {
                "type": {"const": "function_call", "type": "string"},
                "call_id": text(),
                "name": _NAME,
                "arguments": text(),
            },
            others=True,
        ),
        record(
            {
                "type": {"const": "function_call_output", "type": "string"},
                "call_id": text(),
                "output": {"anyOf": [text(), array(_INPUT_TEXT, 1)]},
            },
            others=True,
        ),
    ]
}

RESPONSE: Schema = record(
    {"model": text(), "input": {"anyOf": [text(), array(ITEM, 1)]}},
    {
        **_SAMPLING,
        **_WITHOUT_EFFECT,
        "stream": BOOLEAN,
        "stream_options": record({}, {"include_obfuscation": BOOLEAN}),
        "instructions": text(),
        "max_output_tokens": integer(1),
        "text": record(
            {},
            {
                "format": {
                    "anyOf": [
                        record({"type": {"const": "text", "type": "string"}}),
                        record({"type": {"const": "json_object", "type": "string"}}),
                        record(
                            {
                                "type": {"const": "json_schema", "type": "string"},
                                "name": text(),
                                "schema": ANY_OBJECT,
                            },
                            {"description": text(), "strict": BOOLEAN},
                        ),
                    ]
                },
                "verbosity": text(),
            },
        ),
        "tools": array(
            record(
                {"type": _FUNCTION_TYPE, "name": _NAME},
                {"description": text(), "parameters": ANY_OBJECT, "strict": BOOLEAN},
            ),
            0,
            128,
        ),
        "tool_choice": {"anyOf": [_CHOICE, record({"type": _FUNCTION_TYPE, "name": _NAME})]},
        "parallel_tool_calls": BOOLEAN,
        "reasoning": ANY_OBJECT,
        "include": array(text(), 0, 16),
        "truncation": {"type": "string", "enum": ["disabled"]},
        "background": {"type": "boolean", "enum": [False]},
    },
)
