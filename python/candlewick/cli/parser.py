"""Commands and their options, with help that teaches by example."""

from __future__ import annotations

import argparse

from candlewick import __version__
from candlewick.cli import bench, cached, chat, completion, doctor, info, pull, replay, run, serve

EXAMPLES = """\
examples:
  candlewick run --model demo "Write a haiku about ice hockey"
  candlewick run "Why is the sky blue?"               (fetches Phi-3-mini once, 2.4 GB)
  git diff | candlewick run --model phi3.gguf --temperature 0 - > message.txt
  candlewick chat --model owner/name:Q5_K_M --system "You answer in one sentence."
  candlewick info demo
"""


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    root = _Parser(prog="candlewick", description="Streams text from quantized Phi models.", epilog=EXAMPLES)
    root.add_argument("--version", action="version", version=f"candlewick {__version__}")
    commands = root.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)

    command = commands.add_parser(
        "run", help="stream the answer to a prompt", description=run.__doc__, epilog=run.EXAMPLES
    )
    command.add_argument("prompt", metavar="PROMPT", help="the prompt; - reads standard input")
    _model_options(command)
    command.add_argument("--raw", action="store_true", help="give the prompt as it is, without chat template")
    command.add_argument("--json", action="store_true", help="print one JSON object when the answer is complete")
    command.add_argument("--json-schema", metavar="FILE", help="the answer is JSON that the schema in this file allows")
    command.add_argument("--stats", action="store_true", help="say on standard error how long it took")
    command.add_argument(
        "--logprobs", action="store_true", help="colour unlikely tokens on a terminal; with --json tell probabilities"
    )
    command.add_argument("--trace", metavar="FILE", help="write down what `candlewick replay` needs")
    _generation_options(command)
    command.set_defaults(command=run.run)

    command = commands.add_parser("chat", help="talk with a model", description=chat.__doc__)
    _model_options(command)
    _generation_options(command)
    command.set_defaults(command=chat.run)

    command = commands.add_parser(
        "serve", help="serve a model: OpenAI's API and a chat page", description=serve.__doc__, epilog=serve.EXAMPLES
    )
    _model_options(command)
    _server_options(command)
    command.set_defaults(command=serve.run)

    command = commands.add_parser(
        "replay", help="generate a recorded text again", description=replay.__doc__, epilog=replay.EXAMPLES
    )
    command.add_argument("trace", metavar="TRACE", help="a file with the JSON of completion.trace()")
    command.add_argument("--model", help=f"{_MODEL} (default: the file that the trace names)")
    _source_options(command)
    command.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all this process may use)")
    command.set_defaults(command=replay.run)

    command = commands.add_parser("pull", help="fetch a model", description=pull.__doc__, epilog=pull.EXAMPLES)
    command.add_argument("model", metavar="MODEL", nargs="?", help=f"{_MODEL} (default: Phi-3-mini, 2.4 GB)")
    _source_options(command)
    command.set_defaults(command=pull.run)

    command = commands.add_parser("models", help="what is in the cache", description=cached.__doc__)
    command.add_argument("--cache-dir", metavar="DIR", help="the cache to list (default: as huggingface_hub)")
    command.add_argument("--json", action="store_true", help="print a JSON list")
    command.set_defaults(command=cached.run)

    command = commands.add_parser(
        "info", help="what a model is, or what this installation is", description=info.__doc__, epilog=info.EXAMPLES
    )
    command.add_argument("model", metavar="MODEL", nargs="?", help=f"{_MODEL}; without it, what this installation is")
    _source_options(command)
    command.add_argument("--n-ctx", type=int, metavar="N", help="count the memory for a context of N tokens")
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.set_defaults(command=info.run)

    command = commands.add_parser(
        "doctor", help="whether all works here", description=doctor.__doc__, epilog=doctor.EXAMPLES
    )
    command.add_argument("--json", action="store_true", help="print one JSON object, for a bug report")
    command.set_defaults(command=doctor.run)

    command = commands.add_parser(
        "bench", help="measure a model on this CPU", description=bench.__doc__, epilog=bench.EXAMPLES
    )
    command.add_argument("model", metavar="MODEL", help=_MODEL)
    _source_options(command)
    command.add_argument("--engine", default="auto", help=f"{_ENGINE} (default: %(default)s)")
    command.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all this process may use)")
    command.add_argument("--kv-type", default="auto", help="auto, f16, f32 or q8_0 (default: %(default)s)")
    command.add_argument("--repeat", type=int, metavar="N", help="runs of each measurement (default: 3; 1 if quick)")
    command.add_argument("--quick", action="store_true", help="one run, and no long prompts or contexts")
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.add_argument("--svg", metavar="FILE", help="write a picture of the figures")
    command.set_defaults(command=bench.run)

    command = commands.add_parser(
        "completion", help="print a completion script for a shell", description=completion.__doc__
    )
    command.add_argument("shell", choices=completion.SHELLS)
    command.set_defaults(command=lambda options: completion.run(options, root))
    return root


class _Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that leaves examples as they are written, and takes no abbreviations."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)  # type: ignore[arg-type]


_ENGINE = "auto, native, candle or original"
_MODEL = "a .gguf file, a folder that holds one, a repository of the hub (owner/name[:Q5_K_M]), or demo"


def _source_options(command: argparse._ActionsContainer) -> None:
    command.add_argument("--filename", metavar="FILE", help="which file of a folder or repository")
    command.add_argument("--revision", metavar="REV", help="branch, tag or commit of a repository (default: main)")
    command.add_argument("--cache-dir", metavar="DIR", help="where fetched files are kept")
    command.add_argument("--offline", action="store_true", help="use what is in the cache and ask nobody")


def _model_options(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("model")
    group.add_argument("--model", help=f"{_MODEL} (default: Phi-3-mini from the hub, 2.4 GB)")
    _source_options(group)
    group.add_argument("--engine", default="auto", help=f"{_ENGINE} (default: %(default)s)")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or metal (default: %(default)s)")
    group.add_argument("--n-ctx", type=int, metavar="N", help="context in tokens (default: the model's)")
    group.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all this process may use)")


def _server_options(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("server")
    group.add_argument(
        "--host", default="127.0.0.1", help="the address to listen on; 0.0.0.0 is all (default: %(default)s)"
    )
    group.add_argument("--port", type=int, default=8000, help="0 is any that is free (default: %(default)s)")
    group.add_argument(
        "--api-key",
        action="append",
        metavar="KEY",
        help=f"ask for a key; may be given several times (default: {serve.KEY}, which other users do not see)",
    )
    group.add_argument(
        "--cors-origin", action="append", metavar="URL", help="a site whose pages may call this; may be repeated"
    )
    group.add_argument(
        "--max-running", type=int, metavar="N", default=32, help="answers at once (default: %(default)s)"
    )
    group.add_argument(
        "--max-waiting", type=int, metavar="N", default=64, help="requests in the queue (default: %(default)s)"
    )
    group.add_argument(
        "--timeout", type=float, metavar="S", default=600.0, help="seconds for a request (default: %(default)g)"
    )


def _generation_options(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("generation")
    group.add_argument("--system", metavar="TEXT", help="a system message")
    group.add_argument("--max-tokens", type=int, metavar="N", help="generated tokens at most (default: no limit)")
    group.add_argument("--temperature", type=float, metavar="T", default=1.0, help="0 is greedy (default: 1)")
    group.add_argument("--top-p", type=float, metavar="P", default=1.0, help="above 0, 1 is off (default: 1)")
    group.add_argument("--top-k", type=int, metavar="K", default=0, help="0 is off (default: 0)")
    group.add_argument("--min-p", type=float, metavar="P", default=0.0, help="0 to 1, 0 is off (default: 0)")
    group.add_argument("--typical-p", type=float, metavar="P", default=1.0, help="above 0, 1 is off (default: 1)")
    group.add_argument("--xtc-probability", type=float, metavar="P", default=0.0, help="0 is off (default: 0)")
    group.add_argument(
        "--xtc-threshold", type=float, metavar="P", default=0.1, help="of its top choices (default: 0.1)"
    )
    group.add_argument("--dry-multiplier", type=float, metavar="M", default=0.0, help="0 is off (default: 0)")
    group.add_argument("--no-repeat-ngram-size", type=int, metavar="N", default=0, help="0 is off (default: 0)")
    group.add_argument("--repetition-penalty", type=float, metavar="R", help="above 0, 1 is off (default: 1)")
    group.add_argument("--repeat-last-n", type=int, metavar="N", default=64, help="what it looks back on (default: 64)")
    group.add_argument("--frequency-penalty", type=float, metavar="F", default=0.0, help="-2 to 2 (default: 0)")
    group.add_argument("--presence-penalty", type=float, metavar="F", default=0.0, help="-2 to 2 (default: 0)")
    group.add_argument("--min-tokens", type=int, metavar="N", default=0, help="no end before (default: 0)")
    group.add_argument("--bad-word", action="append", metavar="TEXT", help="not written; may be given several times")
    group.add_argument("--stop", action="append", metavar="TEXT", help="ends the answer; may be given several times")
    group.add_argument("--seed", type=int, metavar="N", help="the same seed gives the same text")
