"""Constrained texts end within `max_tokens`, complete: judged by `jsonschema`, `re` and `lark`."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from candlewick import Generator, trace

PROMPT = "Write a haiku about rain"


def object_of(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


LEAVES = st.one_of(
    st.sampled_from(
        [{"type": "null"}, {"type": "boolean"}, {"type": "string"}, {"type": "integer"}, {"type": "number"}]
    ),
    st.integers(0, 12).map(lambda n: {"type": "string", "minLength": n}),
    st.integers(-200, 200).map(lambda n: {"type": "integer", "minimum": n}),
    st.lists(st.text('abé" \\', max_size=9), min_size=1, max_size=4).map(lambda values: {"enum": values}),
    st.sampled_from([{"type": "string", "format": name} for name in ("date", "uuid", "ipv4", "date-time")]),
    st.sampled_from(["^[a-c]{2,}[0-9]$", "q", "^(ab)*$"]).map(lambda p: {"type": "string", "pattern": p}),
)
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.tuples(inner, st.integers(0, 3)).map(lambda t: {"type": "array", "items": t[0], "minItems": t[1]}),
        st.lists(inner, min_size=1, max_size=3).map(lambda options: {"anyOf": options}),
        st.tuples(st.dictionaries(st.sampled_from("abcd"), inner, max_size=3), st.sampled_from(["all", "none"])).map(
            lambda t: object_of(t[0], list(t[0]) if t[1] == "all" else [])
        ),
    ),
    max_leaves=5,
)


PATTERNS = {"^[a-c]{2,}[0-9]$": "aa0", "q": "q", "^(ab)*$": ""}
FORMATS = {"date": "2000-01-01", "uuid": "0" * 36, "ipv4": "0.0.0.0", "date-time": "2000-01-01T00:00:00Z"}


def shortest(schema: dict[str, Any]) -> int:
    """Bytes of the shortest text of one of `SCHEMAS`."""
    if "enum" in schema:
        return min(len(json.dumps(value, ensure_ascii=False).encode()) for value in schema["enum"])
    if "anyOf" in schema:
        return min(shortest(option) for option in schema["anyOf"])
    match schema["type"]:
        case "null" | "boolean":
            return 4
        case "integer" | "number":
            return len(str(max(schema.get("minimum", 0), 0)))
        case "string" if "pattern" in schema:
            return 2 + len(PATTERNS[schema["pattern"]])
        case "string" if "format" in schema:
            return 2 + len(FORMATS[schema["format"]])
        case "string":
            return 2 + schema.get("minLength", 0)
        case "array":
            n = schema["minItems"]
            return 2 + n * shortest(schema["items"]) + max(n - 1, 0)
        case _:
            n = len(schema["required"])
            return 2 + sum(4 + shortest(schema["properties"][name]) for name in schema["required"]) + max(n - 1, 0)


@settings(deadline=None, max_examples=150)
@given(schema=SCHEMAS, more=st.sampled_from([0, 1, 2, 5, 20, 100]), seed=st.integers(0, 2**32))
def test_json_is_whole(demo: Generator, bpe: Generator, schema: dict[str, Any], more: int, seed: int) -> None:
    """No text needs more tokens than it has bytes."""
    jsonschema = pytest.importorskip("jsonschema")
    kind = jsonschema.Draft202012Validator
    validator = kind(schema, format_checker=kind.FORMAT_CHECKER)
    n = shortest(schema) + more
    assume(n < 400)
    for model in (demo, bpe):
        answer = model.generate(PROMPT, json_schema=schema, temperature=1.5, seed=seed, max_tokens=n)
        assert answer.finish_reason == "stop", answer
        validator.validate(json.loads(answer.text))
        assert answer.parsed == json.loads(answer.text)


PERSON = object_of(
    {
        "name": {"type": "string"},
        "tags": {"type": "array", "items": {"type": "string", "minLength": 3}, "minItems": 2},
        "home": object_of({"town": {"enum": ["Oulu", "Rome"]}, "since": {"type": "integer"}}, ["town"]),
    },
    ["name", "tags", "home"],
)


BUDGETS = [*range(10, 64), 80, 300]


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.5, 3.0])
def test_every_budget_that_is_enough_is_enough(model: Generator, temperature: float) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    texts = {
        n: model.generate(PROMPT, json_schema=PERSON, temperature=temperature, seed=n, max_tokens=n) for n in BUDGETS
    }
    for n, answer in texts.items():
        assert answer.usage.completion_tokens <= n
        if answer.finish_reason == "stop":
            jsonschema.validate(json.loads(answer.text), PERSON)
        else:
            assert (answer.finish_reason, answer.parsed) == ("length", None)
    finished = [n for n, answer in texts.items() if answer.finish_reason == "stop"]
    # From some budget on, which depends on the vocabulary, they all do; {"name":"","tags":["aaa","aaa"],"home":...}
    assert finished == [n for n in BUDGETS if n >= finished[0]]
    assert 12 < finished[0] <= len('{"name":"","tags":["aaa","aaa"],"home":{"town":"Oulu"}}')


def test_the_end_of_the_context_is_a_budget(tiny: Generator) -> None:
    prompt = [40] * (tiny.info["n_ctx"] - 60)
    schema = {"type": "array", "items": {"type": "string", "minLength": 8}, "minItems": 2}
    for seed in range(10):
        answer = tiny.generate(prompt, json_schema=schema, temperature=1.5, seed=seed)
        assert answer.finish_reason == "stop"
        assert len(answer.parsed) >= 2


@pytest.mark.parametrize("regex", ["[a-z]{12,}[0-9]", "(one|three)+ (two|four)", "[a-z ]{3,}[.]", "<(.{5})*>"])
def test_regular_expressions(model: Generator, regex: str) -> None:
    for n in [20, 24, 40]:
        for seed in range(8):
            answer = model.generate(PROMPT, regex=regex, temperature=1.5, seed=seed, max_tokens=n)
            assert answer.finish_reason == "stop"
            assert re.fullmatch(regex, answer.text)


LARK = """
start: expr
expr: term (("+" | "-") term)*
term: NUMBER | NAME | "(" expr ")" | NAME "(" [expr ("," expr)*] ")"
NUMBER: /[0-9]{2,}/
NAME: /[a-z]+/
"""


def test_grammars(model: Generator) -> None:
    lark = pytest.importorskip("lark")
    parser = lark.Lark(LARK, parser="earley")
    for n in [2, 3, 10, 40, 150]:
        for seed in range(6):
            answer = model.generate(PROMPT, grammar=LARK, temperature=1.5, seed=seed, max_tokens=n)
            assert answer.finish_reason == "stop"
            parser.parse(answer.text)


def find(place: str, since: int, kind: Literal["town", "lake"] = "town") -> str:
    """A place."""
    return place


def note(text: str) -> str:
    """A note."""
    return text


def test_calls_are_whole(model: Generator) -> None:
    for n in [110, 120, 150, 300]:
        for seed in range(4):
            answer = model.generate(
                [1, 5], tools=[find, note], tool_choice="required", temperature=1.5, seed=seed, max_tokens=n
            )
            assert answer.finish_reason == "tool_calls"
            assert all(call.name in ("find", "note") for call in answer.tool_calls)
    # Words that are as many as they may be are words cut off.
    words = model.generate([1, 5], tools=[find], seed=1, max_tokens=5, min_tokens=5)
    assert words.finish_reason == "length" and len(words.tokens) == 5


def test_the_end_comes_only_when_it_must(demo: Generator) -> None:
    """With room to spare the text is what it is with more of it."""
    options = {"json_schema": {"type": "array", "items": {"type": "string"}}, "temperature": 1.5}
    for seed in range(6):
        long = demo.generate(PROMPT, seed=seed, max_tokens=300, **options)
        n = long.usage.completion_tokens
        short = demo.generate(PROMPT, seed=seed, max_tokens=150, **options)
        ids = [[token.id for token in answer.tokens] for answer in (long, short)]
        same = next((i for i, (a, b) in enumerate(zip(*ids, strict=False)) if a != b), len(ids[1]))
        assert same >= min(n, 120)
        assert short.finish_reason == "stop"


def test_it_is_the_same_every_time(demo: Generator) -> None:
    """Whatever is guessed, kept from before, run beside it or on other threads."""
    jobs: list[dict[str, Any]] = [
        {"json_schema": PERSON, "max_tokens": 45 + 5 * seed, "seed": seed, "temperature": 1.5} for seed in range(5)
    ]
    jobs += [{"regex": "[a-z]{12,}[0-9]", "max_tokens": 16, "seed": seed} for seed in range(3)]
    alone = []
    for job in jobs:
        demo.clear_cache()
        alone.append(demo.generate(PROMPT, speculative=False, **job).text)
    for speculative in ("auto", 1, 8):
        assert [demo.generate(PROMPT, speculative=speculative, **job).text for job in jobs] == alone
    streams = [demo.stream(PROMPT, **job) for job in jobs]
    running = list(streams)
    while running:
        running = [stream for stream in running if next(stream, None) is not None]
    assert [stream.text for stream in streams] == alone
    threaded = Generator("demo", n_threads=2)
    assert [threaded.generate(PROMPT, **job).text for job in jobs] == alone


def test_other_limits_go_first(demo: Generator) -> None:
    stopped = demo.generate(PROMPT, json_schema=PERSON, max_tokens=60, stop='"tags"', seed=1)
    assert (stopped.finish_reason, stopped.stop_reason) == ("stop", '"tags"')
    assert '"tags"' not in stopped.text and stopped.parsed is None
    # What is forbidden is not written, at the price of the end.
    quote = [i for i in range(demo.tokenizer.vocab_size) if '"' in demo.tokenizer.decode([40, i])]
    cut = demo.generate(PROMPT, regex='[a-z]+"', max_tokens=10, seed=1, logit_bias=dict.fromkeys(quote, float("-inf")))
    assert (len(cut.tokens), cut.finish_reason) == (10, "length")
    assert '"' not in cut.text
    # An end token that comes no sooner than `min_tokens`.
    for seed in range(5):
        answer = demo.generate(PROMPT, regex="(ab)+", min_tokens=19, max_tokens=20, seed=seed)
        assert re.fullmatch("(ab)+", answer.text) and answer.finish_reason == "stop"


def test_a_trace_of_one_is_repeated(tiny: Generator) -> None:
    answer = tiny.generate(PROMPT, json_schema=PERSON, max_tokens=80, seed=4, temperature=1.5)
    assert answer.finish_reason == "stop"
    assert trace.replay(answer.trace(), tiny) is None
