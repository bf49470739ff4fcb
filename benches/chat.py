"""A long conversation pays for each token once: 20 turns, the wait for each first token, and the same text afresh.

    python benches/chat.py phi3-mini-q4km.gguf
    python benches/chat.py phi3-mini-q4km.gguf --turns 20 --question-tokens 40 --answer-tokens 24 --json > chat.json

Questions are of random words of one length, so that every turn brings equally many new tokens. Some answers are then
generated once more from the same messages with nothing kept, and must be the same to the letter. The exit code is 1
where they are not, or where the last turn waits more than 1.5 times as long as the second.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys

from candlewick import Generator

WORDS = "river stone lamp winter paper glass green follow bread seven open quiet north garden silver".split()


def question(gen: Generator, n_tokens: int, rng: random.Random) -> str:
    """Words that are this many tokens together."""
    text = rng.choice(WORDS)
    while len(gen.tokenizer.encode(text)) < n_tokens:
        text += " " + rng.choice(WORDS)
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a .gguf file")
    parser.add_argument("--turns", type=int, default=20, metavar="N", help="default: 20")
    parser.add_argument("--question-tokens", type=int, default=40, metavar="N", help="default: 40")
    parser.add_argument("--answer-tokens", type=int, default=24, metavar="N", help="default: 24")
    parser.add_argument(
        "--afresh", type=int, nargs="+", metavar="TURN", help="turns to repeat (default: 2 and the last)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()

    rng = random.Random(0)
    gen = Generator(options.model)
    chat = gen.chat(temperature=0, ignore_eos=True, max_tokens=options.answer_tokens)
    turns = []
    for i in range(1, options.turns + 1):
        stream = chat.send(question(gen, options.question_tokens, rng))
        for _ in stream:
            pass
        usage, timings = stream.usage, stream.timings
        turns.append(
            {
                "turn": i,
                "prompt_tokens": usage.prompt_tokens,
                "cached_tokens": usage.cached_tokens,
                "ttft_s": timings.ttft_s,
                "generation_tps": timings.generation_tps,
            }
        )
        if not options.json:
            print(
                f"turn {i:2}: {usage.prompt_tokens:5} tokens, {usage.cached_tokens:5} cached, first token after "
                f"{timings.ttft_s or 0:.2f} s"
            )

    messages = chat.messages
    same = {}
    for i in options.afresh or sorted({2, options.turns}):
        gen.clear_cache()
        end = 2 * i - 1
        done = gen.generate(messages[:end], temperature=0, ignore_eos=True, max_tokens=options.answer_tokens)
        assert done.usage.cached_tokens == 0
        same[i] = done.text == messages[end]["content"]
        if not options.json:
            says = "the same" if same[i] else "ANOTHER"
            print(f"turn {i} afresh: {says} answer, first token after {done.timings.ttft_s or 0:.2f} s")

    ttft = [turn["ttft_s"] for turn in turns]
    ratio = ttft[-1] / ttft[1]
    middle = statistics.median(ttft[1:])
    if options.json:
        print(json.dumps({"turns": turns, "same_afresh": same, "last_to_second": ratio, "median_ttft_s": middle}))
    else:
        print(f"last turn / second: {ratio:.2f}; median of all after the first: {middle:.2f} s")
    return 0 if all(same.values()) and ratio <= 1.5 else 1


if __name__ == "__main__":
    sys.exit(main())
