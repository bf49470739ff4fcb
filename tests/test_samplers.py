"""Samplers choose what NumPy's do, which do what transformers and llama.cpp do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import sampling
from make_gguf import small_vocab, tiny_model

from candlewick import Generator, InvalidRequestError

GOLDEN = Path(__file__).parent / "data" / "golden"
TRANSFORMERS = json.loads((GOLDEN / "sampling.json").read_text(encoding="utf-8"))
LLAMA = json.loads((GOLDEN / "llama_sampling.json").read_text(encoding="utf-8"))
TOKENS = small_vocab(320).tokens
A, LINE, END = TOKENS.index("a"), TOKENS.index("<0x0A>"), TOKENS.index("<|end|>")
PROMPT = [A, A + 1, A + 2, A, A + 3]
N_DRAWS = 20_000

Logits = np.ndarray
Reference = Callable[[list[int], Logits], Logits]
"""The generated ids and the model's logits -> the logits that are left."""


# --- The references against the libraries


@pytest.mark.parametrize("case", TRANSFORMERS, ids=lambda case: case["name"])
def test_numpy_does_what_transformers_does(case: dict) -> None:
    logits, ids, arguments = np.array(case["logits"]), case["ids"], case["arguments"]
    run: dict[str, Callable[[], Logits]] = {
        # Its penalty counts the prompt too; ours does not, and is handed the generated ids alone.
        "repetition": lambda: sampling.repetition(logits, ids, **arguments),
        "no_repeat_ngram": lambda: sampling.no_repeat_ngram(logits, ids, **arguments),
        "bad_words": lambda: sampling.bad_words(logits, ids, **arguments),
        "min_tokens": lambda: sampling.min_tokens(logits, len(ids) - case["n_prompt"], **arguments),
        "temperature": lambda: logits / arguments["t"],
        "top_k": lambda: sampling.top_k(logits, **arguments),
        "top_p": lambda: sampling.top_p(logits, **arguments),
        "min_p": lambda: sampling.min_p(logits, **arguments),
        "typical": lambda: sampling.typical(logits, **arguments),
    }
    expected = [-np.inf if logit is None else logit for logit in case["expected"]]
    assert np.allclose(run[case["name"]](), expected, atol=1e-5)


def breaker_ids(texts: list[str]) -> list[list[int]]:
    """The sequences that hold `texts` for llama.cpp: it puts the space that begins a text before the rest of "ab".

    So it misses "ab" itself, which this package does not.
    """
    known = {"\n": [[LINE]], ":": [[TOKENS.index("<0x3A>")]], '"': [], "*": [], "ab": [[A, A - 1, A + 1]]}
    return [ids for text in texts for ids in known[text]]


@pytest.mark.parametrize("case", LLAMA["dry"], ids=lambda case: f"{len(case['ids'])} ids")
def test_numpy_does_what_llama_cpp_does_with_dry(case: dict) -> None:
    zeros = np.zeros(len(TOKENS))
    names = ("multiplier", "base", "allowed", "last_n")
    found = sampling.dry(
        zeros, case["ids"], **{name: case[name] for name in names}, breakers=breaker_ids(case["breakers"])
    )
    expected = np.zeros(len(TOKENS))
    for token, penalty in case["penalties"].items():
        expected[int(token)] = -penalty
    assert np.allclose(found, expected, rtol=1e-4)


def test_numpy_does_what_llama_cpp_does_with_xtc() -> None:
    assert sum(len(case["left"]) < 24 for case in LLAMA["xtc"]) > 10
    assert sum(bool(case["penalties"]) for case in LLAMA["dry"]) > 30
    for case in LLAMA["xtc"]:
        found = sampling.without_top_choices(np.array(case["logits"]), case["threshold"])
        assert np.flatnonzero(np.isfinite(found)).tolist() == case["left"]


# --- The package against the references


def constant_model(path: Path, live: np.ndarray) -> tuple[Generator, Logits]:
    """A model that gives the same logits whatever it reads: `live` from the letter a on, and hardly any other token."""
    logits = np.full(len(TOKENS), -60.0)
    logits[A : A + len(live)] = live
    tensors = {"output.weight": np.zeros((len(TOKENS), 64)), "output.bias": logits}
    return Generator(tiny_model(path, layers=1, tensors=tensors), n_threads=1), logits


@pytest.fixture(scope="module")
def constant(tmp_path_factory: pytest.TempPathFactory) -> tuple[Generator, Logits]:
    live = np.array([2.0, 1.7, 1.2, 1.2, 0.9, 0.6, 0.2, -0.3, -0.9, -1.6])
    return constant_model(tmp_path_factory.mktemp("constant") / "m.gguf", live)


def filters(t: float = 1.0, **steps: float) -> Reference:
    """Temperature, and filters in the documented order."""
    named = {"top_k": sampling.top_k, "top_p": sampling.top_p, "min_p": sampling.min_p, "typical_p": sampling.typical}

    def run(ids: list[int], logits: Logits) -> Logits:
        logits = logits / t
        for name, function in named.items():
            if name in steps:
                logits = function(logits, steps[name])
        return logits

    return run


DRY_BREAKERS = [[A + 4], [A, A + 1]]

CASES: list[tuple[dict, Reference]] = [
    ({}, filters()),
    ({"temperature": 0.6}, filters(0.6)),
    ({"temperature": 1.8}, filters(1.8)),
    ({"top_k": 4}, filters(top_k=4)),
    ({"top_p": 0.7}, filters(top_p=0.7)),
    ({"min_p": 0.2}, filters(min_p=0.2)),
    ({"typical_p": 0.2}, filters(typical_p=0.2)),
    ({"typical_p": 0.6}, filters(typical_p=0.6)),
    # What the order decides: the temperature comes first, and each filter sees what the one before left.
    ({"temperature": 2.0, "top_p": 0.7}, filters(2.0, top_p=0.7)),
    ({"temperature": 2.0, "typical_p": 0.5}, filters(2.0, typical_p=0.5)),
    ({"top_k": 6, "top_p": 0.75}, filters(top_k=6, top_p=0.75)),
    ({"top_k": 5, "top_p": 0.9, "typical_p": 0.5}, filters(top_k=5, top_p=0.9, typical_p=0.5)),
    ({"min_p": 0.2, "typical_p": 0.5}, filters(min_p=0.2, typical_p=0.5)),
    (
        {"repetition_penalty": 1.4, "repeat_last_n": 5},
        lambda ids, logits: sampling.repetition(logits, ids[-5:], 1.4),
    ),
    (
        {"frequency_penalty": 0.3, "presence_penalty": 0.5},
        lambda ids, logits: sampling.frequency(logits, ids, 0.3, 0.5),
    ),
    (
        {"dry_multiplier": 0.8, "dry_base": 1.5, "dry_allowed_length": 1, "dry_sequence_breakers": ["e", "ab"]},
        lambda ids, logits: sampling.dry(logits, PROMPT + ids, 0.8, 1.5, 1, breakers=DRY_BREAKERS),
    ),
    (
        {"dry_multiplier": 1.5, "dry_penalty_last_n": 12},
        lambda ids, logits: sampling.dry(logits, PROMPT + ids, 1.5, last_n=12),
    ),
    ({"no_repeat_ngram_size": 2}, lambda ids, logits: sampling.no_repeat_ngram(logits, PROMPT + ids, 2)),
    ({"no_repeat_ngram_size": 3}, lambda ids, logits: sampling.no_repeat_ngram(logits, PROMPT + ids, 3)),
    (
        {"bad_words": [[A + 2], A + 3, [A, A + 1]]},
        lambda ids, logits: sampling.bad_words(logits, PROMPT + ids, [[A + 2], [A + 3], [A, A + 1]]),
    ),
    (
        {"logit_bias": {A: -1.0, A + 9: 2.5}, "temperature": 0.8, "no_repeat_ngram_size": 2, "top_p": 0.8},
        lambda ids, logits: filters(0.8, top_p=0.8)(
            ids, sampling.no_repeat_ngram(logits + np.eye(320)[A + 9] * 2.5 - np.eye(320)[A], PROMPT + ids, 2)
        ),
    ),
]


@pytest.mark.parametrize(("options", "reference"), CASES, ids=lambda case: "-".join(case) if type(case) is dict else "")
def test_frequencies_are_those_of_numpy(
    constant: tuple[Generator, Logits], options: dict, reference: Reference
) -> None:
    """20,000 draws; what each adds to the expected counts is the reference's distribution after what came before."""
    gen, logits = constant
    n_tokens = 40
    drawn, expected = np.zeros((2, 320)), np.zeros((2, 320))
    looks_back = not np.array_equal(reference([A] * 5, logits), reference([A + 1] * 5, logits))
    p = sampling.softmax(reference([], logits))
    for seed in range(N_DRAWS // n_tokens):
        ids: list[int] = []
        stream = gen.stream_tokens(PROMPT, max_tokens=n_tokens, ignore_eos=True, seed=seed, **options)
        for token in stream:
            if looks_back:
                p = sampling.softmax(reference(ids, logits))
            assert p[token.id] > 0, f"{token} cannot come after {ids}"
            # Tokens that came lately are counted apart: this is where penalties work.
            lately = ids[-5:]
            expected[0] += p
            for i in set(lately):
                expected[:, i] += -p[i], p[i]
            drawn[int(token.id in lately), token.id] += 1
            ids.append(token.id)
    check_frequencies(drawn, expected)


def check_frequencies(drawn: np.ndarray, expected: np.ndarray) -> None:
    """Chi-squared, with a chance of one in 100,000 to fail; the seeds are fixed, so it fails always or never."""
    assert drawn.sum() == N_DRAWS and abs(expected.sum() - N_DRAWS) < 1e-6 * N_DRAWS
    often = expected > 5
    assert expected[~often].sum() < 40 and abs(drawn[~often].sum() - expected[~often].sum()) < 40
    chi2 = float(((drawn - expected)[often] ** 2 / expected[often]).sum())
    # Wilson and Hilferty's approximation of the quantile.
    df = int(often.sum())
    limit = df * (1 - 2 / (9 * df) + 4.265 * np.sqrt(2 / (9 * df))) ** 3
    print(f"chi-squared {chi2:.1f} with {df} bins, limit {limit:.1f}")
    assert chi2 < limit


@pytest.mark.parametrize(
    ("options", "before"),
    [
        ({"xtc_probability": 1.0}, filters()),
        ({"xtc_probability": 0.4, "xtc_threshold": 0.13}, filters()),
        ({"xtc_probability": 0.7, "xtc_threshold": 0.2, "temperature": 0.7, "top_k": 4}, filters(0.7, top_k=4)),
    ],
)
def test_xtc_strikes_as_often_as_it_should(
    constant: tuple[Generator, Logits], options: dict, before: Reference
) -> None:
    """After the filters and with the temperature."""
    gen, logits = constant
    kept = before([], logits)
    struck = sampling.softmax(sampling.without_top_choices(kept, options.get("xtc_threshold", 0.1)))
    often = options["xtc_probability"]
    p = often * struck + (1 - often) * sampling.softmax(kept)
    assert np.abs(struck - sampling.softmax(kept)).max() > 0.1, "it makes a difference here"
    drawn = np.zeros(320)
    for seed in range(N_DRAWS // 400):
        for token in gen.stream_tokens(PROMPT, max_tokens=400, ignore_eos=True, seed=seed, **options):
            drawn[token.id] += 1
    check_frequencies(drawn, N_DRAWS * p)


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_neutral_values_change_nothing(demo: Generator, temperature: float) -> None:
    neutral = {
        "typical_p": 1.0,
        "xtc_probability": 0.0,
        "xtc_threshold": 0.2,
        "dry_multiplier": 0.0,
        "dry_base": 3.0,
        "dry_allowed_length": 1,
        "no_repeat_ngram_size": 0,
        "min_tokens": 0,
        "bad_words": [],
        "logprobs": 20,
        "logits_processor": lambda ids, logits: None,
    }
    for seed in range(5):
        common = {"seed": seed, "temperature": temperature}
        assert demo.generate("rain", **common).text == demo.generate("rain", **common, **neutral).text


def greedy(reference: Reference, logits: Logits, n: int) -> list[int]:
    ids: list[int] = []
    while len(ids) < n:
        ids.append(int(np.argmax(reference(ids, logits))))
    return ids


@pytest.mark.parametrize(
    ("options", "reference"),
    [
        (
            {"dry_multiplier": 0.73, "dry_allowed_length": 1},
            lambda ids, logits: sampling.dry(logits, PROMPT + ids, 0.73, allowed=1),
        ),
        (
            {"dry_multiplier": 0.73, "dry_allowed_length": 1, "dry_sequence_breakers": ["b"]},
            lambda ids, logits: sampling.dry(logits, PROMPT + ids, 0.73, allowed=1, breakers=[[A + 1]]),
        ),
        ({"no_repeat_ngram_size": 4}, lambda ids, logits: sampling.no_repeat_ngram(logits, PROMPT + ids, 4)),
    ],
)
def test_with_speculation_each_position_is_still_judged_alone(
    constant: tuple[Generator, Logits], options: dict, reference: Reference
) -> None:
    """Ids in a row that come of repetition alone: one wrong position and all after it differ."""
    gen, logits = constant
    for speculative in (False, 4):
        stream = gen.stream_tokens(
            PROMPT, max_tokens=200, ignore_eos=True, temperature=0, speculative=speculative, **options
        )
        assert [token.id for token in stream] == greedy(reference, logits, 200)


# --- Ends


def test_min_tokens_forbids_the_ends_and_looks_for_stop_strings_later(tmp_path: Path) -> None:
    gen, _ = constant_model(tmp_path / "m.gguf", np.zeros(26))
    # The likeliest tokens by far are the model's end, a stop id and a stop string.
    ends = {"logit_bias": {END: 9.0 + 60, A: 8.0, A + 1: 7.0}, "stop_token_ids": [A], "stop": ["b"]}
    for n in (1, 2, 5, 17):
        found = gen.generate(PROMPT, min_tokens=n, seed=n, max_tokens=50, **ends)
        assert found.usage.completion_tokens > n
        assert not {END, A} & {token.id for token in found.tokens[:n]}
        # "b" may be part of the text before, and not after.
        head = "".join(token.text for token in found.tokens[:n])
        assert "b" in head and "b" not in found.text[len(head) :]
        assert found.finish_reason == "stop" and found.usage.completion_tokens < n + 10
    # Ends that end nothing are not forbidden.
    free = gen.generate(PROMPT, min_tokens=20, max_tokens=30, seed=1, ignore_eos=True, logit_bias={END: 80.0})
    assert {token.id for token in free.tokens} == {END}


def test_bad_words_given_as_text(demo: Generator) -> None:
    for seed in range(20):
        found = demo.generate("rain", seed=seed, bad_words=["rain", "the", "a"])
        encoded = demo.tokenizer.encode
        for word in ("rain", "the", "a"):
            for spelling in (encoded(word), encoded("\n" + word)[len(encoded("\n")) :]):
                ids = [token.id for token in found.tokens]
                starts = range(len(ids) - len(spelling) + 1)
                assert all(ids[i : i + len(spelling)] != spelling for i in starts), (word, found.text)
    # As a list of numbers, each is a word of its own; one string is one word.
    first = demo.generate("rain", seed=1, max_tokens=1).tokens[0].id
    assert demo.generate("rain", seed=1, max_tokens=1, bad_words=[first]).tokens[0].id != first
    text = demo.generate("rain", temperature=0).text
    assert demo.generate("rain", temperature=0, bad_words=text.split()[1]).text != text


def test_a_special_token_can_be_a_breaker(constant: tuple[Generator, Logits]) -> None:
    gen, _ = constant
    prompt = [A, A + 1, A + 2, END, A, A + 1]
    options = {"dry_multiplier": 50.0, "dry_allowed_length": 2, "temperature": 0, "max_tokens": 1}
    likeliest = {"logit_bias": {A + 2: 10.0}}
    stopped = gen.generate(prompt, **options, **likeliest, dry_sequence_breakers=[])
    assert stopped.tokens[0].id != A + 2
    # The repetition itself lies after the breaker: it counts; one that goes across does not.
    prompt = [A, END, A + 2, A, END]
    across = gen.generate(prompt, **options, **likeliest, dry_sequence_breakers=["<|end|>"])
    assert across.tokens[0].id == A + 2
    assert gen.generate(prompt, **options, **likeliest, dry_sequence_breakers=[]).tokens[0].id != A + 2


# --- Bad values


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"typical_p": 0}, InvalidRequestError, r"typical_p is 0, expected a number above 0 and up to 1 \(1 is off\)"),
        ({"typical_p": float("nan")}, InvalidRequestError, "typical_p is NaN"),
        ({"typical_p": "x"}, TypeError, "typical_p must be float, not str"),
        (
            {"xtc_probability": 1.5},
            InvalidRequestError,
            r"xtc_probability is 1.5, expected a number from 0 \(off\) to 1",
        ),
        ({"xtc_threshold": -1}, InvalidRequestError, r"xtc_threshold is -1, expected a number from 0 to 1"),
        ({"dry_multiplier": -1}, InvalidRequestError, "dry_multiplier is -1, expected a finite number from 0"),
        ({"dry_multiplier": float("inf")}, InvalidRequestError, "dry_multiplier is inf"),
        ({"dry_base": 0.5}, InvalidRequestError, "dry_base is 0.5, expected a finite number from 1 upwards"),
        ({"dry_allowed_length": 0}, InvalidRequestError, "dry_allowed_length is 0, expected at least 1"),
        ({"dry_allowed_length": -2}, InvalidRequestError, "dry_allowed_length is -2, expected an integer from 0"),
        ({"dry_penalty_last_n": -2}, InvalidRequestError, "dry_penalty_last_n is -2, expected an integer from -1"),
        ({"dry_sequence_breakers": ["\n", ""]}, InvalidRequestError, r"dry_sequence_breakers\[1\] is empty"),
        (
            {"dry_sequence_breakers": None},
            TypeError,
            "dry_sequence_breakers must be str or a list of str, not NoneType",
        ),
        ({"no_repeat_ngram_size": -1}, InvalidRequestError, "no_repeat_ngram_size is -1, expected an integer from 0"),
        ({"no_repeat_ngram_size": 2.0}, TypeError, "no_repeat_ngram_size must be int, not float"),
        ({"min_tokens": -1}, InvalidRequestError, "min_tokens is -1, expected an integer from 0"),
        ({"min_tokens": 6, "max_tokens": 5}, InvalidRequestError, "min_tokens is 6 and max_tokens 5, expected at most"),
        ({"bad_words": 5}, TypeError, "bad_words must be str or a list of str or token ids, not int"),
        ({"bad_words": [None]}, TypeError, r"bad_words\[0\] must be str, int or a list of token ids, not NoneType"),
        ({"bad_words": ["a", ""]}, InvalidRequestError, r"bad_words\[1\] is empty, expected at least one character"),
        ({"bad_words": [[]]}, InvalidRequestError, r"bad_words\[0\] is empty, expected at least one token id"),
        (
            {"bad_words": [[1, 320]]},
            InvalidRequestError,
            r"bad_words\[0\] holds 320, and the vocabulary has 320 tokens",
        ),
        ({"bad_words": [[-1]]}, InvalidRequestError, r"bad_words\[0\]\[0\] is -1"),
        ({"bad_words": ["\ud800"]}, InvalidRequestError, r"bad_words\[0\] holds a lone surrogate"),
        ({"logprobs": 21}, InvalidRequestError, "logprobs is 21, expected an integer from 0 to 20"),
        ({"logprobs": True}, TypeError, "logprobs must be int, not bool"),
    ],
)
def test_bad_values(tiny: Generator, arguments: dict, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        tiny.stream("Hi", **arguments)


def test_forbidding_everything_names_who_did(tiny: Generator) -> None:
    everything = list(range(320))
    for arguments, text in (
        ({"bad_words": everything}, "bad_words forbids every token that the model could choose"),
        ({"bad_words": everything, "min_tokens": 1}, "min_tokens and bad_words together forbid every token"),
    ):
        stream = tiny.stream("Hi", **arguments)
        with pytest.raises(InvalidRequestError, match=text):
            next(stream)
        assert stream.finish_reason == "cancelled"
    assert tiny.generate("Hi", max_tokens=3).usage.completion_tokens == 3


def test_large_numbers_are_only_large(constant: tuple[Generator, Logits]) -> None:
    gen, _ = constant
    for options in (
        {"no_repeat_ngram_size": 2**32 - 1},
        {"dry_multiplier": 1e38, "dry_base": 1e38, "dry_allowed_length": 1},
        {"dry_multiplier": 1.0, "dry_allowed_length": 2**32 - 1},
        {"dry_multiplier": 1.0, "dry_penalty_last_n": 2**32 - 1},
        {"dry_multiplier": 1.0, "dry_penalty_last_n": 1, "dry_allowed_length": 1},
        {"typical_p": 1e-30},
        {"xtc_probability": 1.0, "xtc_threshold": 0.0},
    ):
        assert gen.generate(PROMPT, max_tokens=60, ignore_eos=True, **options).usage.completion_tokens == 60
