"""One line that tells how far a download, a load or a batch is: on a terminal, in a notebook, or not at all."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Report = Callable[[int, int, str], object]
    """Called with how much is here, how much there is in all (0 if unknown) and what it is: bytes of a file, or of
    "loading" it; prompts of "generating"."""

WINDOW_S = 5.0
"""The speed shown is that of the last seconds, so that it follows the line and does not jump."""
QUIET_S = 0.3
"""What is over sooner is not worth a line."""


@contextmanager
def reporting(progress: bool | Report, *, keep: bool = True, unit: Unit | None = None) -> Iterator[Report | None]:
    """What to hand to a download, a load or a batch for the user's ``progress``.

    Args:
        progress: A function is called as it is. ``True`` shows a line where a person sees it: on a terminal
            (standard error) or in a notebook. ``False`` shows nothing.
        keep: Leave what was reached on the screen, and not an empty line.
        unit: What is counted; ``None`` is bytes.
    """
    if callable(progress):
        yield progress
        return
    if not isinstance(progress, bool):
        raise TypeError(f"progress must be bool or a callable, not {type(progress).__name__}")
    show = _place() if progress and not _switched_off() else None
    if show is None:
        yield None
        return
    line = Line(show, keep=keep, unit=unit)
    try:
        yield line
    finally:
        line.close()


class Unit:
    """How numbers of bytes are written."""

    def amount(self, n: float) -> str:
        return _bytes(n)

    def size(self, done: int, total: int) -> str:
        return _size(done, total)


class Count(Unit):
    """How numbers of things are written."""

    def __init__(self, name: str) -> None:
        self._name = name

    def amount(self, n: float) -> str:
        return f"{n:.0f} {self._name}" if n >= 9.95 or n == int(n) else f"{n:.2g} {self._name}"

    def size(self, done: int, total: int) -> str:
        return f"{done}/{total} {self._name}" if total else f"{done} {self._name}"


BYTES = Unit()
PROMPTS = Count("prompts")


class Line:
    """Turns reports into a line of text that fits, and hands it to a place that shows it."""

    def __init__(
        self, place: Place, clock: Callable[[], float] = time.monotonic, *, keep: bool = True, unit: Unit | None = None
    ) -> None:
        self._place = place
        self._unit = unit or BYTES
        self._clock = clock
        self._keep = keep
        self._file = ""
        self._shown = False

    def __call__(self, done: int, total: int, file: str) -> None:
        now = self._clock()
        if file != self._file:
            self.close()
            self._file, self._began, self._first = file, now, done
            self._samples: deque[tuple[float, int]] = deque()
        self._done, self._total, self._now = done, total, now
        self._samples.append((now, done))
        while len(self._samples) > 2 and now - self._samples[1][0] >= WINDOW_S:
            self._samples.popleft()
        if not self._shown and now - self._began < QUIET_S:
            return
        self._shown = True
        self._place.show(self.text(self._place.columns()))

    def close(self) -> None:
        """Leaves what was reached on the screen and ends the line, or clears it."""
        if self._shown and self._keep:
            self._place.show(self.text(self._place.columns(), ended=True))
            self._place.end()
        elif self._shown:
            self._place.clear()
        self._shown = False
        self._file = ""

    def text(self, columns: int, *, ended: bool = False) -> str:
        """The line, at most ``columns`` wide: size, speed and time stay longest, the bar and the name go first."""
        name = self._file.rsplit("/", 1)[-1]
        percent = f"{100 * self._done // self._total}%" if self._total else ""
        if ended and 0 < self._total <= self._done:
            taken = self._now - self._began
            speed = f"{self._unit.amount((self._done - self._first) / taken if taken > 0 else 0.0)}/s"
            facts = [self._unit.amount(self._total), f"in {_time(taken)}", speed]
            short = facts
        else:
            per_second = self._speed()
            facts = [self._unit.size(self._done, self._total), f"{self._unit.amount(per_second)}/s"]
            short = facts
            if self._total:
                time_left = _time((self._total - self._done) / per_second) if per_second > 0 else "stalled"
                short = [*facts, time_left]
                facts = [*facts, f"{time_left} left" if per_second > 0 else time_left]

        def join(*parts: str) -> str:
            return "  ".join(filter(None, parts))

        def candidates() -> Iterator[str]:
            padded = f"{percent:>4}" if percent else ""
            for width in (20, 10) if self._total else ():
                yield join(name, padded, self._place.bar(self._done / self._total, width), *facts)
            yield join(name, padded, *facts)
            room = columns - len(join("", padded, *facts)) - 2
            if room >= 12:
                yield join(_shorten(name, room), padded, *facts)
            yield join(percent, *facts)
            yield join(percent, *short)
            yield join(*short)
            yield join(percent, short[-1])
            yield percent
            yield ""

        return next(text for text in candidates() if len(text) <= columns)

    def _speed(self) -> float:
        (then, before), (now, done) = self._samples[0], self._samples[-1]
        return (done - before) / (now - then) if now > then else 0.0


class Place:
    """Where a line can be shown again and again."""

    def columns(self) -> int:
        raise NotImplementedError

    def show(self, text: str) -> None:
        raise NotImplementedError

    def end(self) -> None:
        """The next line is another."""
        raise NotImplementedError

    def clear(self) -> None:
        """The next line is written where this one was."""
        raise NotImplementedError

    def bar(self, share: float, width: int) -> str:
        full = int(share * width)
        return "━" * full + "─" * (width - full)


class Terminal(Place):
    """A line that is written over, on standard error."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._width = 0
        try:
            "━─".encode(stream.encoding or "ascii")
            self._plain = False
        except (LookupError, UnicodeEncodeError):
            self._plain = True

    def columns(self) -> int:
        try:
            columns = os.get_terminal_size(self._stream.fileno()).columns
        except (OSError, ValueError):
            import shutil

            columns = shutil.get_terminal_size().columns
        # A terminal that is written to its last column may go to the next line.
        return max((columns or 80) - 1, 1)

    def show(self, text: str) -> None:
        encoding = self._stream.encoding or "ascii"
        text = text.encode(encoding, "replace").decode(encoding)
        # Spaces where the line was longer before: understood by every terminal.
        self._write("\r" + text + " " * (min(self._width, self.columns()) - len(text)))
        self._width = len(text)

    def end(self) -> None:
        self._write("\n")
        self._width = 0

    def clear(self) -> None:
        self.show("")
        self._write("\r")

    def bar(self, share: float, width: int) -> str:
        full = int(share * width)
        return "#" * full + "." * (width - full) if self._plain else super().bar(share, width)

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            pass  # A terminal that has gone is no reason to stop the download.


class Notebook(Place):
    """A line of output that is replaced in place; needs no widgets."""

    def __init__(self, display: Callable[..., Any]) -> None:
        self._display = display
        self._handle: Any = None

    def columns(self) -> int:
        return 100

    def show(self, text: str) -> None:
        data = {"text/plain": text}
        if self._handle is None:
            self._handle = self._display(data, raw=True, display_id=True)
        else:
            self._handle.update(data, raw=True)

    def end(self) -> None:
        self._handle = None

    def clear(self) -> None:
        self.show("")


def _place() -> Place | None:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is not None and getattr(shell, "kernel", None) is not None:
        return Notebook(import_module("IPython.display").display)
    stream = sys.stderr
    if stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb":
        return Terminal(stream)
    return None


def _switched_off() -> bool:
    return os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS", "").lower() in ("1", "on", "yes", "true")


def _bytes(n: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n < 999.5 or unit == "GB":
            break
        n /= 1000
    digits = 0 if unit == "B" or n >= 99.5 else 1 if n >= 9.95 or unit in ("kB", "MB") else 2
    return f"{n:.{digits}f} {unit}"


def _size(done: int, total: int) -> str:
    if not total:
        return _bytes(done)
    (here, unit), (whole, whole_unit) = _bytes(done).split(), _bytes(total).split()
    return f"{here}/{whole} {whole_unit}" if unit == whole_unit else f"{here} {unit}/{whole} {whole_unit}"


def _time(seconds: float) -> str:
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    if hours > 99:
        return "days"
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"


def _shorten(name: str, width: int) -> str:
    if len(name) <= width:
        return name
    head = (width - 3) // 2
    return f"{name[:head]}...{name[len(name) - (width - 3 - head) :]}"
