"""The line that tells how far a download or a load is."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from fake_hub import REPO, FakeHub, environment, gguf, slow

from candlewick import Generator, progress
from candlewick.progress import Line, Notebook, Place, Terminal, reporting

FILE = "Phi-3-mini-4k-instruct-q4.gguf"
TOTAL = 2_393_232_672


class Paper(Place):
    def __init__(self, width: int) -> None:
        self.width = width
        self.lines: list[str] = []

    def columns(self) -> int:
        return self.width

    def show(self, text: str) -> None:
        self.lines.append(text)

    def end(self) -> None:
        self.lines.append("end")

    def clear(self) -> None:
        self.lines.append("cleared")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def line(width: int = 79) -> tuple[Line, Paper, Clock]:
    paper, clock = Paper(width), Clock()
    return Line(paper, clock), paper, clock


def report(width: int, done: int, total: int = TOTAL, speed: float = 45.6e6, file: str = FILE) -> str:
    shown, paper, clock = line(width)
    shown(max(done - int(10 * speed), 0), total, file)
    clock.now = 10.0
    shown(done, total, file)
    return paper.lines[-1]


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (100, "Phi-3-mini-4k-instruct-q4.gguf   45%  ━━━━━━━━━───────────  1.08/2.39 GB  45.6 MB/s  0:29 left"),
        (79, "Phi-3-mini-4k-instruct-q4.gguf   45%  1.08/2.39 GB  45.6 MB/s  0:29 left"),
        (60, "Phi-3-m...-q4.gguf   45%  1.08/2.39 GB  45.6 MB/s  0:29 left"),
        (39, "45%  1.08/2.39 GB  45.6 MB/s  0:29 left"),
        (35, "45%  1.08/2.39 GB  45.6 MB/s  0:29"),
        (20, "45%  0:29"),
        (5, "45%"),
    ],
)
def test_the_line_fits(width: int, expected: str) -> None:
    text = report(width, int(TOTAL * 0.4518))
    assert text == expected
    assert len(text) <= width


def test_no_width_is_exceeded() -> None:
    for width in range(1, 130):
        for done in (0, 5, 999_999, 123_456_789, TOTAL):
            for total in (0, TOTAL):
                for speed in (0.0, 3.2, 45.6e6, 3e9):
                    assert len(report(width, done, total, speed)) <= width


def test_what_it_says() -> None:
    assert "stalled" in report(100, 1_000_000, speed=0)
    assert "left" not in report(100, 1_000_000, total=0)
    assert "1:27:06 left" in report(100, 10_000_000, speed=456e3)
    shown, paper, clock = line(100)
    shown(1_000_000_000, TOTAL, f"folder/{FILE}")
    clock.now = 20.0
    shown(TOTAL, TOTAL, f"folder/{FILE}")
    shown.close()
    # What an earlier call fetched does not count as speed.
    assert paper.lines[-2:] == [f"{FILE}  100%  {'━' * 20}  2.39 GB  in 0:20  69.7 MB/s", "end"]


def test_what_is_over_at_once_is_not_shown() -> None:
    shown, paper, clock = line()
    shown(0, 100, "tokenizer.json")
    clock.now = 0.2
    shown(100, 100, "tokenizer.json")
    shown.close()
    assert paper.lines == []


def test_the_speed_is_that_of_the_last_seconds() -> None:
    shown, paper, clock = line(100)
    for second in range(60):
        clock.now = float(second)
        shown(second * 1_000_000, TOTAL, FILE)
    for second in range(60, 70):
        clock.now = float(second)
        shown(59_000_000, TOTAL, FILE)
    assert "0 B/s" in paper.lines[-1] and "stalled" in paper.lines[-1]


def test_only_true_false_and_callables() -> None:
    with reporting(False) as report:
        assert report is None
    with reporting(print) as report:
        assert report is print
    with pytest.raises(TypeError, match="progress must be bool or a callable, not int"), reporting(1):  # type: ignore[arg-type]
        pass


def test_a_notebook_gets_one_line_that_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[str, dict[str, str]]] = []

    class Handle:
        def update(self, data: dict[str, str], raw: bool) -> None:
            shown.append(("update", data))

    def display(data: dict[str, str], *, raw: bool, display_id: bool) -> Handle:
        assert raw and display_id
        shown.append(("new", data))
        return Handle()

    ipython: Any = types.ModuleType("IPython")
    ipython.get_ipython = lambda: types.SimpleNamespace(kernel=object())
    module: Any = types.ModuleType("IPython.display")
    module.display = display
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    place = progress._place()
    assert isinstance(place, Notebook)
    clock = Clock()
    shown_line = Line(place, clock)
    for second in range(4):
        clock.now = float(second)
        shown_line(second * 1000, 3000, FILE)
    shown_line.close()
    assert [kind for kind, _ in shown] == ["new", "update", "update", "update"]
    assert all(list(data) == ["text/plain"] for _, data in shown)
    # IPython in a terminal is a terminal.
    ipython.get_ipython = lambda: types.SimpleNamespace()
    assert not isinstance(progress._place(), Notebook)


def test_an_ascii_terminal_gets_ascii(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w", encoding="ascii") as stream:
        terminal = Terminal(stream)
        assert terminal.bar(0.5, 10) == "#####....."
        terminal.show("ä")
        terminal.show("b")
    assert (tmp_path / "out").read_bytes() == b"\r?\rb"


FETCH = f"""
from candlewick import models
print(models.Hub(progress=PROGRESS).fetch({REPO!r}, {FILE!r})[0])
"""


def run(hub: FakeHub, folder: Path, columns: int | None, show: bool = True, **more: str) -> str:
    """What a fetch writes to standard error: a terminal of that many columns, or a pipe."""
    variables = os.environ | {"PYTHONIOENCODING": "utf-8", "TERM": "xterm"}
    for name, value in (environment(hub, folder) | more).items():
        variables.pop(name, None)
        if value is not None:
            variables[name] = value
    command = [sys.executable, "-c", FETCH.replace("PROGRESS", str(show))]
    if columns is None:
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True, timeout=60)
        return done.stderr
    import fcntl
    import pty
    import struct
    import termios

    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, stderr=side)
    os.close(side)
    written = b""
    while True:
        try:
            chunk = os.read(main, 65536)
        except OSError:
            break
        if not chunk:
            break
        written += chunk
    os.close(main)
    assert process.wait(timeout=60) == 0
    return written.decode()


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("columns", [80, 40])
def test_a_terminal_shows_it_on_one_line(tmp_path: Path, columns: int) -> None:
    with FakeHub() as hub:
        hub.add(REPO, {FILE: gguf()})
        hub.plan("data", slow(1e6))
        written = run(hub, tmp_path, columns)
    assert written.count("\n") == 1 and written.endswith("\n")
    shown = [text.rstrip() for text in written.strip().split("\r") if text]
    assert len(shown) >= 4
    assert all(len(text) < columns for text in shown)
    # Size, speed and time left, at 40 columns too.
    assert all(re.search(r"\d+%  .*[kM]B  .*[kM]B/s  \d:\d\d", text) for text in shown[:-1]), shown
    assert "100%" in shown[-1]


def test_nobody_watching_nothing_shown(tmp_path: Path) -> None:
    with FakeHub() as hub:
        hub.add(REPO, {FILE: gguf()})
        for i, (columns, show, more) in enumerate(
            [(None, True, {}), (80, False, {}), (80, True, {"HF_HUB_DISABLE_PROGRESS_BARS": "1"})]
        ):
            if columns is not None and os.name != "posix":
                continue
            hub.plan("data", slow(1.5e6))
            assert run(hub, tmp_path / str(i), columns, show, **more) == ""


def test_a_load_is_reported_and_what_the_function_raises_ends_it() -> None:
    calls: list[tuple[int, int, str]] = []
    with Generator("demo", progress=lambda *call: calls.append(call)):
        pass
    assert calls
    assert all(0 <= done < total and what == "loading demo.gguf" for done, total, what in calls)

    def stop(*_: object) -> None:
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        Generator("demo", progress=stop)


def test_a_line_that_is_not_kept_leaves_nothing() -> None:
    paper, clock = Paper(100), Clock()
    shown = Line(paper, clock, keep=False)
    shown(0, TOTAL, f"loading {FILE}")
    shown.close()
    assert paper.lines == []
    shown(0, TOTAL, f"loading {FILE}")
    clock.now = 1.0
    shown(TOTAL // 2 + 1, TOTAL, f"loading {FILE}")
    shown.close()
    assert f"loading {FILE}   50%" in paper.lines[0]
    assert paper.lines[1:] == ["cleared"]


def test_a_cleared_line_is_blank_on_the_terminal() -> None:
    stream = io.StringIO()
    terminal = Terminal(stream)
    terminal.show("half")
    terminal.clear()
    assert stream.getvalue() == "\rhalf\r    \r"
