"""How many threads compute: each model's own number, and with Candle one for the process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from machine import needs_candle

from candlewick import Generator, threads

# More threads here would only start more programs, which share nothing.
pytestmark = pytest.mark.thread_unsafe(reason="tests programs")

SCRIPT = """
import json, os, sys
from candlewick import Generator, InvalidRequestError
options = {"engine": "candle"} if "candle" in sys.argv else {}
gen = Generator(sys.argv[1], n_threads=int(sys.argv[2]), **options)
said = {"threads": gen.info["n_threads"], "variable": os.environ.get("CANDLE_NUM_THREADS")}
try:
    said["other"] = Generator(sys.argv[1], n_threads=int(sys.argv[2]) + 1, **options).info["n_threads"]
except InvalidRequestError as error:
    said["error"] = str(error)
said["again"] = Generator(sys.argv[1], **options).info["n_threads"]
said["ids"] = [t.id for t in gen.stream_tokens("Hello", temperature=0, max_tokens=12, ignore_eos=True)]
print(json.dumps(said))
"""


def run(*arguments: str) -> dict:
    environment = {k: v for k, v in os.environ.items() if k != "CANDLE_NUM_THREADS"}
    command = [sys.executable, "-c", SCRIPT, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=True)
    return json.loads(done.stdout)


def greedy(gen: Generator) -> list[int]:
    return [t.id for t in gen.stream_tokens("Hello", temperature=0, max_tokens=12, ignore_eos=True)]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_n_threads_is_each_models_own(tiny: Generator, tiny_path: Path, n: int) -> None:
    said = run(str(tiny_path), str(n))
    assert (said["threads"], said["other"], said["again"]) == (n, n + 1, threads.usable_cpus())
    assert said["ids"] == greedy(tiny)


@needs_candle
@pytest.mark.parametrize("n", [1, 2, 3])
def test_candle_fixes_n_threads_for_the_process(tiny: Generator, tiny_path: Path, n: int) -> None:
    said = run(str(tiny_path), str(n), "candle")
    assert said["threads"] == said["again"] == n
    assert said["variable"] is None, "the environment is left as it was"
    assert f"this process computes with {n} since its first Generator" in said["error"]
    assert said["ids"] == greedy(tiny)


def test_the_default_is_what_this_process_may_use() -> None:
    assert 1 <= threads.usable_cpus() <= (os.cpu_count() or 1)
