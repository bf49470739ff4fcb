"""Streams of one generator that run at the same time share passes, and none can tell."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from make_gguf import tiny_model

from candlewick import Generator

TOPICS = ["rain", "ice hockey", "an old dog", "the sea at night", "fog", "a train", "snow", "my tea"]


@pytest.fixture
def gen() -> Iterator[Generator]:
    with Generator("demo") as generator:
        yield generator


def requests() -> list[dict[str, Any]]:
    """Each with its own prompt, seed, length and sampling."""
    return [
        {
            "prompt": f"Write a haiku about {topic}",
            "seed": i,
            "temperature": [0.0, 0.7, 1.3][i % 3],
            "max_tokens": 5 + 9 * i,
            "top_p": [1.0, 0.9][i % 2],
            "repetition_penalty": [1.0, 1.2][i // 4],
            "stop": [None, "\n", ["the", "a"]][i % 3],
            "speculative": ["auto", False, 4][i % 3],
        }
        for i, topic in enumerate(TOPICS)
    ]


def alone(gen: Generator, wanted: list[dict[str, Any]]) -> list[str]:
    texts = []
    for request in wanted:
        gen.clear_cache()
        texts.append(gen.generate(**request).text)
    gen.clear_cache()
    return texts


def test_threads_get_what_they_get_alone(gen: Generator) -> None:
    wanted = requests()
    expected = alone(gen, wanted)
    for _ in range(3):
        texts: dict[int, str] = {}
        start = threading.Barrier(len(wanted))

        def run(i: int, request: dict[str, Any], texts: dict[int, str] = texts, start: Any = start) -> None:
            start.wait()
            texts[i] = "".join(gen.stream(**request))

        threads = [threading.Thread(target=run, args=item) for item in enumerate(wanted)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [texts[i] for i in range(len(wanted))] == expected


def test_tasks_get_what_they_get_alone(gen: Generator) -> None:
    wanted = requests()
    expected = alone(gen, wanted)

    async def one(request: dict[str, Any]) -> str:
        return "".join([text async for text in gen.stream(**request)])

    async def all_of_them() -> list[str]:
        return await asyncio.gather(*(one(request) for request in wanted))

    assert asyncio.run(all_of_them()) == expected


def test_those_that_leave_do_not_disturb_the_others(gen: Generator) -> None:
    wanted = requests()
    expected = alone(gen, wanted)
    rng = random.Random(5)
    for _ in range(3):
        stays: dict[int, str] = {}

        def run(i: int, leaves: bool, n: int, stays: dict[int, str] = stays) -> None:
            with gen.stream(**wanted[i]) as stream:
                if leaves:
                    for _ in range(n):
                        next(stream, None)
                else:
                    stays[i] = "".join(stream)

        threads = [threading.Thread(target=run, args=(i, i % 2 == 1, rng.randrange(4))) for i in range(len(wanted))]
        rng.shuffle(threads)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert stays == {i: text for i, text in enumerate(expected) if i % 2 == 0}
    # Nobody is waited for any more, and nothing is held.
    assert gen.generate(**wanted[0]).text == expected[0]


def test_a_long_prompt_beside_short_ones(gen: Generator) -> None:
    prompts = [[1, *range(100, 400)], [1, 200, 201], [1, 300]]
    options: dict[str, Any] = {"max_tokens": 12, "seed": 1, "ignore_eos": True}

    def ids(prompt: list[int]) -> list[int]:
        return [token.id for token in gen.stream_tokens(prompt, **options)]

    expected = []
    for prompt in prompts:
        gen.clear_cache()
        expected.append(ids(prompt))
    gen.clear_cache()
    found: dict[int, list[int]] = {}
    threads = [threading.Thread(target=lambda i=i: found.update({i: ids(prompts[i])})) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[i] for i in range(3)] == expected


def test_an_error_in_one_is_not_one_in_the_others(gen: Generator) -> None:
    class EnoughError(Exception):
        pass

    wanted = requests()[:4]
    expected = alone(gen, wanted)
    outcomes: dict[int, Any] = {}

    def broken() -> None:
        stream = gen.stream("Write a haiku about mud", seed=1)
        try:
            for i, _ in enumerate(stream):
                if i == 3:
                    raise EnoughError
        except EnoughError as error:
            outcomes[-1] = error

    threads = [threading.Thread(target=broken)]
    threads += [
        threading.Thread(target=lambda i=i, r=r: outcomes.update({i: gen.generate(**r).text}))
        for i, r in enumerate(wanted)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert isinstance(outcomes.pop(-1), EnoughError)
    assert [outcomes[i] for i in range(4)] == expected


def test_streams_that_start_together_read_a_shared_beginning_once(gen: Generator) -> None:
    """Eight threads with one system prompt of 500 tokens and a question each."""
    system = [1, *(100 + i % 150 for i in range(499))]
    prompts = [[*system, *(200 + i for _ in range(3 + i))] for i in range(8)]
    options: dict[str, Any] = {"max_tokens": 6, "ignore_eos": True}
    gen.clear_cache()
    expected = []
    for i, prompt in enumerate(prompts):
        gen.clear_cache()
        expected.append(gen.generate(prompt, seed=i, **options).text)
    gen.clear_cache()
    found: dict[int, Any] = {}
    start = threading.Barrier(len(prompts))

    def run(i: int) -> None:
        start.wait()
        found[i] = gen.generate(prompts[i], seed=i, **options)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[i].text for i in range(8)] == expected
    assert sum(found[i].usage.cached_tokens for i in range(8)) == 7 * len(system)


def test_who_waits_for_a_shared_beginning_goes_on_when_its_reader_goes(gen: Generator) -> None:
    rng = random.Random(8)
    system = [1, *(100 + i % 150 for i in range(700))]
    prompts = [[*system, 300 + i, 301] for i in range(6)]
    options: dict[str, Any] = {"max_tokens": 4, "ignore_eos": True, "seed": 3}
    expected = [gen.generate(prompt, **options).text for prompt in prompts]

    async def one(i: int) -> str:
        return "".join([text async for text in gen.stream(prompts[i], **options)])

    async def main() -> None:
        tasks = [asyncio.create_task(one(i)) for i in range(6)]
        # The first one reads, and then whoever takes its place.
        for task in tasks[:3]:
            await asyncio.sleep(rng.random() * 0.02)
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results[3:] == expected[3:]

    for _ in range(5):
        gen.clear_cache()
        asyncio.run(main())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is limited with RLIMIT_AS")
def test_streams_that_do_not_fit_together_wait_for_each_other(tmp_path: Path) -> None:
    """20 MB are there, each of eight streams needs 7 in the end: all get the text that they get alone."""
    path = tiny_model(tmp_path / "wide.gguf", layers=16, embd=256, ffn=32, heads=8, context=16384, seed=2)
    script = f"""
import asyncio, resource, threading
from pathlib import Path
from candlewick import Generator, OutOfMemoryError
gen = Generator({str(path)!r}, kv_type="f32", n_threads=1)
n = 7_000_000 // gen.info["kv_bytes_per_token"]
prompts = [[5 + i] * (n // 2) for i in range(8)]
options = dict(max_tokens=n // 2, ignore_eos=True, seed=1, speculative=False)
alone = []
for prompt in prompts:
    gen.clear_cache()
    alone.append(gen.generate(prompt, **options).text)
gen.clear_cache()
threading.stack_size(1 << 20)
seen = []
used = next(int(l.split()[1]) * 1024 for l in Path("/proc/self/status").read_text().splitlines() if "VmSize" in l)
# What threads take for themselves comes first.
resource.setrlimit(resource.RLIMIT_AS, (used + 120_000_000, -1))
texts = {{}}
def run(i):
    texts[i] = gen.generate(prompts[i], **options).text
def all_threads():
    threads = [threading.Thread(target=run, args=(i,)) for i in range(8)]
    for t in threads: t.start()
    used = next(int(l.split()[1]) * 1024 for l in Path("/proc/self/status").read_text().splitlines() if "VmSize" in l)
    resource.setrlimit(resource.RLIMIT_AS, (used + 20_000_000, -1))
    for t in threads: t.join()
all_threads()
print([texts.get(i) for i in range(8)] == alone)
gen.clear_cache()
watch = lambda *_: seen.append(gen.stats.kv_bytes)
done = gen.generate_batch(prompts, progress=watch, **options)
print(0 < max(seen) < 25_000_000)
print([gen.generate(p, **{{**options, "seed": 1 + i}}).text for i, p in enumerate(prompts)] == [c.text for c in done])
async def one(i):
    return "".join([text async for text in gen.stream(prompts[i], **options)])
async def main():
    return await asyncio.gather(*(one(i) for i in range(8)))
gen.clear_cache()
print(asyncio.run(main()) == alone)
gen.clear_cache()
print(gen.stats == (0, 0, 0, 0))
# Alone, and in one thread where nobody else can go on, it is an error with both numbers.
def in_turn():
    list(zip(*(gen.stream(p, **options) for p in prompts)))
for use in (lambda: gen.generate([9] * (8 * n), max_tokens=1), in_turn):
    try:
        use()
        print("fits")
    except OutOfMemoryError as error:
        print("needs" in str(error) and "are available" in str(error))
gen.clear_cache()
print(gen.stats == (0, 0, 0, 0))
"""
    # Each thread's own heap would take more address space than all keys and values.
    env = {**os.environ, "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=110, env=env)
    assert done.stdout.split() == ["True"] * 8, done.stdout + done.stderr
