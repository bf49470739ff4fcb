"""The engines give the logits and greedy tokens of transformers' Phi3 and Phi models (tests/data/make_golden.py)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from machine import CANDLE_RUNS, REFUSAL, needs_candle
from make_gguf import tiny_model
from reference import Reference

from candlewick import Generator, UnsupportedModelError

GOLDEN = Path(__file__).parent / "data" / "golden"
MODELS = sorted(path.stem for path in GOLDEN.glob("*.npz"))
ENGINES = ["native", "candle"]
# Long rope: the factors change after 128 tokens, and after 64.
LONG_ROPE = {"longrope-f16": 128, "stretched-f16": 64}
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


@pytest.mark.parametrize("kv_type", ["f32", "f16"])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", MODELS)
def test_engines_agree_with_transformers(name: str, engine: str, kv_type: str) -> None:
    check(name, engine, kv_type, chunk=128)


@pytest.mark.parametrize("chunk", [1, 7, 64])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", MODELS)
def test_chunks_of_any_size_give_the_same_logits(name: str, engine: str, chunk: int) -> None:
    check(name, engine, "f32", chunk)


@pytest.mark.parametrize("engine", ENGINES)
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


@needs_candle
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gqa-f16", "rope base"),
        ("partial-f16", "rotates whole heads"),
        ("tied-f16", r"output\.weight"),
        ("longrope-f16", "rope factors"),
        ("split-f16", r"does not know the tensor `blk.0.attn_q.weight`"),
        ("phi2-f16", "runs `phi3` models, and this is a `phi2`"),
    ],
)
def test_original_engine_refuses_what_it_gets_wrong(name: str, reason: str) -> None:
    with pytest.raises(UnsupportedModelError, match=reason):
        Generator(GOLDEN / f"{name}.gguf", engine="original")


@pytest.mark.skipif(CANDLE_RUNS, reason="Candle's engines run on this CPU")
@pytest.mark.parametrize("engine", ["candle", "original"])
def test_other_engines_refuse_a_cpu_that_they_would_die_on(engine: str) -> None:
    with pytest.raises(UnsupportedModelError, match=f"{REFUSAL}.*`candle` and `original` engines"):
        Generator("demo", engine=engine)


def test_original_engine_stops_at_the_sliding_window() -> None:
    gen = Generator(GOLDEN / "window-f16.gguf", engine="original")
    assert gen.n_ctx == 64
    golden = np.load(GOLDEN / "window-f16.npz")
    expected = golden["logits_7"][list(golden["steps"]).index(50)]
    found = logits(gen, golden["prompt_7"].tolist() + golden["greedy_7"].tolist(), 128)
    assert np.abs(found - expected).max() < TOLERANCE["f32"]
    with pytest.raises(UnsupportedModelError, match="sliding window and is right up to 64 tokens"):
        Generator(GOLDEN / "window-f16.gguf", engine="original", n_ctx=65)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("name", "boundary"), LONG_ROPE.items())
def test_timings_tell_when_the_tokens_were_run_again(name: str, boundary: int, engine: str) -> None:
    gen = Generator(GOLDEN / f"{name}.gguf", engine=engine)
    ids = np.random.default_rng(boundary).integers(3, 300, boundary + 1).tolist()

    def recompute_s(n_prompt: int, n_new: int) -> float:
        stream = gen.stream(ids[:n_prompt], max_tokens=n_new, temperature=0, ignore_eos=True)
        list(stream)
        return stream.timings.recompute_s

    # The last token is chosen and not run: after `boundary` tokens there is one more, and nothing beyond.
    assert recompute_s(boundary - 3, 4) == 0.0
    assert recompute_s(boundary - 3, 5) > 0.0
    assert recompute_s(boundary + 1, 5) == 0.0, "a long prompt is read once"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("window", [None, 20, 100])
def test_long_rope_with_a_sliding_window(tmp_path: Path, window: int | None, engine: str) -> None:
    """What is dropped out of the window is needed again when the factors change."""
    factors = [1.0 + i for i in range(8)], [1.0 + 0.1 * i for i in range(8)]
    path = tiny_model(
        tmp_path / "m.gguf", longrope=factors, original_context=150, attn_factor=1.2, sliding_window=window
    )
    gen = Generator(path, kv_type="f32", engine=engine)
    ids = np.random.default_rng(7).integers(3, 300, 400).tolist()
    for n in (1, 149, 150, 151, 152, 400):
        expected = Reference(path).logits(ids[:n])
        for chunk in (128, 33):
            assert np.abs(logits(gen, ids[:n], chunk) - expected).max() < TOLERANCE["f32"], (n, chunk)


@pytest.mark.parametrize(
    "parts", [{"biases": True}, {"biases": True, "split_qkv": True, "kv_heads": 2}, {"arch": "phi2"}]
)
def test_biases_everywhere(tmp_path: Path, parts: dict) -> None:
    path = tiny_model(tmp_path / "m.gguf", **parts)
    ids = np.random.default_rng(8).integers(3, 300, 50).tolist()
    found = logits(Generator(path, kv_type="f32"), ids, 20)
    assert np.abs(found - Reference(path).logits(ids)).max() < TOLERANCE["f32"]


def test_interleaved_streams_cross_the_boundary_each_for_itself() -> None:
    gen = Generator(GOLDEN / "longrope-f16.gguf", kv_type="f32")
    golden = np.load(GOLDEN / "longrope-f16.npz")
    prompts = {n: golden[f"prompt_{n}"].tolist() for n in (7, 100, 300)}
    streams = [gen.stream_tokens(p, max_tokens=50, temperature=0, ignore_eos=True) for p in prompts.values()]
    found = zip(*([token.id for token in step] for step in zip(*streams, strict=True)), strict=True)
    for n, ids in zip(prompts, found, strict=True):
        assert list(ids) == golden[f"greedy_{n}"].tolist()
