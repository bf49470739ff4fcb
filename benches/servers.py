"""Servers that speak OpenAI's API, side by side: one answer at a time against several, and a beginning that they share.

    candlewick serve --model phi3-mini-q4km.gguf --port 8000
    python -m llama_cpp.server --model phi3-mini-q4km.gguf --n_threads 2 --port 8001
    python benches/servers.py http://127.0.0.1:8000/v1 http://127.0.0.1:8001/v1 [--answers 8] [--tokens 64] [--rounds 3]

The servers take turns. Tokens a second are from the first request to the last token; the time between tokens is that
between the parts of an answer, of all answers together. Needs openai.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import time

from openai import AsyncOpenAI

WORDS = "river stone lamp winter paper glass green follow bread seven open quiet north garden silver".split()


async def answer(client: AsyncOpenAI, model: str, prompt: str, n_tokens: int, gaps: list[float]) -> int:
    """Streams an answer of at most so many tokens; returns how many there were."""
    stream = await client.completions.create(
        model=model, prompt=prompt, max_tokens=n_tokens, temperature=1.0, seed=random.randrange(2**31), stream=True
    )
    n, before = 0, None
    async for part in stream:
        if part.choices and part.choices[0].text:
            now = time.perf_counter()
            if before is not None:
                gaps.append(now - before)
            n, before = n + 1, now
    return n


async def together(client: AsyncOpenAI, model: str, prompts: list[str], n_tokens: int) -> tuple[float, list[float]]:
    """Parts a second, of all answers, and the seconds between the parts of each."""
    gaps: list[float] = []
    start = time.perf_counter()
    counts = await asyncio.gather(*(answer(client, model, prompt, n_tokens, gaps) for prompt in prompts))
    return sum(counts) / (time.perf_counter() - start), gaps


def p95(values: list[float]) -> float:
    return statistics.quantiles(values, n=20)[-1]


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="+", help="where a server's /v1 is")
    parser.add_argument("--answers", type=int, default=8, metavar="N", help="at once (default: 8)")
    parser.add_argument("--tokens", type=int, default=64, metavar="N", help="of each (default: 64)")
    parser.add_argument("--words", type=int, default=12, metavar="N", help="of each prompt (default: 12)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default: 3")
    options = parser.parse_args()
    rng = random.Random(1)
    clients = [AsyncOpenAI(base_url=url, api_key="none", timeout=600, max_retries=0) for url in options.url]
    models = [(await client.models.list()).data[0].id for client in clients]

    def prompts(n: int) -> list[str]:
        return [" ".join(rng.choices(WORDS, k=options.words)) for _ in range(n)]

    shares: list[list[float]] = [[] for _ in clients]
    for _ in range(options.rounds):
        for client, model, url, share in zip(clients, models, options.url, shares, strict=True):
            one, one_gaps = await together(client, model, prompts(1), options.tokens)
            all_, all_gaps = await together(client, model, prompts(options.answers), options.tokens)
            share.append(all_ / one)
            one_s, all_s = p95(one_gaps), p95(all_gaps)
            print(
                f"{url}: one {one:.1f} a second, {options.answers} together {all_:.1f}: {all_ / one:.2f} x; "
                f"between tokens p95 {1000 * one_s:.0f} and {1000 * all_s:.0f} ms: {all_s / one_s:.2f} x"
            )
    for url, share in zip(options.url, shares, strict=True):
        print(f"{url}: {statistics.median(share):.2f} x")

    print("A beginning of about 500 tokens that all share:")
    system = " ".join(rng.choices(WORDS, k=420))
    for client, model, url in zip(clients, models, options.url, strict=True):
        start = time.perf_counter()
        requests = [
            client.completions.create(model=model, prompt=f"{system} {prompt}", max_tokens=1) for prompt in prompts(8)
        ]
        used = [done.usage for done in await asyncio.gather(*requests)]
        prompt = sum(usage.prompt_tokens for usage in used)
        cached = sum((usage.prompt_tokens_details and usage.prompt_tokens_details.cached_tokens) or 0 for usage in used)
        print(f"{url}: {prompt} prompt tokens, {cached} of them cached, {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    asyncio.run(main())
