"""The official client of OpenAI's API talks to the server as it does to OpenAI's."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterator
from typing import Literal

import pytest
from serving import Serving, eventually, serving

openai = pytest.importorskip("openai")
pydantic = pytest.importorskip("pydantic")

from candlewick import Generator  # noqa: E402

pytestmark = pytest.mark.thread_unsafe(reason="counts what one server does")

MESSAGES = [{"role": "user", "content": "Write a haiku about rain"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather at a place.",
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string", "enum": ["Oulu", "Rome"]}, "days": {"type": "integer"}},
            "required": ["place"],
            "additionalProperties": False,
        },
    },
}


class Review(pydantic.BaseModel):
    season: Literal["spring", "summer", "autumn", "winter"]
    good: bool


@pytest.fixture(scope="module")
def server(demo: Generator) -> Iterator[Serving]:
    with serving(demo) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Serving) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as made:
        yield made


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["demo"]
    assert client.models.retrieve("demo").owned_by == "candlewick"
    with pytest.raises(openai.NotFoundError, match="does not exist here, expected 'demo'"):
        client.models.retrieve("gpt-4/o")


def test_chat_gives_what_the_generator_gives(client: openai.OpenAI, demo: Generator) -> None:
    answer = client.chat.completions.create(model="demo", messages=MESSAGES, seed=7, max_tokens=40)
    expected = demo.generate(MESSAGES, seed=7, max_tokens=40)
    choice = answer.choices[0]
    assert (choice.message.role, choice.message.content) == ("assistant", expected.text)
    assert (choice.finish_reason, choice.logprobs, answer.object) == ("stop", None, "chat.completion")
    assert answer.usage.prompt_tokens == expected.usage.prompt_tokens
    assert answer.usage.completion_tokens == expected.usage.completion_tokens
    assert answer.usage.total_tokens == expected.usage.total_tokens


def test_chat_by_parts_with_a_system_message_and_an_earlier_turn(client: openai.OpenAI, demo: Generator) -> None:
    first = client.chat.completions.create(model="demo", messages=MESSAGES, temperature=0)
    messages = [
        {"role": "developer", "content": "You are a poet."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "Write a haiku "}, {"type": "text", "text": "about fog"}],
        },
        first.choices[0].message,
        {"role": "user", "content": "another one", "name": "Ada"},
    ]
    answer = client.chat.completions.create(model="demo", messages=messages, temperature=0, top_p=0)
    plain = [
        {"role": "system", "content": "You are a poet."},
        {"role": "user", "content": "Write a haiku about fog"},
        {"role": "assistant", "content": first.choices[0].message.content},
        {"role": "user", "content": "another one"},
    ]
    assert answer.choices[0].message.content == demo.generate(plain, temperature=0).text


def test_streaming_with_usage(client: openai.OpenAI, demo: Generator) -> None:
    chunks = list(
        client.chat.completions.create(
            model="demo", messages=MESSAGES, seed=7, stream=True, stream_options={"include_usage": True}
        )
    )
    expected = demo.generate(MESSAGES, seed=7)
    assert chunks[0].choices[0].delta.role == "assistant"
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(texts) == expected.text
    assert len([text for text in texts if text]) > 5
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-2:] == [None, "stop"]
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == expected.usage.completion_tokens
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert len({chunk.id for chunk in chunks}) == 1


def test_no_usage_where_none_is_asked_for(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(model="demo", messages=MESSAGES, seed=7, stream=True))
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


def test_the_stream_helper_of_the_client(client: openai.OpenAI, demo: Generator) -> None:
    with client.chat.completions.stream(model="demo", messages=MESSAGES, seed=3) as stream:
        text = "".join(event.delta for event in stream if event.type == "content.delta")
        assert text == stream.get_final_completion().choices[0].message.content == demo.generate(MESSAGES, seed=3).text


def test_schema_with_a_pydantic_model(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(model="demo", messages=MESSAGES, response_format=Review, seed=1)
    assert isinstance(answer.choices[0].message.parsed, Review)


def test_json_object(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="demo", messages=MESSAGES, response_format={"type": "json_object"}, seed=1, max_tokens=200
    )
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(answer.choices[0].message.content), dict)
    assert answer.choices[0].message.content.startswith("{")


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_tools(client: openai.OpenAI, choice: object) -> None:
    messages = [{"role": "user", "content": "Is it cold in Oulu?"}]
    given = {"model": "demo", "tools": [WEATHER], "tool_choice": choice, "max_tokens": 300, "seed": 1}
    answer = client.chat.completions.create(messages=messages, parallel_tool_calls=False, **given)
    message = answer.choices[0].message
    assert (answer.choices[0].finish_reason, message.content) == ("tool_calls", None)
    [call] = message.tool_calls
    arguments = json.loads(call.function.arguments)
    assert call.function.name == "weather" and arguments["place"] in ("Oulu", "Rome")
    messages += [message, {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
    after = client.chat.completions.create(messages=messages, model="demo", max_tokens=20)
    assert after.choices[0].message.content


def test_a_function_gets_no_arguments_that_it_does_not_name(client: openai.OpenAI) -> None:
    parameters = {key: value for key, value in WEATHER["function"]["parameters"].items() if key[0] != "a"}
    tool = {"type": "function", "function": {**WEATHER["function"], "parameters": parameters}}
    answer = client.chat.completions.create(
        model="demo", messages=MESSAGES, tools=[tool], tool_choice="required", temperature=1.5, n=6, seed=1
    )
    for choice in answer.choices:
        for call in choice.message.tool_calls:
            if choice.finish_reason == "tool_calls":
                assert set(json.loads(call.function.arguments)) <= {"place", "days"}


def test_tools_by_the_piece(client: openai.OpenAI, demo: Generator) -> None:
    messages = [{"role": "user", "content": "Is it cold in Oulu?"}]
    given = {"tools": [WEATHER], "tool_choice": "required", "max_tokens": 300, "seed": 3}
    expected = demo.generate(messages, **given)
    chunks = client.chat.completions.create(model="demo", messages=messages, stream=True, **given)
    calls: dict[int, dict[str, str]] = {}
    n_parts, reasons = 0, []
    for chunk in chunks:
        [choice] = chunk.choices
        reasons.append(choice.finish_reason)
        assert not choice.delta.content
        for part in choice.delta.tool_calls or []:
            n_parts += 1
            call = calls.setdefault(part.index, {"id": part.id, "name": part.function.name, "arguments": ""})
            call["arguments"] += part.function.arguments
    assert [(c["name"], json.loads(c["arguments"])) for c in calls.values()] == [
        (call.name, call.arguments) for call in expected.tool_calls
    ]
    assert calls and n_parts > 2 * len(calls) and reasons[-1] == "tool_calls"
    assert all(call["id"].startswith("call_") for call in calls.values())


def test_an_answer_in_words_where_calls_could_be(client: openai.OpenAI, demo: Generator) -> None:
    given = {"tools": [WEATHER], "max_tokens": 30, "temperature": 0}
    expected = demo.generate(MESSAGES, **given)
    assert not expected.tool_calls
    chunks = client.chat.completions.create(model="demo", messages=MESSAGES, stream=True, **given)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == expected.text


def test_logprobs(client: openai.OpenAI, demo: Generator) -> None:
    given = {"seed": 5, "max_tokens": 40}
    expected = demo.generate(MESSAGES, logprobs=3, **given)
    answer = client.chat.completions.create(model="demo", messages=MESSAGES, logprobs=True, top_logprobs=3, **given)
    tokens = answer.choices[0].logprobs.content
    assert "".join(token.token for token in tokens) == expected.text
    assert [token.logprob for token in tokens] == pytest.approx([t.logprob for t in expected.tokens][: len(tokens)])
    assert all(len(token.top_logprobs) == 3 and token.logprob <= 0 for token in tokens)
    assert all(bytes(token.bytes).decode() == token.token for token in tokens)
    assert sum(math.exp(other.logprob) for other in tokens[0].top_logprobs) <= 1.0001
    streamed = client.chat.completions.create(
        model="demo", messages=MESSAGES, logprobs=True, top_logprobs=3, stream=True, **given
    )
    parts = [chunk.choices[0].logprobs for chunk in streamed]
    assert [token for part in parts if part for token in part.content] == tokens


def test_several_choices(client: openai.OpenAI, demo: Generator) -> None:
    answer = client.chat.completions.create(model="demo", messages=MESSAGES, n=3, seed=11, max_tokens=40)
    texts = [choice.message.content for choice in answer.choices]
    assert texts == [demo.generate(MESSAGES, seed=11 + i, max_tokens=40).text for i in range(3)]
    assert [choice.index for choice in answer.choices] == [0, 1, 2] and len(set(texts)) == 3
    chunks = client.chat.completions.create(model="demo", messages=MESSAGES, n=3, seed=11, max_tokens=40, stream=True)
    streamed = ["", "", ""]
    for chunk in chunks:
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert streamed == texts


def test_stop(client: openai.OpenAI, demo: Generator) -> None:
    full = demo.generate(MESSAGES, seed=7).text
    answer = client.chat.completions.create(
        model="demo", messages=MESSAGES, seed=7, stop=["\n", "zebra"], logprobs=True
    )
    assert answer.choices[0].message.content == full.split("\n")[0]
    assert answer.choices[0].finish_reason == "stop"
    assert "".join(token.token for token in answer.choices[0].logprobs.content) == full.split("\n")[0]


def test_length(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="demo", messages=MESSAGES, max_completion_tokens=3)
    assert (answer.choices[0].finish_reason, answer.usage.completion_tokens) == ("length", 3)


def test_penalties_and_bias(client: openai.OpenAI, demo: Generator) -> None:
    ids = demo.tokenizer.encode("rain")
    bias = {str(id): -100 for id in ids}
    answer = client.chat.completions.create(
        model="demo",
        messages=MESSAGES,
        temperature=0,
        frequency_penalty=1.5,
        presence_penalty=-0.5,
        logit_bias=bias,
        extra_body={"top_k": 20, "min_p": 0.01, "repetition_penalty": 1.1},
    )
    expected = demo.generate(
        MESSAGES,
        temperature=0,
        frequency_penalty=1.5,
        presence_penalty=-0.5,
        logit_bias=dict.fromkeys(ids, -100.0),
        repetition_penalty=1.1,
    )
    assert answer.choices[0].message.content == expected.text


def test_completions(client: openai.OpenAI, demo: Generator) -> None:
    prompt = "<|user|>\nWrite a haiku about tea<|end|>\n<|assistant|>\n"
    answer = client.completions.create(model="demo", prompt=prompt, seed=2, max_tokens=30, logprobs=2)
    expected = demo.generate(prompt, raw=True, seed=2, max_tokens=30)
    choice = answer.choices[0]
    assert (choice.text, choice.finish_reason) == (expected.text, expected.finish_reason)
    assert "".join(choice.logprobs.tokens) == choice.text and all(choice.logprobs.tokens)
    assert choice.logprobs.text_offset[:2] == [0, len(choice.logprobs.tokens[0])]
    assert all(1 <= len(others) <= 2 for others in choice.logprobs.top_logprobs)
    assert client.completions.create(model="demo", prompt=prompt, seed=2).usage.completion_tokens == 16


def test_completions_of_several_prompts(client: openai.OpenAI, demo: Generator) -> None:
    prompts = [demo.tokenizer.encode("winter moon"), demo.tokenizer.encode("a cup of")]
    answer = client.completions.create(model="demo", prompt=prompts, n=2, seed=4, max_tokens=8)
    done = [demo.generate(prompt, seed=4 + i, max_tokens=8) for prompt in prompts for i in range(2)]
    expected = [answer.text for answer in done]
    assert [choice.text for choice in answer.choices] == expected
    assert answer.usage.prompt_tokens == sum(map(len, prompts))
    chunks = client.completions.create(
        model="demo", prompt=prompts, seed=4, max_tokens=8, stream=True, stream_options={"include_usage": True}
    )
    texts, last = ["", ""], None
    for last in chunks:
        for choice in last.choices:
            texts[choice.index] += choice.text
    assert texts == expected[::2]
    assert last is not None and last.usage.completion_tokens == sum(d.usage.completion_tokens for d in done[::2])


def test_responses(client: openai.OpenAI, demo: Generator) -> None:
    answer = client.responses.create(
        model="demo", input="Write a haiku about rain", instructions="You are a poet.", temperature=0
    )
    messages = [{"role": "system", "content": "You are a poet."}, *MESSAGES]
    expected = demo.generate(messages, temperature=0)
    assert answer.output_text == expected.text
    assert (answer.status, answer.usage.output_tokens) == ("completed", expected.usage.completion_tokens)
    again = [{"role": "user", "content": "Write a haiku about rain"}, *answer.output, *MESSAGES]
    assert client.responses.create(model="demo", input=again, max_output_tokens=2).status == "incomplete"


def test_responses_by_the_piece(client: openai.OpenAI, demo: Generator) -> None:
    expected = demo.generate(MESSAGES, temperature=0).text
    with client.responses.stream(model="demo", input="Write a haiku about rain", temperature=0) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert final.output_text == expected
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == expected
    assert [events[0].type, events[-1].type] == ["response.created", "response.completed"]
    assert [event.sequence_number for event in events] == list(range(len(events)))


def test_responses_that_call_and_that_fit_a_schema(client: openai.OpenAI) -> None:
    tool = {"type": "function", **WEATHER["function"]}
    given = {"model": "demo", "tools": [tool], "tool_choice": "required", "max_output_tokens": 300}
    question = {"role": "user", "content": "Is it cold in Oulu?"}
    with client.responses.stream(input=[question], parallel_tool_calls=False, **given) as stream:
        for _ in stream:
            pass
        [call] = stream.get_final_response().output
    assert (call.type, call.name) == ("function_call", "weather")
    assert json.loads(call.arguments)["place"] in ("Oulu", "Rome")
    told = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    assert client.responses.create(model="demo", input=[question, call, told], max_output_tokens=20).output_text
    parsed = client.responses.parse(model="demo", input="Write a haiku about snow", text_format=Review)
    assert isinstance(parsed.output_parsed, Review)


def test_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as hot:
        client.chat.completions.create(model="demo", messages=MESSAGES, temperature=3)
    assert hot.value.body == {
        "message": "`temperature` is 3, expected a number from 0 to 2",
        "type": "invalid_request_error",
        "param": "temperature",
        "code": "invalid_value",
    }
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(model="demo", messages=[{"role": "user", "content": "rain " * 3000}])
    assert (long.value.code, long.value.param) == ("context_length_exceeded", "messages")


def test_an_error_in_the_middle_of_a_stream(
    client: openai.OpenAI, demo: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: object, **__: object) -> object:
        stream = Generator.stream_tokens(demo, "x", logits_processor=broken)
        return stream

    def broken(ids: list[int], logits: object) -> None:
        raise RuntimeError("as asked for")

    monkeypatch.setattr(demo, "stream_tokens", breaks)
    with pytest.raises(openai.APIError, match="something went wrong in this server"):
        list(client.chat.completions.create(model="demo", messages=MESSAGES, stream=True))
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model="demo", messages=MESSAGES)


def test_many_at_once(server: Serving, demo: Generator) -> None:
    async def one(client: openai.AsyncOpenAI, i: int) -> str:
        stream = await client.chat.completions.create(model="demo", messages=MESSAGES, seed=i, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def all_of_them() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="any") as client:
            return await asyncio.gather(*(one(client, i) for i in range(12)))

    assert asyncio.run(all_of_them()) == [demo.generate(MESSAGES, seed=i).text for i in range(12)]


def test_a_client_that_leaves_in_mid_stream(server: Serving, client: openai.OpenAI, demo: Generator) -> None:
    never = {str(id): -100 for id in demo.tokenizer.eos_token_ids}
    endless = {"model": "demo", "messages": MESSAGES, "logit_bias": never, "stream": True}
    with client.chat.completions.create(**endless) as stream:
        next(iter(stream))
        assert server.service.gate.running == 1
    eventually(server.is_idle)
    assert client.chat.completions.create(model="demo", messages=MESSAGES).choices[0].message.content
