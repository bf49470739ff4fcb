"""The same file in candlewick and in other programs, side by side: prompts, decoding, loading and memory.

    python benches/compare.py phi3-mini-q4km.gguf
    python benches/compare.py phi3-mini-q4km.gguf --systems native original --rounds 5
    python benches/compare.py phi3-mini-q4km.gguf --peer llama=/opt/llama/bin/python --json > compare.json

Every measurement is a process of its own, and the systems take turns, so that a machine whose speed drifts is the same
to all. One process loads the model, reads a prompt (what a system lays out at its first pass counts as loading), then
times each prompt and the decoding after the first of them. Prints medians with their spread, and how many times
faster the first system is: the median of the ratios of each round.

A peer is looked for in the Python that runs this, or in the one that `--peer NAME=PYTHON` names, which needs no
candlewick. A name may have a suffix, to compare builds: `--peer llama:avx2=... --peer llama:amx=...`. The peers:

- llama: llama.cpp by way of llama-cpp-python. Its wheels are built for AVX2 at most, so for its best speed let pip
  compile it, here 0.3.36 with clang (gcc 12 miscompiles its AMX code, which then dies of an illegal instruction):
  `CC=clang-19 CXX=clang++-19 CMAKE_ARGS="-DGGML_NATIVE=ON" pip install --no-binary llama-cpp-python
  llama-cpp-python==0.3.36`, about five minutes on two cores. `-DGGML_NATIVE=OFF` builds for AVX2.
- mistralrs: mistral.rs, `pip install mistralrs`. It takes text, not tokens: the prompts are of about the asked length,
  and its own counts and times are used. It draws end tokens as they come, and where it stops early its decoding rate
  is that of fewer tokens. It needs more than four times the file's size in memory.

`CANDLEWICK_ISA=avx2` and its like hold candlewick to a tier. The other engines of candlewick are `candle`, and
`original`, the program that it grew from.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ENGINES = ("native", "candle", "original")
MODULES = {"llama": "llama_cpp", "mistralrs": "mistralrs"}
WARM_UP = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a .gguf file")
    parser.add_argument("--systems", nargs="+", default=[*ENGINES, *MODULES], metavar="NAME", help="default: all")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON", help="where a peer is installed")
    parser.add_argument("--prompts", type=int, nargs="+", default=[128, 512], metavar="N", help="default: 128 512")
    parser.add_argument("--decode-tokens", type=int, default=64, metavar="N", help="default: 64")
    parser.add_argument("--threads", type=int, metavar="N", help="default: all that this process may use")
    parser.add_argument("--kv-type", default="auto", help="candlewick's: auto, f16, f32 or q8_0 (default: auto)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default: 3")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options, options.one)))
        return
    from candlewick import threads
    from candlewick.cli import machine

    options.threads = options.threads or threads.usable_cpus()
    if wrong := [peer for peer in options.peer if "=" not in peer]:
        parser.error(f"--peer is {wrong[0]}, expected NAME=PYTHON")
    pythons = dict(peer.split("=", 1) for peer in options.peer)
    # A build that was given a place of its own takes the place of the one here.
    kinds = {name.split(":")[0] for name in pythons}
    names = [name for name in options.systems if name in pythons or name not in kinds]
    names += [name for name in pythons if name not in names]
    if unknown := [name for name in names if name.split(":")[0] not in (*ENGINES, *MODULES)]:
        parser.error(f"unknown systems: {', '.join(unknown)}; these are known: {', '.join((*ENGINES, *MODULES))}")

    busy = machine.load()
    if busy is not None and busy > 0.5 * threads.usable_cpus():
        print(f"Other programs compute here (load {busy:.1f}): expect lower figures.", file=sys.stderr)
    absent = {name: why for name in names if (why := missing(name, pythons.get(name, sys.executable)))}
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in names if name not in absent}
    failed: dict[str, str] = {}
    for i in range(options.rounds):
        for name in rounds:
            if name in failed:
                continue
            print(f"round {i + 1} of {options.rounds}: {name}", file=sys.stderr)
            try:
                rounds[name].append(measure(options, name, pythons.get(name, sys.executable)))
            except RuntimeError as error:
                failed[name] = str(error)
    results = {name: summary(runs) for name, runs in rounds.items() if name not in failed}
    first = next(iter(results), None)
    result = {
        "cpu": machine.cpu(),
        "load_average": busy,
        "model": options.model,
        "file_bytes": Path(options.model).stat().st_size,
        "n_threads": options.threads,
        "rounds": options.rounds,
        "decode_tokens": options.decode_tokens,
        "systems": results,
        "ratios": {name: ratios(rounds[first], rounds[name]) for name in results} if first else {},
        "absent": absent,
        "failed": failed,
    }
    print(json.dumps(result) if options.json else "\n".join(lines(result)))
    if first is None:
        sys.exit(1)


def missing(name: str, python: str) -> str | None:
    """Why a system cannot be measured, if it cannot."""
    module = MODULES.get(name.split(":")[0], "candlewick")
    try:
        done = subprocess.run(
            [python, "-c", f"import importlib.util as u; print(u.find_spec({module!r}) is not None)"],
            capture_output=True,
            text=True,
        )
    except OSError as error:
        return str(error)
    return None if done.stdout.strip() == "True" else f"{python} has no module {module}"


def measure(options: argparse.Namespace, name: str, python: str) -> dict[str, Any]:
    """One process of one system."""
    command = [python, __file__, options.model, "--one", name.split(":")[0], "--threads", str(options.threads)]
    command += ["--kv-type", options.kv_type, "--decode-tokens", str(options.decode_tokens)]
    command += ["--prompts", *map(str, options.prompts)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["nothing was said"]
        raise RuntimeError(f"exit code {done.returncode}: {said[-1]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def one(options: argparse.Namespace, kind: str) -> dict[str, Any]:
    run = {"llama": llama, "mistralrs": mistralrs}.get(kind, candlewick)
    result = run(options, kind)
    result["peak_bytes"] = peak_bytes()
    return result


def ids(n: int, n_vocab: int) -> list[int]:
    """A prompt of its own for each length: nothing repeats, no cache knows it."""
    return random.Random(n).choices(range(n_vocab), k=n)


def candlewick(options: argparse.Namespace, kind: str) -> dict[str, Any]:
    from candlewick import Generator, __version__

    started = time.perf_counter()
    gen = Generator(options.model, engine=kind, device="cpu", n_threads=options.threads, kv_type=options.kv_type)
    n_vocab = gen.tokenizer.vocab_size
    gen.generate(ids(WARM_UP, n_vocab), max_tokens=2, ignore_eos=True)
    load_s = time.perf_counter() - started
    prefill, decode = {}, None
    for n in options.prompts:
        n_tokens = options.decode_tokens + 1 if decode is None else 1
        timings = gen.generate(ids(n, n_vocab), max_tokens=n_tokens, ignore_eos=True).timings
        prefill[str(n)] = timings.prompt_tps
        decode = decode or timings.generation_tps
    version = f"candlewick {__version__}, tier {gen.info['isa']}, keys and values {gen.info['kv_type']}"
    return {"version": version, "load_s": load_s, "prefill": prefill, "decode": decode}


def llama(options: argparse.Namespace, kind: str) -> dict[str, Any]:
    import llama_cpp

    started = time.perf_counter()
    llm = llama_cpp.Llama(
        options.model,
        n_ctx=max(options.prompts) + options.decode_tokens,
        n_batch=512,
        n_threads=options.threads,
        n_threads_batch=options.threads,
        verbose=False,
    )
    n_vocab = llm.n_vocab()

    def run(tokens: list[int]) -> float:
        started = time.perf_counter()
        llm.eval(tokens)
        llama_cpp.llama_synchronize(llm.ctx)
        return time.perf_counter() - started

    run(ids(WARM_UP, n_vocab))
    load_s = time.perf_counter() - started
    prefill, decode = {}, None
    for n in options.prompts:
        llm.reset()
        prefill[str(n)] = n / run(ids(n, n_vocab))
        if decode is None:
            tokens = ids(options.decode_tokens, n_vocab)
            decode = len(tokens) / sum(run([token]) for token in tokens)
    info = llama_cpp.llama_print_system_info().decode()
    has = [part.split("=")[0].strip() for part in info.replace("CPU :", "").split("|") if part.strip().endswith("= 1")]
    tier = next((name for name in ("AMX_INT8", "AVX512_VNNI", "AVX512", "AVX_VNNI", "AVX2") if name in has), "?")
    version = f"llama-cpp-python {llama_cpp.__version__}, {tier}, keys and values f16"
    return {"version": version, "load_s": load_s, "prefill": prefill, "decode": decode}


def mistralrs(options: argparse.Namespace, kind: str) -> dict[str, Any]:
    from importlib.metadata import version

    # Its own pool, and the one of its matrices.
    os.environ["RAYON_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(options.threads)
    from mistralrs import CompletionRequest, Runner, Which

    started = time.perf_counter()
    file = Path(options.model).resolve()
    which = Which.GGUF(tok_model_id=None, quantized_model_id=str(file.parent), quantized_filename=file.name)
    runner = Runner(which=which, prefix_cache_n=0)

    def run(n: int, max_tokens: int) -> Any:
        # One-token words of the vocabularies of Phi.
        words = random.Random(n).choices("one two time day man world life hand part place case week".split(), k=n - 1)
        request = CompletionRequest(model="model", prompt=" ".join(words), max_tokens=max_tokens, temperature=1.0)
        return runner.send_completion_request(request).usage

    run(WARM_UP, 2)
    load_s = time.perf_counter() - started
    prefill, decode = {}, None
    for n in options.prompts:
        usage = run(n, options.decode_tokens if decode is None else 1)
        prefill[str(n)] = usage.avg_prompt_tok_per_sec
        decode = decode or usage.avg_compl_tok_per_sec
    return {"version": f"mistral.rs {version('mistralrs')}", "load_s": load_s, "prefill": prefill, "decode": decode}


def peak_bytes() -> int | None:
    """The most that this process had in memory."""
    try:
        status = Path("/proc/self/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return None


def measures(run: dict[str, Any]) -> dict[str, float]:
    """The figures of a run by name; of all but loading and memory, more is better."""
    figures = {f"prompt of {n}, tokens/s": rate for n, rate in run["prefill"].items()}
    figures["decode, tokens/s"] = run["decode"]
    figures["load, s"] = run["load_s"]
    if run["peak_bytes"]:
        figures["peak memory, GB"] = run["peak_bytes"] / 1e9
    return figures


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {"version": runs[0]["version"]}
    for name in measures(runs[0]):
        values = [measures(run)[name] for run in runs]
        result[name] = {"median": statistics.median(values), "min": min(values), "max": max(values), "runs": values}
    return result


def ratios(first: list[dict[str, Any]], other: list[dict[str, Any]]) -> dict[str, float]:
    """How much more the first system has of each figure than the other."""
    both = [(measures(a), measures(b)) for a, b in zip(first, other, strict=True)]
    return {name: statistics.median(a[name] / b[name] for a, b in both) for name in both[0][0] if name in both[0][1]}


def lines(result: dict[str, Any]) -> list[str]:
    """The report, at most 80 columns wide."""
    out = [
        f"{Path(result['model']).name}, {result['file_bytes'] / 1e9:.2f} GB",
        result["cpu"],
        f"{result['n_threads']} threads; medians of {result['rounds']} rounds, and from the least to the most",
        "",
    ]
    systems = result["systems"]
    out += [f"{name:<12}{system['version']}" for name, system in systems.items()]
    out += [f"{name:<12}absent: {why}" for name, why in result["absent"].items()]
    out += [f"{name:<12}failed: {why}" for name, why in result["failed"].items()]
    if not systems:
        return out
    first = next(iter(systems))
    for measure in (name for name in systems[first] if name != "version"):
        out += ["", measure]
        for name, system in systems.items():
            if measure not in system:
                continue
            spread = system[measure]
            ratio = result["ratios"][name][measure]
            note = "" if name == first else f"{first} / {name} = {ratio:.2f}"
            between = f"{spread['min']:.2f} to {spread['max']:.2f}"
            out.append(f"  {name:<14}{spread['median']:>8.2f}   {between:<20}{note}".rstrip())
    return out


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
