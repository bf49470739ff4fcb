"""`async for`: any number of tasks wait without a thread each, stop in time, and leave nothing behind."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from make_gguf import tiny_model

from candlewick import Generator, InvalidRequestError

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads are counted in /proc")
PROMPT = "Write a haiku about fog"


@pytest.fixture
def gen() -> Iterator[Generator]:
    with Generator("demo") as generator:
        yield generator


@pytest.fixture(scope="module")
def slow_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reading a prompt of 2,000 tokens takes a second or more, and a token some milliseconds."""
    folder = tmp_path_factory.mktemp("slow")
    return tiny_model(folder / "slow.gguf", layers=12, embd=256, ffn=512, heads=8, context=8192)


def n_threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


async def text_of(stream: AsyncIterator[str]) -> str:
    return "".join([text async for text in stream])


@LINUX
@pytest.mark.thread_unsafe(reason="counts the threads of the process")
def test_a_thousand_tasks_wait_in_one_thread(gen: Generator) -> None:
    options: dict[str, Any] = {"max_tokens": 3, "ignore_eos": True}
    expected = [gen.generate(PROMPT, seed=i, **options).text for i in range(50)]
    before = n_threads()
    most = 0

    async def one(i: int) -> str:
        nonlocal most
        text = ""
        async for piece in gen.stream(PROMPT, seed=i % 50, **options):
            text += piece
            most = max(most, n_threads())
        return text

    async def main() -> list[str]:
        return await asyncio.gather(*(one(i) for i in range(1000)))

    assert asyncio.run(main()) == expected * 20
    assert most <= before + 1
    deadline = time.monotonic() + 30
    while n_threads() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert n_threads() <= before, "it goes when it has nothing to do"
    assert asyncio.run(one(7)) == expected[7], "and comes back"


def test_tasks_that_are_cancelled_at_random(gen: Generator) -> None:
    """Those that stay get what they get alone, and nobody who goes is waited for."""
    options: dict[str, Any] = {"max_tokens": 30, "ignore_eos": True}
    expected = [gen.generate(PROMPT, seed=i, **options).text for i in range(12)]
    rng = random.Random(3)

    async def main() -> None:
        for _ in range(5):
            tasks = [asyncio.create_task(text_of(gen.stream(PROMPT, seed=i, **options))) for i in range(12)]
            goes = rng.sample(range(12), 6)
            for i in goes:
                await asyncio.sleep(rng.random() * 0.01)
                tasks[i].cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            for i, result in enumerate(results):
                if i in goes:
                    assert isinstance(result, asyncio.CancelledError) or result == expected[i]
                else:
                    assert result == expected[i]

    asyncio.run(main())
    assert gen.generate(PROMPT, seed=0, **options).text == expected[0]


def test_threads_and_tasks_share_passes_and_a_stream(gen: Generator) -> None:
    options: dict[str, Any] = {"max_tokens": 40, "ignore_eos": True}
    expected = [gen.generate(PROMPT, seed=i, **options).text for i in range(8)]
    texts: dict[int, str] = {}
    threads = [
        threading.Thread(target=lambda i=i: texts.update({i: gen.generate(PROMPT, seed=i, **options).text}))
        for i in range(4)
    ]

    async def main() -> list[str]:
        for thread in threads:
            thread.start()
        return await asyncio.gather(*(text_of(gen.stream(PROMPT, seed=i, **options)) for i in range(4, 8)))

    assert asyncio.run(main()) == expected[4:]
    for thread in threads:
        thread.join()
    assert [texts[i] for i in range(4)] == expected[:4]

    # One stream, read by tasks and a thread: each piece goes to one of them.
    stream = gen.stream(PROMPT, seed=0, **options)
    pieces: list[str] = []

    async def read() -> None:
        async for piece in stream:
            pieces.append(piece)

    async def both() -> None:
        await asyncio.gather(read(), read(), asyncio.to_thread(lambda: pieces.extend(stream)))

    asyncio.run(both())
    assert stream.text == expected[0] and len("".join(pieces)) == len(expected[0])


def test_several_event_loops_in_several_threads_and_one_after_the_other(gen: Generator) -> None:
    options: dict[str, Any] = {"max_tokens": 20, "ignore_eos": True}
    expected = [gen.generate(PROMPT, seed=i, **options).text for i in range(6)]
    texts: dict[int, str] = {}

    def run(i: int) -> None:
        for _ in range(3):
            texts[i] = asyncio.run(text_of(gen.stream(PROMPT, seed=i, **options)))
            assert texts[i] == expected[i]

    threads = [threading.Thread(target=run, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [texts[i] for i in range(6)] == expected


def test_tokens_errors_and_ends(gen: Generator) -> None:
    options: dict[str, Any] = {"max_tokens": 9, "seed": 2, "ignore_eos": True}
    expected = list(gen.stream_tokens(PROMPT, logprobs=2, **options))

    class BrokenError(Exception):
        pass

    def broken(ids: object, logits: object) -> None:
        raise BrokenError("as asked for")

    calls = []

    def counts(ids: list[int], logits: Any) -> None:
        calls.append(threading.current_thread())
        logits[5] = float("-inf")

    async def main() -> None:
        assert [t async for t in gen.stream_tokens(PROMPT, logprobs=2, **options)] == expected
        stream = gen.stream(PROMPT, logits_processor=broken)
        with pytest.raises(BrokenError):
            await stream.__anext__()
        assert stream.finish_reason == "cancelled"
        assert [text async for text in stream] == []
        # A Python function in a stream runs beside others.
        together = await asyncio.gather(
            text_of(gen.stream(PROMPT, logits_processor=counts, **options)), text_of(gen.stream(PROMPT, **options))
        )
        assert len(calls) == 9
        assert together[1] == "".join(token.text for token in expected)
        assert together[0] == gen.generate(PROMPT, logits_processor=counts, **options).text

        def asks_itself(ids: object, logits: object) -> None:
            next(stream)

        stream = gen.stream(PROMPT, logits_processor=asks_itself)
        with pytest.raises(InvalidRequestError, match="in this very thread"):
            await stream.__anext__()

    asyncio.run(main())


async def being_read(gen: Generator) -> None:
    """Until the first keys and values of a prompt are there."""
    while gen.stats.kv_bytes == 0:
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("how", ["cancel", "aclose", "task", "timeout"])
def test_a_long_prompt_stops_in_the_middle(slow_path: Path, how: str) -> None:
    gen = Generator(slow_path)

    async def main() -> int:
        stream = gen.stream([5] * 2000)
        task = asyncio.create_task(text_of(stream))
        waiting: asyncio.Future[Any] = task
        await being_read(gen)
        if how == "timeout":
            waiting = asyncio.ensure_future(asyncio.wait_for(task, 0.01))
        elif how == "cancel":
            stream.cancel()
        elif how == "aclose":
            await stream.aclose()
        else:
            task.cancel()
        result = (await asyncio.gather(waiting, return_exceptions=True))[0]
        assert result == "" or isinstance(result, (asyncio.CancelledError, asyncio.TimeoutError))
        assert stream.finish_reason == "cancelled" and stream.usage.completion_tokens == 0
        # The generator is free again, and nobody reads on.
        await gen.stream([6], ignore_eos=True).__anext__()
        assert gen.stats.waiting == 0
        again = gen.stream([5] * 2000, max_tokens=1)
        await text_of(again)
        return again.usage.cached_tokens

    assert asyncio.run(main()) < 1999


def test_what_was_read_of_a_cancelled_prompt_is_not_read_again(slow_path: Path) -> None:
    gen = Generator(slow_path)

    async def main() -> int:
        stream = gen.stream([5] * 3000)
        task = asyncio.create_task(text_of(stream))
        await being_read(gen)
        # The first part has been read when there are pages for a second one.
        first = gen.stats.kv_bytes
        while gen.stats.kv_bytes == first:
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        again = gen.stream([5] * 3000, max_tokens=1)
        await text_of(again)
        return again.usage.cached_tokens

    assert asyncio.run(main()) >= 128


SCRIPT_START = """
import asyncio, atexit, os, sys, threading, time
from candlewick import Generator
gen = Generator({path!r})
async def endless(seed):
    async for _ in gen.stream("Hi", ignore_eos=True, seed=seed):
        pass
"""

ENDINGS = {
    # The event loop is left with streams running in it.
    "stopped loop": """
loop = asyncio.new_event_loop()
tasks = [loop.create_task(endless(i)) for i in range(5)]
loop.call_later(0.3, loop.stop)
loop.run_forever()
print("done", flush=True)
""",
    "closed loop": """
loop = asyncio.new_event_loop()
tasks = [loop.create_task(endless(i)) for i in range(5)]
loop.call_later(0.3, loop.stop)
loop.run_forever()
loop.close()
time.sleep(0.3)
print("done", flush=True)
""",
    # A daemon thread runs its loop to the very end.
    "daemon": """
async def several():
    await asyncio.gather(*(endless(i) for i in range(5)))
threading.Thread(target=lambda: asyncio.run(several()), daemon=True).start()
time.sleep(0.4)
print("done", flush=True)
""",
    "exit in a task": """
async def several():
    tasks = [asyncio.create_task(endless(i)) for i in range(5)]
    await asyncio.sleep(0.3)
    print("done", flush=True)
    sys.exit(0)
asyncio.run(several())
""",
    "a forked child": """
async def several():
    tasks = [asyncio.create_task(endless(i)) for i in range(3)]
    await asyncio.sleep(0.3)
    pid = os.fork()
    if pid == 0:
        try:
            gen.stream("Hi")
        except ValueError:
            sys.exit(0)  # and not _exit: what is registered for the end runs in the child too
        os._exit(1)
    deadline = time.monotonic() + 20
    while (ended := os.waitpid(pid, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    print("done" if ended[1] == 0 else ended, flush=True)
asyncio.run(several())
""",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_end_of_the_interpreter_with_streams_running(slow_path: Path, ending: str) -> None:
    if "fork" in ending and sys.platform == "win32":
        pytest.skip("no fork here")
    script = SCRIPT_START.format(path=str(slow_path)) + ENDINGS[ending]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    assert "panicked" not in done.stderr and "Fatal" not in done.stderr
