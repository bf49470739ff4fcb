"""Functions that a model may call: how they are described, listed, called, and what becomes of calls."""

from __future__ import annotations

import dataclasses
import enum
import functools
import json
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import pytest
from make_gguf import tiny_model
from phi_templates import TEMPLATES
from tokenizer_vocabularies import KINDS

from candlewick import Generator, InvalidRequestError, ToolCall
from candlewick.tools import describe

PROMPT = "Write a haiku about rain"


class Unit(enum.Enum):
    CELSIUS = "C"
    FAHRENHEIT = "F"


@dataclasses.dataclass
class Place:
    name: Annotated[str, "as on a map", re.compile("")]
    north: bool = True


def weather(place: Literal["Oulu", "Rome"], unit: Unit = Unit.CELSIUS, days: int = 1) -> str:
    """The weather at a place.

    It is made up.

    Args:
        place: Where; a city
            of Europe.
        days (int): How many.

    Returns:
        A sentence.
    """
    return f"{place} {unit} {days}"


def pay(
    to: Optional[Literal["me", "you"]],  # noqa: UP045
    coins: list[Literal[1, 2]],
    notes: dict[str, bool],
    rush: bool,
) -> None: ...


def visit(place: Place) -> None: ...


def now() -> str:
    """The time."""
    return "noon"


DICTIONARY = {
    "type": "function",
    "function": {
        "name": "look-up",
        "description": "Look up a word",
        "parameters": {
            "type": "object",
            "properties": {"entry": {"$ref": "#/$defs/entry"}},
            "required": ["entry"],
            "additionalProperties": False,
            "$defs": {"entry": {"type": "string", "maxLength": 5}},
        },
    },
}
TOOLS = [weather, pay, visit, now, DICTIONARY]


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    """Random weights, with the vocabulary and the template of Phi-4-mini."""
    vocab = KINDS["gpt-4o"].vocab()
    vocab.chat_template = TEMPLATES["Phi-4-mini"].source
    return Generator(tiny_model(tmp_path_factory.mktemp("m") / "mini.gguf", vocab=vocab, seed=3, context=2048))


@pytest.fixture(scope="module", params=["demo", "mini"])
def model(request: pytest.FixtureRequest) -> Generator:
    return request.getfixturevalue(request.param)


def test_a_function_is_described_by_its_signature_and_docstring() -> None:
    tool = describe(weather)
    assert (tool.name, tool.description) == ("weather", "The weather at a place.\n\nIt is made up.")
    assert tool.parameters == {
        "type": "object",
        "properties": {
            "place": {"enum": ["Oulu", "Rome"], "description": "Where; a city of Europe."},
            "unit": {"enum": ["C", "F"]},
            "days": {"type": "integer", "description": "How many.", "default": 1},
        },
        "required": ["place"],
        "additionalProperties": False,
    }
    assert describe(visit).parameters["$defs"]["Place"]["properties"]["name"]["description"] == "as on a map"


@pytest.mark.parametrize("choice", ["required", {"name": "pay"}, {"type": "function", "function": {"name": "look-up"}}])
def test_arguments_always_fit(model: Generator, choice: Any) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schemas = {describe(tool).name: describe(tool).parameters for tool in TOOLS}
    names = set()
    for seed in range(25):
        # The demo model's context has no room for the list of all of them.
        prompt = PROMPT if model.n_ctx > 1024 else model.tokenizer.encode(PROMPT)
        answer = model.generate(prompt, tools=TOOLS, tool_choice=choice, temperature=1.5, seed=seed, max_tokens=500)
        if answer.finish_reason == "length":
            assert answer.tool_calls == []
            continue
        assert answer.finish_reason == "tool_calls" and answer.tool_calls
        for call in answer.tool_calls:
            jsonschema.validate(call.arguments, schemas[call.name])
            names.add(call.name)
        ids = {call.id for call in answer.tool_calls}
        assert len(ids) == len(answer.tool_calls) and all(re.fullmatch("call_[0-9a-f]{24}", i) for i in ids)
        assert pickle.loads(pickle.dumps(answer)) == answer
    if choice == "required":
        assert len(names) > 2
    else:
        assert names == {"pay" if "name" in choice else "look-up"}


def test_words_or_calls(model: Generator, demo: Generator) -> None:
    """In words an answer is free; where it begins as a call, it is one, with arguments that fit."""
    prefix = "" if model is demo else "functools"
    start = {i: 30.0 for i in range(model.tokenizer.vocab_size) if model.tokenizer.decode([i]) == (prefix[:1] or "[")}
    assert start
    words = calls = 0
    for seed in range(12):
        answer = model.generate(PROMPT, tools=[now], seed=seed, max_tokens=150)
        assert answer.tool_calls == []
        words += answer.finish_reason == "stop"
        # Whatever begins the call, the rest of it follows.
        answer = model.generate(PROMPT, tools=[now], seed=seed, max_tokens=300, logit_bias=start, temperature=0.2)
        if answer.text.startswith(prefix + "[") and answer.finish_reason != "length":
            assert answer.finish_reason == "tool_calls"
            assert all((call.name, call.arguments) == ("now", {}) for call in answer.tool_calls)
            calls += 1
    assert words or model is not demo
    assert calls or model is not demo


def test_none_is_as_if_there_were_no_tools(demo: Generator) -> None:
    plain = demo.generate(PROMPT, seed=3)
    answer = demo.generate(PROMPT, seed=3, tools=TOOLS, tool_choice="none")
    assert (answer.text, answer.usage.prompt_tokens) == (plain.text, plain.usage.prompt_tokens)


class Spy:
    """What the core is given."""

    def __init__(self, generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
        self.prompts: list[Any] = []
        self.generator = generator
        native = generator._native
        spy = self

        class Native:
            def stream(self, prompt: Any, **arguments: Any) -> Any:
                spy.prompts.append(prompt)
                return native.stream(prompt, **arguments)

            def __getattr__(self, name: str) -> Any:
                return getattr(native, name)

        monkeypatch.setattr(generator, "_native", Native())

    def shown(self, prompt: Any, **arguments: Any) -> str:
        self.generator.stream(prompt, **arguments).cancel()
        return self.generator.apply_chat_template(self.prompts[-1])


def test_the_template_lists_the_functions_where_it_can(mini: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    text = Spy(mini, monkeypatch).shown(
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}], tools=[now]
    )
    system, listed, rest = re.fullmatch(r"<\|system\|>(.*)<\|tool\|>(.*)<\|/tool\|>(.*)", text, re.DOTALL).groups()
    assert json.loads(listed) == [{"name": "now", "description": "The time.", "parameters": describe(now).parameters}]
    assert system.startswith("Be brief.\n") and 'functools[{"name": "...", "arguments": {...}}]' in system
    assert rest == "<|end|><|user|>Hi<|end|><|assistant|>"


def test_elsewhere_the_system_message_lists_them(tiny: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    text = Spy(tiny, monkeypatch).shown("Hi", tools=[now], tool_choice="required")
    assert "These functions can be called:\n" + json.dumps([dataclasses.asdict(describe(now))]) in text
    assert 'a JSON list of the calls: [{"name": "...", "arguments": {...}}]' in text
    assert "Where none is needed" not in text
    assert text.index("These functions") < text.index("Hi")


CALLED = ToolCall("call_1", "now", {})
AGAIN = {"id": "call_2", "type": "function", "function": {"name": "weather", "arguments": '{"place": "Oulu"}'}}
TALK: list[dict[str, Any]] = [
    {"role": "user", "content": "What is it like?"},
    {"role": "assistant", "content": None, "tool_calls": [CALLED, AGAIN]},
    {"role": "tool", "tool_call_id": "call_2", "content": "cold"},
    {"role": "tool", "tool_call_id": "call_1", "content": "noon"},
]


def test_calls_and_results_are_written_out(mini: Generator, tiny: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = '[{"name":"now","arguments":{}},{"name":"weather","arguments":{"place":"Oulu"}}]'
    text = Spy(mini, monkeypatch).shown(TALK)
    assert f"<|assistant|>functools{calls}<|end|><|tool|>cold<|end|><|tool|>noon<|end|><|assistant|>" in text
    text = Spy(tiny, monkeypatch).shown([{"role": "system", "content": "x"}, *TALK])
    assert f"{calls}<|end|>" in text and "functools" not in text
    assert "Result of weather: cold\nResult of now: noon" in text


def test_the_example_runs() -> None:
    example = Path(__file__).parents[1] / "examples" / "tools.py"
    if not example.exists():
        pytest.skip("not in a wheel")
    done = subprocess.run([sys.executable, example], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith("harbour(")


def test_a_stream_of_calls(demo: Generator) -> None:
    stream = demo.stream(PROMPT, tools=[weather, now], tool_choice={"name": "weather"}, seed=1)
    assert stream.tool_calls == []
    for _ in stream:
        assert stream.finish_reason is None or stream.tool_calls
    assert stream.tool_calls[0].name == "weather"
    assert stream.tool_calls is stream.tool_calls
    assert stream.partial == [{"name": call.name, "arguments": call.arguments} for call in stream.tool_calls]
    tokens = demo.stream_tokens(PROMPT, tools=[weather, now], tool_choice="required", seed=1)
    assert "".join(token.text for token in tokens) == tokens.text
    assert tokens.finish_reason == "tool_calls"


def test_a_prompt_of_the_callers_own_is_left_alone(demo: Generator) -> None:
    answer = demo.generate("Call: ", raw=True, tools=[now], tool_choice="required", seed=2, max_tokens=200)
    assert answer.usage.prompt_tokens < 10
    assert all(call.name == "now" for call in answer.tool_calls)
    assert demo.generate([1, 5], tools=[now], tool_choice="required", max_tokens=200, seed=2).text.startswith("[{")


def untyped(x, y: int) -> None: ...  # type: ignore[no-untyped-def]


def starred(*xs: int) -> None: ...


def positional(x: int, /) -> None: ...


def strange(x: Path) -> None: ...


def unknown(x: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"tools": []}, InvalidRequestError, "tools is an empty list, expected at least one function"),
    ({"tools": now}, TypeError, "tools must be a list of functions or schemas, not function"),
    ({"tools": [3]}, TypeError, r"tools\[0\] must be a function or a schema \(dict\), not int"),
    ({"tools": [now, now]}, InvalidRequestError, "tools has two functions called 'now'"),
    ({"tools": [untyped]}, InvalidRequestError, "the parameter `x` of the tool `untyped` has no annotation"),
    (
        {"tools": [starred]},
        InvalidRequestError,
        r"the tool `starred` has the parameter `\*xs: 'int'`, which cannot be given",
    ),
    ({"tools": [positional]}, InvalidRequestError, "the tool `positional` has the parameter `x"),
    (
        {"tools": [strange]},
        InvalidRequestError,
        "x of the tool `strange` is Path, which cannot be described as JSON Schema",
    ),
    ({"tools": [unknown]}, InvalidRequestError, "the signature of the tool `unknown` cannot be read: name 'Nowhere'"),
    ({"tools": [lambda: None]}, InvalidRequestError, "is called '<lambda>', expected 1 to 64 of a-z"),
    ({"tools": [functools.partial(now)]}, InvalidRequestError, "which has no name: wrap it in a function"),
    ({"tools": [{}]}, InvalidRequestError, r"tools\[0\] is {}, expected"),
    ({"tools": [{"name": "a b"}]}, InvalidRequestError, "tools.0. is called 'a b'"),
    ({"tools": [{"name": "a", "parms": {}}]}, InvalidRequestError, "has the key 'parms', expected name, description"),
    ({"tools": [{"name": "a", "parameters": {}}]}, InvalidRequestError, 'are no schema of "type": "object"'),
    (
        {"tools": [{"name": "a", "parameters": {"type": "object", "if": {}}}]},
        InvalidRequestError,
        "the parameters of the tool `a` has `if` at #/if, which cannot be enforced",
    ),
    ({"tools": [now], "tool_choice": "any"}, InvalidRequestError, 'tool_choice is \'any\', expected "auto", "none"'),
    (
        {"tools": [now], "tool_choice": {"name": "then"}},
        InvalidRequestError,
        "tool_choice names 'then', and tools has now",
    ),
    ({"tools": [now], "tool_choice": 3}, InvalidRequestError, "tool_choice is 3"),
    ({"tool_choice": "auto"}, InvalidRequestError, "tool_choice is given without tools"),
    ({"tools": [now], "regex": "a"}, InvalidRequestError, "regex and tools are given"),
    ({"tools": [now], "ignore_eos": True}, InvalidRequestError, "ignore_eos goes on past the end"),
]


@pytest.mark.parametrize(("arguments", "kind", "text"), BAD, ids=[text[:40] for _, _, text in BAD])
def test_bad_tools(demo: Generator, arguments: Any, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        demo.stream(PROMPT, **arguments)


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([{"role": "tool", "content": "x", "tool": 1}], r"prompt\[0\] has the key 'tool', expected role, content"),
        ([{"role": "assistant", "tool_calls": [{}]}], r'prompt\[0\]\["tool_calls"\] holds {}, expected a ToolCall or'),
        (
            [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}],
            "has arguments that are not JSON",
        ),
    ],
)
def test_bad_messages(demo: Generator, messages: Any, text: str) -> None:
    with pytest.raises(InvalidRequestError, match=text):
        demo.stream([{"role": "user", "content": "Hi"}, *messages][1:], tools=[now])


def test_tools_are_given_once(mini: Generator) -> None:
    with pytest.raises(InvalidRequestError, match='the system message has "tools", and tools= is given too'):
        mini.stream([{"role": "system", "content": "x", "tools": "[]"}, {"role": "user", "content": "x"}], tools=[now])
