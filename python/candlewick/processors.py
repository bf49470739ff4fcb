"""Python functions that see and change the logits before a token is chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from candlewick.errors import InvalidRequestError

LogitsProcessor = Callable[[list[int], Any], Any]
"""``f(ids, logits)``: changes ``logits`` in place and returns ``None``, or returns others of the same shape."""


class Processors:
    """One function or several in order, as the engine calls them: with the new ids, and the logits as bytes."""

    def __init__(self, functions: LogitsProcessor | Sequence[LogitsProcessor]) -> None:
        # A list that can be called, as transformers' LogitsProcessorList, is a list first.
        self.functions: list[Any] = list(functions) if isinstance(functions, (list, tuple)) else [functions]
        for function in self.functions:
            if not callable(function):
                raise TypeError(
                    f"logits_processor must be a function f(ids, logits) or a list of them, not "
                    f"{type(function).__name__}"
                )
        self.ids: list[int] = []
        self.view: Callable[[bytearray], Any]
        self.store: Callable[[Any, Any], None]
        self.view, self.store = _numpy() or (_memoryview, _store_memoryview)

    def __call__(self, new_ids: list[int], buffer: bytearray) -> None:
        self.ids += new_ids
        logits = self.view(buffer)
        for function in self.functions:
            # A copy of the ids: what a function does with its list is its own affair.
            found = function(self.ids.copy(), logits)
            if found is not None and found is not logits:
                self.store(found, logits)


def _numpy() -> tuple[Callable[[bytearray], Any], Callable[[Any, Any], None]] | None:
    """How to view and to store logits with NumPy, if it is there."""
    try:
        import numpy as np
    except ImportError:
        return None

    def view(buffer: bytearray) -> Any:
        return np.frombuffer(buffer, dtype=np.float32)

    def store(found: Any, logits: Any) -> None:
        try:
            array = np.asarray(found)
        except Exception as error:
            raise InvalidRequestError(
                f"logits_processor returned {type(found).__name__}, expected None or an array of "
                f"{len(logits)} floats: {error}"
            ) from error
        if array.dtype.kind != "f":
            raise InvalidRequestError(
                f"logits_processor returned an array of {array.dtype}, expected float32 (or None, having changed the "
                f"logits in place)"
            )
        if array.shape != logits.shape:
            raise InvalidRequestError(
                f"logits_processor returned an array of shape {array.shape}, expected {logits.shape}"
            )
        # An f64 beyond the range of f32 becomes inf, which is refused with its place.
        with np.errstate(over="ignore"):
            logits[:] = array

    return view, store


def _memoryview(buffer: bytearray) -> memoryview[float]:
    return memoryview(buffer).cast("f")


def _store_memoryview(found: Any, logits: memoryview[float]) -> None:
    try:
        values = memoryview(found)
    except TypeError:
        raise InvalidRequestError(
            f"logits_processor returned {type(found).__name__}, expected None or an array of {len(logits)} floats"
        ) from None
    if values.format not in ("f", "d"):
        raise InvalidRequestError(
            f"logits_processor returned an array of {values.format}, expected float32 (or None, having changed the "
            f"logits in place)"
        )
    if values.shape != logits.shape:
        raise InvalidRequestError(
            f"logits_processor returned an array of shape {values.shape}, expected {logits.shape}"
        )
    for i, value in enumerate(values):
        logits[i] = value
