"""Talk with a model. The conversation so far is part of every question.

Enter sends; a line that ends with a backslash goes on in the next one. Ctrl-C stops the answer, and twice at an empty
prompt, or Ctrl-D, leaves. /help lists the commands.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from candlewick.cli import options as parsed
from candlewick.errors import ContextLengthError, InvalidRequestError

if TYPE_CHECKING:
    import argparse

    from candlewick.generator import Generator, Options

HELP = """\
  /help    this text
  /again   another answer to the last question
  /reset   begin a new conversation
  /undo    take back the last question and its answer
  /bye     leave (or Ctrl-D)
A line that ends with a backslash goes on in the next one. Ctrl-C stops the answer."""

Message = dict[str, str]


def run(options: argparse.Namespace) -> int:
    """The command ``chat``."""
    if sys.stdin is None:
        raise OSError("standard input is closed, and a chat reads it")
    if sys.stdin.isatty():
        # Arrow keys and history, where the platform has them.
        try:
            import readline  # noqa: F401
        except ImportError:
            pass
    with parsed.generator(options) as generator:
        print(f"{generator!r}. /help lists the commands.", file=sys.stderr)
        _Conversation(generator, options.system, parsed.generation(options)).loop()
    return 0


class _Conversation:
    def __init__(self, generator: Generator, system: str | None, arguments: Options) -> None:
        self.generator = generator
        self.arguments = arguments
        self.start: list[Message] = [] if system is None else [{"role": "system", "content": system}]
        self.messages = list(self.start)
        self.n_asked = 0

    def loop(self) -> None:
        interrupted = False
        while True:
            try:
                text = _read()
            except EOFError:
                print(file=sys.stderr)
                return
            except KeyboardInterrupt:
                if interrupted:
                    print(file=sys.stderr)
                    return
                print("\n(Ctrl-C again, or Ctrl-D, leaves)", file=sys.stderr)
                interrupted = True
                continue
            interrupted = False
            if not text.strip():
                continue
            if text.startswith("/"):
                if not self.command(text.strip()):
                    return
            else:
                self.ask(text)

    def command(self, name: str) -> bool:
        """Runs a command; false leaves."""
        if name in ("/bye", "/exit", "/quit"):
            return False
        if name == "/help":
            print(HELP, file=sys.stderr)
        elif name == "/reset":
            self.messages = list(self.start)
            print("(a new conversation)", file=sys.stderr)
        elif name in ("/again", "/undo"):
            question = self.take_back()
            if question is None:
                print("(nothing was asked yet)", file=sys.stderr)
            elif name == "/again":
                self.ask(question)
            else:
                print("(taken back)", file=sys.stderr)
        else:
            print(f"no command {name}; these are there:\n{HELP}", file=sys.stderr)
        return True

    def take_back(self) -> str | None:
        if len(self.messages) <= len(self.start):
            return None
        while self.messages[-1]["role"] != "user":
            self.messages.pop()
        return self.messages.pop()["content"]

    def next_arguments(self) -> Options:
        """With a seed, the whole conversation is repeatable, but no answer is the last one over again."""
        arguments = self.arguments.copy()
        seed = arguments.get("seed")
        if seed is not None:
            arguments["seed"] = seed + self.n_asked
        self.n_asked += 1
        return arguments

    def ask(self, text: str) -> None:
        self.messages.append({"role": "user", "content": text})
        try:
            stream = self.generator.stream(self.messages, **self.next_arguments())
        except ContextLengthError as error:
            self.messages.pop()
            print(f"{error}. /undo or /reset makes room.", file=sys.stderr)
            return
        except InvalidRequestError as error:
            self.messages.pop()
            print(error, file=sys.stderr)
            return
        except KeyboardInterrupt:
            self.messages.pop()
            print("(stopped)", file=sys.stderr)
            return
        with stream:
            try:
                for piece in stream:
                    print(piece, end="", flush=True)
            except KeyboardInterrupt:
                print(" (stopped)", end="", file=sys.stderr, flush=True)
        print(flush=True)
        if stream.finish_reason == "length":
            print("(the answer was cut: the limit of tokens is reached)", file=sys.stderr)
        self.messages.append({"role": "assistant", "content": stream.text})


def _read() -> str:
    """One question: a line, or several joined by backslashes."""
    terminal = sys.stdin.isatty()
    lines = [input("> " if terminal else "")]
    while lines[-1].endswith("\\"):
        lines[-1] = lines[-1][:-1]
        lines.append(input("… " if terminal else ""))
    return "\n".join(lines)
