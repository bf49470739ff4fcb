"""How many threads compute: asked for, counted, and fixed for the process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from candlewick import Generator, threads

SCRIPT = """
import json, os, sys
from candlewick import Generator, InvalidRequestError
gen = Generator(sys.argv[1], n_threads=int(sys.argv[2]))
said = {"threads": gen.info["n_threads"], "variable": os.environ.get("CANDLE_NUM_THREADS")}
try:
    Generator(sys.argv[1], n_threads=int(sys.argv[2]) + 1)
except InvalidRequestError as error:
    said["error"] = str(error)
said["again"] = Generator(sys.argv[1]).info["n_threads"]
said["ids"] = [t.id for t in gen.stream_tokens("Hello", temperature=0, max_tokens=12, ignore_eos=True)]
print(json.dumps(said))
"""


@pytest.mark.parametrize("n", [1, 2, 3])
def test_n_threads_is_honoured_once(tiny: Generator, tiny_path: Path, n: int) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "CANDLE_NUM_THREADS"}
    command = [sys.executable, "-c", SCRIPT, str(tiny_path), str(n)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=True)
    said = json.loads(done.stdout)
    assert said["threads"] == said["again"] == n
    assert said["variable"] is None, "the environment is left as it was"
    assert f"this process computes with {n} since its first Generator" in said["error"]
    expected = [t.id for t in tiny.stream_tokens("Hello", temperature=0, max_tokens=12, ignore_eos=True)]
    assert said["ids"] == expected


def test_the_default_is_what_this_process_may_use() -> None:
    assert 1 <= threads.usable_cpus() <= (os.cpu_count() or 1)
