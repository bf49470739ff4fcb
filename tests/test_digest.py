"""The hash that names a model is that of its file, or of all its parts in order."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from make_gguf import tiny_model

from candlewick import Generator


@pytest.mark.parametrize("mmap", [True, False])
def test_it_is_that_of_the_file(tmp_path: Path, mmap: bool) -> None:
    path = tiny_model(tmp_path / "m.gguf")
    gen = Generator(path, mmap=mmap)
    before = gen.generate("Hello", seed=1, max_tokens=20)
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    assert gen._native.sha256 == expected
    # Computed once: what happens to the file afterwards is not looked at.
    path.unlink()
    assert gen._native.sha256 == expected
    assert gen.generate("Hello", seed=1, max_tokens=20).text == before.text, "the weights are still there"


def test_parts_count_in_order(tmp_path: Path) -> None:
    first = tiny_model(tmp_path / "m.gguf", split_tensors=6)
    parts = sorted(first.parent.glob("m-*.gguf"))
    assert len(parts) == 3
    expected = hashlib.sha256(b"".join(part.read_bytes() for part in parts)).hexdigest()
    assert Generator(parts[1])._native.sha256 == expected


def test_one_weight_changes_it(tmp_path: Path) -> None:
    gens = [Generator(tiny_model(tmp_path / f"{seed}.gguf", seed=seed)) for seed in (1, 2)]
    assert gens[0]._native.sha256 != gens[1]._native.sha256


@pytest.mark.skipif(sys.platform == "win32", reason="signals go otherwise there")
def test_ctrl_c_stops_the_reading(tmp_path: Path) -> None:
    """A sparse file of 16 GB takes ten seconds and more."""
    path = tiny_model(tmp_path / "m.gguf")
    os.truncate(path, 16 << 30)
    program = (
        "import sys, candlewick\n"
        "gen = candlewick.Generator(sys.argv[1])\n"
        "try:\n"
        "    print('ready', flush=True)\n"
        "    gen._native.sha256\n"
        "except KeyboardInterrupt:\n"
        "    print('stopped', gen.generate('Hi', max_tokens=1).usage.completion_tokens)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=20)[0] == "stopped 1\n"
    finally:
        process.kill()
        process.wait()
