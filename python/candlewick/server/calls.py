"""The calls in an answer, while it is being written: what of its text are words, and what are arguments of which call.

What a model writes is JSON without white space, ``[{"name":"weather","arguments":{"place":"Oulu"}},...]``, after a
word if the model was taught one (`candlewick.tools.call_prefix`). An answer that begins otherwise is in words.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

_HEAD = re.compile(r'[}\],]*\{"name":"([^"]*)","arguments":')


class Words(NamedTuple):
    """A piece of an answer in words."""

    text: str


class Begin(NamedTuple):
    """A call begins."""

    call: int
    id: str
    name: str


class Arguments(NamedTuple):
    """A piece of the JSON of a call's arguments."""

    call: int
    text: str


class CallReader:
    """Takes an answer apart, piece by piece.

    Args:
        marker: What calls begin with, ``"["`` or ``"functools["``; ``None`` where the answer cannot call.
        one: Only the first call counts.
    """

    def __init__(self, marker: str | None, one: bool = False) -> None:
        self._marker = marker
        self._one = one
        self._waiting = ""
        self._in_words = marker is None
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self.n_calls = 0
        self.enough = False
        """The one call that was wanted is complete."""

    def feed(self, text: str) -> Iterator[Words | Begin | Arguments]:
        """What ``text``, the next piece of the answer, adds."""
        if self._in_words:
            if text:
                yield Words(text)
            return
        self._waiting += text
        if not self.n_calls:
            assert self._marker is not None
            if not self._waiting.startswith(self._marker):
                if not self._marker.startswith(self._waiting):
                    self._in_words = True
                    yield Words(self._waiting)
                return
        while self._waiting and not self.enough:
            if not self._depth:
                found = _HEAD.search(self._waiting)
                # The first byte of the arguments is waited for, which is a brace.
                if found is None or found.end() == len(self._waiting):
                    return
                self._waiting = self._waiting[found.end() :]
                yield Begin(self.n_calls, f"call_{os.urandom(12).hex()}", found[1])
                self.n_calls += 1
            n = self._within()
            yield Arguments(self.n_calls - 1, self._waiting[:n])
            self._waiting = self._waiting[n:]
            self.enough = self._one and not self._depth

    def finish(self) -> Iterator[Words]:
        """What could have become a call and did not."""
        if not self._in_words and not self.n_calls and self._waiting:
            yield Words(self._waiting)

    def _within(self) -> int:
        """How many of the characters that wait belong to the arguments."""
        for i, char in enumerate(self._waiting):
            if self._in_string:
                if self._escaped:
                    self._escaped = False
                elif char == "\\":
                    self._escaped = True
                elif char == '"':
                    self._in_string = False
            elif char == '"':
                self._in_string = True
            elif char in "{[":
                self._depth += 1
            elif char in "}]":
                self._depth -= 1
                if not self._depth:
                    return i + 1
        return len(self._waiting)
