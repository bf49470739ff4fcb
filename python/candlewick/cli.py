"""The command line: ``candlewick run`` and ``candlewick info``.

Text goes to standard output, everything else to standard error.
"""

from __future__ import annotations

import argparse
import platform
import sys
from typing import TYPE_CHECKING

from candlewick import Error, Generator, __version__, threads

if TYPE_CHECKING:
    from collections.abc import Sequence

EXAMPLES = """\
examples:
  candlewick run --model demo "Write a haiku about ice hockey"
  candlewick run --model Phi-3-mini-4k-instruct-q4.gguf --temperature 0 "Why is the sky blue?"
  candlewick info demo
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code: 0, 1 for an error, 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
        return code
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader has gone (`| head`): nothing is left to say, and Python must not try at exit.
        sys.stderr.close()
        return 1
    except (Error, OSError) as error:
        print(f"candlewick: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="candlewick",
        description="Streams text from quantized Phi models.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"candlewick {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="stream the answer to a prompt")
    run.add_argument("prompt", help="the prompt; - reads standard input")
    run.add_argument(
        "--model", default="demo", help="a .gguf file, a folder that holds one, or demo (default: %(default)s)"
    )
    run.add_argument("--engine", default="auto", help="auto, candle or original (default: %(default)s)")
    run.add_argument("--max-tokens", type=int, metavar="N", help="generated tokens at most (default: no limit)")
    run.add_argument("--temperature", type=float, default=1.0, metavar="T", help="0 is greedy (default: %(default)s)")
    run.add_argument("--top-p", type=float, default=1.0, metavar="P", help="above 0, 1 is off (default: %(default)s)")
    run.add_argument("--seed", type=int, metavar="N", help="the same seed gives the same text")
    run.add_argument("--raw", action="store_true", help="give the prompt as it is, without chat template")
    run.set_defaults(run=_run)

    info = commands.add_parser("info", help="what a model is, or, without one, what this installation is")
    info.add_argument("model", nargs="?", help="a .gguf file, a folder that holds one, or demo")
    info.set_defaults(run=_info)
    return parser


def _run(options: argparse.Namespace) -> int:
    prompt = sys.stdin.read() if options.prompt == "-" else options.prompt
    with Generator(options.model, engine=options.engine) as generator:
        stream = generator.stream(
            prompt,
            max_tokens=options.max_tokens,
            temperature=options.temperature,
            top_p=options.top_p,
            seed=options.seed,
            raw=options.raw,
        )
        for text in stream:
            print(text, end="", flush=True)
        print(flush=True)
    return 0


def _info(options: argparse.Namespace) -> int:
    if options.model is None:
        print(f"candlewick {__version__}, Python {platform.python_version()}, {platform.machine()} {platform.system()}")
        print(f"threads     {threads.start(None)}")
        return 0
    with Generator(options.model) as generator:
        info = generator.info
        rows = {
            "name": info["name"],
            "path": info["path"],
            "model": f"{info['architecture']}, {info['n_layers']} layers, mostly {info['quantization']}, "
            f"{info['file_bytes'] / 1e6:,.1f} MB",
            "vocabulary": f"{info['vocab_size']} tokens",
            "context": f"{info['model_n_ctx']} tokens, sliding window {info['sliding_window'] or 'off'}",
            "memory": f"{info['weight_bytes'] / 1e6:,.1f} MB of weights and {info['kv_bytes_per_token'] / 1e3:,.1f} kB "
            "for each token of the context",
            "engine": f"{info['engine']} on {info['device']}, {info['n_threads']} threads",
        }
        if info["topics"]:
            rows["topics"] = ", ".join(info["topics"])
        for name, value in rows.items():
            print(f"{name:<12}{value}")
    return 0
