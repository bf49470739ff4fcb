"""Prompt lookup: the same tokens with and without, and several in a step where the text repeats itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from make_gguf import tiny_model

from candlewick import Generator, InvalidRequestError


@pytest.fixture(scope="module")
def copier(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    """Made to go round: each token is followed by another, and after 25 comes the first again."""
    rng = np.random.default_rng(0)
    n, width, period = 320, 64, 25
    follower = np.arange(n)
    for first in range(3, 278, period):
        follower[first : first + period] = np.roll(np.arange(first, first + period), -1)
    embedding = rng.normal(size=(n, width)).astype(np.float32)
    output = np.zeros_like(embedding)
    output[follower] = embedding
    silent = {f"blk.{i}.{name}.weight": np.zeros((64, k), np.float32) for i in (0, 1) for name, k in PARTS}
    tensors = {"token_embd.weight": embedding, "output.weight": output, **silent}
    return Generator(tiny_model(tmp_path_factory.mktemp("m") / "copy.gguf", dtype="F32", tensors=tensors))


PARTS = [("attn_output", 64), ("ffn_down", 128)]


def test_a_text_that_goes_round_comes_several_tokens_a_step(copier: Generator) -> None:
    options = {"max_tokens": 200, "temperature": 0, "ignore_eos": True}
    without = [t.id for t in copier.stream_tokens([5], speculative=False, **options)]
    assert without[:3] == [6, 7, 8] and without[25:50] == without[:25]
    for speculative in ("auto", True, 1, 4, 8):
        stream = copier.stream_tokens([5], speculative=speculative, **options)
        assert [t.id for t in stream] == without
        # The first round has nothing to look up; "auto" also takes a while to trust its guesses.
        least = {1: 80, 4: 130}.get(speculative, 100)
        assert least < stream.usage.accepted_tokens < 176, speculative
    assert copier.generate([5], speculative=False, **options).usage.accepted_tokens == 0


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0},
        {"temperature": 1.0},
        {"temperature": 0.7, "top_p": 0.9, "repetition_penalty": 1.2},
        {"temperature": 0, "frequency_penalty": 0.1},
        {"temperature": 0.3, "stop": ["e", "on"]},
        {"temperature": 0.5, "logit_bias": {40: 3.0}},
    ],
)
def test_speculation_changes_no_token(demo: Generator, tiny: Generator, options: dict) -> None:
    prompt = "Write a haiku about ice hockey. Write a haiku about ice hockey. Write a haiku about"
    for gen in (demo, tiny):
        for seed in range(3):
            common = {"max_tokens": 150, "ignore_eos": True, "seed": seed, **options}
            expected = gen.generate(prompt, speculative=False, **common)
            for speculative in ("auto", 3, 8):
                found = gen.generate(prompt, speculative=speculative, **common)
                assert (found.text, found.stop_reason) == (expected.text, expected.stop_reason)


@settings(max_examples=40, deadline=None)
@given(
    words=st.lists(st.integers(3, 40), min_size=1, max_size=6),
    times=st.integers(1, 12),
    n=st.integers(1, 8),
    max_tokens=st.integers(1, 60),
)
def test_speculation_holds_for_any_repetition(
    windowed: Generator, words: list[int], times: int, n: int, max_tokens: int
) -> None:
    """A window of 20 lets go of keys that a step back must still have."""
    options = {"temperature": 0.4, "seed": 1, "max_tokens": max_tokens, "ignore_eos": True}
    expected = [t.id for t in windowed.stream_tokens(words * times, speculative=False, **options)]
    assert [t.id for t in windowed.stream_tokens(words * times, speculative=n, **options)] == expected


@pytest.fixture(scope="module")
def windowed(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    return Generator(tiny_model(tmp_path_factory.mktemp("w") / "w.gguf", dtype="Q8_0", sliding_window=20))


def test_the_context_ends_where_it_ends(copier: Generator) -> None:
    ids = [3 + i % 25 for i in range(500)]
    found = copier.generate(ids, speculative=8, temperature=0, ignore_eos=True)
    assert (found.usage.completion_tokens, found.finish_reason) == (copier.n_ctx - 500, "length")
    assert found.usage.accepted_tokens > 5


@pytest.mark.parametrize("engine", ["candle", "original"])
def test_other_engines_run_one_token_at_a_time(demo: Generator, engine: str) -> None:
    gen = Generator("demo", engine=engine)
    assert gen.generate("tea tea tea tea", max_tokens=30, speculative=8).usage.accepted_tokens == 0


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        ("fast", InvalidRequestError, 'speculative is "fast", expected "auto", False, or 1 to 8'),
        (9, InvalidRequestError, "speculative is 9, expected 1 to 8"),
        (-1, InvalidRequestError, "speculative is -1"),
        (1.5, TypeError, "speculative must be int, not float"),
    ],
)
def test_what_speculative_can_be(demo: Generator, value: object, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        demo.stream("Hello", speculative=value)  # type: ignore[arg-type]


def test_guesses_do_not_change_the_factors_of_long_rope_early(tmp_path: Path) -> None:
    """A step across the original context would rotate the tokens before it with the long factors."""
    factors = [1.0 + i for i in range(8)], [1.0 + 0.1 * i for i in range(8)]
    gen = Generator(tiny_model(tmp_path / "m.gguf", longrope=factors, original_context=60, attn_factor=1.2))
    prompt = np.random.default_rng(3).integers(3, 300, 45).tolist()

    def run(speculative: int | bool) -> tuple[list[float], int]:
        # One token again and again, so that every guess is right; its logprob is the model's own.
        stream = gen.stream_tokens(
            prompt, max_tokens=40, temperature=0, ignore_eos=True, logit_bias={5: 1e6}, speculative=speculative
        )
        return [token.logprob for token in stream], stream.usage.accepted_tokens

    expected, _ = run(False)
    for speculative in (1, 3, 8):
        found, accepted = run(speculative)
        assert accepted > 10
        assert found == expected
