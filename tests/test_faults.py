"""Disks that are full, break or cannot be written to, files that change underneath, and processes that are killed.

Faults of the system come from tests/faults.c, loaded before the C library. `make test-faults` kills 200 times and not
the few times of a usual run.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_hub import REPO, FakeHub, environment, gguf, slow
from make_gguf import tiny_model

from candlewick import Chat, Generator, SessionError

# More threads here would only start more programs, which share nothing.
pytestmark = [
    pytest.mark.thread_unsafe(reason="tests programs"),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="LD_PRELOAD, tmpfs and /proc are Linux's"),
]

KILLS = int(os.environ.get("CANDLEWICK_TEST_KILLS", "10"))
DATA = gguf()
FILE = "model-q4.gguf"
FETCH = f"""
from candlewick import models
print(models.Hub(progress=False).fetch({REPO!r}, {FILE!r})[0])
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    library = tmp_path_factory.mktemp("shim") / "faults.so"
    source = Path(__file__).with_name("faults.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return library


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        hub.add(REPO, {FILE: DATA})
        yield hub


def python(script: str, *arguments: object, **environment: str | None) -> subprocess.CompletedProcess[str]:
    """Runs `script` with these variables; None is not set."""
    variables = {**os.environ, **{k: v for k, v in environment.items() if v is not None}}
    for name, value in environment.items():
        if value is None:
            variables.pop(name, None)
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=variables, timeout=100)


def fault(shim: Path, call: str, number: int, text: str, after: int = 0) -> dict[str, str]:
    return {"LD_PRELOAD": str(shim), "FAULT": f"{call} {number} {text} {after}"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1.5 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1500k,mode=777", "none", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a small disk: {mounted.stderr.strip()}")
    yield folder
    # Whatever still has a file open there.
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


# Downloads


def test_the_disk_fills_up_while_downloading(hub: FakeHub, small_disk: Path) -> None:
    """Another program takes what there was when the download began."""
    hub.plan("data", slow(500_000))
    variables = {k: v for k, v in os.environ.items()} | {
        k: v for k, v in environment(hub, small_disk).items() if v is not None
    }
    process = subprocess.Popen(
        [sys.executable, "-c", FETCH], env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    end = time.monotonic() + 60
    while not hub.sent("data") > 200_000:
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.01)
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            assert error.errno == errno.ENOSPC
    _, err = process.communicate(timeout=60)
    last = err.strip().splitlines()[-1]
    assert "DownloadError" in last and "are needed and" in last and "free some space" in last
    assert "are kept, and the next call goes on from there" in last
    filler.unlink()
    hub.requests.clear()
    done = python(FETCH, **environment(hub, small_disk))
    assert Path(done.stdout.strip()).read_bytes() == DATA
    (request,) = hub.of("data")
    assert int(request.headers["range"][6:-1]) > 100_000


@pytest.mark.parametrize(
    ("call", "number", "text", "after", "words"),
    [
        ("write", errno.ENOSPC, ".incomplete", 300_000, ["DownloadError", "more are needed", "are kept"]),
        ("write", errno.EDQUOT, ".incomplete", 300_000, ["DownloadError", "more are needed", "are kept"]),
        ("write", errno.EIO, ".incomplete", 300_000, ["OSError: [Errno 5]", ".incomplete"]),
        ("fsync", errno.EIO, ".incomplete", 0, ["OSError: [Errno 5]", ".incomplete"]),
        ("rename", errno.EACCES, ".incomplete", 0, ["PermissionError: [Errno 13]", "/blobs/"]),
        ("open", errno.EROFS, "/hub/", 0, ["OSError: [Errno 30]", "/hub/"]),
        ("mkdir", errno.EROFS, "/hub", 0, ["OSError: [Errno 30]", "/hub"]),
        ("mkdir", errno.EACCES, "/hub", 0, ["PermissionError: [Errno 13]", "/hub"]),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_disks_that_fail_while_downloading(
    hub: FakeHub, tmp_path: Path, shim: Path, call: str, number: int, text: str, after: int, words: list[str]
) -> None:
    variables = environment(hub, tmp_path)
    # In pieces, so that some of them are written before the one that does not fit.
    hub.plan("data", slow(2_000_000))
    done = python(FETCH, **variables, **fault(shim, call, number, text, after))
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1 and all(word in last for word in words), done.stderr
    assert not list(tmp_path.rglob("snapshots/*/*")), "what is not safely there has no name"
    # The disk is well again: what was written is not fetched twice.
    kept = sum(path.stat().st_size for path in tmp_path.rglob("*.incomplete"))
    assert 0 < kept <= after or after == 0
    hub.requests.clear()
    done = python(FETCH, **variables)
    assert done.returncode == 0 and Path(done.stdout.strip()).read_bytes() == DATA
    assert hub.sent("data") == len(DATA) - kept


def test_a_cache_that_cannot_be_written_to_is_read(hub: FakeHub, tmp_path: Path, shim: Path, tiny_path: Path) -> None:
    hub.add(REPO, {FILE: tiny_path.read_bytes()})
    variables = environment(hub, tmp_path)
    assert python(FETCH, **variables).returncode == 0
    script = f"from candlewick import Generator; print(len(Generator({REPO!r}).generate([5, 6], max_tokens=3).text))"
    for call in ("open", "mkdir"):
        done = python(script, **variables, **fault(shim, call, errno.EROFS, "/hub"))
        assert done.returncode == 0, done.stderr


# Models


def test_a_disk_that_cannot_read_a_model(shim: Path, tiny_path: Path) -> None:
    script = "import sys; from candlewick import Generator; Generator(sys.argv[1], mmap=False)"
    for after in (0, 50_000):
        done = python(script, tiny_path, **fault(shim, "read", errno.EIO, tiny_path.name, after))
        last = done.stderr.strip().splitlines()[-1]
        assert done.returncode == 1 and "OSError: [Errno 5]" in last and str(tiny_path) in last, done.stderr


TRUNCATE = """
import os, sys
from candlewick import Generator
path, mmap = sys.argv[1], sys.argv[2] == "True"
gen = Generator(path, mmap=mmap)
before = gen.generate([200, 201, 202], max_tokens=8, temperature=0, ignore_eos=True).text
gen.clear_cache()
os.truncate(path, 4096)
print("cut", flush=True)
after = gen.generate([200, 201, 202], max_tokens=8, temperature=0, ignore_eos=True).text
print(before == after)
"""


@pytest.mark.parametrize("mmap", [True, False])
def test_a_model_that_is_cut_short_while_in_use(tmp_path: Path, mmap: bool) -> None:
    """The limit that SECURITY.md names, and the way out: what was read is not touched any more."""
    path = tiny_model(tmp_path / "m.gguf", embd=256, ffn=128)
    done = python(TRUNCATE, path, mmap)
    if mmap:
        assert (done.returncode, done.stdout) == (-signal.SIGBUS, "cut\n"), done.stderr
    else:
        assert (done.returncode, done.stdout) == (0, "cut\nTrue\n"), done.stderr


def test_a_model_that_is_replaced_in_the_middle_of_a_text(tmp_path: Path, tiny_path: Path) -> None:
    """By one that is shorter: those who use the old one keep it, and who comes gets the new one."""
    path = tmp_path / "m.gguf"
    shutil.copy(tiny_path, path)
    expected = Generator(tiny_path).generate([5] * 20, max_tokens=30, temperature=0, ignore_eos=True).text
    gen = Generator(path)
    stream = gen.stream([5] * 20, max_tokens=30, temperature=0, ignore_eos=True)
    text = next(stream)
    new = tiny_model(tmp_path / "new.gguf", layers=1, seed=9)
    digest = Generator(new)._native.sha256
    new.replace(path)
    assert text + "".join(stream) == expected
    assert Generator(path)._native.sha256 == digest != gen._native.sha256


# Conversations

SAVE = """
import sys
from candlewick import Generator
gen = Generator(sys.argv[1])
chat = gen.chat(temperature=0, max_tokens=4)
for _ in range(2):
    "".join(chat.send("Hello"))
chat.save(sys.argv[2])
"""


@pytest.mark.parametrize(
    ("call", "number", "after"),
    [
        ("write", errno.ENOSPC, 0),
        ("write", errno.ENOSPC, 20_000),
        ("write", errno.EIO, 20_000),
        ("fsync", errno.EIO, 0),
        ("rename", errno.EACCES, 0),
        ("open", errno.EROFS, 0),
    ],
    ids=lambda value: str(value),
)
def test_disks_that_fail_while_saving(
    tmp_path: Path, shim: Path, tiny: Generator, tiny_path: Path, call: str, number: int, after: int
) -> None:
    """What was saved before is there as it was, and nothing else."""
    path = tmp_path / "a.chat"
    chat = tiny.chat(temperature=0, max_tokens=4)
    "".join(chat.send("before"))
    chat.save(path)
    before = path.read_bytes()
    done = python(SAVE, tiny_path, path, **fault(shim, call, number, "a.chat", after))
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1 and f"[Errno {number}]" in last and str(path) in last, done.stderr
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.chat"]
    assert python(SAVE, tiny_path, path).returncode == 0
    assert len(Chat.load(path, tiny).messages) == 4


def test_a_full_disk_keeps_the_conversation_that_is_on_it(small_disk: Path, demo: Generator) -> None:
    path = small_disk / "a.chat"
    chat = demo.chat(temperature=0, max_tokens=40)
    "".join(chat.send("Write a haiku about rain"))
    chat.save(path)
    saved = chat.messages
    for _ in range(40):
        "".join(chat.send("Write a haiku about fog", max_tokens=12))
        try:
            chat.save(path)
            saved = chat.messages
        except OSError as error:
            assert error.errno == errno.ENOSPC
            break
    else:
        pytest.fail("the disk is too large")
    assert os.listdir(small_disk) == ["a.chat"]
    assert Chat.load(path, demo).messages == saved


def test_a_disk_that_cannot_read_a_conversation(tmp_path: Path, shim: Path, tiny: Generator, tiny_path: Path) -> None:
    path = tmp_path / "a.chat"
    chat = tiny.chat(temperature=0, max_tokens=4)
    "".join(chat.send("Hello"))
    chat.save(path)
    script = "import sys; from candlewick import Chat, Generator; Chat.load(sys.argv[2], Generator(sys.argv[1]))"
    done = python(script, tiny_path, path, **fault(shim, "read", errno.EIO, "a.chat"))
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1 and "OSError: [Errno 5]" in last and str(path) in last, done.stderr


TALK = """
import sys
from candlewick import Chat, Generator
gen = Generator(sys.argv[1], n_threads=1)
path = sys.argv[2]
try:
    chat = Chat.load(path, gen, temperature=0, max_tokens=4)
except FileNotFoundError:
    chat = gen.chat(temperature=0, max_tokens=4)
print("start", flush=True)
while True:
    "".join(chat.send("Hello"))
    chat.save(path)
    if len(chat.messages) > 60:
        chat.rewind(25)
"""


def test_killed_at_random_moments_of_generating_and_saving(tmp_path: Path, tiny: Generator, tiny_path: Path) -> None:
    """The next start finds what was saved last or the time before, whole, and goes on from it."""
    moments = random.Random(11)
    path = tmp_path / "a.chat"
    grown = 0
    for i in range(KILLS):
        process = subprocess.Popen(
            [sys.executable, "-c", TALK, str(tiny_path), str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "start\n", process.communicate()[1]
        time.sleep(moments.uniform(0.0, 0.15))
        process.kill()
        process.communicate()
        if not path.exists():
            continue
        try:
            messages = Chat.load(path, tiny).messages
        except SessionError as error:
            pytest.fail(f"kill {i}: {error}")
        # Whole turns, the same ones whenever they are written.
        assert len(messages) % 2 == 0 and messages[0]["content"] == "Hello"
        grown = max(grown, len(messages))
    assert grown > 2
    print(f"{KILLS} kills, up to {grown} messages, {len(os.listdir(tmp_path))} files left")
