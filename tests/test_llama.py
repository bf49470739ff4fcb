"""llama.cpp reads the golden files too (tests/data/make_llama_golden.py), and where it does what the model needs, its
greedy ids are those of transformers, and so of the engines (test_golden.py).

It differs, and transformers is the judge, where it takes other keys or factors: its phi3 has no sliding window, and it
chooses between short and long factors once, for the whole context.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

GOLDEN = Path(__file__).parent / "data" / "golden"
LLAMA = json.loads((GOLDEN / "llama.json").read_text())
WINDOW = {"window-f16": 64}
ORIGINAL = {"longrope-f16": 128, "stretched-f16": 64}
GREEDY = 50


def expected(name: str, factors: str, length: int) -> int:
    """How many ids after a prompt of `length` must agree: those that are chosen from up to so many tokens."""
    if factors == "long":
        return GREEDY if length > ORIGINAL[name] else 0
    limit = ORIGINAL[name] if factors == "short" else WINDOW.get(name)
    return GREEDY if limit is None else min(GREEDY, max(0, limit - length + 1))


@pytest.mark.parametrize("name", LLAMA)
def test_llama_agrees_where_it_implements_the_model(name: str) -> None:
    golden = np.load(GOLDEN / f"{name}.npz")
    for factors, by_length in LLAMA[name].items():
        if by_length is None:
            assert name == "split-f16", "its phi3 has no place for a bias on the attention's output"
            continue
        for length, found in by_length.items():
            same = (np.array(found) == golden[f"greedy_{length}"]).cumprod().sum()
            n = expected(name, factors, int(length))
            assert same >= n, f"{factors}, {length} ids: the first {same} of {n}"


def test_every_golden_model_was_read() -> None:
    assert set(LLAMA) == {path.stem for path in GOLDEN.glob("*.npz")}


def test_llama_differs_beyond_the_window_and_the_original_context() -> None:
    """If this fails, llama.cpp has learnt it: then the limits above can go."""
    for name, factors, length in [
        ("window-f16", "plain", "300"),
        ("longrope-f16", "short", "300"),
        ("longrope-f16", "long", "100"),
        ("stretched-f16", "short", "150"),
    ]:
        assert LLAMA[name][factors][length] != np.load(GOLDEN / f"{name}.npz")[f"greedy_{length}"].tolist()
