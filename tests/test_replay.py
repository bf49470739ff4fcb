"""A trace repeats a generation, or shows where it went another way."""

from __future__ import annotations

import gc
import hashlib
import json
import math
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from make_gguf import tiny_model

from candlewick import Generator, InvalidRequestError, __version__, trace

COMMAND = [sys.executable, "-m", "candlewick"]

OPTIONS: list[dict[str, Any]] = [
    {"max_tokens": 30},
    {"max_tokens": 20, "temperature": 0},
    {"max_tokens": 40, "temperature": 1.5, "top_k": 50, "top_p": 0.9, "min_p": 0.01, "typical_p": 0.9},
    {"max_tokens": 40, "repetition_penalty": 1.2, "frequency_penalty": 0.3, "dry_multiplier": 0.8, "min_tokens": 10},
    {"max_new_tokens": 20, "repeat_penalty": 1.1, "xtc_probability": 0.5, "no_repeat_ngram_size": 3},
    {"max_tokens": 40, "stop": ["e", "\n"], "bad_words": ["the", [7, 8], 9], "speculative": 4},
    {"max_tokens": 40, "stop_token_ids": np.array([30, 31]), "logit_bias": {30: -math.inf, 31: np.float32(1.5)}},
    {"max_tokens": np.int64(10), "logprobs": 3, "raw": True, "ignore_eos": True},
    {"max_tokens": 60, "json_schema": list[int]},
    {"max_tokens": 60, "regex": re.compile("[a-z]{5,20}")},
    {"max_tokens": 60, "grammar": 'start: "a"* "b"'},
    {"max_tokens": 60, "tools": [{"type": "function", "function": {"name": "look"}}]},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options))
def test_a_trace_repeats_what_it_records(tiny: Generator, options: dict[str, Any]) -> None:
    for seed in (None, 7):
        found = tiny.generate("Once upon a time", seed=seed, **options)
        record = json.loads(json.dumps(found.trace(), allow_nan=False))
        assert trace.replay(record, tiny) is None
        record["ids"] = record["ids"][:-1]
        difference = trace.replay(record, tiny)
        assert difference is not None and (difference.position, difference.expected) == (len(record["ids"]), None)
        assert difference.found is not None and difference.found.id == found.tokens[-1].id


def test_what_a_trace_holds(tiny: Generator, tiny_path: Path) -> None:
    found = tiny.generate("Hello", max_tokens=8, top_k=5)
    record = found.trace()
    assert (record["trace"], record["candlewick"]) == (1, __version__)
    assert record["model"] == {
        "name": "Phi-3 tiny test model",
        "sha256": hashlib.sha256(tiny_path.read_bytes()).hexdigest(),
        "path": str(tiny_path),
    }
    info = tiny.info
    assert record["engine"] == {k: info[k] for k in ("engine", "device", "isa", "n_threads", "kv_type", "n_ctx")}
    assert record["parameters"]["seed"] == found.seed and record["parameters"]["top_k"] == 5
    assert not {"prompt", "raw", "max_new_tokens", "repeat_penalty"} & set(record["parameters"])
    assert record["ids"] == [token.id for token in found.tokens]
    assert record["logprobs"] == list(found.logprobs)
    assert tiny.tokenizer.decode(record["prompt_ids"], skip_special_tokens=False).startswith("<s><|user|>")
    assert (record["text"], record["finish_reason"]) == (found.text, found.finish_reason)
    # What changes later has no part in it.
    stop = ["x"]
    again = tiny.generate("Hello", max_tokens=8, stop=stop)
    stop.append("y")
    assert again.trace()["parameters"]["stop"] == ["x"]


def test_the_first_difference_is_told(tiny: Generator, tmp_path: Path) -> None:
    found = tiny.generate("Hello", max_tokens=20, seed=1, ignore_eos=True)
    record = found.trace()
    record["ids"][7] = (record["ids"][7] + 1) % 320
    record["logprobs"][7] = -1.5
    difference = trace.replay(record, tiny)
    assert difference == trace.Difference(7, record["ids"][7], -1.5, found.tokens[7])
    other = Generator(tiny_model(tmp_path / "other.gguf", seed=99))
    difference = trace.replay(found.trace(), other)
    assert difference is not None and difference.position < 20
    record = found.trace()
    record["ids"] += [5]
    difference = trace.replay(record, tiny)
    assert difference == trace.Difference(20, 5, None, None)


def test_a_cancelled_one_is_repeated_as_far_as_it_went(tiny: Generator) -> None:
    stream = tiny.stream("Hello", seed=1, ignore_eos=True)
    for _ in range(3):
        next(stream)
    stream.cancel()
    assert trace.replay(stream.completion().trace(), tiny) is None


def test_a_closed_or_lost_generator_cannot_name_its_model(tiny_path: Path) -> None:
    gen = Generator(tiny_path)
    found = gen.generate("Hello", max_tokens=3)
    assert found.trace()["ids"]
    other = pickle.loads(pickle.dumps(found))
    gen.close()
    for completion in (found, other):
        with pytest.raises(InvalidRequestError, match=r"closed, gone or in another process.*take the trace before"):
            completion.trace()
    gen = Generator(tiny_path)
    found = gen.generate("Hello", max_tokens=3)
    del gen
    gc.collect()
    with pytest.raises(InvalidRequestError, match="closed, gone"):
        found.trace()


def test_python_functions_are_named_and_not_replayed(tiny: Generator) -> None:
    def processor(ids: list[int], logits: object) -> None: ...

    for given in (processor, [processor]):
        record = json.loads(json.dumps(tiny.generate("Hello", max_tokens=3, logits_processor=given).trace()))
        assert "processor" in str(record["parameters"]["logits_processor"])
        with pytest.raises(
            InvalidRequestError, match=r"the trace was made with logits_processor=.*which it cannot hold"
        ):
            trace.replay(record, tiny)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[1]", "is no trace: write one with json.dump"),
        (b'{"trace": 2}', "is a trace of version 2, and this candlewick reads version 1"),
        (b'{"trace": 1}', "has no good 'model': the trace is damaged or not complete"),
    ],
)
def test_what_is_no_trace(tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "t.json"
    path.write_bytes(content)
    with pytest.raises(InvalidRequestError, match=text):
        trace.load(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", {"sha256": 5, "path": "x"}),
        ("engine", {"engine": "native"}),
        ("ids", [1, "2"]),
        ("ids", [1.5]),
        ("logprobs", [None]),
        ("prompt_ids", {"1": 1}),
        ("parameters", []),
    ],
)
def test_damaged_traces_are_found_when_they_are_read(tiny: Generator, tmp_path: Path, name: str, value: object) -> None:
    record = tiny.generate("Hello", max_tokens=3).trace()
    path = tmp_path / "t.json"
    path.write_text(json.dumps(record))
    assert trace.load(path) == record
    path.write_text(json.dumps({**record, name: value}))
    with pytest.raises(InvalidRequestError, match=f"has no good '{name}'"):
        trace.load(path)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"parameters": {"warmth": 1}}, "has a parameter that this candlewick does not take: .*warmth"),
        ({"parameters": {"temperature": "hot"}}, "does not take: temperature must be float, not str"),
        ({"parameters": {"temperature": -1}}, "temperature is -1"),
        ({"prompt_ids": ["a", {}]}, "does not take"),
        ({"prompt_ids": []}, "the prompt is an empty list"),
        ({"prompt_ids": [10**9]}, "the prompt holds the token id 1000000000"),
        ({"parameters": {"logit_bias": {"5": "x"}}}, r"does not take: logit_bias\[5\] must be float, not str"),
    ],
)
def test_a_trace_is_not_trusted(tiny: Generator, change: dict[str, Any], text: str) -> None:
    record = tiny.generate("Hello", max_tokens=3).trace()
    with pytest.raises(InvalidRequestError, match=text):
        trace.replay({**record, **change}, tiny)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, **environment},
        timeout=60,
    )


def test_the_command(tmp_path: Path, demo: Generator) -> None:
    path = tmp_path / "rain.json"
    done = run("run", "--model", "demo", "--seed", "3", "--trace", str(path), "rain")
    text = demo.generate("rain", seed=3).text
    assert (done.stdout, done.returncode, done.stderr) == (text + "\n", 0, "")
    record = json.loads(path.read_text())
    same = run("replay", str(path), CANDLEWICK_ISA="scalar")
    assert (same.stdout, same.returncode, same.stderr) == (f"the same {len(record['ids'])} tokens\n", 0, "")
    found = demo.generate("rain", seed=3)
    record["ids"][4] = 300
    record["logprobs"][4] = math.log(0.25)
    record["candlewick"] = "0.0.1"
    path.write_text(json.dumps(record))
    other = run("replay", str(path))
    assert other.returncode == 1
    token = found.tokens[4]
    assert other.stdout.startswith(f"token 4 differs: expected 300 ({demo.tokenizer.decode([300])!r}")
    assert "logprob -1.3863, 25 %" in other.stdout and f"found {token.id} (" in other.stdout
    assert f"another version: candlewick {__version__}, and the trace is of 0.0.1" in other.stderr


def test_the_command_with_another_model(tmp_path: Path) -> None:
    gen = Generator(tiny_model(tmp_path / "a.gguf", seed=1))
    record = gen.generate("Hi", max_tokens=9, seed=1).trace()
    path = tmp_path / "t.json"
    path.write_text(json.dumps(record))
    other = tiny_model(tmp_path / "b.gguf", seed=2)
    done = run("replay", str(path), "--model", str(other))
    assert done.returncode == 1 and "differs" in done.stdout
    assert f"another model: SHA-256 {hashlib.sha256(other.read_bytes()).hexdigest()}" in done.stderr
    (tmp_path / "a.gguf").rename(tmp_path / "moved.gguf")
    done = run("replay", str(path))
    assert done.returncode == 1 and "which is not here: name it with --model" in done.stderr and done.stdout == ""
    assert run("replay", str(path), "--model", str(tmp_path / "moved.gguf")).stdout == "the same 9 tokens\n"
    done = run("replay", str(tmp_path / "none.json"))
    assert done.returncode == 1 and "No such file" in done.stderr and "Traceback" not in done.stderr


def test_probabilities_on_the_command_line(demo: Generator) -> None:
    plain = run("run", "--model", "demo", "--seed", "3", "--logprobs", "rain")
    text = demo.generate("rain", seed=3).text
    assert plain.stdout == text + "\n", "no colours where it is no terminal"
    result = json.loads(run("run", "--model", "demo", "--seed", "3", "--logprobs", "--json", "rain").stdout)
    content = result["logprobs"]["content"]
    assert "".join(token["token"] for token in content) == text and len(content[0]["top_logprobs"]) == 5
    assert "logprobs" not in json.loads(run("run", "--model", "demo", "--seed", "3", "--json", "rain").stdout)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_colours_on_a_terminal(demo: Generator, no_color: str, coloured: bool) -> None:
    import pty

    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "", "NO_COLOR": no_color}
    command = [*COMMAND, "run", "--model", "demo", "--seed", "3", "--logprobs", "rain"]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=follower, stderr=subprocess.STDOUT, env=environment
    )
    os.close(follower)
    seen = b""
    try:
        while True:
            try:
                more = os.read(leader, 4096)
            except OSError:
                break
            if not more:
                break
            seen += more
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(leader)
    assert (b"\x1b[38;5;" in seen) == coloured
    text = re.sub(rb"\x1b\[[0-9;]*m", b"", seen).decode().replace("\r\n", "\n")
    assert text == demo.generate("rain", seed=3).text + "\n"


def test_samplers_on_the_command_line(demo: Generator) -> None:
    flags = {
        "--typical-p": 0.7,
        "--xtc-probability": 0.5,
        "--xtc-threshold": 0.2,
        "--dry-multiplier": 0.8,
        "--no-repeat-ngram-size": 2,
        "--min-tokens": 20,
    }
    options = {flag[2:].replace("-", "_"): value for flag, value in flags.items()}
    text = demo.generate("rain", seed=3, max_tokens=40, bad_words=["the", "a"], **options).text
    words = [str(part) for pair in flags.items() for part in pair]
    done = run(
        *("run", "--model", "demo", "--seed", "3", "--max-tokens", "40", "--bad-word", "the", "--bad-word", "a"),
        *words,
        "rain",
    )
    assert done.stdout == text + "\n", done.stderr
