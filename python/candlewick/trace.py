"""A record of a generation that is enough to repeat it, and the repetition."""

from __future__ import annotations

import json
import math
import os
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from candlewick import _native
from candlewick.errors import InvalidRequestError

if TYPE_CHECKING:
    from candlewick.generator import Generator
    from candlewick.stream import Completion, Token

VERSION = 1
"""Of what a trace holds."""

_OBJECT = "python_object"


class Origin:
    """What a stream was started with, as a trace writes it down."""

    def __init__(self, generator: Generator | None, arguments: Mapping[str, Any]) -> None:
        # A result that is kept keeps no model in memory.
        self._generator = None if generator is None else weakref.ref(generator)
        self.arguments = {name: _plain(value) for name, value in arguments.items() if name != "raw"}

    def __reduce__(self) -> tuple[type[Origin], tuple[None, dict[str, Any]]]:
        return Origin, (None, self.arguments)

    def generator(self) -> Generator:
        """The generator, if it is still there and open."""
        generator = None if self._generator is None else self._generator()
        if generator is None or generator._native.closed:
            raise InvalidRequestError(
                "the generator of this completion is closed, gone or in another process, and a trace names its model: "
                "take the trace before"
            )
        return generator


def _plain(value: Any) -> Any:
    """`value` in the types that JSON has; what has no place there becomes its name, which no replay takes up."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        # JSON has no infinity.
        return value if value - value == 0.0 else str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    # NumPy's numbers and arrays.
    if callable(getattr(value, "tolist", None)):
        return _plain(value.tolist())
    kind = value if isinstance(value, type) or hasattr(value, "__qualname__") else type(value)
    return {_OBJECT: f"{kind.__module__}.{kind.__qualname__}"}


def record(completion: Completion) -> dict[str, Any]:
    """What `Completion.trace` returns."""
    origin = completion._origin
    if origin is None:
        raise InvalidRequestError("this completion was not made by a generator, so there is nothing to trace")
    generator = origin.generator()
    info = generator.info
    return {
        "trace": VERSION,
        "candlewick": _native.__version__,
        "model": {"name": info["name"], "sha256": generator._native.sha256, "path": os.fspath(info["path"])},
        "engine": {name: info[name] for name in ("engine", "device", "isa", "n_threads", "kv_type", "n_ctx")},
        "parameters": {**origin.arguments, "seed": completion.seed},
        "prompt_ids": list(completion._prompt_ids),
        "ids": [token.id for token in completion.tokens],
        "logprobs": [token.logprob for token in completion.tokens],
        "text": completion.text,
        "finish_reason": completion.finish_reason,
        "stop_reason": completion.stop_reason,
    }


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a trace from a JSON file.

    Raises:
        InvalidRequestError: The file holds no trace, or one of a later version.
    """
    with open(path, encoding="utf-8") as file:
        try:
            trace = json.load(file)
        except (ValueError, RecursionError) as error:
            raise InvalidRequestError(f"`{os.fspath(path)}` is not JSON: {error}") from None
    if not isinstance(trace, dict) or "trace" not in trace:
        raise InvalidRequestError(
            f"`{os.fspath(path)}` is no trace: write one with json.dump(completion.trace(), file)"
        )
    if trace["trace"] != VERSION:
        raise InvalidRequestError(
            f"`{os.fspath(path)}` is a trace of version {trace['trace']!r}, and this candlewick reads version {VERSION}"
        )
    for name, holds in _FIELDS.items():
        if not holds(trace.get(name)):
            raise InvalidRequestError(f"`{os.fspath(path)}` has no good {name!r}: the trace is damaged or not complete")
    return trace


def _list_of(kinds: tuple[type, ...]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(type(item) in kinds for item in value)


def _dict_of(**kinds: tuple[type, ...]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(type(value.get(key)) in kinds[key] for key in kinds)


_FIELDS = {
    "model": _dict_of(sha256=(str,), path=(str,)),
    "engine": _dict_of(engine=(str,), device=(str,), kv_type=(str,), isa=(str,), n_ctx=(int,)),
    "parameters": _dict_of(),
    "prompt_ids": _list_of((int,)),
    "ids": _list_of((int,)),
    "logprobs": _list_of((int, float)),
}


@dataclass(frozen=True)
class Difference:
    """Where a replay first went another way."""

    position: int
    """The index among the generated tokens."""
    expected: int | None
    """The recorded id, or ``None`` where the recorded text had ended."""
    expected_logprob: float | None
    """Its recorded log-probability."""
    found: Token | None
    """What came, or ``None`` where the replay ended."""


def replay(trace: Mapping[str, Any], generator: Generator) -> Difference | None:
    """Generates again what `trace` records; ``None`` if every token is the same.

    Raises:
        InvalidRequestError: It was made with something that a trace cannot hold, such as a Python function.
    """
    parameters = dict(trace["parameters"])
    for name, value in parameters.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict) and _OBJECT in item:
                raise InvalidRequestError(f"the trace was made with {name}={item[_OBJECT]}, which it cannot hold")
    if isinstance(bias := parameters.get("logit_bias"), dict):
        parameters["logit_bias"] = {id: -math.inf if value == "-inf" else value for id, value in bias.items()}
    ids, logprobs = trace["ids"], trace["logprobs"]
    try:
        stream = generator._again(trace["prompt_ids"], parameters)
    except TypeError as error:
        raise InvalidRequestError(f"the trace has a parameter that this candlewick does not take: {error}") from None
    with stream:
        for position, expected in enumerate(ids):
            found = next(stream, None)
            if found is None or found.id != expected:
                known = logprobs[position] if position < len(logprobs) else None
                return Difference(position, expected, known, found)
        # Somebody cancelled the recorded one: it says nothing about what follows.
        more = None if trace.get("finish_reason") == "cancelled" else next(stream, None)
    return None if more is None else Difference(len(ids), None, None, more)
