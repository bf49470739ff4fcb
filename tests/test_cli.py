"""The command line: text on standard output, the rest on standard error, and exit codes."""

from __future__ import annotations

import json
import os
import select
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from make_gguf import tiny_model

from candlewick import Generator, __version__

# More threads here would only start more programs, which share nothing.
pytestmark = pytest.mark.thread_unsafe(reason="tests programs")

COMMAND = [sys.executable, "-m", "candlewick"]
DEMO = ("--model", "demo")


def run(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, **environment},
        timeout=60,
    )


def test_run_prints_the_text_and_nothing_else(demo: Generator) -> None:
    done = run("run", *DEMO, "--seed", "3", "Write a haiku about fog")
    assert done.stdout == demo.generate("Write a haiku about fog", seed=3).text + "\n"
    assert (done.returncode, done.stderr) == (0, "")


def test_run_reads_standard_input_and_gives_json(demo: Generator) -> None:
    done = run("run", *DEMO, "-", "--json", "--seed", "4", "--stop", "\n", stdin="rain")
    result = json.loads(done.stdout)
    expected = demo.generate("rain", seed=4, stop="\n")
    assert (result["text"], result["stop_reason"], result["seed"]) == (expected.text, "\n", 4)
    assert result["usage"]["completion_tokens"] == expected.usage.completion_tokens


def test_run_raw_system_and_stats(demo: Generator) -> None:
    prompt = demo.apply_chat_template([{"role": "user", "content": "sea"}])
    assert run("run", *DEMO, "--raw", "--seed", "1", prompt).stdout == run("run", *DEMO, "--seed", "1", "sea").stdout
    done = run("run", *DEMO, "--system", "Be brief.", "--stats", "--seed", "1", "sea")
    assert done.returncode == 0 and "tokens written" in done.stderr and "seed 1" in done.stderr
    assert "give one of them" in run("run", *DEMO, "--raw", "--system", "x", "sea").stderr


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["run", "--model", "nope.gguf", "x"], 1, "candlewick: no such file or folder: 'nope.gguf'"),
        (["run", *DEMO, "--temperature", "-1", "x"], 1, "candlewick: temperature is -1"),
        (["run", "--temperature", "hot", "x"], 2, "argument --temperature: invalid float value: 'hot'"),
        (["run", *DEMO, "--seed", "-1", "x"], 1, "candlewick: seed is -1"),
        (["run", *DEMO, ""], 1, "the prompt is an empty string"),
        (["run"], 2, "the following arguments are required: PROMPT"),
        (["run", "--temp", "1", "x"], 2, "unrecognized arguments: --temp"),
        (["walk"], 2, "invalid choice: 'walk'"),
        ([], 2, "the following arguments are required: COMMAND"),
        (["info", "demo", "--n-ctx", "9999"], 1, "n_ctx is 9999, expected 1 to 1024"),
        (["completion", "tcsh"], 2, "invalid choice: 'tcsh'"),
    ],
)
def test_mistakes(arguments: list[str], code: int, text: str) -> None:
    done = run(*arguments)
    assert done.returncode == code and text in done.stderr and done.stdout == ""
    assert "Traceback" not in done.stderr


def test_info() -> None:
    text = run("info", "demo").stdout
    assert "ice hockey" in text and "1,536 tokens" in text and "sliding window off" in text
    facts = json.loads(run("info", "demo", "--json", "--n-ctx", "100").stdout)
    # In pages of 64 tokens.
    assert facts["context_bytes"] == 128 * facts["kv_bytes_per_token"]
    assert facts["fits"] and facts["audit"]["used"]
    installation = json.loads(run("info", "--json").stdout)
    assert installation["candlewick"] == __version__ and installation["threads"] >= 1
    assert installation["tier"].split(",")[0] in [*installation["cpu"].split(), "scalar"]
    assert f"candlewick  {__version__}" in run("info").stdout


def test_help_shows_examples() -> None:
    for command in (
        [],
        ["run"],
        ["chat"],
        ["replay"],
        ["pull"],
        ["models"],
        ["info"],
        ["bench"],
        ["doctor"],
        ["completion"],
    ):
        done = run(*command, "--help")
        assert done.returncode == 0 and "candlewick" in done.stdout
    assert run("--version").stdout == f"candlewick {__version__}\n"


@pytest.mark.skipif(sys.platform == "win32", reason="bash")
def test_completion_scripts() -> None:
    script = run("completion", "bash").stdout
    ask = "COMP_WORDS=(candlewick run --max); COMP_CWORD=2; _candlewick; echo ${COMPREPLY[@]}"
    done = subprocess.run(["bash", "-c", f"{script}\n{ask}"], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["--max-tokens"]
    assert "-l max-tokens" in run("completion", "fish").stdout and "bashcompinit" in run("completion", "zsh").stdout


@pytest.mark.skipif(sys.platform == "win32", reason="pipes close otherwise there")
def test_a_reader_that_leaves_is_no_error() -> None:
    shell = f"{shlex.quote(sys.executable)} -m candlewick run --model demo --max-tokens 200 sea | head -c 1"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=60)
    assert len(done.stdout) == 1 and done.stderr == ""


def test_a_terminal_without_the_character_gets_a_question_mark(demo: Generator) -> None:
    texts = ((seed, demo.generate("rain", seed=seed).text) for seed in range(200))
    seed, text = next((seed, text) for seed, text in texts if not text.isascii())
    done = run("run", *DEMO, "--seed", str(seed), "rain", PYTHONIOENCODING="ascii")
    assert done.stdout == text.encode("ascii", "replace").decode() + "\n" and done.returncode == 0


@pytest.mark.skipif(sys.platform == "win32", reason="descriptors close otherwise there")
@pytest.mark.parametrize(("redirection", "text"), [("<&-", "standard input is closed"), (">&-", "output is closed")])
def test_closed_standard_streams(redirection: str, text: str) -> None:
    shell = f"{shlex.quote(sys.executable)} -m candlewick run --model demo - {redirection}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and text in done.stderr and "Traceback" not in done.stderr


def test_standard_input_that_is_no_text() -> None:
    done = subprocess.run([*COMMAND, "run", *DEMO, "-"], input=b"caf\xe9", capture_output=True, timeout=60)
    assert done.returncode == 1 and b"lone surrogate (at index 3)" in done.stderr


def test_chat_keeps_the_conversation(demo: Generator) -> None:
    said = "rain\n/again\n\nanother \\\none\n/nonsense\n/undo\n/undo\n/undo\n/reset\n/bye\n"
    done = run("chat", *DEMO, "--temperature", "0", stdin=said)
    first = demo.generate("rain", temperature=0).text
    messages = [
        {"role": "user", "content": "rain"},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "another \none"},
    ]
    second = demo.generate(messages, temperature=0).text
    assert done.stdout == f"{first}\n{first}\n{second}\n"
    for note in ("no command /nonsense", "(taken back)", "(nothing was asked yet)", "(a new conversation)"):
        assert note in done.stderr
    assert done.returncode == 0


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_ctrl_c_in_chat_stops_the_answer_and_not_the_program(tmp_path: Path) -> None:
    import pty

    # Large enough that its answer, which no end token ends, takes seconds.
    path = tiny_model(tmp_path / "m.gguf", layers=8, embd=256, ffn=512, context=4096)
    gen = Generator(path)
    seed = next(s for s in range(99) if gen.generate("Hello", seed=s, max_tokens=300).finish_reason == "length")

    leader, follower = pty.openpty()
    # Where this runs in the background SIGINT is ignored, and would be in the child too.
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        process = subprocess.Popen(
            [*COMMAND, "chat", "--model", str(path), "--seed", str(seed)],
            stdin=follower,
            stdout=follower,
            stderr=follower,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    os.close(follower)
    seen = b""

    def wait_for(enough: Callable[[], bool]) -> None:
        nonlocal seen
        while not enough():
            ready, _, _ = select.select([leader], [], [], 20)
            assert ready, seen
            seen += os.read(leader, 4096)

    try:
        wait_for(lambda: b"> " in seen)
        os.write(leader, b"Hello\n")
        wait_for(lambda: b"Hello" in seen)
        at = len(seen)
        wait_for(lambda: len(seen) > at + 40)
        process.send_signal(signal.SIGINT)
        wait_for(lambda: b"(stopped)" in seen[at:])
        wait_for(lambda: seen.endswith(b"> "))
        os.write(leader, b"/bye\n")
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(leader)


def test_pull_and_models_work_with_the_cache(demo: Generator, tmp_path: Path) -> None:
    """A cache as huggingface_hub lays it out, used without a network."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = tmp_path / "models--someone--tiny-phi"
    snapshot = repo / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    file = snapshot / "tiny-Q8_0.gguf"
    file.write_bytes(Path(demo.info["path"]).read_bytes())
    cache = ("--cache-dir", str(tmp_path))
    listed = run("models", *cache)
    assert "someone/tiny-phi  tiny-Q8_0.gguf" in listed.stdout and "3.67 MB  main" in listed.stdout
    assert json.loads(run("models", "--json", *cache).stdout)[0]["path"] == str(file)
    pulled = run("pull", "someone/tiny-phi:Q8_0", "--offline", *cache)
    assert pulled.stdout == f"{file}\n", pulled.stderr
    answer = run("run", "--model", "someone/tiny-phi", "--offline", *cache, "--seed", "1", "rain")
    assert answer.stdout == demo.generate("rain", seed=1).text + "\n", answer.stderr
    missing = run("pull", "someone/other", "--offline", *cache)
    assert missing.returncode == 1 and missing.stdout == "" and "someone/other" in missing.stderr
    empty = run("models", "--cache-dir", str(tmp_path / "nothing"))
    assert (empty.returncode, empty.stdout) == (0, "") and "candlewick pull" in empty.stderr
