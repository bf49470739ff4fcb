"""Streams as people use them: loops, threads, asyncio, stop strings, and what can be read from them."""

from __future__ import annotations

import asyncio
import gc
import itertools
import pickle
import threading
import time
from pathlib import Path

import pytest

from candlewick import Completion, Generator, InvalidRequestError, TextStream, Token

OPTIONS = {"max_tokens": 24, "ignore_eos": True, "seed": 3}


def test_stream_tokens_and_generate_agree(tiny: Generator) -> None:
    deltas = list(tiny.stream("Hello", **OPTIONS))
    tokens = list(tiny.stream_tokens("Hello", **OPTIONS))
    completion = tiny.generate("Hello", **OPTIONS)
    assert all(isinstance(d, str) and d for d in deltas)
    assert "".join(deltas) == "".join(t.text for t in tokens) == completion.text == str(completion)
    assert len(tokens) == 24 and all(isinstance(t, Token) and t.logprob <= 0 for t in tokens)
    assert isinstance(completion, Completion) and completion.seed == 3


def test_logprob_is_the_models_own(tiny: Generator) -> None:
    """Before bias and temperature: as log-softmax of the logits says."""
    import numpy as np

    ids = tiny.tokenizer.encode("Hello", add_special_tokens=True)
    token = next(tiny.stream_tokens(ids, temperature=0.5, repetition_penalty=1.5, logit_bias={40: 3.0}, seed=1))
    logits = np.array(tiny._native.logits(ids, 128), dtype=np.float64)
    expected = logits[token.id] - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
    assert token.logprob == pytest.approx(expected, abs=1e-4)


def test_what_can_be_read_before_during_and_after(tiny: Generator) -> None:
    tiny.clear_cache()
    stream = tiny.stream("Hello", **OPTIONS)
    assert isinstance(stream, TextStream) and iter(stream) is stream
    assert (stream.text, stream.finish_reason, stream.stop_reason) == ("", None, None)
    assert stream.timings.ttft_s is None and stream.usage.completion_tokens == 0
    first = next(stream)
    assert stream.text == first and stream.finish_reason is None
    assert stream.timings.ttft_s > 0 and stream.timings.prompt_tps > 0
    rest = "".join(stream)
    assert stream.text == first + rest and stream.finish_reason == "length"
    usage = stream.usage
    assert usage.completion_tokens == 24 and usage.cached_tokens == usage.accepted_tokens == 0
    assert usage.prompt_tokens == len(tiny.tokenizer.encode(tiny.apply_chat_template([user("Hello")]))) + (
        0 if tiny.apply_chat_template([user("Hello")]).startswith("<s>") else 1
    )
    assert usage.total_tokens == usage.prompt_tokens + 24
    assert stream.timings.generation_tps > 0
    assert next(stream, None) is None, "the end stays the end"
    assert repr(stream).startswith("<TextStream length, 24 tokens, '")


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def test_bos_is_there_once(tiny: Generator) -> None:
    bos = tiny.tokenizer.bos_token_id
    hello = tiny.tokenizer.encode("Hello")
    templated = tiny.apply_chat_template([user("Hello")])
    assert bos not in hello
    for text in ("Hello", "<s>Hello", templated):
        assert tiny.tokenizer.encode(text, add_special_tokens=True).count(bos) == 1
    assert tiny.stream("Hello", raw=True).usage.prompt_tokens == len(hello) + 1
    assert tiny.stream(hello).usage.prompt_tokens == len(hello), "ids are taken as they are"
    assert tiny.stream("Hello").usage.prompt_tokens == tiny.stream([user("Hello")]).usage.prompt_tokens


def greedy(gen: Generator, **options: object) -> Completion:
    return gen.generate("Hello", temperature=0, max_tokens=40, ignore_eos=True, **options)


def test_stop_strings(tiny: Generator) -> None:
    text = greedy(tiny).text
    for start, length in itertools.product((0, 3, 7, 12), (1, 2, 5)):
        stop = text[start : start + length]
        at = text.index(stop)
        stopped = greedy(tiny, stop=["never in there", stop])
        assert stopped.text == text[:at], f"{stop!r}"
        assert (stopped.finish_reason, stopped.stop_reason) == ("stop", stop)
    # The last characters may still become a stop string; at the end they are given after all.
    held = greedy(tiny, stop=text[-3:] + "and more")
    assert (held.text, held.finish_reason, held.stop_reason) == (text, "length", None)


def test_stop_and_end_tokens(tiny: Generator) -> None:
    ids = [t.id for t in tiny.stream_tokens("Hello", temperature=0, max_tokens=40, ignore_eos=True)]
    stop_id = ids[10]
    n = ids.index(stop_id) + 1
    stopped = greedy(tiny, stop_token_ids=[stop_id])
    assert (stopped.finish_reason, stopped.stop_reason, stopped.usage.completion_tokens) == ("stop", stop_id, n)
    assert stopped.text == "".join(
        t.text
        for t in itertools.islice(tiny.stream_tokens("Hello", temperature=0, max_tokens=n - 1, ignore_eos=True), n)
    )
    eos = tiny.tokenizer.eos_token_ids[0]
    ended = tiny.generate("Hello", temperature=0, logit_bias={eos: 1000.0}, max_tokens=9)
    assert (ended.text, ended.stop_reason, ended.usage.completion_tokens) == ("", eos, 1)
    past = tiny.generate("Hello", temperature=0, logit_bias={eos: 1000.0}, max_tokens=9, ignore_eos=True)
    assert (past.text, past.finish_reason, past.usage.completion_tokens) == ("", "length", 9)


def test_phi3s_end_tokens_are_known(tiny: Generator) -> None:
    pieces = {tiny.tokenizer.decode([i], skip_special_tokens=False) for i in tiny.tokenizer.eos_token_ids}
    assert {"<|endoftext|>", "<|end|>", "<|assistant|>"} <= pieces


def test_max_tokens_and_the_end_of_the_context(tiny_path: Path) -> None:
    gen = Generator(tiny_path, n_ctx=48)
    full = gen.generate([1, 2, 3], ignore_eos=True)
    assert (full.finish_reason, full.usage.total_tokens) == ("length", 48)
    assert gen.generate([1, 2, 3], ignore_eos=True, max_new_tokens=4).usage.completion_tokens == 4


def test_logit_bias_forbids_and_forces(tiny: Generator) -> None:
    likeliest = next(tiny.stream_tokens("Hello", temperature=0)).id
    banned = next(tiny.stream_tokens("Hello", temperature=0, logit_bias={likeliest: float("-inf")})).id
    assert banned != likeliest
    assert next(tiny.stream_tokens("Hello", logit_bias={"33": 100.0})).id == 33


@pytest.mark.parametrize("leave", ["break", "close", "with", "del"])
def test_leaving_a_stream_half_way(tiny: Generator, leave: str) -> None:
    stream = tiny.stream("Hello", ignore_eos=True)
    if leave == "with":
        with stream:
            next(stream)
        assert stream.finish_reason == "cancelled" and list(stream) == []
    else:
        for _ in stream:
            break
        if leave == "close":
            stream.close()
            stream.close()
            assert stream.finish_reason == "cancelled" and stream.text
        if leave == "del":
            del stream
            gc.collect()
    assert tiny.generate("Hello", **OPTIONS).usage.completion_tokens == 24


def test_cancel_before_the_first_step_and_after_the_last(tiny: Generator) -> None:
    stream = tiny.stream("Hello")
    stream.cancel()
    assert stream.finish_reason == "cancelled" and list(stream) == []
    done = tiny.stream("Hello", **OPTIONS)
    list(done)
    done.cancel()
    assert done.finish_reason == "length", "what has ended stays as it ended"


def test_two_threads_share_one_stream(tiny: Generator) -> None:
    """Each piece goes to one of them, and none is lost."""
    alone = tiny.generate("Hello", **{**OPTIONS, "max_tokens": 120}).text
    stream = tiny.stream("Hello", **{**OPTIONS, "max_tokens": 120})
    pieces: list[str] = []
    threads = [threading.Thread(target=lambda: pieces.extend(stream)) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len("".join(pieces)) == len(alone) and stream.text == alone


def test_zip_interleaves(tiny: Generator) -> None:
    pairs = list(zip(tiny.stream("a", **OPTIONS), tiny.stream("b", **OPTIONS), strict=False))
    assert len(pairs) > 5


def test_async_streams_leave_asyncios_own_threads_alone(tiny: Generator) -> None:
    async def main() -> None:
        async def consume() -> None:
            stream = tiny.stream("Hello", ignore_eos=True)
            try:
                async for _ in stream:
                    pass
            finally:
                await stream.aclose()

        tasks = [asyncio.create_task(consume()) for _ in range(40)]
        await asyncio.sleep(0.01)
        # 40 streams wait for their turns; a thread of asyncio's own is free at once all the same.
        await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(None, int), timeout=5)
        assert not all(task.done() for task in tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())


def test_original_streams_share_no_kv(demo: Generator) -> None:
    gen = Generator("demo", engine="original", n_ctx=128)
    alone = [gen.generate(p, **OPTIONS).text for p in ("rain", "sea")]
    streams = [gen.stream(p, **OPTIONS) for p in ("rain", "sea")]
    for _ in itertools.zip_longest(*streams):
        pass
    assert [s.text for s in streams] == alone


def test_completions_can_be_pickled_and_compared(tiny: Generator) -> None:
    done = tiny.generate("Hello", **OPTIONS)
    assert pickle.loads(pickle.dumps(done)) == done


def test_other_threads_run_meanwhile(tiny_path: Path) -> None:
    """The GIL is released: a counter in Python goes on while a prompt is read."""
    gen = Generator(tiny_path)
    ticks = 0
    running = True

    def count() -> None:
        nonlocal ticks
        while running:
            ticks += 1
            time.sleep(0)

    thread = threading.Thread(target=count)
    thread.start()
    before = ticks
    for i in range(10):
        # A prompt that nobody has read.
        next(gen.stream([5 + i] * 500))
    during = ticks - before
    running = False
    thread.join()
    assert during > 50


def test_async_iteration(tiny: Generator) -> None:
    expected = tiny.generate("Hello", **OPTIONS).text

    async def one(seed: int) -> str:
        async with tiny.stream("Hello", **{**OPTIONS, "seed": seed}) as stream:
            return "".join([text async for text in stream])

    async def many() -> list[str]:
        return await asyncio.gather(*(one(3) for _ in range(5)))

    assert asyncio.run(many()) == [expected] * 5


def test_cancelling_an_asyncio_task_cancels_the_stream(tiny: Generator) -> None:
    async def main() -> TextStream:
        stream = tiny.stream([5] * 400, ignore_eos=True)

        async def consume() -> None:
            async for _ in stream:
                pass

        task = asyncio.create_task(consume())
        await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return stream

    stream = asyncio.run(main())
    assert stream.finish_reason == "cancelled"
    assert tiny.generate("Hello", **OPTIONS).usage.completion_tokens == 24


@pytest.mark.thread_unsafe(reason="caplog is of all threads")
def test_chat_messages_and_the_system_turn(tiny_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    # One that nobody has asked yet: it warns once.
    gen = Generator(tiny_path)
    plain = gen.apply_chat_template([user("Hello")])
    assert plain == "<s><|user|>\nHello<|end|>\n<|assistant|>\n"
    with caplog.at_level("WARNING", logger="candlewick"):
        system = gen.apply_chat_template([{"role": "system", "content": "Be kind."}, user("Hello")])
        gen.apply_chat_template([{"role": "system", "content": "Be kind."}, user("Hello")])
    assert system == "<s><|user|>\nBe kind.\n\nHello<|end|>\n<|assistant|>\n"
    assert len([r for r in caplog.records if r.name.startswith("candlewick")]) == 1
    chat = [user("a"), {"role": "assistant", "content": "b"}, user("c")]
    assert (
        gen.apply_chat_template(chat)
        == "<s><|user|>\na<|end|>\n<|assistant|>\nb<|end|>\n<|user|>\nc<|end|>\n<|assistant|>\n"
    )
    with pytest.raises(InvalidRequestError, match="tool"):
        gen.apply_chat_template([user("a"), {"role": "tool", "content": "lost"}])


def test_the_seeds_own_example(demo: Generator) -> None:
    """The program candlewick grew from: its prompt, temperature 1.0, 100 tokens, penalty 1.2 over the last 64."""
    prompt = "<|user|>\nWrite a haiku about ice hockey<|end|>\n<|assistant|>"
    for engine in ("original", "candle"):
        gen = Generator("demo", engine=engine)
        stream = gen.stream(
            prompt, raw=True, max_tokens=100, temperature=1.0, repeat_penalty=1.2, repeat_last_n=64, seed=1
        )
        text = "".join(stream)
        assert text and stream.finish_reason in ("stop", "length")
    assert (
        demo.stream(prompt, raw=True).usage.prompt_tokens
        == demo.stream("Write a haiku about ice hockey").usage.prompt_tokens
    )


def test_generator_reads_well(tiny: Generator, demo: Generator) -> None:
    assert "native engine on cpu, context 512" in repr(tiny)
    info = demo.info
    assert info["architecture"] == "phi3" and info["n_threads"] >= 1 and "ice hockey" in info["topics"]
    assert len(demo.tokenizer) == demo.tokenizer.vocab_size == info["vocab_size"]
    assert Generator.from_pretrained("demo").n_ctx == demo.n_ctx
