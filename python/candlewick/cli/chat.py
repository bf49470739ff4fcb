"""Talk with a model. The conversation so far is part of every question.

Enter sends; a line that ends with a backslash goes on in the next one. Ctrl-C stops the answer, and twice at an empty
prompt, or Ctrl-D, leaves. /help lists the commands.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from candlewick.chat import Chat
from candlewick.cli import options as parsed
from candlewick.errors import ContextLengthError, InvalidRequestError, SessionError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from candlewick.generator import Generator, Options

HELP = """\
  /help         this text
  /again        another answer to the last question
  /reset        begin a new conversation
  /undo         take back the last question and its answer
  /fork         go on in a copy of the conversation
  /back         return to where /fork was
  /system TEXT  give the model another system message; without TEXT, none
  /save FILE    write the conversation to a file
  /load FILE    go on with a conversation that was saved
  /bye          leave (or Ctrl-D)
A line that ends with a backslash goes on in the next one. Ctrl-C stops the answer."""

HISTORY_LINES = 1000


def run(options: argparse.Namespace) -> int:
    """The command ``chat``."""
    if sys.stdin is None:
        raise OSError("standard input is closed, and a chat reads it")
    with parsed.generator(options) as generator, _history():
        print(f"{generator!r}. /help lists the commands.", file=sys.stderr)
        _Conversation(generator, options.system, parsed.generation(options)).loop()
    return 0


@contextlib.contextmanager
def _history() -> Iterator[None]:
    """Arrow keys, and what was typed in earlier chats, on terminals of platforms that have them."""
    if not sys.stdin.isatty():
        yield
        return
    try:
        import readline
    except ImportError:
        yield
        return
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    file = Path(state) / "candlewick" / "chat_history"
    # A history that cannot be read or written is no reason not to talk.
    with contextlib.suppress(OSError):
        readline.read_history_file(file)
    readline.set_history_length(HISTORY_LINES)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            readline.write_history_file(file)


class _Conversation:
    def __init__(self, generator: Generator, system: str | None, arguments: Options) -> None:
        self.generator = generator
        self.system = system
        self.arguments = arguments
        self.chat = generator.chat(system)
        # Where /fork was
        self.trunks: list[Chat] = []
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
            if not text.startswith("/"):
                self.ask(text)
                continue
            name, _, rest = text.strip().partition(" ")
            if name in ("/bye", "/exit", "/quit"):
                return
            try:
                if said := self.command(name, rest.strip()):
                    print(said, file=sys.stderr)
            except KeyboardInterrupt:
                print("(stopped)", file=sys.stderr)
            except (InvalidRequestError, SessionError, OSError) as error:
                print(error, file=sys.stderr)

    def command(self, name: str, rest: str) -> str:
        """Does what a command says, and gives what is to be said about it."""
        if name in ("/save", "/load") and not rest:
            return f"{name} needs the name of a file"
        match name:
            case "/help":
                return HELP
            case "/reset":
                self.chat, self.trunks = self.generator.chat(self.system), []
                return "(a new conversation)"
            case "/undo" | "/again" if len(self.chat) == 0:
                return "(nothing was asked yet)"
            case "/undo":
                self.chat.rewind()
                return "(taken back)"
            case "/again":
                question = [m["content"] for m in self.chat.messages if m["role"] == "user"][-1]
                self.chat.rewind()
                self.ask(question)
                return ""
            case "/fork":
                self.trunks.append(self.chat)
                self.chat = self.chat.fork()
                return "(a copy of the conversation; /back returns to where it was made)"
            case "/back":
                if not self.trunks:
                    return "(there was no /fork)"
                self.chat = self.trunks.pop()
                return f"(back, {_turns(self.chat)} so far)"
            case "/system":
                self.system = rest or None
                said = [m for m in self.chat.messages if m["role"] != "system"]
                self.chat = self.generator.chat(self.system, messages=said)
                return "(another system message)" if rest else "(no system message)"
            case "/save":
                self.chat.save(_expanded(rest))
                return f"(saved, {_turns(self.chat)})"
            case "/load":
                self.chat = Chat.load(_expanded(rest), self.generator)
                return f"(loaded, {_turns(self.chat)})"
        return f"no command {name}; these are there:\n{HELP}"

    def next_arguments(self) -> Options:
        """With a seed, the whole conversation is repeatable, but no answer is the last one over again."""
        arguments = self.arguments.copy()
        seed = arguments.get("seed")
        if seed is not None:
            arguments["seed"] = seed + self.n_asked
        self.n_asked += 1
        return arguments

    def ask(self, text: str) -> None:
        try:
            stream = self.chat.send(text, **self.next_arguments())
        except ContextLengthError as error:
            print(f"{error}. /undo or /reset makes room.", file=sys.stderr)
            return
        except InvalidRequestError as error:
            print(error, file=sys.stderr)
            return
        except KeyboardInterrupt:
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


def _turns(chat: Chat) -> str:
    return f"{len(chat)} turn{'' if len(chat) == 1 else 's'}"


def _expanded(path: str) -> Path:
    return Path(path).expanduser()


def _read() -> str:
    """One question: a line, or several joined by backslashes."""
    terminal = sys.stdin.isatty()
    lines = [input("> " if terminal else "")]
    while lines[-1].endswith("\\"):
        lines[-1] = lines[-1][:-1]
        lines.append(input("… " if terminal else ""))
    return "\n".join(lines)
