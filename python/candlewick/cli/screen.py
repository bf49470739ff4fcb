"""A line on a terminal that says what is being done, and goes away."""

from __future__ import annotations

import sys

from candlewick.progress import Terminal


class Screen:
    """Says on a terminal what is done now, in one line on standard error."""

    def __init__(self) -> None:
        stream = sys.stderr
        self._place = Terminal(stream) if stream is not None and stream.isatty() else None

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def show(self, text: str) -> None:
        if self._place is not None:
            self._place.show(text)

    def clear(self) -> None:
        if self._place is not None:
            self._place.clear()
