"""`candlewick chat`: its commands, and what it remembers of what was typed."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from candlewick import Chat, Generator

COMMAND = [sys.executable, "-m", "candlewick", "chat", "--model", "demo", "--temperature", "0"]


def chat(said: str, *options: str) -> tuple[str, list[str]]:
    """What the model says, and the lines of what the program says."""
    done = subprocess.run(
        [*COMMAND, *options], input=said, capture_output=True, text=True, encoding="utf-8", timeout=60
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    return done.stdout, done.stderr.splitlines()[1:]


def answers(demo: Generator, *turns: str, system: str | None = None) -> list[str]:
    talk = demo.chat(system, temperature=0)
    return ["".join(talk.send(text)) for text in turns]


def test_save_and_load(demo: Generator, tmp_path: Path) -> None:
    file = tmp_path / "a file.chat"
    fog, tea = answers(demo, "fog", "tea")
    assert chat(f"fog\n/save {file}\n/undo\n/load {file}\ntea\n") == (
        f"{fog}\n{tea}\n",
        ["(saved, 1 turn)", "(taken back)", "(loaded, 1 turn)", ""],
    )
    saved = Chat.load(file, demo)
    assert [m["content"] for m in saved.messages] == ["fog", fog]


def test_a_file_that_cannot_be_had_is_said_and_ends_nothing(demo: Generator, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("Hello")
    (fog,) = answers(demo, "fog")
    said, notes = chat(f"/load {tmp_path}/text\n/load {tmp_path}/nothing\n/save {tmp_path}/no/a\n/save\n/load\nfog\n")
    assert said == f"{fog}\n"
    for note, text in zip(
        notes,
        [
            "is not a conversation that Chat.save wrote",
            "nothing",
            "no/a",
            "/save needs the name of a file",
            "/load needs",
        ],
        strict=False,
    ):
        assert text in note


def test_fork_and_back(demo: Generator) -> None:
    fog, tea = answers(demo, "fog", "tea")
    rain = answers(demo, "fog", "rain")[1]
    assert chat("fog\n/back\n/fork\ntea\n/back\nrain\n/fork\n/reset\n/back\n") == (
        f"{fog}\n{tea}\n{rain}\n",
        [
            "(there was no /fork)",
            "(a copy of the conversation; /back returns to where it was made)",
            "(back, 1 turn so far)",
            "(a copy of the conversation; /back returns to where it was made)",
            "(a new conversation)",
            "(there was no /fork)",
            "",
        ],
    )


def test_system(demo: Generator) -> None:
    (fog,) = answers(demo, "fog")
    before = [{"role": "user", "content": "fog"}, {"role": "assistant", "content": fog}]
    talk = demo.chat("You rhyme.", messages=before, temperature=0)
    tea = "".join(talk.send("tea"))
    (moon,) = answers(demo, "moon", system="You rhyme.")
    (sea,) = answers(demo, "sea")
    said, notes = chat("fog\n/system You rhyme.\ntea\n/reset\nmoon\n/system\n/reset\nsea\n")
    assert said == f"{fog}\n{tea}\n{moon}\n{sea}\n"
    assert [n for n in notes if "system" in n] == ["(another system message)", "(no system message)"]


def test_help_names_every_command() -> None:
    _, notes = chat("/help\n")
    for name in ("again", "reset", "undo", "fork", "back", "system", "save", "load", "bye"):
        assert any(line.startswith(f"  /{name} ") for line in notes)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("state", ["new", "kept", "broken"])
def test_what_was_typed_is_there_the_next_time(tmp_path: Path, state: str) -> None:
    import pty

    pytest.importorskip("readline")
    file = tmp_path / "candlewick" / "chat_history"
    if state == "kept":
        file.parent.mkdir()
        # GNU readline reads plain lines; editline's files begin with a line of their own.
        import readline

        readline.clear_history()
        readline.add_history("/nonsense from before")
        readline.write_history_file(file)
        readline.clear_history()
    if state == "broken":
        file.parent.write_text("not a folder")
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        COMMAND,
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path), "TERM": "dumb"},
    )
    os.close(follower)
    seen = b""

    def wait_for(text: bytes) -> None:
        nonlocal seen
        while text not in seen:
            assert select.select([leader], [], [], 30)[0], seen
            seen += os.read(leader, 4096)

    try:
        wait_for(b"> ")
        if state == "kept":
            os.write(leader, b"\x10\n")  # Ctrl-P: the line before
            wait_for(b"no command /nonsense")
            wait_for(b"stops the answer.\r\n> ")
        os.write(leader, b"/bye\n")
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(leader)
    if state != "broken":
        assert "/bye" in file.read_text()
        assert file.stat().st_mode & 0o077 == 0, "nobody else's business"
