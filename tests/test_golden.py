"""The engines give the logits and greedy tokens of transformers' `Phi3ForCausalLM` (tests/data/make_golden.py)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from make_gguf import tiny_model
from reference import Reference

from candlewick import Generator, UnsupportedModelError

GOLDEN = Path(__file__).parent / "data" / "golden"
# What the candle engine is asked to run; long rope is refused, below.
MODELS = ["mha-f32", "mha-f16", "gqa-f32", "gqa-f16", "window-f16", "partial-f16", "tied-f16"]
# The original engine fixes the rope base, whole heads, an output matrix, and knows no window.
ORIGINAL = ["mha-f32", "mha-f16"]
# float32 arithmetic differs from the float64 reference by less; the smallest mistake moves the logits by 0.18
# (models.json, "mistakes"). Keys and values in f16 cost about as much as f16 weights do.
TOLERANCE = {"f32": 1e-3, "f16": 2e-2}


def logits(gen: Generator, ids: list[int], chunk: int) -> np.ndarray:
    return np.array(gen._native.logits(ids, chunk), dtype=np.float32)


def check(name: str, engine: str, kv_type: str, chunk: int) -> None:
    gen = Generator(GOLDEN / f"{name}.gguf", engine=engine, kv_type=kv_type)
    golden = np.load(GOLDEN / f"{name}.npz")
    for length in golden["prompts"]:
        prompt = golden[f"prompt_{length}"].tolist()
        greedy = golden[f"greedy_{length}"].tolist()
        for step, expected in zip(golden["steps"], golden[f"logits_{length}"], strict=True):
            found = logits(gen, prompt + greedy[:step], chunk)
            worst = float(np.abs(found - expected).max())
            assert worst < TOLERANCE[kv_type], f"{name}, {length} ids and {step} steps: off by {worst}"
        stream = gen.stream_tokens(prompt, max_tokens=50, temperature=0, ignore_eos=True)
        assert [token.id for token in stream] == greedy, f"{name}, {length} ids"


@pytest.mark.parametrize("engine", ["native", "candle"])
@pytest.mark.parametrize("kv_type", ["f32", "f16"])
@pytest.mark.parametrize("name", MODELS)
def test_engines_agree_with_transformers(name: str, kv_type: str, engine: str) -> None:
    check(name, engine, kv_type, chunk=128)


@pytest.mark.parametrize("engine", ["native", "candle"])
@pytest.mark.parametrize("chunk", [1, 7, 64])
@pytest.mark.parametrize("name", ["gqa-f32", "window-f16"])
def test_chunks_of_any_size_give_the_same_logits(name: str, chunk: int, engine: str) -> None:
    check(name, engine, "f32", chunk)


@pytest.mark.parametrize("engine", ["native", "candle"])
@pytest.mark.parametrize("window", [1, 2, 63, 64, 65, 127, 128, 129, 200])
def test_windows_around_the_chunk(tmp_path: Path, window: int, engine: str) -> None:
    """Keys are dropped when room is needed: whatever window and chunk, what a query sees is what the mask says."""
    path = tiny_model(tmp_path / "m.gguf", sliding_window=window, layers=1, context=700, seed=window)
    gen = Generator(path, kv_type="f32", engine=engine)
    ids = np.random.default_rng(window).integers(3, 300, 650).tolist()
    for n in (1, window, window + 1, 300, 650):
        expected = Reference(path).logits(ids[:n])
        for chunk in (128, 100, 7) if n < 650 else (128, 100):
            assert np.abs(logits(gen, ids[:n], chunk) - expected).max() < TOLERANCE["f32"], (n, chunk)


@pytest.mark.parametrize("name", ORIGINAL)
def test_original_engine_agrees_where_it_is_right(name: str) -> None:
    check(name, "original", "f32", chunk=128)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("gqa-f16", "rope base"), ("partial-f16", "rotates whole heads"), ("tied-f16", r"output\.weight")],
)
def test_original_engine_refuses_what_it_gets_wrong(name: str, reason: str) -> None:
    with pytest.raises(UnsupportedModelError, match=reason):
        Generator(GOLDEN / f"{name}.gguf", engine="original")


def test_original_engine_stops_at_the_sliding_window() -> None:
    gen = Generator(GOLDEN / "window-f16.gguf", engine="original")
    assert gen.n_ctx == 64
    golden = np.load(GOLDEN / "window-f16.npz")
    expected = golden["logits_7"][list(golden["steps"]).index(50)]
    found = logits(gen, golden["prompt_7"].tolist() + golden["greedy_7"].tolist(), 128)
    assert np.abs(found - expected).max() < TOLERANCE["f32"]
    with pytest.raises(UnsupportedModelError, match="sliding window and is right up to 64 tokens"):
        Generator(GOLDEN / "window-f16.gguf", engine="original", n_ctx=65)


def test_long_rope_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedModelError, match="long rope"):
        Generator(GOLDEN / "longrope-f16.gguf")
