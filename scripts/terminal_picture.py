"""Runs commands in a terminal and draws what it showed, as an animated SVG.

    python scripts/terminal_picture.py docs/terminal.svg

Nothing in the picture is made up: the text is what the commands wrote, and a command's pauses are those of the run, all
stretched by one factor, because the demo model is quicker than anybody reads. Who asks their system for less motion
sees the last frame.
"""

from __future__ import annotations

import argparse
import codecs
import os
import pty
import select
import shlex
import sys
import time
from html import escape
from pathlib import Path

COMMANDS = [
    'candlewick run --model demo --seed 5 "Write a haiku about ice hockey"',
    'candlewick run --model demo --seed 3 "Write a haiku about fog"',
]
COLUMNS = 76
FONT_PX, WIDTH_PX, LINE_PX, MARGIN_PX = 14, 8.43, 21, 18
PROMPT = "$ "
TYPING_S = 0.035
STRETCH = 12.0

STYLE = """
    text { font: %dpx ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace }
    text { white-space: pre; fill: #d8dee9 }
    .prompt { fill: #88c070 } .typed { fill: #ffffff }
    @media (prefers-reduced-motion: no-preference) {
      .t { opacity: 0; animation: show 0.01s linear forwards }
      @keyframes show { to { opacity: 1 } }
    }
"""


def record(command: str) -> list[tuple[float, str]]:
    """What a command writes to a terminal, and when: seconds from its first byte."""
    words = shlex.split(command)
    words = [sys.executable, "-m", *words]
    child, terminal = pty.fork()
    if child == 0:
        os.environ.update(COLUMNS=str(COLUMNS), TERM="dumb", NO_COLOR="1")
        os.execv(words[0], words)
    written: list[tuple[float, bytes]] = []
    while True:
        select.select([terminal], [], [])
        try:
            data = os.read(terminal, 4096)
        except OSError:  # Linux says so when the other end is closed
            data = b""
        if not data:
            break
        written.append((time.monotonic(), data))
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        sys.exit(f"{command} failed: {b''.join(data for _, data in written).decode()}")
    begin = written[0][0]
    decoder = codecs.getincrementaldecoder("utf-8")()
    return [(when - begin, decoder.decode(data).replace("\r\n", "\n")) for when, data in written]


class Screen:
    """Text with the moment at which each piece of it shows."""

    def __init__(self) -> None:
        self.line, self.column, self.pieces = 0, 0, list[str]()

    def write(self, text: str, when: float, kind: str = "") -> None:
        for number, part in enumerate(text.split("\n")):
            if number:
                self.line, self.column = self.line + 1, 0
            if shown := part.strip(" "):
                # Not every viewer keeps spaces at the ends of a text: they are made by its place.
                x = MARGIN_PX + (self.column + len(part) - len(part.lstrip(" "))) * WIDTH_PX
                y = MARGIN_PX + 30 + self.line * LINE_PX
                self.pieces.append(
                    f'  <text class="t {kind}" x="{x:.1f}" y="{y}" textLength="{len(shown) * WIDTH_PX:.1f}" '
                    f'style="animation-delay:{when:.2f}s">{escape(shown)}</text>'
                )
            self.column += len(part)

    def svg(self) -> str:
        width = 2 * MARGIN_PX + COLUMNS * WIDTH_PX
        height = 2 * MARGIN_PX + 20 + (self.line + 1) * LINE_PX
        dots = "".join(
            f'<circle cx="{18 + 18 * n}" cy="17" r="5.5" fill="{colour}"/>'
            for n, colour in enumerate(["#ff5f57", "#febc2e", "#28c840"])
        )
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}">',
                f"  <style>{STYLE % FONT_PX}  </style>",
                f'  <rect width="100%" height="100%" rx="8" fill="#1d2026"/>{dots}',
                *self.pieces,
                "</svg>",
                "",
            ]
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--command", action="append", help="in place of the usual ones; may be given more than once")
    arguments = parser.parse_args()
    screen, now = Screen(), 0.6
    for command in arguments.command or COMMANDS:
        screen.write(PROMPT, 0.0 if not screen.pieces else now, "prompt")
        for letter in command:
            now += TYPING_S
            screen.write(letter, now, "typed")
        now += 0.4
        screen.write("\n", now)
        written = record(command)
        for when, text in written:
            screen.write(text, now + when * STRETCH)
        now += written[-1][0] * STRETCH + 0.8
        if screen.column:
            screen.write("\n", now)
    screen.write(PROMPT, now, "prompt")
    arguments.picture.write_text(screen.svg(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
