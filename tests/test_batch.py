"""`Generator.generate_batch`: many prompts, the texts that each has alone, in order."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from test_progress import Clock, Paper

from candlewick import Completion, ContextLengthError, Generator, InvalidRequestError
from candlewick.progress import PROMPTS, Line

PROMPTS_GIVEN: list[Any] = [
    *(f"Write a haiku about {topic}" for topic in ("rain", "fog", "snow", "a train", "my tea", "an old dog")),
    [{"role": "user", "content": "Write a haiku about the sea"}],
    [1, 100, 200, 300],
] * 5


@pytest.fixture
def gen() -> Iterator[Generator]:
    with Generator("demo") as generator:
        yield generator


def test_each_has_the_text_that_it_has_alone(gen: Generator) -> None:
    options: dict[str, Any] = {"max_tokens": 12, "temperature": 1.2}
    done = gen.generate_batch(iter(PROMPTS_GIVEN), seed=5, progress=False, **options)
    assert [c.seed for c in done] == list(range(5, 5 + len(PROMPTS_GIVEN)))
    gen.clear_cache()
    assert [c.text for c in done] == [
        gen.generate(prompt, seed=5 + i, **options).text for i, prompt in enumerate(PROMPTS_GIVEN)
    ]
    assert all(isinstance(c, Completion) and c.finish_reason for c in done)
    last = gen.generate_batch(["a", "b"], seed=2**64 - 1, max_tokens=1)
    assert [c.seed for c in last] == [2**64 - 1, 0]
    drawn = gen.generate_batch(["a"] * 4, max_tokens=8, ignore_eos=True)
    assert len({c.seed for c in drawn}) == 4
    assert gen.generate_batch([]) == []
    gen.clear_cache()
    assert gen.stats == (0, 0, 0, 0)


def test_a_beginning_that_all_have_is_read_once(gen: Generator) -> None:
    system = [1, *(100 + i % 150 for i in range(400))]
    gen.clear_cache()
    done = gen.generate_batch([[*system, 300 + i, 301] for i in range(12)], max_tokens=2)
    assert sum(c.usage.cached_tokens for c in done) == 11 * len(system)


def test_errors_say_which_prompt_they_are_about(gen: Generator) -> None:
    prompts: list[Any] = ["a", "b", [5] * 5000, "c"]
    with pytest.raises(ContextLengthError, match=r"^prompts\[2\]: the prompt has 5000 tokens"):
        gen.generate_batch(prompts, max_tokens=2)
    assert gen.stats.running == gen.stats.waiting == 0
    done: list[Any] = gen.generate_batch(prompts, max_tokens=2, return_exceptions=True)
    assert isinstance(done[2], ContextLengthError) and "prompts" not in str(done[2])
    assert [type(c) for c in done] == [Completion, Completion, ContextLengthError, Completion]

    class BrokenError(Exception):
        pass

    def broken(ids: Any, logits: Any) -> None:
        if len(ids) > 20:
            raise BrokenError

    given: list[Any] = [[5] * 4, [5] * 30, [6] * 4]
    with pytest.raises(BrokenError):
        gen.generate_batch(given, logits_processor=broken, max_tokens=3)
    done = gen.generate_batch(given, logits_processor=broken, max_tokens=3, return_exceptions=True)
    assert [type(c) for c in done] == [Completion, BrokenError, Completion]
    with pytest.raises(InvalidRequestError, match="temperature is -1"):
        gen.generate_batch(prompts, temperature=-1)
    for one in ("Hello", [{"role": "user", "content": "Hello"}], [1, 2, 3]):
        with pytest.raises(InvalidRequestError, match=r"write \[prompt\]"):
            gen.generate_batch(one)  # type: ignore[arg-type]


def test_progress(gen: Generator) -> None:
    reports: list[tuple[int, int, str]] = []
    gen.generate_batch(["a"] * 20, max_tokens=2, progress=lambda *report: reports.append(report))
    assert reports == [(n, 20, "generating") for n in range(1, 21)]

    class EnoughError(Exception):
        pass

    def enough(done: int, total: int, what: str) -> None:
        if done == 3:
            raise EnoughError

    with pytest.raises(EnoughError):
        gen.generate_batch(["a"] * 40, ignore_eos=True, max_tokens=40, progress=enough)
    assert gen.stats.running == gen.stats.waiting == 0

    paper, clock = Paper(79), Clock()
    line = Line(paper, clock, unit=PROMPTS)
    for seconds, done in enumerate((0, 1, 3)):
        clock.now = float(seconds)
        line(done, 12, "generating")
    assert paper.lines[-1] == "generating   25%  ━━━━━───────────────  3/12 prompts  1.5 prompts/s  0:06 left"
    clock.now = 8.0
    line(12, 12, "generating")
    line.close()
    assert paper.lines[-2:] == ["generating  100%  ━━━━━━━━━━━━━━━━━━━━  12 prompts  in 0:08  1.5 prompts/s", "end"]


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT cannot be sent to a process there")
def test_ctrl_c() -> None:
    script = """
import os, signal, threading, time
from candlewick import Generator
signal.signal(signal.SIGINT, signal.default_int_handler)
gen = Generator("demo")
threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
try:
    gen.generate_batch(["Hi"] * 100000, ignore_eos=True, max_tokens=400)
    print("ended by itself")
except KeyboardInterrupt:
    print("stopped", gen.stats.running, gen.stats.waiting)
print(gen.generate("Hi", max_tokens=2, ignore_eos=True).usage.completion_tokens)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "stopped 0 0\n2\n", done.stderr
