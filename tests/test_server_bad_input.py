"""What no client should send: every endpoint answers it with a 4xx in OpenAI's shape that says what is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from serving import HAIKU, Serving, serving

from candlewick import Generator
from candlewick.server import schemas
from candlewick.server.checking import check
from candlewick.server.errors import ApiError

CHAT, COMPLETION, RESPONSE = "/v1/chat/completions", "/v1/completions", "/v1/responses"
GOOD: dict[str, dict[str, Any]] = {
    CHAT: HAIKU,
    COMPLETION: {"model": "demo", "prompt": "tea", "max_tokens": 2},
    RESPONSE: {"model": "demo", "input": "Write a haiku about tea"},
}
SCHEMAS = {CHAT: schemas.CHAT, COMPLETION: schemas.COMPLETION, RESPONSE: schemas.RESPONSE}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture(scope="module")
def server(demo: Generator) -> Iterator[Serving]:
    with serving(demo) as running:
        yield running


def error(response: httpx.Response, status: int = 400) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert set(body) == {"error"} and set(body["error"]) == {"message", "type", "param", "code"}
    assert isinstance(body["error"]["message"], str) and isinstance(body["error"]["type"], str)
    return dict(body["error"])


@pytest.mark.parametrize("path", GOOD)
@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"model": "demo"', "not JSON"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b'{"model": "\xc3("}', "not UTF-8"),
        (b"[" * 200_000, "too deep"),
        (b'{"a":' * 100_000, "too deep"),
        (b'{"model": NaN}', "NaN is no number of JSON"),
        (b'{"model": -Infinity}', "no number of JSON"),
        (b'{"model": 1e999}', "1e999 is no number of double precision"),
        (b'{"model": "\\ud800"}', "lone surrogate"),
        (b"1" * 5000, "the body is"),
        (b"[]", "the body is an array of 0 items, expected an object"),
        (b"null", "the body is null, expected an object"),
        (b'"model"', "expected an object"),
        (b"{}", "`model` is missing"),
        (b'{"model": null}', "`model` is null, expected a string"),
        (b'{"model": ["demo"]}', "`model` is an array of 1 items, expected a string"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_bodies(server: Serving, path: str, body: bytes, message: str) -> None:
    response = httpx.post(server.url + path, content=body, headers={"content-type": "application/json"})
    found = error(response)["message"]
    assert message in found or (message.startswith("`model`") and "is missing" in found)


@pytest.mark.parametrize("path", GOOD)
@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonp"])
def test_other_types_of_content(server: Serving, path: str, kind: str | None) -> None:
    headers = {} if kind is None else {"content-type": kind}
    response = httpx.post(server.url + path, content=json.dumps(GOOD[path]).encode(), headers=headers)
    assert "expected application/json" in error(response, 415)["message"]


COMMON = [
    ({"model": "gpt-4o"}, 404, "model", "does not exist here, expected 'demo'"),
    ({"model": ""}, 404, "model", "does not exist"),
    ({"frobnicate": 1}, 400, "frobnicate", "unknown parameter: `frobnicate`"),
    ({"temperature": -0.1}, 400, "temperature", "`temperature` is -0.1, expected a number from 0 to 2"),
    ({"temperature": "1"}, 400, "temperature", '`temperature` is "1", expected a number'),
    ({"temperature": True}, 400, "temperature", "`temperature` is true, expected a number"),
    ({"temperature": 10**400}, 400, "temperature", "very many digits"),
    ({"top_p": 1.1}, 400, "top_p", "expected a number from 0 to 1"),
    ({"stream": "yes"}, 400, "stream", "expected true or false"),
    ({"stream_options": []}, 400, "stream_options", "expected an object"),
    ({"stream_options": {"include_usages": True}}, 400, "stream_options.include_usages", "unknown parameter"),
]
SAMPLING = [
    ({"max_tokens": 0}, 400, "max_tokens", "expected an integer from 1"),
    ({"max_tokens": 10**9}, 400, "max_tokens", "the context of this model has 1024 tokens"),
    ({"max_tokens": 10**400}, 400, "max_tokens", "a very large number"),
    ({"max_tokens": 1.5}, 400, "max_tokens", "`max_tokens` is 1.5, expected an integer"),
    ({"max_tokens": [1]}, 400, "max_tokens", "expected an integer"),
    ({"n": 0}, 400, "n", "expected an integer from 1 to 16"),
    ({"n": 10**6}, 400, "n", "expected an integer from 1 to 16"),
    ({"frequency_penalty": 2.1}, 400, "frequency_penalty", "from -2 to 2"),
    ({"presence_penalty": -3}, 400, "presence_penalty", "from -2 to 2"),
    ({"seed": 0.5}, 400, "seed", "expected an integer"),
    ({"seed": 2**64}, 400, "seed", "expected an integer from"),
    ({"stop": 3}, 400, "stop", "expected a string or an array of strings"),
    ({"stop": ["a", 3]}, 400, "stop[1]", "`stop[1]` is 3, expected a string"),
    ({"stop": ""}, 400, "stop", "`stop` has 0 characters, expected at least 1"),
    ({"stop": ["a"] * 17}, 400, "stop", "`stop` has 17 items, expected 0 to 16"),
    ({"logit_bias": {"a": 1}}, 400, "the key", 'the key "a" of logit_bias'),
    ({"logit_bias": {"5": 101}}, 400, "logit_bias.5", "from -100 to 100"),
    ({"logit_bias": {"99999999": 1}}, 400, "logit_bias", "the vocabulary has"),
    ({"top_k": -1}, 400, "top_k", "from 0"),
]
OWN: dict[str, list[tuple[dict[str, Any], int, str, str]]] = {
    CHAT: [
        ({"messages": []}, 400, "messages", "`messages` has 0 items, expected at least 1"),
        ({"messages": "Hi"}, 400, "messages", "expected an array"),
        ({"messages": ["Hi"]}, 400, "messages[0]", '`messages[0]` is "Hi", expected an object'),
        ({"messages": [{}]}, 400, "messages[0].role", "`messages[0].role` is missing"),
        (
            {"messages": [{"role": "wizard", "content": "x"}]},
            400,
            "messages[0].role",
            'is "wizard", expected "system", "developer", "user", "assistant" or "tool"',
        ),
        ({"messages": [{"role": ["user"], "content": "x"}]}, 400, "messages[0].role", "is an array"),
        ({"messages": [{"role": "user"}]}, 400, "messages[0].content", "`messages[0].content` is missing"),
        ({"messages": [{"role": "user", "content": None}]}, 400, "messages[0].content", "is null"),
        ({"messages": [{"role": "user", "content": []}]}, 400, "messages[0].content", "has 0 items"),
        ({"messages": [{"role": "assistant"}]}, 400, "messages[0].content", "neither content nor tool_calls"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "messages[0].tool_call_id", "is missing"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            400,
            "messages[0].content[0].type",
            'is "image_url", expected "text"',
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": {}}]}]},
            400,
            "messages[0].tool_calls[0].function.name",
            "is missing",
        ),
        (
            {
                "messages": [
                    {
                        "role": "assistant",
                        "tool_calls": [
                            {"id": "a", "type": "function", "function": {"name": "f", "arguments": "not JSON"}}
                        ],
                    }
                ]
            },
            400,
            "",
            "has arguments that are not JSON",
        ),
        ({"messages": [{"role": "user", "content": "x" * 300_000}]}, 400, "messages", "context"),
        ({"max_tokens": 5, "max_completion_tokens": 5}, 400, "max_tokens", "give one of them"),
        ({"top_logprobs": 2}, 400, "top_logprobs", "without `logprobs`"),
        ({"logprobs": True, "top_logprobs": 21}, 400, "top_logprobs", "from 0 to 20"),
        ({"response_format": {"type": "xml"}}, 400, "response_format.type", '"text", "json_object" or "json_schema"'),
        ({"response_format": {"type": "json_schema"}}, 400, "response_format.json_schema", "is missing"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}}},
            400,
            "",
            "not",
        ),
        ({"tools": [{"type": "function"}]}, 400, "tools[0].function", "is missing"),
        ({"tools": [{"type": "retrieval"}]}, 400, "tools[0].type", 'expected "function"'),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, 400, "tools[0].function.name", "matches"),
        ({"tools": [TOOL], "tool_choice": "perhaps"}, 400, "tool_choice", '"perhaps"'),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}}, 400, "tool_choice", "'g'"),
        ({"tools": [TOOL, TOOL]}, 400, "tools", "two functions called 'f'"),
        ({"tools": [TOOL], "response_format": {"type": "json_object"}}, 400, "", "give one"),
        ({"tool_choice": "required"}, 400, "tool_choice", "without tools"),
        ({"functions": []}, 400, "functions", "unknown parameter"),
        ({"modalities": ["audio"]}, 400, "modalities[0]", 'expected "text"'),
    ],
    COMPLETION: [
        ({"prompt": []}, 400, "prompt", "items"),
        ({"prompt": 5}, 400, "prompt", "expected a string"),
        ({"prompt": [1, "a"]}, 400, "prompt[1]", "expected an integer"),
        ({"prompt": [-1]}, 400, "prompt[0]", "from 0"),
        ({"prompt": [2_000_000_000]}, 400, "", "vocabulary"),
        ({"prompt": ["a"] * 17}, 400, "prompt", "expected 1 to 16"),
        ({"prompt": ["a"] * 16, "n": 16}, 400, "n", "256 answers are asked for"),
        ({"best_of": 3}, 400, "best_of", "expected n"),
        ({"echo": True}, 400, "echo", "expected false"),
        ({"suffix": "x"}, 400, "suffix", 'expected ""'),
        ({"logprobs": True}, 400, "logprobs", "expected an integer"),
    ],
    RESPONSE: [
        ({"input": []}, 400, "input", "items"),
        ({"input": [{"role": "wizard", "content": "x"}]}, 400, "input[0].role", "wizard"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, 400, "", "input_image"),
        ({"input": [{"type": "function_call_output", "call_id": "a"}]}, 400, "input[0]", ""),
        ({"max_output_tokens": 10**9}, 400, "max_output_tokens", "the context"),
        ({"previous_response_id": "resp_1"}, 400, "previous_response_id", "unknown parameter"),
        ({"tools": [{"type": "web_search"}]}, 400, "tools[0].type", "web_search"),
        ({"text": {"format": {"type": "json_schema"}}}, 400, "text.format.name", "is missing"),
        ({"background": True}, 400, "background", "expected false"),
    ],
}
CASES = [(path, *case) for path in GOOD for case in [*COMMON, *(SAMPLING if path != RESPONSE else []), *OWN[path]]]


@pytest.mark.parametrize(("path", "change", "status", "param", "message"), CASES)
def test_fields(server: Serving, path: str, change: dict[str, Any], status: int, param: str, message: str) -> None:
    found = error(server.post(path, GOOD[path] | change), status)
    assert message in found["message"]
    assert (found["param"] or "").startswith(param)
    # Streamed or not: an error that is known before the answer begins has a status of its own.
    if "stream" not in change:
        assert error(server.post(path, GOOD[path] | {"stream": True} | change), status) == found


def test_what_is_published_is_what_is_checked(server: Serving) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    document = httpx.get(f"{server.url}/openapi.json").json()
    judges = {}
    for path in GOOD:
        reference = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        schema = document["components"]["schemas"][reference.rsplit("/", 1)[1]]
        jsonschema.Draft202012Validator.check_schema(schema)
        judges[path] = jsonschema.Draft202012Validator(schema)
    # That there is no such model is found out later.
    changes = [(path, change) for path, change, status, *_ in CASES if status != 404] + [(path, {}) for path in GOOD]
    for path, change in changes:
        body = GOOD[path] | change
        try:
            check(body, SCHEMAS[path])
        except ApiError as refused:
            assert not judges[path].is_valid(body), (change, refused)
        else:
            assert judges[path].is_valid(body), change


@pytest.mark.parametrize("path", GOOD)
def test_null_is_the_same_as_nothing(server: Serving, path: str) -> None:
    names = ("temperature", "top_p", "stream", "metadata", "user", "stream_options", "tools", "stop", "logit_bias")
    nothing = {name: None for name in names if path == CHAT or name not in ("metadata", "tools", "stop", "logit_bias")}
    if path == COMPLETION:
        nothing.pop("metadata", None)
    assert server.post(path, GOOD[path] | nothing).status_code == 200


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/models", "/nowhere", "/v1", "/v1/models/other", "/%00", "/\u2603"]
)
def test_other_methods_and_places(server: Serving, path: str) -> None:
    for method in ("DELETE", "PUT", "PATCH", "BREW"):
        error(httpx.request(method, server.url + path), 405 if path.startswith(("/v1/chat", "/v1/models")) else 404)
    if not path.startswith("/v1/models"):
        error(httpx.get(server.url + path), 405 if path == "/v1/chat/completions" else 404)
    elif path != "/v1/models":
        assert error(httpx.get(server.url + path), 404)["code"] == "model_not_found"


@pytest.mark.parametrize("depth", [100, 400, 900, 3000, 8000])
def test_deep_objects_where_any_are_taken(server: Serving, depth: int) -> None:
    schema = '{"type":"object","properties":{"a":' * depth + '{"type":"string"}' + "}}" * depth
    function = f'{{"name": "f", "parameters": {schema}}}'
    for path, fields in [
        (CHAT, f'"tools": [{{"type": "function", "function": {function}}}], "tool_choice": "required"'),
        (CHAT, f'"response_format": {{"type": "json_schema", "json_schema": {{"name": "x", "schema": {schema}}}}}'),
        (CHAT, f'"metadata": {schema}'),
        (RESPONSE, f'"metadata": {schema}'),
        (RESPONSE, f'"tools": [{{"type": "function", {function[1:]}]'),
        (RESPONSE, f'"text": {{"format": {{"type": "json_schema", "name": "x", "schema": {schema}}}}}'),
    ]:
        rest = json.dumps(GOOD[path] | {"max_tokens" if path == CHAT else "max_output_tokens": 3})[1:]
        body = f"{{{fields}, {rest}".encode()
        answer = httpx.post(server.url + path, content=body, headers={"content-type": "application/json"}, timeout=60)
        assert answer.status_code == 200 or error(answer)["message"], answer.text


def test_whole_numbers_may_have_a_point(server: Serving) -> None:
    body = b'{"model": "demo", "prompt": [5.0, 6], "max_tokens": 2.0, "n": 1e0, "seed": 3.0}'
    answer = httpx.post(server.url + COMPLETION, content=body, headers={"content-type": "application/json"})
    assert answer.json()["usage"]["completion_tokens"] == 2


@pytest.mark.thread_unsafe(reason="counts what one server does")
def test_after_all_that_it_answers(server: Serving) -> None:
    assert server.is_idle()
    for path, body in GOOD.items():
        assert server.post(path, body).status_code == 200
