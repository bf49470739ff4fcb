"""Text whose tokens are shaded by how likely the model found them: for notebooks and for terminals."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, TextIO

if TYPE_CHECKING:
    from candlewick.stream import Token, TopLogprob


class Item(NamedTuple):
    """A token as the functions here take it."""

    id: int
    text: str
    logprob: float | None
    alternatives: Sequence[TopLogprob] = ()


class _Piece(NamedTuple):
    """Tokens that are shown together: a character of several tokens has its text in the last of them."""

    text: str
    probability: float
    """That of the least likely."""
    tokens: list[Item]


def _pieces(items: Iterable[Item]) -> Iterator[_Piece]:
    waiting: list[Item] = []
    for item in items:
        waiting.append(item)
        if item.text:
            known = [math.exp(item.logprob) for item in waiting if item.logprob is not None]
            yield _Piece(item.text, min(known, default=1.0), waiting)
            waiting = []


def items(tokens: Iterable[Token]) -> Iterator[Item]:
    """Generated tokens, as the functions here take them."""
    for token in tokens:
        yield Item(token.id, token.text, token.logprob, token.top_logprobs)


def html(tokens: Iterable[Item], note: str = "") -> str:
    """The text as HTML that needs nothing beside itself: hovering shows probabilities and alternatives.

    The less likely a token, the stronger its background, a tint that leaves the text readable on light and dark pages.
    """
    spans = []
    for piece in _pieces(tokens):
        tint = f"background:rgba(235,110,0,{0.6 * (1 - piece.probability):.2f})"
        title = "\n".join(_lines(piece))
        spans.append(f'<span style="{tint}" title="{_escaped(title)}">{_escaped(piece.text)}</span>')
    if note:
        spans.append(f'<div style="opacity:0.6;font-size:85%">{_escaped(note)}</div>')
    return f'<div class="candlewick" style="white-space:pre-wrap">{"".join(spans)}</div>'


def _escaped(text: str) -> str:
    # Its table of names would be a part of the import's time for everybody else.
    import html as markup

    # Line ends and tabs would be normalised in an attribute.
    escaped = markup.escape(text, quote=True)
    return escaped.replace("\r", "&#13;").replace("\n", "&#10;").replace("\t", "&#9;")


def _lines(piece: _Piece) -> Iterator[str]:
    for token in piece.tokens:
        if token.logprob is not None:
            yield f"{token.text!r} {_percent(token.logprob)}" if token.text else _percent(token.logprob)
        for other in token.alternatives:
            if other.id != token.id:
                yield f"    {other.text!r} {_percent(other.logprob)}"


def _percent(logprob: float) -> str:
    return f"{100 * math.exp(logprob):.3g} %"


def colours(stream: TextIO) -> int:
    """How many colours the terminal behind `stream` shows: 0, 256 or 2**24. ``NO_COLOR`` asks for none."""
    if not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return 0
    if os.environ.get("COLORTERM", "").lower() in ("truecolor", "24bit") or "WT_SESSION" in os.environ:
        return 2**24
    return 256 if "256color" in os.environ.get("TERM", "") else 0


def terminal(tokens: Iterable[Item], n_colours: int) -> Iterator[str]:
    """The text piece by piece, with colour where a token was not the obvious one: from ochre to red."""
    for piece in _pieces(tokens):
        colour = _colour(piece.probability, n_colours)
        yield f"\x1b[{colour}m{piece.text}\x1b[39m" if colour else piece.text


def _colour(probability: float, n_colours: int) -> str:
    doubt = 1 - probability / 0.8
    if not n_colours or doubt <= 0:
        return ""
    if n_colours == 256:
        return f"38;5;{(136, 130, 166, 160)[min(int(doubt * 4), 3)]}"
    # Both ends are readable on black and on white.
    red, green, blue = (round(a + (b - a) * doubt) for a, b in ((160, 220), (115, 40), (0, 40)))
    return f"38;2;{red};{green};{blue}"
