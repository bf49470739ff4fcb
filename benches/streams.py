"""Several streams of one generator at once: tokens per second, and the time between tokens, against one stream.

    python benches/streams.py MODEL.gguf [--streams 8] [--tokens 64] [--rounds 3]

Each stream is a thread of its own, and knows nothing of the others.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time

from candlewick import Generator


def run(gen: Generator, n_streams: int, n_tokens: int) -> tuple[float, list[float]]:
    """Tokens per second from the first start to the last end, and the seconds between tokens."""
    gaps: list[float] = []

    def stream(i: int) -> None:
        before = None
        prompt = [100 + 17 * i + k for k in range(16)]
        for _ in gen.stream_tokens(prompt, max_tokens=n_tokens, temperature=1.0, seed=i, ignore_eos=True):
            now = time.perf_counter()
            if before is not None:
                gaps.append(now - before)
            before = now

    threads = [threading.Thread(target=stream, args=(i,)) for i in range(n_streams)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return n_streams * n_tokens / (time.perf_counter() - started), sorted(gaps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with Generator(options.model) as gen:
        ratios = []
        for _ in range(options.rounds):
            # Nothing of an earlier round is to be found again.
            gen.clear_cache()
            one, one_gaps = run(gen, 1, options.tokens)
            gen.clear_cache()
            all_, gaps = run(gen, options.streams, options.tokens)
            p95, one_p95 = (1000 * x[int(0.95 * len(x))] for x in (gaps, one_gaps))
            ratios.append(all_ / one)
            print(
                f"one {one:.2f} tokens/s, {options.streams} together {all_:.2f}: {all_ / one:.2f} x; "
                f"between tokens median {1000 * gaps[len(gaps) // 2]:.0f}, p95 {p95:.0f} ms, {p95 / one_p95:.2f} x one"
            )
        print(f"median {statistics.median(ratios):.2f} x")


if __name__ == "__main__":
    main()
