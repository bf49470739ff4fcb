"""`candlewick serve`: begins, says where it is, and ends when it is told to, with the answers that it owes."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest
from serving import HAIKU, events

pytestmark = pytest.mark.thread_unsafe(reason="tests programs")

# As `candlewick serve`, but each token takes a while.
SLOWLY = """
import sys, time
from candlewick import Generator
stream_tokens = Generator.stream_tokens
def slowly(ids, logits):
    time.sleep(0.02)
Generator.stream_tokens = lambda *a, **o: stream_tokens(*a, **o, logits_processor=slowly)
from candlewick.cli import main
sys.exit(main(sys.argv[1:]))
"""


@contextlib.contextmanager
def served(*arguments: str, code: str | None = None) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of a server in a process of its own, and the process."""
    start = ["-m", "candlewick"] if code is None else ["-c", code]
    command = [sys.executable, *start, "serve", "--model", "demo", "--port", "0", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        said = ""
        while not (found := re.search(r"Serving on (http://\S+)/v1", said)):
            line = process.stderr.readline()
            assert line, said
            said += line
        yield found[1], process
    finally:
        process.kill()
        process.communicate()


def test_it_serves_and_ends() -> None:
    with served() as (url, process):
        assert url.startswith("http://127.0.0.1:")
        assert httpx.post(f"{url}/v1/chat/completions", json=HAIKU, timeout=60).status_code == 200
        assert httpx.get(f"{url}/v1/models", headers={"host": "evil.example"}).status_code == 403
        process.terminate()
        assert process.wait(30) == 0 or sys.platform == "win32"


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGTERM")
def test_a_signal_to_end_waits_for_what_is_being_written() -> None:
    with served("--max-running", "1", code=SLOWLY) as (url, process):
        chat, body = f"{url}/v1/chat/completions", HAIKU | {"stream": True, "seed": 7, "max_tokens": 40}
        host, port = url.removeprefix("http://").split(":")
        with httpx.stream("POST", chat, json=body, timeout=60) as answer, httpx.Client() as client:
            parts = events(answer)
            text = next(t for t in (p["choices"][0]["delta"].get("content") for p in parts) if t)
            idle = socket.create_connection((host, int(port)))
            client.get(f"{url}/health")
            process.terminate()
            # New ones are refused, and connections that wait for nothing are closed.
            assert idle.recv(1) == b""
            idle.close()
            with pytest.raises(httpx.TransportError):
                while client.get(f"{url}/health").status_code == 200:
                    pass
            assert process.poll() is None
            last = None
            for last in parts:
                text += last["choices"][0]["delta"].get("content", "")
        assert last is not None and last["choices"][0]["finish_reason"] in ("stop", "length")
        assert process.wait(30) == 0
    with served() as (url, _):
        whole = httpx.post(f"{url}/v1/chat/completions", json=body | {"stream": False}, timeout=60).json()
    assert whole["choices"][0]["message"]["content"] == text


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGINT")
def test_ctrl_c() -> None:
    with served() as (_, process):
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130


def run(*arguments: str, code: str | None = None) -> subprocess.CompletedProcess[str]:
    start = ["-m", "candlewick"] if code is None else ["-c", code]
    return subprocess.run([sys.executable, *start, "serve", *arguments], capture_output=True, text=True, timeout=60)


def test_keys_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANDLEWICK_API_KEY", "sk-1")
    with served() as (url, _):
        assert httpx.get(f"{url}/v1/models").status_code == 401
        assert httpx.get(f"{url}/v1/models", headers={"authorization": "Bearer sk-1"}).status_code == 200


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("--model", "demo", "--port", str(port))
    assert done.returncode == 1
    assert f"candlewick: cannot listen on 127.0.0.1 port {port}" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "70000"], "--port is 70000, expected 0 (any) to 65535"),
        (["--max-running", "0"], "--max-running is 0"),
        (["--timeout", "nan"], "--timeout nan"),
        (["--host", "no.such.host.invalid", "--port", "0"], "no.such.host.invalid"),
    ],
)
def test_wrong_arguments(arguments: list[str], message: str) -> None:
    done = run("--model", "demo", *arguments)
    assert done.returncode == 1 and message in done.stderr
    assert "Traceback" not in done.stderr


def test_without_the_extra() -> None:
    missing = (
        "import sys; sys.modules['starlette'] = None\nfrom candlewick.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    done = run("--model", "demo", code=missing)
    assert done.returncode == 1
    assert done.stderr == (
        "candlewick: the server needs starlette, which is not installed: pip install 'candlewick[server]'\n"
    )


def test_the_package_loads_nothing_of_the_server() -> None:
    watched = ("starlette", "uvicorn", "candlewick.server")
    code = f"import sys, candlewick.cli; print([m for m in {watched} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
