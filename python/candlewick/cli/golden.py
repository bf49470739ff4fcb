"""The ids that the demo model writes on every tier of kernels: whether this machine computes right."""

from __future__ import annotations

import os
import subprocess
import sys

EXPECTED: tuple[int, ...] = (
    299,
    965,
    617,
    358,
    13,
    1242,
    1065,
    294,
    264,
    1069,
    13,
    260,
    697,
    794,
    1341,
    688,
    1448,
    1534,
    1535,
    365,
    262,
    317,
    302,
    262,
    361,
    840,
    534,
    275,
    355,
    358,
    1529,
    13,
    1242,
    1065,
    294,
    264,
    948,
    1446,
    13,
    1048,
    1516,
    1513,
    422,
    1010,
    921,
    473,
    281,
    1448,
)

_SCRIPT = """\
from candlewick.cli import golden
print(*golden.ids())
"""


def ids() -> tuple[int, ...]:
    """A greedy text and one drawn with a seed, by the tier in use."""
    from candlewick import Generator

    found = []
    with Generator("demo", n_threads=1) as generator:
        for temperature in (0.0, 1.0):
            stream = generator.stream_tokens(
                "Write a haiku about rain", temperature=temperature, seed=1, max_tokens=24, ignore_eos=True
            )
            found += [token.id for token in stream]
    return tuple(found)


def run(tier: str) -> str | None:
    """Why ``tier`` is broken, or ``None``. In a process of its own: which tier is used is chosen once, and an
    instruction that the CPU lacks ends it."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _SCRIPT],
            env={**os.environ, "CANDLEWICK_ISA": tier},
            capture_output=True,
            text=True,
            timeout=120,
        )
    except subprocess.TimeoutExpired:
        return "no answer in two minutes"
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["nothing on standard error"]
        return f"ended with code {done.returncode}: {last[0]}"
    found = tuple(map(int, done.stdout.split()))
    same = sum(a == b for a, b in zip(found, EXPECTED, strict=False))
    return None if found == EXPECTED else f"{same} of {len(EXPECTED)} ids are right"
