"""Speed and memory of the engines on one file: loading, prefill, decode, peak memory.

    python benches/generate.py phi3-mini-q4km.gguf --engines candle original --rounds 3

Each measurement is a process of its own, and the engines take turns, so that a machine whose speed drifts is the
same to both. Prints medians with their spread, and the CPU.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--engines", nargs="+", default=["candle", "original"])
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--decode-tokens", type=int, default=32)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options, options.one)))
        return
    results: dict[str, list[dict[str, float]]] = {engine: [] for engine in options.engines}
    for _ in range(options.rounds):
        for engine in options.engines:
            done = subprocess.run(
                [sys.executable, __file__, *sys.argv[1:], "--one", engine], capture_output=True, text=True
            )
            if done.returncode:
                sys.exit(done.stderr)
            results[engine].append(json.loads(done.stdout))
    print(
        f"{cpu()}; {options.model}: {Path(options.model).stat().st_size / 1e9:.2f} GB; prompt of "
        f"{options.prompt_tokens} tokens, {options.decode_tokens} decoded, median of {options.rounds} (min to max)"
    )
    for engine, rounds in results.items():
        cells = []
        for key, unit in (("load", "s"), ("prefill", "tokens/s"), ("decode", "tokens/s"), ("peak", "GB")):
            values = [r[key] for r in rounds]
            cells.append(f"{key} {statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f}) {unit}")
        print(f"{engine:<10}" + "; ".join(cells))


def measure(options: argparse.Namespace, engine: str) -> dict[str, float]:
    from candlewick import Generator

    started = time.perf_counter()
    gen = Generator(options.model, engine=engine, n_threads=options.threads)
    load = time.perf_counter() - started
    # Packing the weights for this CPU happens in the first pass; it is loading, and is counted there.
    started = time.perf_counter()
    gen.generate([1] * 64, max_tokens=2, ignore_eos=True)
    load += time.perf_counter() - started
    prompt = [1 + i % 200 for i in range(options.prompt_tokens)]
    stream = gen.stream(prompt, max_tokens=options.decode_tokens, ignore_eos=True, seed=1)
    for _ in stream:
        pass
    timings = stream.timings
    assert timings.prompt_tps is not None and timings.generation_tps is not None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {"load": load, "prefill": timings.prompt_tps, "decode": timings.generation_tps, "peak": peak}


def cpu() -> str:
    try:
        names = [
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ]
        return f"{names[0]}, {len(names)} cores"
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
