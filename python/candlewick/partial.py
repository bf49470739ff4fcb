"""JSON that is still being written: what can be said of its value already."""

from __future__ import annotations

import json
import re
from typing import Any

_SPACE = re.compile(r"[ \t\n\r]*")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_SCALAR = re.compile(r"[-+.\w]+")
# What may be half of a character at the end of a string: a backslash, an escape, the first of a pair of escapes.
_HALF = re.compile(r"(?<!\\)((?:\\\\)*)(?:\\u[dD][89abAB][0-9a-fA-F]{2})?(?:\\(?:u[0-9a-fA-F]{0,3})?)?\Z")


def partial(text: str) -> Any:
    """The value that ``text``, the beginning of a JSON document, has so far; ``None`` where there is none yet.

    A string that is not complete is there as far as it is written. A number, ``true``, ``false`` or ``null`` that the
    text ends with may go on and is left out, and so is a key without a value.

    >>> partial('{"name": "Ada", "born": 1815, "city": "Lon')
    {'name': 'Ada', 'born': 1815, 'city': 'Lon'}
    >>> partial('{"name": "Ada", "born": 18')
    {'name': 'Ada'}
    """
    closers: list[str] = []
    shown = ""  # the text up to where it can be closed, with what closes the last string
    expected = "value"
    at = 0
    while True:
        begin = _end(_SPACE, text, at)
        if begin >= len(text):
            break
        char = text[begin]
        end = begin + 1
        if char in ",:" and closers:
            if expected != char:
                break
            expected = "key" if char == "," and closers[-1] == "}" else "value"
        elif char in "}]":
            if not closers or closers.pop() != char:
                break
            shown, expected = text[:end], ","
        elif expected == "key":
            end = _end(_STRING, text, begin)
            if end == begin:
                break
            expected = ":"
        elif expected != "value":
            break
        elif char in "{[":
            closers.append("}" if char == "{" else "]")
            shown, expected = text[:end], "key" if char == "{" else "value"
            after = _end(_SPACE, text, end)
            if text[after : after + 1] == closers[-1]:
                expected = ","
        elif char == '"':
            end = _end(_STRING, text, begin)
            if end == begin:
                shown = _HALF.sub(r"\1", text) + '"'
                break
            shown, expected = text[:end], ","
        else:
            end = _end(_SCALAR, text, begin)
            if end in (begin, len(text)):
                break
            shown, expected = text[:end], ","
        at = end
        if not closers:
            break
    try:
        # Closers of what is open where `shown` ends: nothing opens or closes after it.
        return json.loads(shown + "".join(reversed(closers))) if shown else None
    except ValueError:
        return None


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found else at
