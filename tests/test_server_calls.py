"""Calls taken out of an answer while it is written, however it is cut into pieces."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candlewick.server.calls import Arguments, Begin, CallReader, Words

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
CALLS = st.lists(
    st.tuples(st.from_regex(r"[a-zA-Z0-9_-]{1,9}", fullmatch=True), st.dictionaries(st.text(), JSON, max_size=3)),
    min_size=1,
    max_size=4,
)


def taken_apart(reader: CallReader, text: str, cuts: list[int]) -> tuple[str, list[tuple[str, str]]]:
    """The words, and the name and arguments of each call."""
    words, calls = "", []
    places = sorted({cut % (len(text) + 1) for cut in cuts} | {0, len(text)})
    parts = [part for a, b in itertools.pairwise(places) for part in reader.feed(text[a:b])]
    for part in [*parts, *reader.finish()]:
        if isinstance(part, Words):
            words += part.text
        elif isinstance(part, Begin):
            assert part.call == len(calls)
            calls.append((part.name, ""))
        else:
            assert isinstance(part, Arguments) and part.call == len(calls) - 1
            calls[-1] = (calls[-1][0], calls[-1][1] + part.text)
    return words, calls


def written(calls: list[tuple[str, Any]], ascii_: bool = False) -> str:
    objects = [{"name": name, "arguments": arguments} for name, arguments in calls]
    return json.dumps(objects, separators=(",", ":"), ensure_ascii=ascii_)


@given(calls=CALLS, cuts=st.lists(st.integers(0, 10**6), max_size=40), ascii_=st.booleans(), one=st.booleans())
@pytest.mark.parametrize("word", ["", "functools"])
def test_calls(word: str, calls: list[tuple[str, Any]], cuts: list[int], ascii_: bool, one: bool) -> None:
    reader = CallReader(word + "[", one)
    words, found = taken_apart(reader, word + written(calls, ascii_), cuts)
    assert words == ""
    assert [(name, json.loads(arguments)) for name, arguments in found] == (calls[:1] if one else calls)
    assert reader.enough == one


@given(calls=CALLS, n=st.integers(0, 10**6), cuts=st.lists(st.integers(0, 10**6), max_size=20))
def test_a_call_that_is_cut_off(calls: list[tuple[str, Any]], n: int, cuts: list[int]) -> None:
    text = written(calls)[: n % len(written(calls))]
    words, found = taken_apart(CallReader("["), text, cuts)
    assert words == ("" if found else text)
    for (name, arguments), (expected, all_of_them) in zip(found, calls, strict=False):
        assert name == expected
        assert json.dumps(all_of_them, separators=(",", ":"), ensure_ascii=False).startswith(arguments)


@given(text=st.text(), cuts=st.lists(st.integers(0, 10**6), max_size=20))
@pytest.mark.parametrize("marker", [None, "[", "functools["])
def test_words(marker: str | None, text: str, cuts: list[int]) -> None:
    if marker is not None and text.startswith(marker):
        text = "." + text
    assert taken_apart(CallReader(marker), text, cuts) == (text, [])


@pytest.mark.parametrize("text", ["f", "functools", "functoolbox", "func[", " functools["])
def test_words_that_begin_like_a_call(text: str) -> None:
    assert taken_apart(CallReader("functools["), text, [1, 2, 3]) == (text, [])
