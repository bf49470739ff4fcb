"""Downloads that are killed, interrupted, and shared between processes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_hub import REPO, FakeHub, environment, gguf, slow, stall, status

fcntl = pytest.importorskip("fcntl", reason="signals and flock are POSIX")

# More threads here would only start more programs, which share nothing.
pytestmark = pytest.mark.thread_unsafe(reason="tests programs")

# `make test-faults` sets it to 200.
KILLS = int(os.environ.get("CANDLEWICK_TEST_KILLS", "10"))
DATA = gguf(8_000_000)
SHA = hashlib.sha256(DATA).hexdigest()
FILE = "model-q4.gguf"
FETCH = f"""
import sys
from candlewick import models
print("start", flush=True)
print(models.Hub(progress=False).fetch({REPO!r}, {FILE!r})[0])
"""


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        hub.add(REPO, {FILE: DATA})
        yield hub


def start(hub: FakeHub, folder: Path, **more: str) -> subprocess.Popen[str]:
    variables = os.environ.copy()
    for name, value in (environment(hub, folder) | more).items():
        variables.pop(name, None)
        if value is not None:
            variables[name] = value
    process = subprocess.Popen(
        [sys.executable, "-c", FETCH], env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "start\n"
    return process


def part(folder: Path) -> Path:
    return folder / "hf" / "hub" / "models--owner--name" / "blobs" / f"{SHA}.incomplete"


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.005)


def result(process: subprocess.Popen[str]) -> bytes:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return Path(out.strip()).read_bytes()


def starts(hub: FakeHub) -> list[int]:
    """The offsets that were asked for."""
    return [int(r.headers.get("range", "bytes=0-")[6:-1]) for r in hub.of("data")]


@pytest.mark.parametrize("seed", range(KILLS // 20 or 1))
def test_killed_at_random_moments(hub: FakeHub, tmp_path: Path, seed: int) -> None:
    moments = random.Random(4 + seed)
    hub.plan("data", always=slow(1.5e6))
    there = 0
    for i in range(20):
        if i == 15:
            # The last ones come near the end, among hash, rename and link.
            hub.plan("data")
        process = start(hub, tmp_path)
        time.sleep(moments.uniform(0.0, 0.4))
        process.kill()
        process.communicate()
        now = len(DATA) if part(tmp_path).with_suffix("").exists() else size(part(tmp_path))
        assert now >= there
        # Each run asks for what the one before had not written, and for nothing else.
        assert not hub.of("data") or starts(hub)[-1] in (there, 0 if not there else there)
        there = now
        blob = part(tmp_path).with_suffix("")
        if blob.exists():
            assert blob.read_bytes() == DATA
        else:
            assert DATA.startswith(part(tmp_path).read_bytes() if there else b"")
        hub.requests.clear()
    assert there > 0
    assert result(start(hub, tmp_path)) == DATA
    assert starts(hub) == ([] if there == len(DATA) else [there])
    assert not part(tmp_path).exists()


def test_two_processes_fetch_once(hub: FakeHub, tmp_path: Path) -> None:
    hub.plan("data", always=slow(8e6))
    both = [start(hub, tmp_path) for _ in range(2)]
    assert [result(process) for process in both] == [DATA, DATA]
    assert hub.sent("data") == len(DATA)
    assert len(hub.of("data")) == 1


def test_a_waiting_process_takes_over(hub: FakeHub, tmp_path: Path) -> None:
    hub.plan("data", slow(2e6))
    first = start(hub, tmp_path)
    wait_until(lambda: size(part(tmp_path)) > 100_000)
    second = start(hub, tmp_path)
    wait_until(lambda: len(hub.of("head")) == 2)
    time.sleep(0.3)
    first.kill()
    first.communicate()
    there = size(part(tmp_path))
    assert result(second) == DATA
    assert starts(hub) == [0, there]


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """The lock that huggingface_hub and candlewick take for the file."""
    path = folder / "hf" / "hub" / ".locks" / "models--owner--name" / f"{SHA}.lock"
    path.parent.mkdir(parents=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def test_waiting_lasts_as_long_as_the_other_gets_on(hub: FakeHub, tmp_path: Path) -> None:
    with held(tmp_path):
        process = start(hub, tmp_path)
        # As huggingface_hub names its own unfinished files.
        other = part(tmp_path).with_name(f"{SHA}.0123abcd.incomplete")
        other.parent.mkdir(parents=True, exist_ok=True)
        end = time.monotonic() + 5  # longer than it waits without news: three times the stall timeout of 1 s
        while time.monotonic() < end:
            with other.open("ab") as file:
                file.write(b"x")
            time.sleep(0.2)
            assert process.poll() is None
        began = time.monotonic()
        _, err = process.communicate(timeout=20)
        assert process.returncode == 1 and "DownloadError" in err
        assert "another process holds" in err and "cache_dir=" in err
        assert 2 < time.monotonic() - began < 6
    assert hub.of("data") == []


def blocked_port() -> tuple[socket.socket, list[socket.socket]]:
    """A port whose connections are neither accepted nor refused: its queue is full."""
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen(0)
    waiting = []
    for _ in range(4):
        client = socket.socket()
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            client.connect(server.getsockname())
        waiting.append(client)
    return server, waiting


@pytest.mark.parametrize("where", ["transfer", "stall", "answer", "back-off", "lock", "connect"])
def test_ctrl_c_returns_within_a_second(hub: FakeHub, tmp_path: Path, where: str) -> None:
    with contextlib.ExitStack() as stack:
        more = {"HF_HUB_DOWNLOAD_TIMEOUT": "60", "HF_HUB_ETAG_TIMEOUT": "60"}
        ready: Callable[[], object] = lambda: hub.requests  # noqa: E731
        if where == "transfer":
            hub.plan("data", slow(1e6))
            ready = lambda: size(part(tmp_path)) > 100_000  # noqa: E731
        elif where == "stall":
            hub.plan("data", stall(300_000))
            ready = lambda: size(part(tmp_path)) == 300_000  # noqa: E731
        elif where == "answer":
            hub.plan("head", stall(-1))
        elif where == "back-off":
            hub.plan("data", status(503, Retry_After="100"))
            ready = lambda: hub.of("data")  # noqa: E731
        elif where == "lock":
            stack.enter_context(held(tmp_path))
        else:
            server, waiting = blocked_port()
            for opened in (server, *waiting):
                stack.enter_context(opened)
            more["HF_ENDPOINT"] = f"http://127.0.0.1:{server.getsockname()[1]}"
            ready = lambda: True  # noqa: E731
        process = start(hub, tmp_path, **more)
        wait_until(ready)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        _, err = process.communicate(timeout=20)
        assert time.monotonic() - began < 1
        assert "KeyboardInterrupt" in err
    there = size(part(tmp_path))
    assert (there > 0) == (where in ("transfer", "stall"))
    # Nothing was lost.
    hub.plan("data")
    hub.plan("head")
    hub.requests.clear()
    assert result(start(hub, tmp_path)) == DATA
    assert starts(hub) == [there]
