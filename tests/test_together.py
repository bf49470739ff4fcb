"""Streams of one generator that run at the same time share passes, and none can tell."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest

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
