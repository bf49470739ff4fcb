"""Measure a model on this machine's CPU, beside what the machine can do at most.

Reports loading, the first token, prompts and decoding at several lengths, and memory. In the same run it measures a
plain read of memory, which bounds decoding, and a loop of byte products in registers, which bounds prompts.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

from candlewick import __version__, _native, threads
from candlewick.cli import machine, plot
from candlewick.cli import options as parsed
from candlewick.cli.screen import Screen
from candlewick.cli.size import readable
from candlewick.errors import InvalidRequestError
from candlewick.generator import Generator

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from candlewick.stream import TokenStream

EXAMPLES = """\
examples:
  candlewick bench demo --quick
  candlewick bench Phi-3-mini-4k-instruct-q4.gguf --svg speed.svg
  candlewick bench phi3.gguf --engine candle --threads 4 --json > speed.json
"""

SHORT = 16

# Fewer weights than this may lie in a cache, and then a read of memory bounds nothing.
CACHED_BYTES = 256 << 20


class Plan(NamedTuple):
    """What is measured."""

    repeat: int
    prompts: tuple[int, ...]
    contexts: tuple[int, ...]
    n_decoded: int
    # Tokens of the prompt and of the answer after which the memory is read.
    memory: tuple[int, int]
    read_bytes: int


FULL = Plan(3, (32, 128, 512, 2048), (0, 1000, 3500), 32, (512, 64), 1 << 62)
QUICK = Plan(1, (32, 128), (0,), 8, (128, 8), 256 << 20)


def run(options: argparse.Namespace) -> int:
    """The command ``bench``."""
    plan = QUICK if options.quick else FULL
    if options.repeat is not None:
        plan = plan._replace(repeat=options.repeat)
    if not 1 <= plan.repeat <= 1000:
        raise InvalidRequestError(f"--repeat is {plan.repeat}, expected 1 to 1000")
    if options.svg is not None:
        _check_writable(options.svg)
    busy, n_threads = machine.load(), threads.number(options.threads)
    if busy is not None and busy > 0.5 * threads.usable_cpus():
        print(f"Other programs compute here (load {busy:.1f}): expect lower figures.", file=sys.stderr)
    with Screen() as screen, _Bench(options, plan, n_threads, screen) as bench:
        result = {**bench.measure(), "load_average": busy}
    if options.svg is not None:
        with open(options.svg, "w", encoding="utf-8") as file:
            file.write(plot.svg(result))
    print(json.dumps(result, ensure_ascii=False, default=os.fspath) if options.json else "\n".join(_lines(result)))
    return 0


def _check_writable(path: str) -> None:
    """A mistake shows now, and not after the measurement."""
    existed = os.path.lexists(path)
    with open(path, "ab"):
        pass
    if not existed:
        os.unlink(path)


class _Bench(ExitStack):
    """The measurements; leaving it frees the model, after an error or Ctrl-C too."""

    def __init__(self, options: argparse.Namespace, plan: Plan, n_threads: int, screen: Screen) -> None:
        super().__init__()
        self.options = options
        self.plan = plan
        self.n_threads = n_threads
        self.screen = screen
        self.samples: dict[tuple[str, int], list[float]] = {}
        self.random = random.Random(0)

    def measure(self) -> dict[str, Any]:
        plan = self.plan
        generator = self.load()
        n_ctx = generator.n_ctx
        memory = self.memory(generator)
        for i in range(1, plan.repeat):
            self.close()
            generator = self.load(i)
        # The first passes are over: what an engine lays out then is laid out.
        pages = "huge" if machine.huge_page_memory() > generator._native.work[0] / 2 else "small"
        n_after = plan.repeat * plan.n_decoded + 1
        streams = {n: self.decoding(generator, n) for n in plan.contexts if max(n, 1) + n_after <= n_ctx}
        prompts = [n for n in plan.prompts if n < n_ctx]
        read_bytes = min(plan.read_bytes, _native.read_bytes())
        for i in range(plan.repeat):
            self.limits(i, read_bytes)
            for n, stream in streams.items():
                self.say(i, f"decoding at context {n:,}")
                started = time.perf_counter()
                for _ in range(plan.n_decoded):
                    next(stream)
                self.add("decode", n, plan.n_decoded / (time.perf_counter() - started))
            for n in prompts:
                self.say(i, f"prompt of {n:,} tokens")
                self.add("prefill", n, n / self.first_token(generator, n))
        return self.result(generator, memory, pages, read_bytes, prompts, list(streams))

    def load(self, i: int = 0) -> Generator:
        """Loads the model and takes the time of that and of the first token."""
        self.say(i, "loading")
        started = time.perf_counter()
        generator = Generator(
            self.options.model,
            **parsed.source(self.options),
            engine=self.options.engine,
            device="cpu",
            n_threads=self.options.threads,
            kv_type=self.options.kv_type,
        )
        self.add("load", 0, time.perf_counter() - started)
        self.enter_context(generator)
        self.say(i, "first token")
        self.add("ttft", 0, self.first_token(generator, min(SHORT, generator.n_ctx - 1)))
        return generator

    def memory(self, generator: Generator) -> dict[str, Any]:
        """What a prompt and an answer have taken at most; before anything else here takes memory."""
        n_prompt = min(self.plan.memory[0], max(generator.n_ctx // 2, 1))
        n_answer = min(self.plan.memory[1], generator.n_ctx - n_prompt)
        self.say(0, "memory")
        generator.generate(self.ids(generator, n_prompt), max_tokens=n_answer, ignore_eos=True)
        return {"peak_bytes": machine.peak_memory(), "prompt_tokens": n_prompt, "completion_tokens": n_answer}

    def decoding(self, generator: Generator, context: int) -> TokenStream:
        """A stream that has its prompt behind it."""
        self.screen.show(f"context of {context:,} tokens")
        stream = generator.stream_tokens(self.ids(generator, max(context, 1)), ignore_eos=True)
        self.enter_context(stream)
        next(stream)
        return stream

    def limits(self, i: int, read_bytes: int) -> None:
        self.say(i, "plain read of memory")
        for name, huge in (("read_huge", True), ("read_small", False)):
            self.add(name, 0, _native.read_rate(self.n_threads, read_bytes, huge) / 1e9)
        self.say(i, "products in registers")
        rate = _native.multiply_rate(self.n_threads)
        if rate is not None:
            self.add("multiply", 0, rate / 1e9)

    def first_token(self, generator: Generator, n: int) -> float:
        done = generator.generate(self.ids(generator, n), max_tokens=1, ignore_eos=True)
        assert done.timings.ttft_s is not None
        return done.timings.ttft_s

    def ids(self, generator: Generator, n: int) -> list[int]:
        """A prompt that was not there before and that repeats nothing: no cache and no guess makes it cheaper."""
        return self.random.choices(range(generator.tokenizer.vocab_size), k=n)

    def add(self, name: str, n: int, value: float) -> None:
        self.samples.setdefault((name, n), []).append(value)

    def say(self, i: int, what: str) -> None:
        self.screen.show(f"round {i + 1} of {self.plan.repeat}: {what}")

    def result(
        self,
        generator: Generator,
        memory: dict[str, Any],
        pages: str,
        read_bytes: int,
        prompts: list[int],
        contexts: list[int],
    ) -> dict[str, Any]:
        info = generator.info
        weight_bytes, layer_products, output_products = generator._native.work
        window = info["sliding_window"] or info["n_ctx"]
        samples = self.samples
        reads, multiplies = samples[f"read_{pages}", 0], samples.get(("multiply", 0))
        prefill = []
        for n in prompts:
            rates, each = samples["prefill", n], layer_products + output_products / n
            prefill.append(
                {
                    "tokens": n,
                    "tokens_per_s": _spread(rates),
                    "products_per_token": each,
                    "of_products": multiplies and _share(rates, each / 1e9, multiplies),
                }
            )
        decode = []
        for n in contexts:
            rates, each = samples["decode", n], weight_bytes + min(n, window) * info["kv_bytes_per_token"]
            of_read = _share(rates, each / 1e9, reads) if weight_bytes >= CACHED_BYTES else None
            decode.append({"context": n, "tokens_per_s": _spread(rates), "bytes_per_token": each, "of_read": of_read})
        if memory["peak_bytes"] is not None:
            memory["of_file"] = memory["peak_bytes"] / info["file_bytes"]
        names = ("name", "path", "architecture", "quantization", "file_bytes", "sliding_window", "model_n_ctx")
        return {
            "candlewick": __version__,
            "cpu": machine.cpu(),
            "isa": info["isa"],
            "n_threads": info["n_threads"],
            "engine": info["engine"],
            "kv_type": info["kv_type"],
            "n_ctx": info["n_ctx"],
            "model": {**{name: info[name] for name in names}, "weight_bytes_per_token": weight_bytes},
            "repeat": self.plan.repeat,
            "left_out": {
                "prompts": [n for n in self.plan.prompts if n not in prompts],
                "contexts": [n for n in self.plan.contexts if n not in contexts],
            },
            "load_s": _spread(samples["load", 0]),
            "ttft_s": {"prompt_tokens": min(SHORT, info["n_ctx"] - 1), **_spread(samples["ttft", 0])},
            "prefill": prefill,
            "decode": decode,
            "memory": memory,
            "limits": {
                "tier": _native.cpu()[1],
                "n_threads": self.n_threads,
                "read_bytes": read_bytes,
                "pages_of_weights": pages,
                "read_huge_gb_per_s": _spread(samples["read_huge", 0]),
                "read_small_gb_per_s": _spread(samples["read_small", 0]),
                "products_g_per_s": multiplies and _spread(multiplies),
            },
        }


def _spread(values: list[float]) -> dict[str, Any]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "runs": values}


def _share(rates: list[float], each: float, limits: list[float]) -> float:
    """The median of shares, each of the limit that was measured beside it."""
    return statistics.median(rate * each / limit for rate, limit in zip(rates, limits, strict=True))


def _lines(result: dict[str, Any]) -> list[str]:
    """The report, at most 80 columns wide."""
    model, limits, memory = result["model"], result["limits"], result["memory"]
    path: Path = model["path"]
    one = result["repeat"] == 1

    def row(name: str, spread: dict[str, Any], unit: str, note: str = "") -> str:
        between = "" if one else f"{number(spread['min'])} to {number(spread['max'])}"
        return f"{name:<26}{number(spread['median']):>6} {unit:<10} {between:<16} {note}".rstrip()

    lines = [
        f"{path.name}: {model['architecture']}, mostly {model['quantization']}, {readable(model['file_bytes'])}",
        f"{result['cpu']}",
        f"{result['engine']} engine, tier {result['isa']}, threads: {result['n_threads']}, keys and values: "
        f"{result['kv_type']}",
        "one run" if one else f"medians of {result['repeat']} runs, and from the least to the most",
        "",
        row("load", result["load_s"], "s"),
        row(f"first token, prompt of {result['ttft_s']['prompt_tokens']}", result["ttft_s"], "s"),
    ]
    for entry in result["prefill"]:
        note = "" if entry["of_products"] is None else f"{100 * entry['of_products']:.0f}% of the products"
        lines.append(row(f"prompt of {entry['tokens']:,}", entry["tokens_per_s"], "tokens/s", note))
    for entry in result["decode"]:
        share = entry["of_read"]
        note = "from the caches" if share is None else f"{100 * share:.0f}% of the read"
        lines.append(row(f"decode at context {entry['context']:,}", entry["tokens_per_s"], "tokens/s", note))
    if memory["peak_bytes"] is not None:
        used = f"{readable(memory['peak_bytes'])}, {memory['of_file']:.2f} times the file"
        lines.append(f"memory at most            {used}")
        lines.append(f"{'':<26}({memory['prompt_tokens']} tokens read, {memory['completion_tokens']} written)")
    lines += ["", "What this machine can do at most:"]
    huge = limits["pages_of_weights"] == "huge"
    here = "as the weights"
    lines.append(row("plain read, huge pages", limits["read_huge_gb_per_s"], "GB/s", here if huge else ""))
    lines.append(row("plain read, small pages", limits["read_small_gb_per_s"], "GB/s", "" if huge else here))
    if limits["products_g_per_s"] is not None:
        lines.append(row(f"byte products, {limits['tier']}", limits["products_g_per_s"], "G/s"))
    if any(result["left_out"].values()):
        lines += ["", f"The context ends at {result['n_ctx']:,} tokens: what is longer is left out."]
    return lines


def number(x: float) -> str:
    """Three digits, as far as they come after the point."""
    return f"{x:,.{0 if x >= 99.95 else 1 if x >= 9.995 else 2}f}"
