"""The fields of a request -> the arguments of `Generator.stream`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from candlewick.schema import closed
from candlewick.server.errors import ApiError

_SAME = ("temperature", "frequency_penalty", "presence_penalty", "top_k", "min_p", "repetition_penalty")

# `Generator.stream` wants it above 0. So little leaves the likeliest token alone, which is what 0 asks for.
_LEAST_TOP_P = 1e-6


def sampling(body: Mapping[str, Any]) -> dict[str, Any]:
    """How tokens are chosen, and where the text ends."""
    options: dict[str, Any] = {name: body[name] for name in _SAME if name in body}
    if "top_p" in body:
        options["top_p"] = max(body["top_p"], _LEAST_TOP_P)
    if "logit_bias" in body:
        options["logit_bias"] = {int(id): float(bias) for id, bias in body["logit_bias"].items()}
    if body.get("stop"):
        options["stop"] = body["stop"]
    return options


def max_tokens(body: Mapping[str, Any], names: tuple[str, ...], n_ctx: int) -> int | None:
    """The limit of the answer, which the context bounds."""
    given = [name for name in names if name in body]
    if len(given) > 1:
        raise ApiError(400, f"{' and '.join(given)} are given: give one of them", param=given[0])
    for name in given:
        if body[name] > n_ctx:
            raise ApiError(
                400,
                f"`{name}` is {body[name] if body[name] < 10**20 else 'a very large number'}, and the context of this "
                f"model has {n_ctx} tokens",
                param=name,
                code="context_length_exceeded",
            )
    return body[given[0]] if given else None


def seeds(body: Mapping[str, Any], n: int) -> list[int | None]:
    """A seed for each of ``n`` choices, which should not be all the same."""
    if "seed" not in body:
        return [None] * n
    return [(body["seed"] + i) % 2**64 for i in range(n)]


def format_of(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """The ``response_format`` of a chat, or the ``text.format`` of a response, where the schema is one level higher."""
    if given is None or given["type"] == "text":
        return {}
    if given["type"] == "json_object":
        return {"json_schema": {"type": "object"}}
    return {"json_schema": given.get("json_schema", given)["schema"]}


def functions(body: Mapping[str, Any]) -> dict[str, Any]:
    """What the answer may call."""
    tools, choice = body.get("tools"), body.get("tool_choice")
    if not tools:
        if choice not in (None, "none", "auto"):
            raise ApiError(400, "`tool_choice` is given without tools: give both", param="tool_choice")
        return {}
    if choice == "none":
        return {}
    # A function has no arguments but those that it names, and few who describe one say so.
    return {"tools": closed(tools), "tool_choice": choice}
