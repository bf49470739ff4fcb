"""What a user could reasonably type and get wrong: each a Python exception with the way out in its text."""

from __future__ import annotations

import math
import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from machine import needs_candle

import candlewick
from candlewick import ContextLengthError, Generator, InvalidRequestError, ModelNotFoundError, UnsupportedModelError

NAN = math.nan


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"temperature": -0.1}, r"temperature is -0\.1, expected a finite number from 0"),
        ({"temperature": NAN}, "temperature is NaN"),
        ({"temperature": math.inf}, "temperature is inf"),
        ({"top_p": 0.0}, "top_p is 0, expected a number above 0 and up to 1"),
        ({"top_p": 1.5}, r"top_p is 1\.5"),
        ({"top_p": NAN}, "top_p is NaN"),
        ({"top_k": -1}, "top_k is -1, expected an integer from 0"),
        ({"min_p": -0.5}, "min_p is -0.5"),
        ({"min_p": NAN}, "min_p is NaN"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0, expected a finite number above 0"),
        ({"repetition_penalty": -1.0}, "repetition_penalty is -1"),
        ({"repetition_penalty": NAN}, "repetition_penalty is NaN"),
        ({"repeat_last_n": -1}, "repeat_last_n is -1"),
        ({"frequency_penalty": 2.5}, "frequency_penalty is 2.5, expected a number from -2 to 2"),
        ({"presence_penalty": NAN}, "presence_penalty is NaN"),
        ({"max_tokens": 0}, "max_tokens is 0, expected at least 1"),
        ({"max_tokens": -5}, r"max_tokens is -5, expected at least 1, or None for no limit"),
        ({"max_tokens": 10**30}, "max_tokens is 1000000000000000000000000000000, expected an integer"),
        ({"seed": -1}, "seed is -1, expected an integer from 0 to 18446744073709551615"),
        ({"seed": 2**64}, "seed is 18446744073709551616"),
        ({"seed": 10**5000}, "seed is a number of very many digits"),
        ({"temperature": 1e39}, "temperature is 1e39, which is too large"),
        ({"stop": ""}, "stop"),
        ({"stop": ["a", ""]}, "stop"),
        ({"stop": ["a", "\ud800"]}, r"stop\[1\] holds a lone surrogate"),
        ({"stop_token_ids": [320]}, "stop_token_ids holds 320, and the vocabulary has 320 tokens"),
        ({"stop_token_ids": [-1]}, r"stop_token_ids\[0\] is -1"),
        ({"logit_bias": {320: 1.0}}, "logit_bias names the token id 320"),
        ({"logit_bias": {1: NAN}}, r"logit_bias\[1\] is NaN"),
        ({"logit_bias": {1: math.inf}}, r"logit_bias\[1\] is inf"),
        ({"logit_bias": {"one": 1.0}}, 'logit_bias has the key "one"'),
    ],
)
def test_value_out_of_range(tiny: Generator, arguments: dict, text: str) -> None:
    with pytest.raises(InvalidRequestError, match=text):
        tiny.stream("Hi", **arguments)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"temperature": "hot"}, "temperature must be float, not str"),
        ({"temperature": None}, "temperature must be float, not NoneType"),
        ({"temperature": True}, "temperature must be float, not bool"),
        ({"max_tokens": 10.5}, "max_tokens must be int, not float"),
        ({"max_tokens": "10"}, "max_tokens must be int, not str"),
        ({"max_tokens": True}, "max_tokens must be int, not bool"),
        ({"top_k": 1.0}, "top_k must be int, not float"),
        ({"stop": 5}, "stop must be str or a list of str, not int"),
        ({"stop": [5]}, r"stop\[0\] must be str, not int"),
        ({"stop": b"x"}, "stop must be str or a list of str, not bytes"),
        ({"stop_token_ids": 5}, "stop_token_ids must be a list of token ids, not int"),
        ({"stop_token_ids": ["a"]}, r"stop_token_ids\[0\] must be int, not str"),
        ({"logit_bias": [1]}, "logit_bias must be a dict of token id to bias, not list"),
        ({"seed": "x"}, "seed must be int, not str"),
        ({"seed": 1.0}, "seed must be int, not float"),
        ({"ignore_eos": "yes"}, "ignore_eos"),
        ({"raw": 1}, "raw"),
        ({"max_tokens": 5, "max_new_tokens": 5}, "max_tokens and max_new_tokens are two names"),
        ({"repetition_penalty": 1.0, "repeat_penalty": 1.2}, "repetition_penalty and repeat_penalty are two names"),
        ({"temprature": 1.0}, "temprature"),
    ],
)
def test_wrong_type(tiny: Generator, arguments: dict, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        tiny.stream("Hi", **arguments)
    with pytest.raises(TypeError, match=text):
        tiny.generate("Hi", **arguments)


@pytest.mark.parametrize(
    ("prompt", "error", "text"),
    [
        ("", InvalidRequestError, "empty string: there is nothing to continue"),
        ([], InvalidRequestError, "empty list"),
        (None, TypeError, "prompt must be str, a list of messages or a list of token ids, not NoneType"),
        (5, TypeError, "prompt must be str"),
        (b"Hi", TypeError, r"str \(decode the bytes first\), not bytes"),
        ({"role": "user", "content": "Hi"}, TypeError, "put the message in a list"),
        ([1.5], TypeError, r"prompt\[0\] must be a message \(dict\) or a token id"),
        (["Hi"], TypeError, r"prompt\[0\] must be a message"),
        ([1, "a"], TypeError, r"prompt\[1\] must be int, not str"),
        ([1, -1], InvalidRequestError, r"prompt\[1\] is -1"),
        ([1, 320], InvalidRequestError, "token id 320, and the vocabulary has 320 tokens"),
        ([1, 2**40], InvalidRequestError, r"prompt\[1\] is 1099511627776"),
        ([{"role": "user"}], InvalidRequestError, r'prompt\[0\] has no "content"'),
        ([{"content": "Hi"}], InvalidRequestError, r'prompt\[0\] has no "role"'),
        ([{"role": "user", "content": 5}], TypeError, r'prompt\[0\]\["content"\] must be str, not int'),
        ([{"role": "user", "content": "Hi", "nmae": "x"}], InvalidRequestError, "the key 'nmae'"),
        ([{"role": "user", "content": "Hi", "tools": []}], TypeError, r'prompt\[0\]\["tools"\] must be str, the JSON'),
        ([{"role": "user", "content": "Hi", "tools": "[]"}], InvalidRequestError, "no place for the tools"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], InvalidRequestError, "reads text only"),
        ([{"role": "poet", "content": "Hi"}], InvalidRequestError, "poet"),
        ("lone \ud800 surrogate", InvalidRequestError, r"prompt holds a lone surrogate \(at index 5\)"),
        ([{"role": "user", "content": "\udfff"}], InvalidRequestError, r"\(at index 0\)"),
    ],
)
def test_prompt(tiny: Generator, prompt: object, error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        tiny.stream(prompt)


def test_prompts_that_are_fine(tiny: Generator) -> None:
    parts = [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]
    assert tiny.stream(parts).usage.prompt_tokens == tiny.stream("ab").usage.prompt_tokens
    messages = (MappingProxyType({"role": "user", "content": "Hello"}),)
    assert tiny.stream(messages).usage.prompt_tokens == tiny.stream("Hello").usage.prompt_tokens
    assert tiny.stream(range(1, 5)).usage.prompt_tokens == 4
    ids = np.array([1, 2, 3])
    assert tiny.generate(ids, max_tokens=1).usage.prompt_tokens == 3
    assert tiny.generate((1, 2, np.int64(3)), max_tokens=np.int32(2)).usage.completion_tokens == 2
    assert tiny.generate("\0 and 🦫", max_tokens=1).usage.completion_tokens == 1
    assert tiny.generate("", raw=True, max_tokens=1).usage.prompt_tokens == 1, "BOS alone can be continued"


def test_prompt_longer_than_the_context(tiny_path: Path) -> None:
    gen = Generator(tiny_path, n_ctx=64)
    with pytest.raises(ContextLengthError, match=r"64 tokens and the context holds 64 .* larger n_ctx .* 512"):
        gen.stream([1] * 64)
    assert gen.generate([1] * 63, ignore_eos=True).usage.completion_tokens == 1
    with pytest.raises(ContextLengthError, match="shorten the prompt"):
        Generator(tiny_path).stream("word " * 10_000)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"engine": "turbo"}, InvalidRequestError, 'engine is "turbo", expected one of "auto", "native", "candle"'),
        ({"device": "gpu"}, InvalidRequestError, 'device is "gpu", expected "auto", "cpu", "cuda"'),
        ({"device": "cuda"}, UnsupportedModelError, "no `cuda` support.*build it from source.*--features cuda"),
        ({"device": "metal"}, UnsupportedModelError, "no `metal` support.*--features metal"),
        ({"kv_type": "f8"}, InvalidRequestError, 'kv_type is "f8", expected "auto", "f16", "f32" or "q8_0"'),
        (
            {"kv_type": "q8_0", "engine": "candle"},
            InvalidRequestError,
            "candle engine does not have: use engine=.native",
        ),
        pytest.param(
            {"kv_type": "f16", "engine": "original"},
            InvalidRequestError,
            "keeps keys and values in f32",
            marks=needs_candle,
        ),
        ({"n_ctx": 0}, InvalidRequestError, "n_ctx is 0, expected 1 to 512"),
        ({"n_ctx": 513}, InvalidRequestError, r"n_ctx is 513, expected 1 to 512 \(what this model was made for\)"),
        ({"n_ctx": -1}, InvalidRequestError, "n_ctx is -1"),
        ({"n_ctx": "big"}, TypeError, "n_ctx must be int, not str"),
        ({"n_threads": 0}, InvalidRequestError, "n_threads is 0, expected 1 to 512"),
        ({"n_threads": 1.5}, TypeError, "n_threads must be int or None, not float"),
        ({"tokenizer": "nowhere.json"}, ModelNotFoundError, r"no tokenizer file 'nowhere\.json'"),
        ({"mmap": "no"}, TypeError, "mmap"),
        ({"n_gpu_layers": 99}, TypeError, "n_gpu_layers"),
    ],
)
def test_generator_option(tiny_path: Path, options: dict, error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        Generator(tiny_path, **options)


@pytest.mark.parametrize(
    ("model", "error", "text"),
    [
        ("", InvalidRequestError, "empty string"),
        (5, TypeError, "model must be str or a path, not int"),
        ("a\0b", ModelNotFoundError, "NUL"),
        ("Write a haiku about ice hockey, please. " * 200, ModelNotFoundError, "the model comes first"),
        ("~nosuchuser/model.gguf", ModelNotFoundError, "no such file or folder"),
    ],
)
def test_model_argument(model: object, error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        Generator(model)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"filename": "x.gguf"}, InvalidRequestError, "the demo model is one file"),
        ({"filename": 3}, TypeError, "filename must be str or None, not int"),
    ],
)
def test_filename_that_makes_no_sense(options: dict, error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        Generator("demo", **options)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_is_no_model(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelNotFoundError, match="is not a regular file"):
        Generator(tmp_path / "pipe")


def test_logit_bias_that_forbids_everything_or_changes_while_it_is_read(tiny: Generator) -> None:
    with pytest.raises(InvalidRequestError, match="logit_bias forbids every token"):
        tiny.generate("Hi", logit_bias=dict.fromkeys(range(320), -math.inf))

    class Grows:
        def __float__(self) -> float:
            bias[len(bias)] = 1.0
            return 1.0

    bias: dict = {i: Grows() for i in range(5)}
    assert tiny.generate("Hi", logit_bias=bias, max_tokens=1).usage.completion_tokens == 1


def test_use_after_close(tiny_path: Path) -> None:
    with Generator(tiny_path) as gen:
        stream = gen.stream("Hi", max_tokens=3, ignore_eos=True)
    for use in (lambda: gen.stream("Hi"), lambda: gen.tokenizer, lambda: gen.info, lambda: gen.n_ctx):
        with pytest.raises(InvalidRequestError, match="this generator is closed: create a new one"):
            use()
    assert repr(gen) == "<Generator closed>"
    gen.close()
    assert len(list(stream)) <= 3, "a stream that was started keeps what it needs"


def test_the_generator_is_fine_after_every_refusal(tiny: Generator) -> None:
    assert tiny.generate("Hi", max_tokens=2, ignore_eos=True).usage.completion_tokens == 2


def test_tokenizer_arguments(tiny: Generator) -> None:
    tokenizer = tiny.tokenizer
    with pytest.raises(TypeError, match="text must be str, not int"):
        tokenizer.encode(5)
    with pytest.raises(InvalidRequestError, match="lone surrogate"):
        tokenizer.encode("\ud800")
    with pytest.raises(InvalidRequestError, match="320"):
        tokenizer.decode([320])
    with pytest.raises(TypeError, match="ids must be a list of token ids, not str"):
        tokenizer.decode("ids")


def test_exceptions_are_what_they_say_and_can_be_pickled() -> None:
    builtin = {
        candlewick.ModelNotFoundError: FileNotFoundError,
        candlewick.ModelFormatError: ValueError,
        candlewick.UnsupportedModelError: ValueError,
        candlewick.InvalidRequestError: ValueError,
        candlewick.ContextLengthError: ValueError,
        candlewick.DownloadError: OSError,
        candlewick.OutOfMemoryError: MemoryError,
    }
    for ours, theirs in builtin.items():
        assert issubclass(ours, theirs) and issubclass(ours, candlewick.Error)
        again = pickle.loads(pickle.dumps(ours("what happened")))
        assert type(again) is ours and str(again) == "what happened"
        assert repr(ours("x")).startswith(ours.__name__)


def test_too_little_memory_is_an_exception_with_both_numbers(tiny_path: Path) -> None:
    """`ulimit -v` leaves room for Python but not for the file that is to be read."""
    script = f"""
import resource, candlewick, candlewick._native
from pathlib import Path
big = Path({str(tiny_path)!r}).with_name("big.gguf")
with big.open("wb") as file:
    file.write(Path({str(tiny_path)!r}).read_bytes()); file.truncate(8 << 30)
now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + (2 << 30), now + (2 << 30)))
try:
    candlewick.Generator(big, mmap=False)
except candlewick.OutOfMemoryError as error:
    print(error)
finally:
    big.unlink()
"""
    if not sys.platform.startswith("linux"):
        pytest.skip("the limit is read from /proc")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert "needs 8.59 GB and" in done.stdout and "are available: use mmap=True" in done.stdout, done.stderr
