"""Crowded machines: many threads, many generators, forks, signals, cancellations, exits, and too little memory."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from make_gguf import tiny_model

from candlewick import Generator, InvalidRequestError

# More threads here would only start more of the same.
pytestmark = pytest.mark.thread_unsafe(reason="counts threads, memory and signals of the process")

OPTIONS: dict[str, Any] = {"max_tokens": 10, "ignore_eos": True}


@pytest.fixture
def gen(tiny_path: Path) -> Iterator[Generator]:
    with Generator(tiny_path) as generator:
        yield generator


def python(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


def text(gen: Generator, i: int, **options: Any) -> str:
    return gen.generate([3 + i, 7, 200 - i], seed=i, **{**OPTIONS, **options}).text


def n_threads() -> int:
    return len(os.listdir("/proc/self/task"))


def test_64_threads_on_one_generator(gen: Generator) -> None:
    expected = [text(gen, i) for i in range(64)]
    gen.clear_cache()
    found: dict[int, str] = {}
    start = threading.Barrier(64)

    def run(i: int) -> None:
        start.wait()
        # Some come back for more while the others are there.
        for _ in range(1 + i % 3):
            found[i] = text(gen, i)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
        assert not thread.is_alive()
    assert [found[i] for i in range(64)] == expected


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory and threads are counted in /proc")
def test_50_generators_opened_and_dropped(tmp_path: Path) -> None:
    """Without close(): in the middle of a text, with a text that is kept, with one that was never begun."""
    path = tiny_model(tmp_path / "m.gguf", embd=256, ffn=1024, layers=6, heads=8)

    def resident() -> int:
        gc.collect()
        status = Path("/proc/self/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon:"))

    def open_and_drop(i: int) -> None:
        gen = Generator(path, n_threads=1 + i % 3)
        stream = gen.stream([5, 6, 7], **OPTIONS)
        if i % 3:
            next(stream)
        if i % 3 == 2:
            "".join(stream)
            gen.chat().fork()

    for i in range(6):
        open_and_drop(i)
    before, threads = resident(), n_threads()
    maps = len(Path("/proc/self/maps").read_text().splitlines())
    for i in range(50):
        open_and_drop(i)
    grown = resident() - before
    print(f"file {path.stat().st_size / 1e6:.1f} MB, {grown / 1e6:+.2f} MB after 50 generators")
    assert grown < path.stat().st_size / 2
    assert n_threads() <= threads
    assert str(path) not in Path("/proc/self/maps").read_text(), "no file stays mapped"
    assert len(Path("/proc/self/maps").read_text().splitlines()) < maps + 50


FORK = """
import os, sys, threading
from candlewick import Generator, InvalidRequestError
gen = Generator(sys.argv[1])
expected = gen.generate([5, 6, 7], max_tokens=10, seed=1, ignore_eos=True).text
stream = gen.stream([5, 6], max_tokens=50, ignore_eos=True)
next(stream)
stop = threading.Event()
def work():
    i = 0
    while not stop.is_set():
        i += 1
        gen.generate([3 + i % 200] * 40, max_tokens=3)
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
refused = 0
for i in range(20):
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        said = b""
        save = lambda: gen.chat().save("/nowhere/x")
        for use in (lambda: gen.generate("x"), lambda: next(stream), gen.clear_cache, lambda: gen.score("abc"), save):
            try:
                use()
                said += b"-"
            except InvalidRequestError as error:
                said += b"+" if "create the Generator in the child" in str(error) else b"?"
            except BaseException as error:
                said += b"!" + repr(error).encode()
        # A generator of its own works.
        mine = Generator(sys.argv[1], n_threads=2).generate([5, 6, 7], max_tokens=10, seed=1, ignore_eos=True).text
        said += b"=" if mine == expected else b"#"
        os.write(writer, said)
        os._exit(0)
    os.close(writer)
    said = os.read(reader, 10_000)
    os.close(reader)
    os.waitpid(pid, 0)
    if said != b"+++++=":
        print(said)
stop.set()
for thread in threads:
    thread.join()
print(gen.generate([5, 6, 7], max_tokens=10, seed=1, ignore_eos=True).text == expected)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_forks_in_the_middle_of_four_texts(tiny_path: Path) -> None:
    """The child is told to make its own generator, which works; the parent goes on."""
    done = python(FORK, tiny_path)
    assert done.stdout == "True\n" and done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers here")
def test_signals_in_the_middle(gen: Generator) -> None:
    """A handler that only counts changes nothing; one that raises ends the stream, and no more than that."""
    expected = text(gen, 1, max_tokens=400)
    counted = 0

    def count(*_: object) -> None:
        nonlocal counted
        counted += 1

    class NowError(Exception):
        pass

    def leave(*_: object) -> None:
        raise NowError

    before = signal.signal(signal.SIGALRM, count)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        for _ in range(3):
            assert text(gen, 1, max_tokens=400) == expected
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert counted > 10
        signal.signal(signal.SIGALRM, leave)
        rng = random.Random(3)
        raised = 0
        for _ in range(20):
            try:
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(0.0005, 0.05))
                while True:
                    gen.generate([7] * 300, max_tokens=100, ignore_eos=True)
            except NowError:
                raised += 1
        assert raised == 20
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert text(gen, 1, max_tokens=400) == expected


def test_tasks_that_are_cancelled_at_random(gen: Generator) -> None:
    expected = [text(gen, i, max_tokens=60) for i in range(40)]
    rng = random.Random(8)

    async def one(i: int) -> str:
        stream = gen.stream([3 + i, 7, 200 - i], seed=i, **{**OPTIONS, "max_tokens": 60})
        return "".join([piece async for piece in stream])

    async def crowd() -> list[Any]:
        tasks = [asyncio.create_task(one(i)) for i in range(40)]
        victims = rng.sample(range(40), 20)
        for victim in victims:
            await asyncio.sleep(rng.uniform(0, 0.01))
            tasks[victim].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    n_cancelled = 0
    for _ in range(3):
        for found, right in zip(asyncio.run(crowd()), expected, strict=True):
            if isinstance(found, asyncio.CancelledError):
                n_cancelled += 1
            else:
                assert found == right
    assert n_cancelled > 20
    assert [text(gen, i, max_tokens=60) for i in range(5)] == expected[:5]


EXIT = """
import sys, threading, time
from candlewick import Generator
gen = Generator(sys.argv[1])
how = sys.argv[2]
begun = threading.Semaphore(0)
def work(i):
    for n, _ in enumerate(gen.stream([3 + i, 7], max_tokens=100_000, ignore_eos=True)):
        if n == 0:
            begun.release()
def again(i):
    while True:
        work(i)
if how == "daemons":
    for i in range(8):
        threading.Thread(target=again, args=(i,), daemon=True).start()
    for _ in range(8):
        begun.acquire()
elif how == "half-read":
    streams = [gen.stream([3 + i, 7], max_tokens=400, ignore_eos=True) for i in range(8)]
    for stream in streams:
        next(stream)
elif how == "asyncio":
    import asyncio
    async def main():
        async def one(i):
            async for _ in gen.stream([3 + i, 7], max_tokens=100_000, ignore_eos=True):
                pass
        tasks = [asyncio.create_task(one(i)) for i in range(8)]
        await asyncio.sleep(0.05)
    asyncio.run(main())
elif how == "atexit":
    import atexit
    atexit.register(lambda: print(len(gen.generate([5, 6], max_tokens=5, ignore_eos=True).tokens), flush=True))
elif how == "error":
    stream = gen.stream([5, 6], max_tokens=400, ignore_eos=True)
    next(stream)
    raise SystemExit(7)
"""


@pytest.mark.parametrize(
    ("how", "code", "out"),
    [("daemons", 0, ""), ("half-read", 0, ""), ("asyncio", 0, ""), ("atexit", 0, "5\n"), ("error", 7, "")],
)
def test_the_interpreter_ends_with_streams_running(tiny_path: Path, how: str, code: int, out: str) -> None:
    for _ in range(3):
        done = python(EXIT, tiny_path, how)
        assert (done.returncode, done.stdout, done.stderr) == (code, out, "")


SUBINTERPRETER = """
import sys
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
import candlewick
code = '''
import sys
sys.path[:] = {path!r}
try:
    import candlewick
    print("imported")
except ImportError as error:
    print(error)
'''.format(path=sys.path)
inner = interpreters.create()
failed = interpreters.{run}(inner, code)
print(failed or "", end="", flush=True)
interpreters.destroy(inner)
print(candlewick.Generator(sys.argv[1]).generate([5, 6], max_tokens=2, ignore_eos=True).usage.completion_tokens)
"""


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="CPython's interpreters")
def test_sub_interpreters_are_refused(tiny_path: Path) -> None:
    """Its types and its logging belong to the interpreter that came first, which is left as it was."""
    run = "run_string" if sys.version_info < (3, 14) else "exec"
    done = python(SUBINTERPRETER.replace("{run}", run), tiny_path)
    assert done.returncode == 0, done.stderr
    assert "another interpreter of this process" in done.stdout and done.stdout.endswith("2\n"), done.stdout


LIMIT = """
import resource, sys
from candlewick import Generator, OutOfMemoryError
def used():
    return next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith("VmSize"))
path, what, more = sys.argv[1], sys.argv[2], int(sys.argv[3])
if what == "keys":
    gen = Generator(path, kv_type="f32", n_threads=1)
    gen.generate([5], max_tokens=1)
resource.setrlimit(resource.RLIMIT_AS, (used() + more, -1))
estimate = Generator.estimate(path, kv_type="f32")
print(estimate.fits)
try:
    if what == "weights":
        Generator(path, n_threads=1)
    elif what == "read":
        Generator(path, n_threads=1, mmap=False)
    else:
        gen.generate([5] * 16000, max_tokens=2)
except OutOfMemoryError as error:
    print(error)
if what == "keys":
    print(gen.generate([5] * 20, max_tokens=2, ignore_eos=True).usage.completion_tokens)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ulimit -v is Linux's")
@pytest.mark.parametrize(
    ("what", "more", "said"),
    [
        (
            "weights",
            120_000_000,
            r"in the native engine needs ([\d.]+ MB) and ([\d.]+ MB) are available: use a smaller",
        ),
        ("read", 20_000_000, r"into memory needs ([\d.]+ MB) and ([\d.]+ MB) are available: use mmap=True"),
        ("keys", 100_000_000, r"keys and values of .* needs? ([\d.]+ MB) and ([\d.]+ MB) are available: use a smaller"),
    ],
)
def test_ulimit_too_small_for_what_is_asked(tmp_path: Path, what: str, more: int, said: str) -> None:
    path = tiny_model(tmp_path / "m.gguf", embd=512, ffn=1024, layers=8, heads=8, context=16384)
    done = python(LIMIT, path, what, more)
    assert done.returncode == 0, done.stderr
    fits, error, *rest = done.stdout.splitlines()
    assert fits == "False"
    found = re.search(said, error)
    assert found is not None, error
    needed, available = (float(number.split()[0]) for number in found.groups())
    assert available < needed and available <= more / 1e6
    assert rest == (["2"] if what == "keys" else []), "and it goes on"


def test_a_closed_generator_in_a_crowd(tiny_path: Path) -> None:
    """Closed in the middle: those that run go on to their end, those that come are told."""
    gen = Generator(tiny_path)
    expected = text(gen, 1, max_tokens=200)
    found: list[str] = []
    begun = threading.Barrier(9)

    def run() -> None:
        stream = gen.stream([4, 7, 199], seed=1, **{**OPTIONS, "max_tokens": 200})
        first = next(stream)
        begun.wait()
        found.append(first + "".join(stream))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    begun.wait()
    gen.close()
    with pytest.raises(InvalidRequestError, match="closed"):
        gen.generate([5])
    for thread in threads:
        thread.join(60)
    assert found == [expected] * 8
