"""What was read once is not read again, and nobody can tell: prefix reuse, `Chat`, and saved conversations."""

from __future__ import annotations

import copy
import gc
import hashlib
import json
import os
import pickle
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from make_gguf import tiny_model

from candlewick import (
    Chat,
    ContextLengthError,
    Error,
    Generator,
    InvalidRequestError,
    SessionError,
)

GREEDY = {"temperature": 0, "ignore_eos": True}
FACTORS = [1.0 + 0.1 * i for i in range(8)], [1.0 + i for i in range(8)]
LONG = {"longrope": FACTORS, "original_context": 96, "attn_factor": 1.2}

Ids = list[int]


def ids_of(gen: Generator, prompt: object, **options: object) -> tuple[Ids, int]:
    """The generated ids, and how many of the prompt's were cached."""
    stream = gen.stream_tokens(prompt, **{"max_tokens": 12, **GREEDY, **options})
    return [t.id for t in stream], stream.usage.cached_tokens


def fresh(gen: Generator, prompt: object, **options: object) -> Ids:
    """The same with nothing kept."""
    gen.clear_cache()
    ids, cached = ids_of(gen, prompt, **options)
    assert cached == 0
    return ids


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sessions")


@pytest.fixture(scope="module")
def plain(folder: Path) -> Path:
    return tiny_model(folder / "plain.gguf", seed=3, dtype="Q8_0", context=1024)


@pytest.fixture(scope="module")
def gen(plain: Path) -> Iterator[Generator]:
    with Generator(plain) as generator:
        yield generator


# Prefix reuse.


def test_a_prompt_pays_for_what_is_new(gen: Generator) -> None:
    text = random.Random(0).choices(range(3, 300), k=200)
    expected = fresh(gen, text)
    gen.clear_cache()
    assert ids_of(gen, text) == (expected, 0)
    # At least one token is run: it gives the logits.
    assert ids_of(gen, text) == (expected, 199)
    assert ids_of(gen, [*text, 7, 8])[1] == 200
    assert ids_of(gen, text[:150])[1] == 149
    assert ids_of(gen, [*text[:64], 1, 2, 3])[1] == 64
    assert ids_of(gen, [301, *text])[1] == 0


def test_what_was_generated_is_kept_too(gen: Generator) -> None:
    gen.clear_cache()
    first, _ = ids_of(gen, [5, 6, 7], max_tokens=70)
    assert gen.info["kept_bytes"] == 2 * 64 * gen.info["kv_bytes_per_token"], "and the prompt alone no more"
    # The last token was chosen and not run.
    continued, cached = ids_of(gen, [5, 6, 7, *first, 9])
    assert cached == 3 + 69
    assert continued == fresh(gen, [5, 6, 7, *first, 9])


@pytest.mark.parametrize("leave", ["break", "cancel", "with", "del"])
def test_a_stream_that_is_left_is_kept(gen: Generator, leave: str) -> None:
    gen.clear_cache()
    stream = gen.stream_tokens([5] * 80, **GREEDY)
    if leave == "with":
        with stream:
            tokens = [next(stream).id for _ in range(5)]
    else:
        tokens = [next(stream).id for _ in range(5)]
    if leave == "cancel":
        stream.cancel()
    elif leave != "with":
        del stream
        gc.collect()
    assert ids_of(gen, [5] * 80 + [*tokens, 4, 4])[1] == 84


def test_a_step_that_is_cancelled_leaves_what_was_there_before(folder: Path) -> None:
    """The cancellation comes from another thread, in the middle of a chunk: the chunks before it count."""
    slow = Generator(tiny_model(folder / "slow.gguf", layers=12, embd=256, ffn=512, heads=8, context=8192))
    text = random.Random(1).choices(range(3, 300), k=2500)
    expected = fresh(slow, text, max_tokens=3)
    for after in (0.2, 0.4, 0.8, 1.6, 3.2):
        slow.clear_cache()
        stream = slow.stream(text)
        timer = threading.Timer(after, stream.cancel)
        timer.start()
        next(stream, None)
        timer.cancel()
        ids, cached = ids_of(slow, text, max_tokens=3)
        assert ids == expected
        if stream.finish_reason == "cancelled" and cached:
            break
    assert 0 < cached < 2499 and cached % 128 == 0


def test_guesses_that_were_not_taken_are_not_kept(gen: Generator) -> None:
    """Speculation runs tokens that are then taken back; what follows must not see them."""
    rng = random.Random(2)
    n_guessed = 0
    for i in range(40):
        prompt = [rng.randrange(3, 6) for _ in range(60)]
        gen.clear_cache()
        bias = {j: 12.0 for j in range(3, 6)}
        stream = gen.stream_tokens(prompt, seed=i, ignore_eos=True, speculative=8, logit_bias=bias)
        first = [next(stream).id for _ in range(rng.randrange(2, 30))]
        n_guessed += stream.usage.accepted_tokens
        stream.close()
        follow = [*prompt, *first, 3, 4]
        found, cached = ids_of(gen, follow)
        assert cached == len(prompt) + len(first) - 1
        assert found == fresh(gen, follow)
    assert n_guessed > 20


def test_streams_that_run_share_the_text_they_begin_with(gen: Generator) -> None:
    system = random.Random(4).choices(range(3, 300), k=640)
    prompts = [[*system, i, i + 1] for i in range(10, 18)]
    expected = [fresh(gen, prompt) for prompt in prompts]
    gen.clear_cache()
    streams = [gen.stream_tokens(prompt, max_tokens=12, **GREEDY) for prompt in prompts]
    found: list[Ids] = [[] for _ in prompts]
    for _ in range(12):
        for ids, stream in zip(found, streams, strict=True):
            ids.append(next(stream).id)
    assert found == expected
    assert [s.usage.cached_tokens for s in streams] == [0] + [640] * 7
    # Eight times ten pages for the text, and one for each stream's end, if they shared nothing.
    per_page = 64 * gen.info["kv_bytes_per_token"]
    assert gen.info["kept_bytes"] <= (10 + 8) * per_page


def test_streams_in_threads_may_share_too(gen: Generator) -> None:
    system = random.Random(5).choices(range(3, 300), k=300)
    prompts = [[*system[: 40 * (i % 4) + 60], i] for i in range(16)]
    expected = [fresh(gen, prompt) for prompt in prompts]
    gen.clear_cache()
    found: dict[int, Ids] = {}

    def run(i: int) -> None:
        for _ in range(3):
            found[i] = ids_of(gen, prompts[i])[0]

    threads = [threading.Thread(target=run, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[i] for i in range(16)] == expected


@pytest.mark.parametrize("engine", ["candle", "original"])
def test_the_other_engines_reuse_nothing(demo: Generator, engine: str) -> None:
    """Their sums depend on the steps in which a prompt is read: what is kept would not be to the bit the same."""
    other = Generator("demo", engine=engine)
    for _ in range(2):
        assert other.generate("Hello", max_tokens=3).usage.cached_tokens == 0
    assert other.info["kept_bytes"] == 0
    chat = other.chat(temperature=0, max_tokens=8)
    "".join(chat.send("Hello"))
    text = "".join(chat.send("And now?"))
    assert text == other.generate(chat.messages[:3], temperature=0, max_tokens=8).text


@pytest.fixture(scope="module", params=["f32", "f16", "q8_0", "window", "gqa", "long", "long-window"])
def kind(request: pytest.FixtureRequest, folder: Path) -> Generator:
    """Models that keep different things."""
    path = folder / f"{request.param}.gguf"
    options: dict = {"dtype": "Q8_0", "seed": 5, "context": 400}
    match request.param:
        case "f32" | "f16" | "q8_0":
            return Generator(tiny_model(path, **options), kv_type=request.param)
        case "window":
            options |= {"sliding_window": 50}
        case "gqa":
            options |= {"kv_heads": 2}
        case "long":
            options |= LONG
        case "long-window":
            options |= {**LONG, "sliding_window": 40}
    return Generator(tiny_model(path, **options))


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_prompt_can_tell_what_was_kept(kind: Generator, data: st.DataObject) -> None:
    """Prompts of a few beginnings, of any lengths, in any order, some left in the middle."""
    kind.clear_cache()
    runs = []
    for _ in range(data.draw(st.integers(2, 7))):
        base = random.Random(data.draw(st.integers(0, 2))).choices(range(3, 300), k=300)
        prompt = base[: data.draw(st.integers(1, 300))] + data.draw(st.lists(st.integers(3, 9), max_size=3))
        n = data.draw(st.integers(1, 60))
        speculative = data.draw(st.sampled_from([False, 4]))
        stream = kind.stream_tokens(prompt, max_tokens=n, speculative=speculative, **GREEDY)
        take = data.draw(st.integers(0, n))
        runs.append((prompt, n, [t.id for t, _ in zip(stream, range(take), strict=False)]))
    for prompt, n, found in runs:
        if found:
            assert fresh(kind, prompt, max_tokens=n)[: len(found)] == found


def test_long_rope_keeps_each_regime_for_itself(folder: Path) -> None:
    """96 tokens are rotated one way, 97 another: what was read for one is worth nothing to the other."""
    gen = Generator(tiny_model(folder / "regimes.gguf", seed=6, dtype="Q8_0", **LONG))
    text = random.Random(7).choices(range(3, 300), k=140)
    gen.clear_cache()
    assert ids_of(gen, text[:80], max_tokens=2)[1] == 0
    assert ids_of(gen, text[:90], max_tokens=2)[1] == 80
    assert ids_of(gen, text[:120], max_tokens=2)[1] == 0, "80 are there, rotated as short texts are"
    assert ids_of(gen, text[:130], max_tokens=2)[1] == 120
    assert ids_of(gen, text[:96], max_tokens=1)[1] == 90, "120 are there, rotated as long texts are"
    # An answer that crosses the boundary was read once more with the long factors.
    gen.clear_cache()
    answer, _ = ids_of(gen, text[:90], max_tokens=20)
    assert ids_of(gen, [*text[:90], *answer], max_tokens=2)[1] == 109
    assert ids_of(gen, [*text[:90], 3], max_tokens=2)[1] == 90, "from before it did"


def test_a_window_reuses_what_it_has_not_let_go(folder: Path) -> None:
    gen = Generator(tiny_model(folder / "w50.gguf", seed=8, dtype="Q8_0", sliding_window=50))
    text = random.Random(9).choices(range(3, 300), k=400)
    gen.clear_cache()
    assert ids_of(gen, text, max_tokens=1)[1] == 0
    assert ids_of(gen, [*text[:395], 5], max_tokens=1)[1] == 395
    assert ids_of(gen, [*text[:100], 5], max_tokens=1)[1] == 0, "the keys that token 100 sees are gone"


# Memory.


def test_what_is_kept_is_bounded_by_one_context(gen: Generator) -> None:
    gen.clear_cache()
    assert gen.info["kept_bytes"] == 0
    most = gen.n_ctx * gen.info["kv_bytes_per_token"]
    for i in range(40):
        gen.generate(random.Random(i).choices(range(3, 300), k=100 + i), max_tokens=3, ignore_eos=True)
        assert 0 < gen.info["kept_bytes"] <= most
    # The oldest went first.
    assert ids_of(gen, random.Random(39).choices(range(3, 300), k=139))[1] == 138
    assert ids_of(gen, random.Random(0).choices(range(3, 300), k=100))[1] <= 1
    gen.clear_cache()
    assert gen.info["kept_bytes"] == 0


def test_a_conversation_takes_the_pages_of_its_tokens_and_no_more(demo: Generator) -> None:
    """What its earlier turns, and the prompt alone, had of pages of their own is given back."""
    demo.clear_cache()
    per_page = 64 * demo.info["kv_bytes_per_token"]
    chat = demo.chat(temperature=0)
    for text in ("fog", "tea", "rain", "a cat"):
        stream = chat.send(text)
        "".join(stream)
        n = stream.usage.total_tokens - 1
        assert demo.info["kept_bytes"] == -(-n // 64) * per_page
    assert n > 64
    # A branch that is gone leaves nothing behind but its own end, until that goes too.
    del stream
    fork = chat.fork()
    del chat
    "".join(fork.send("the moon"))
    n = len(demo._native.encode_prompt(fork.messages, False))
    assert demo.info["kept_bytes"] <= -(-n // 64) * per_page


def test_what_is_used_stays(gen: Generator) -> None:
    gen.clear_cache()
    first = [3] * 100
    for i in range(30):
        gen.generate(first, max_tokens=1)
        gen.generate(random.Random(i).choices(range(3, 300), k=150), max_tokens=1)
    assert ids_of(gen, first)[1] == 99


def test_forks_share_and_many_chats_stay_within_the_bound(gen: Generator) -> None:
    gen.clear_cache()
    per_page = 64 * gen.info["kv_bytes_per_token"]
    chat = gen.chat(max_tokens=10, **GREEDY)
    "".join(chat.send("word " * 40))
    one = gen.info["kept_bytes"]
    assert one > 2 * per_page
    forks = [chat.fork() for _ in range(50)]
    assert gen.info["kept_bytes"] == one
    for i, fork in enumerate(forks[:4]):
        "".join(fork.send(f"{i}"))
    grown = gen.info["kept_bytes"] - one
    assert grown <= 4 * 2 * per_page, "each has its own end and no more"
    chats = [gen.chat(max_tokens=10, **GREEDY) for _ in range(60)]
    for i, other in enumerate(chats):
        "".join(other.send(f"{i} " * 40))
        assert gen.info["kept_bytes"] <= gen.n_ctx * gen.info["kv_bytes_per_token"]
    # Those that were pushed out answer as before.
    before = chats[0].messages
    assert "".join(chats[0].send("more")) == fresh_text(gen, [*before, {"role": "user", "content": "more"}], 10)


def test_chats_are_given_up_last(gen: Generator) -> None:
    gen.clear_cache()
    chat = gen.chat(max_tokens=5, **GREEDY)
    "".join(chat.send("Hello there"))
    for i in range(40):
        gen.generate(random.Random(i).choices(range(3, 300), k=100), max_tokens=3)
    stream = chat.send("again")
    "".join(stream)
    assert stream.usage.cached_tokens > 10
    del chat, stream
    gc.collect()
    for i in range(40, 80):
        gen.generate(random.Random(i).choices(range(3, 300), k=100), max_tokens=3)
    assert ids_of(gen, [{"role": "user", "content": "Hello there"}])[1] <= 3, "nobody holds on to it any more"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is limited with RLIMIT_AS")
def test_what_is_kept_goes_when_memory_is_short(folder: Path) -> None:
    """A process that may have 40 MB more keeps 12; then an answer, and then a prompt, need 35."""
    path = tiny_model(folder / "wide.gguf", layers=16, embd=256, ffn=32, heads=8, context=16384, seed=2)
    script = f"""
import resource
from pathlib import Path
from candlewick import Generator
gen = Generator({str(path)!r}, kv_type="f32", n_threads=1)
per_token = gen.info["kv_bytes_per_token"]
n = 12_000_000 // per_token
gen.generate([5], max_tokens=1)
used = next(int(l.split()[1]) * 1024 for l in Path("/proc/self/status").read_text().splitlines() if "VmSize" in l)
resource.setrlimit(resource.RLIMIT_AS, (used + 40_000_000, -1))
gen.generate([7] * n, max_tokens=1)
print(gen.info["kept_bytes"] > 10_000_000)
# 18 more are there, but then less is left than is kept.
gen.generate([8] * (n * 3 // 2), max_tokens=1)
print(15_000_000 < gen.info["kept_bytes"] < 23_000_000)
gen.clear_cache()
gen.generate([7] * n, max_tokens=1)
print(gen.generate([9], max_tokens=n * 3, ignore_eos=True).usage.completion_tokens == n * 3)
gen.clear_cache()
gen.generate([7] * n, max_tokens=1)
print(gen.info["kept_bytes"] > 10_000_000)
print(gen.generate([8] * (n * 3), max_tokens=1).usage.prompt_tokens == n * 3)
# The last one is kept all the same: whoever goes on with it needs it.
print(gen.generate([8] * (n * 3), max_tokens=1).usage.cached_tokens == n * 3 - 1)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=110)
    assert done.stdout.split() == ["True"] * 6, done.stdout + done.stderr


def test_a_generator_that_is_closed_keeps_nothing(plain: Path) -> None:
    gen = Generator(plain)
    chat = gen.chat(max_tokens=3, **GREEDY)
    "".join(chat.send("Hi"))
    gen.close()
    for use in (gen.clear_cache, lambda: chat.send("Hi"), lambda: gen.chat()):
        with pytest.raises(InvalidRequestError, match="this generator is closed"):
            use()
    assert len(chat) == 1


# Chat.


def fresh_text(gen: Generator, messages: list[dict], max_tokens: int, **options: object) -> str:
    gen.clear_cache()
    done = gen.generate(messages, **{"max_tokens": max_tokens, **GREEDY, **options})
    assert done.usage.cached_tokens == 0
    return done.text


def test_a_chat_is_the_stream_of_its_messages(demo: Generator) -> None:
    chat = demo.chat("You are a poet.", seed=1)
    said = [{"role": "system", "content": "You are a poet."}]
    for i, text in enumerate(["Write a haiku about fog", "another one", "and about tea"]):
        said.append({"role": "user", "content": text})
        stream = chat.send(text)
        answer = "".join(stream)
        assert answer == demo.generate(said, seed=1).text
        said.append({"role": "assistant", "content": answer})
        assert chat.messages == said and len(chat) == i + 1
    demo.clear_cache()


def test_each_turn_pays_for_the_new_one_alone(demo: Generator) -> None:
    """What is cached is all that the last turn's prompt and answer have in common with the new prompt."""
    demo.clear_cache()
    chat = demo.chat(temperature=0)
    ran: Ids = []
    for text in ["fog", "tea", "rain", "a cat", "the moon"]:
        prompt = demo._native.encode_prompt([*chat.messages, {"role": "user", "content": text}], False)
        common = next(
            (i for i, (a, b) in enumerate(zip(ran, prompt, strict=False)) if a != b), min(len(ran), len(prompt))
        )
        stream = chat.send(text)
        answer = "".join(stream)
        assert stream.usage.cached_tokens == common
        ids = [t.id for t in demo.stream_tokens(prompt, temperature=0)]
        assert demo.tokenizer.decode(ids) == answer
        ran = [*prompt, *ids[:-1]]
        if len(chat) > 1:
            # The model's own words come back as the ids that it chose: only the question is new.
            assert len(prompt) - common < 20 < common


def test_the_defaults_of_a_chat_and_of_a_turn(demo: Generator) -> None:
    chat = demo.chat(max_tokens=4, seed=3, repeat_penalty=1.3)
    question = [{"role": "user", "content": "fog"}]
    assert "".join(chat.send("fog")) == demo.generate(question, max_tokens=4, seed=3, repeat_penalty=1.3).text
    chat.rewind()
    stream = chat.send("fog", max_new_tokens=6, repetition_penalty=1.0)
    assert "".join(stream) == demo.generate(question, max_tokens=6, seed=3).text
    assert stream.usage.completion_tokens == 6


def test_a_conversation_can_begin_in_the_middle(demo: Generator) -> None:
    before = [{"role": "user", "content": "fog"}, {"role": "assistant", "content": "Fog is grey."}]
    chat = demo.chat("You rhyme.", messages=before, temperature=0)
    before.clear()
    assert [m["role"] for m in chat.messages] == ["system", "user", "assistant"]
    assert len(chat) == 1 and chat.generator is demo
    assert "".join(chat.send("tea")) == demo.generate(chat.messages[:-1], temperature=0).text
    chat.messages.clear()
    assert len(chat) == 2, "a copy"


def test_a_chat_in_which_functions_are_called(demo: Generator, folder: Path) -> None:
    def weather(city: Literal["Oslo", "Rome"]) -> str:
        """The weather in a city."""
        return f"It rains in {city}."

    options = {"tools": [weather], "temperature": 0, "max_tokens": 200}
    chat = demo.chat(**options)
    # The demo model knows haiku and no functions: its calls are what the grammar leaves, and often too many.
    for seed in range(50):
        stream = chat.send("How is the weather?", tool_choice={"name": "weather"}, temperature=1.0, seed=seed)
        "".join(stream)
        if stream.finish_reason == "tool_calls":
            break
        chat.rewind()
    calls = chat.messages[-1]["tool_calls"]
    assert {c["function"]["name"] for c in calls} == {"weather"}
    assert json.loads(calls[0]["function"]["arguments"]) == stream.tool_calls[0].arguments
    results = [{"role": "tool", "tool_call_id": call["id"], "content": weather("Oslo")} for call in calls]
    answer = "".join(chat.send(results))
    roles = ["user", "assistant", *["tool"] * len(calls), "assistant"]
    assert [m["role"] for m in chat.messages] == roles and len(chat) == 1
    assert answer == fresh_text(demo, chat.messages[:-1], 200, tools=[weather], ignore_eos=False)
    chat.save(folder / "tools.chat")
    assert header(folder / "tools.chat")["tokens"] > 0
    again = Chat.load(folder / "tools.chat", demo, **options)
    assert again.messages == chat.messages
    a, b = chat.send([{"role": "user", "content": "and?"}]), again.send("and?")
    assert "".join(a) == "".join(b) and a.usage.cached_tokens > 40
    chat.rewind(2)
    assert chat.messages == []


def test_an_answer_that_is_cancelled(gen: Generator) -> None:
    chat = gen.chat(**GREEDY)
    stream = chat.send("one")
    assert chat.messages[-1]["role"] == "user", "while it is written"
    stream.cancel()
    assert chat.messages == [] and len(chat) == 0, "nothing was said"

    stream = chat.send("one")
    given = next(stream)
    stream.close()
    assert chat.messages == [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": given},
    ]
    # It goes on from there, and pays for what is new.
    stream = chat.send("two", max_tokens=4)
    assert "".join(stream) == fresh_text(gen, chat.messages[:3], 4)

    # What is left in the middle ends with the next thing that is asked for.
    for text in chat.send("three"):  # noqa: B007
        break
    follow = chat.send("four", max_tokens=4)
    "".join(follow)
    assert chat.messages[-3:-1] == [{"role": "assistant", "content": text}, {"role": "user", "content": "four"}]


def test_a_chat_whose_answer_another_thread_writes(gen: Generator) -> None:
    chat = gen.chat(**GREEDY)
    for _ in range(10):
        stream = chat.send("go on", max_tokens=400)
        thread = threading.Thread(target=lambda s=stream: [None for _ in s])
        thread.start()
        while not stream.text:
            pass
        chat.rewind(0)
        thread.join()
        assert stream.finish_reason == "cancelled"
        assert chat.messages[-1] == {"role": "assistant", "content": stream.text}
        chat.rewind()
    assert chat.messages == []


def test_forks_go_their_own_way(gen: Generator) -> None:
    chat = gen.chat("Be brief.", max_tokens=8, **GREEDY)
    "".join(chat.send("one"))
    fork = chat.fork()
    a, b = "".join(chat.send("two")), "".join(fork.send("three"))
    assert chat.messages[:3] == fork.messages[:3] and len(chat) == len(fork) == 2
    assert a == fresh_text(gen, chat.messages[:-1], 8)
    assert b == fresh_text(gen, fork.messages[:-1], 8)


def test_rewind_takes_back_whole_turns(gen: Generator) -> None:
    greeting = [{"role": "assistant", "content": "Hi, I am here."}]
    chat = gen.chat("Be brief.", messages=greeting, max_tokens=8, **GREEDY)
    for text in ("one", "two", "three"):
        "".join(chat.send(text))
    first = chat.messages[:4]
    chat.rewind(2)
    assert chat.messages == first
    stream = chat.send("four")
    answer = "".join(stream)
    # All of the first turn that the model wrote as it would read it, and the question's beginning.
    assert stream.usage.cached_tokens >= len(gen._native.encode_prompt(first[:-1], False))
    assert answer == fresh_text(gen, chat.messages[:-1], 8)
    chat.rewind(2)
    assert chat.messages == first[:2] and len(chat) == 0 and bool(chat)
    chat.rewind(0)
    for n, error, text in [
        (1, InvalidRequestError, "n is 1, expected 0 to 0: the turns that there are"),
        (-1, InvalidRequestError, "n is -1, expected 0"),
        (True, TypeError, "n must be int, not bool"),
        ("1", TypeError, "n must be int, not str"),
    ]:
        with pytest.raises(error, match=text):
            chat.rewind(n)  # type: ignore[arg-type]


def test_a_conversation_that_outgrows_the_context(plain: Path) -> None:
    gen = Generator(plain, n_ctx=200)
    options = {"max_tokens": 10, **GREEDY}
    chat = gen.chat("Be brief.", **options)
    with pytest.raises(ContextLengthError, match="the context holds 200"):
        for _ in range(30):
            "".join(chat.send("word " * 6))
    before = chat.messages
    assert before[-1]["role"] == "assistant" and len(chat) > 1
    with pytest.raises(ContextLengthError):
        chat.send("word " * 6)
    assert chat.messages == before

    # It goes on where that is asked for.
    chat = gen.chat("Be brief.", messages=before[1:], overflow="truncate_oldest", **options)
    for _ in range(12):
        length = len(chat)
        stream = chat.send("word " * 6)
        answer = "".join(stream)
        assert stream.usage.completion_tokens == 10, "there is room for what was asked"
        messages = chat.messages
        assert messages[0] == {"role": "system", "content": "Be brief."}
        assert [m["role"] for m in messages[1:]] == ["user", "assistant"] * len(chat)
        assert len(chat) <= length + 1
        assert answer == fresh_text(gen, messages[:-1], 10)
    assert len(chat) < 12

    # With no limit of its own an answer gets at least a quarter, and the next turn does not have to forget again.
    chat = gen.chat("Be brief.", messages=before[1:], overflow="truncate_oldest", **GREEDY)
    stream = chat.send("word " * 6)
    assert next(stream) and stream.usage.prompt_tokens <= 150
    assert stream.usage.prompt_tokens > 80, "no more than needed"

    # One question that does not fit alone is refused all the same, and nothing is forgotten for it.
    before = chat.messages
    with pytest.raises(ContextLengthError):
        chat.send("word " * 300)
    assert chat.messages[:-1] == before, "and the answer that was left in the middle"


def question(n_words: int) -> dict:
    return {"role": "user", "content": "word " * n_words}


def test_a_failed_question_takes_back_what_was_forgotten_for_it(plain: Path) -> None:
    gen = Generator(plain, n_ctx=200)
    chat = gen.chat(overflow="truncate_oldest", max_tokens=10, **GREEDY)
    for _ in range(3):
        "".join(chat.send("word " * 6))
    before = chat.messages
    words = next(n for n in range(99) if len(gen._native.encode_prompt([*before, question(n)], False)) > 190)
    stream = chat.send(question(words)["content"])
    assert len(chat.messages) < len(before)
    stream.cancel()
    assert chat.messages == before


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda g: g.chat(1), TypeError, r'messages\[0\]\["content"\] must be str, not int'),
        (lambda g: g.chat("a", messages=[{"role": "system", "content": "b"}]), InvalidRequestError, "give one of them"),
        (lambda g: g.chat(messages=[{"role": "user"}]), InvalidRequestError, r'messages\[0\] has no "content"'),
        (lambda g: g.chat(messages="Hello"), TypeError, "messages must be a list of messages, not str"),
        (lambda g: g.chat(messages=["Hello"]), TypeError, r"messages\[0\] must be a message"),
        (lambda g: g.chat(overflow="drop"), InvalidRequestError, "overflow is 'drop', expected \"error\" or"),
        (lambda g: g.chat(raw=True), TypeError, "a Chat has no argument 'raw', expected some of .*temperature"),
        (lambda g: g.chat(temprature=1), TypeError, "a Chat has no argument 'temprature'"),
        (lambda g: g.chat().send("Hi", raw=True), TypeError, "a Chat has no argument 'raw'"),
        (lambda g: g.chat().send("Hi", top_p=3), InvalidRequestError, "top_p is 3"),
        (lambda g: g.chat().send(7), TypeError, r'\["content"\] must be str, not int'),
        (lambda g: g.chat().send("Hi", max_tokens=1, max_new_tokens=2), TypeError, "two names of the same argument"),
        (lambda g: pickle.dumps(g.chat()), TypeError, r"use chat.save\(path\), or fork\(\)"),
        (lambda g: copy.deepcopy(g.chat()), TypeError, r"or fork\(\)"),
    ],
)
def test_what_a_chat_refuses(gen: Generator, make: object, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        make(gen)  # type: ignore[operator]


def test_a_refused_question_changes_nothing(gen: Generator) -> None:
    chat = gen.chat(max_tokens=3, **GREEDY)
    "".join(chat.send("one"))
    before = chat.messages
    for options in ({"top_p": 3.0}, {"seed": -1}, {"nonsense": 1}):
        with pytest.raises((InvalidRequestError, TypeError)):
            chat.send("two", **options)
    assert chat.messages == before
    assert repr(chat).startswith("<Chat of 1 turn with <Generator ")


# Saved conversations.


@pytest.fixture(scope="module")
def saved(gen: Generator, folder: Path) -> tuple[Path, list[dict]]:
    chat = gen.chat("Be brief.", max_tokens=20, **GREEDY)
    for text in ("one two three", "vier fünf 🦫"):
        "".join(chat.send(text))
    path = folder / "saved.chat"
    chat.save(path)
    return path, chat.messages


def header(path: Path) -> dict:
    data = path.read_bytes()
    return json.loads(data[24 : 24 + int.from_bytes(data[20:24], "little")])


def with_header(path: Path, to: Path, **changes: object) -> Path:
    """The file with another header, and a checksum that fits."""
    data = path.read_bytes()
    n = int.from_bytes(data[20:24], "little")
    text = json.dumps({**json.loads(data[24 : 24 + n]), **changes}).encode()
    body = data[:20] + len(text).to_bytes(4, "little") + text + data[24 + n : -32]
    to.write_bytes(body + hashlib.sha256(body).digest())
    return to


def test_a_saved_conversation_goes_on(gen: Generator, saved: tuple[Path, list[dict]], plain: Path) -> None:
    path, messages = saved
    expected = fresh_text(gen, [*messages, {"role": "user", "content": "and?"}], 20)
    for other in (gen, Generator(plain)):
        other.clear_cache()
        chat = Chat.load(path, other, max_tokens=20, **GREEDY)
        assert chat.messages == messages and len(chat) == 2
        assert 0 < other.info["kept_bytes"]
        stream = chat.send("and?")
        assert "".join(stream) == expected
        assert stream.usage.cached_tokens == header(path)["tokens"]


def test_a_file_says_what_it_is(gen: Generator, saved: tuple[Path, list[dict]], plain: Path) -> None:
    path, messages = saved
    found = header(path)
    assert found["model"] == hashlib.sha256(plain.read_bytes()).hexdigest()
    assert json.loads(found["messages"]) == messages
    prompt = gen._native.encode_prompt(messages, False)
    data = path.read_bytes()
    start = 24 + int.from_bytes(data[20:24], "little")
    n = found["tokens"]
    ids = [int.from_bytes(data[start + 4 * i : start + 4 * i + 4], "little") for i in range(n)]
    assert ids == prompt[:n] and n > 40
    assert len(data) == start + 4 * n + found["kv_bytes"] + 32
    assert data[-32:] == hashlib.sha256(data[:-32]).digest()
    assert found["kv_bytes"] == -(-n // 64) * 64 * gen.info["kv_bytes_per_token"]


@pytest.mark.parametrize("kv_type", ["f32", "f16", "q8_0"])
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_what_was_taken_back_is_not_in_the_file(folder: Path, kv_type: str, kv_heads: int) -> None:
    path = tiny_model(folder / f"{kv_heads}.gguf", seed=3, kv_heads=kv_heads, embd=96, ffn=96)
    files = []
    for secrets in ("nothing", "the secret is 4711 " * 3):
        gen = Generator(path, kv_type=kv_type)
        chat = gen.chat(max_tokens=20, **GREEDY)
        "".join(chat.send("one two three"))
        "".join(chat.send(secrets))
        chat.rewind()
        chat.save(folder / "file.chat")
        files.append((folder / "file.chat").read_bytes())
        assert b"secret" not in files[-1]
        assert header(folder / "file.chat")["tokens"] > 20
    assert files[0] == files[1]


def test_a_chat_without_anything_to_keep_can_be_saved(gen: Generator, folder: Path) -> None:
    for chat in (gen.chat(), gen.chat("Be brief.")):
        chat.save(folder / "empty.chat")
        assert Chat.load(folder / "empty.chat", gen).messages == chat.messages
    chat = gen.chat(max_tokens=4, **GREEDY)
    "".join(chat.send("one"))
    gen.clear_cache()
    chat.save(folder / "cold.chat")
    assert header(folder / "cold.chat")["tokens"] == 0
    again = Chat.load(folder / "cold.chat", gen, max_tokens=4, **GREEDY)
    assert "".join(again.send("two")) == "".join(chat.send("two"))


def test_the_other_engines_save_messages(folder: Path, demo: Generator) -> None:
    candle = Generator("demo", engine="candle", kv_type="f16")
    chat = candle.chat(temperature=0, max_tokens=4)
    "".join(chat.send("Hello"))
    chat.save(folder / "candle.chat")
    assert Chat.load(folder / "candle.chat", demo).messages == chat.messages
    # And they take what native has saved, without its keys and values.
    native = demo.chat(temperature=0, max_tokens=4)
    "".join(native.send("Hello"))
    native.save(folder / "native.chat")
    assert Chat.load(folder / "native.chat", candle).messages == native.messages


def test_the_hash_of_a_split_model_is_that_of_all_its_parts(tmp_path: Path) -> None:
    gen = Generator(tiny_model(tmp_path / "m.gguf", split_tensors=6))
    parts = sorted(tmp_path.glob("m-*.gguf"))
    assert len(parts) == 3
    chat = gen.chat(max_tokens=4, **GREEDY)
    "".join(chat.send("one"))
    chat.save(tmp_path / "split.chat")
    whole = b"".join(part.read_bytes() for part in parts)
    assert header(tmp_path / "split.chat")["model"] == hashlib.sha256(whole).hexdigest()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_damaged_file_is_refused(
    gen: Generator, saved: tuple[Path, list[dict]], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    good = saved[0].read_bytes()
    path = tmp_path_factory.mktemp("bad") / "bad.chat"
    if data.draw(st.booleans()):
        bad = good[: data.draw(st.integers(0, len(good) - 1))]
    else:
        at = data.draw(st.one_of(st.integers(0, 700), st.integers(0, len(good) - 1)))
        flipped = good[at] ^ (1 << data.draw(st.integers(0, 7)))
        bad = good[:at] + bytes([flipped]) + good[at + 1 :]
    path.write_bytes(bad)
    gen.clear_cache()
    with pytest.raises(SessionError) as caught:
        Chat.load(path, gen)
    assert str(path) in str(caught.value)
    assert gen.info["kept_bytes"] == 0
    assert type(pickle.loads(pickle.dumps(caught.value))) is SessionError
    assert gen.generate("Hi", max_tokens=1).usage.completion_tokens == 1


def test_files_that_are_no_conversations(gen: Generator, saved: tuple[Path, list[dict]], tmp_path: Path) -> None:
    good = saved[0].read_bytes()
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text").write_text("Hello, this is a text, and not a conversation that anybody saved.")
    (tmp_path / "next").write_bytes(good[:16] + (2).to_bytes(4, "little") + good[20:])
    (tmp_path / "cut").write_bytes(good[:-1])
    (tmp_path / "more").write_bytes(good + b"\0")
    (tmp_path / "header").write_bytes(good[:20] + b"\xff\xff\xff\xff" + good[24:])
    for name, text in [
        ("empty", "is not a conversation that Chat.save wrote"),
        ("text", "is not a conversation that Chat.save wrote"),
        (
            "next",
            "has format version 2, and this version of candlewick reads 1: load it with the version that saved it",
        ),
        ("cut", "is damaged .its checksum is not that of its contents.: save the conversation again"),
        ("more", "is damaged .its checksum"),
        ("header", "is damaged .its checksum"),
    ]:
        with pytest.raises(SessionError, match=text):
            Chat.load(tmp_path / name, gen)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Chat.load(tmp_path / "nowhere", gen)
    with pytest.raises(SessionError, match="is not a regular file"):
        Chat.load(tmp_path, gen)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(SessionError, match="is not a regular file"):
            Chat.load(tmp_path / "pipe", gen)


def test_files_whose_checksum_is_right_and_whose_contents_are_not(
    gen: Generator, saved: tuple[Path, list[dict]], tmp_path: Path
) -> None:
    path, to = saved[0], tmp_path / "bad"
    n = header(path)["tokens"]
    for changes, text in [
        ({"tokens": n + 1}, "its length is not what it says"),
        ({"tokens": n - 1}, "its length is not what it says"),
        ({"kv_bytes": 2**60}, "its length is not what it says"),
        ({"tokens": "many"}, "its header is not what Chat.save writes"),
        ({"tokens": 2**62}, "its length is not what it says"),
        ({"tokens": -1}, "its header is not"),
        ({"tokens": 2**70}, "its header is not"),
        ({"messages": None}, "its header is not"),
        ({"regime": "middle"}, "its header is not"),
        ({"first": -64}, "its header is not"),
        ({"model": "0" * 64}, "was saved with another model .SHA-256 0000"),
        ({"kv_type": "q8_0"}, 'keys and values of kv_type "q8_0", and this generator\'s are "f16"'),
        ({"messages": "[1]"}, r"holds no messages: messages\[0\] must be a message"),
        ({"messages": "{"}, "holds no messages: "),
        ({"messages": '[{"role": "user"}]'}, 'holds no messages: messages.0. has no "content"'),
    ]:
        with pytest.raises(SessionError, match=text):
            Chat.load(with_header(path, to, **changes), gen)
    # What cannot be of this generator is not taken over; its messages are.
    for changes in ({"first": 64 * n}, {"first": 2**63}, {"first": 1}, {"regime": "long"}):
        gen.clear_cache()
        assert len(Chat.load(with_header(path, to, **changes), gen)) == 2
        assert gen.info["kept_bytes"] == 0
    data = path.read_bytes()
    start = 24 + int.from_bytes(data[20:24], "little")
    body = data[:start] + (320).to_bytes(4, "little") + data[start + 4 : -32]
    to.write_bytes(body + hashlib.sha256(body).digest())
    with pytest.raises(SessionError, match="it holds token ids that the model does not have"):
        Chat.load(to, gen)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_file_that_somebody_made_up(
    gen: Generator, saved: tuple[Path, list[dict]], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Any change of any byte, under a checksum that fits: refused, or a conversation, and the generator goes on."""
    body = bytearray(saved[0].read_bytes()[:-32])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.one_of(st.integers(0, 900), st.integers(0, len(body) - 1)))
        body[at % len(body)] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del body[data.draw(st.integers(0, len(body) - 1)) :]
    path = tmp_path_factory.mktemp("made") / "up.chat"
    path.write_bytes(bytes(body) + hashlib.sha256(body).digest())
    try:
        chat = Chat.load(path, gen)
    except SessionError:
        pass
    else:
        try:
            next(chat.send("Hi", **GREEDY))
        except Error as error:
            # A role that the template does not know, say, or keys that are no numbers: refused, and no panic.
            assert "internal error" not in str(error)
    assert gen.info["kept_bytes"] <= gen.n_ctx * gen.info["kv_bytes_per_token"]


def test_another_model_or_another_kv_type(saved: tuple[Path, list[dict]], plain: Path, folder: Path) -> None:
    other = Generator(tiny_model(folder / "other.gguf", seed=4, dtype="Q8_0", context=1024))
    with pytest.raises(SessionError, match=r"was saved with another model \(SHA-256 [0-9a-f]{64}, and this one's"):
        Chat.load(saved[0], other)
    with pytest.raises(SessionError, match='kv_type "f16", and this generator\'s are "f32"'):
        Chat.load(saved[0], Generator(plain, kv_type="f32"))
    # A smaller context has no place for the keys and values, and refuses the conversation when it goes on.
    small = Generator(plain, n_ctx=40)
    chat = Chat.load(saved[0], small)
    assert chat.messages == saved[1] and small.info["kept_bytes"] == 0
    with pytest.raises(ContextLengthError):
        chat.send("and?")


def test_saving_replaces_and_leaves_no_part(gen: Generator, tmp_path: Path) -> None:
    chat = gen.chat(max_tokens=4, **GREEDY)
    "".join(chat.send("one"))
    path = tmp_path / "a.chat"
    chat.save(path)
    first = path.read_bytes()
    "".join(chat.send("two"))
    chat.save(str(path))
    assert path.read_bytes() != first
    (tmp_path / "folder").mkdir()
    for bad, error in [(tmp_path / "no" / "a.chat", FileNotFoundError), (tmp_path / "folder", OSError)]:
        with pytest.raises(error):
            chat.save(bad)
    with pytest.raises(InvalidRequestError, match="is not the name of a file"):
        chat.save("..")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.chat", "folder"]
    assert Chat.load(path, gen).messages == chat.messages


# Everything at once.


@pytest.mark.parametrize("model", ["f16", "q8_0", "window", "long"])
def test_no_conversation_can_tell_how_it_came_about(folder: Path, model: str) -> None:
    """Turns, branches, steps back, cancellations and files in any order: each answer is that of a fresh generator."""
    options: dict = {"dtype": "Q8_0", "seed": 11, "context": 500}
    if model == "window":
        options |= {"sliding_window": 60}
    if model == "long":
        options |= {**LONG, "original_context": 128}
    path = tiny_model(folder / f"any-{model}.gguf", **options)
    gen = Generator(path, kv_type="q8_0" if model == "q8_0" else "f16")
    judge = Generator(path, kv_type="q8_0" if model == "q8_0" else "f16")
    cached = 0

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=st.data())
    def law(data: st.DataObject) -> None:
        nonlocal cached
        chats = [gen.chat("Be brief.", **GREEDY)]
        for _ in range(data.draw(st.integers(1, 10))):
            i = data.draw(st.integers(0, len(chats) - 1))
            chat = chats[i]
            match data.draw(
                st.sampled_from(["send", "send", "send", "cancel", "fork", "rewind", "file", "drop", "clear"])
            ):
                case "send" | "cancel" as what:
                    text = data.draw(st.sampled_from(["one", "two three", "word " * 12]))
                    n = data.draw(st.integers(1, 30))
                    before = chat.messages
                    try:
                        stream = chat.send(text, max_tokens=n)
                    except ContextLengthError:
                        chat.rewind()
                        continue
                    if what == "cancel":
                        for _ in range(data.draw(st.integers(0, 5))):
                            next(stream, None)
                        stream.cancel()
                    else:
                        "".join(stream)
                    cached += stream.usage.cached_tokens
                    question = [*before, {"role": "user", "content": text}]
                    expected = fresh_text(judge, question, n)
                    if stream.finish_reason == "cancelled":
                        assert expected.startswith(stream.text)
                    else:
                        assert stream.text == expected
                    answer = [*question, {"role": "assistant", "content": stream.text}]
                    nothing = stream.finish_reason == "cancelled" and not stream.text
                    assert chat.messages == (before if nothing else answer)
                case "fork" if len(chats) < 5:
                    chats.append(chat.fork())
                case "rewind":
                    chat.rewind(data.draw(st.integers(0, len(chat))))
                case "file":
                    chat.save(folder / f"{model}.chat")
                    if data.draw(st.booleans()):
                        gen.clear_cache()
                    chats[i] = Chat.load(folder / f"{model}.chat", gen, **GREEDY)
                    assert chats[i].messages == chat.messages
                case "drop" if len(chats) > 1:
                    del chats[i]
                case "clear":
                    gen.clear_cache()

    law()
    assert cached > 200


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_can_drop_what_it_has(gen: Generator) -> None:
    """The lock of what is kept may be held for ever in the child; dropping chats and streams must not wait for it."""
    script = f"""
import os, threading, time
from candlewick import Generator
gen = Generator({str(gen.info["path"])!r})
chat = gen.chat(temperature=0)
stream = chat.send("Hello")
next(stream)
stop = False
def work():
    i = 0
    while not stop:
        i += 1
        gen.generate([3 + i % 200] * 60, max_tokens=1)
thread = threading.Thread(target=work)
thread.start()
for _ in range(20):
    pid = os.fork()
    if pid == 0:
        del stream
        del chat
        os._exit(0)
    deadline = time.monotonic() + 5
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            print("hangs")
            break
        time.sleep(0.005)
stop = True
thread.join()
print("done")
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=110)
    assert done.stdout == "done\n", done.stdout + done.stderr


def test_session_error_is_what_the_others_are() -> None:
    assert issubclass(SessionError, Error) and issubclass(SessionError, ValueError)
    assert SessionError.__module__ == "candlewick"
