"""Stream the answer to a prompt: the text to standard output, everything else to standard error."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from candlewick import shading
from candlewick.cli import options as parsed
from candlewick.errors import InvalidRequestError
from candlewick.stream import TokenStream

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from candlewick.generator import Generator
    from candlewick.stream import TextStream

EXAMPLES = """\
examples:
  candlewick run --model demo "Write a haiku about ice hockey"
  candlewick run --model demo --seed 3 --stats "Write a haiku about fog"
  candlewick run --model phi3.gguf --json-schema person.json "Ada Lovelace, born 1815 in London" | jq .born
  candlewick run --model phi3.gguf --json --max-tokens 40 "Hello" | jq .usage
"""


def run(options: argparse.Namespace) -> int:
    """The command ``run``."""
    prompt = _standard_input() if options.prompt == "-" else options.prompt
    with parsed.generator(options) as generator, _stream(generator, prompt, options) as stream:
        for text in _texts(stream, options):
            if not options.json:
                print(text, end="", flush=True)
        if options.trace is not None:
            _write_trace(stream, options.trace)
        if options.json:
            print(json.dumps(_result(stream, options.logprobs), ensure_ascii=False))
        elif not stream.text.endswith("\n"):
            print(flush=True)
        if options.stats:
            print(_stats(stream), file=sys.stderr)
    return 0


def _standard_input() -> str:
    if sys.stdin is None:
        raise OSError("standard input is closed, and the prompt - reads it")
    return sys.stdin.read()


def _stream(generator: Generator, prompt: str, options: argparse.Namespace) -> TextStream:
    arguments = parsed.generation(options)
    if options.json_schema is not None:
        arguments["json_schema"] = Path(options.json_schema).read_text(encoding="utf-8")
    if options.logprobs and options.json:
        arguments["logprobs"] = 5
    if options.raw:
        if options.system is not None:
            raise InvalidRequestError("--system needs the chat template, which --raw leaves out: give one of them")
        arguments["raw"] = True
        return generator.stream(prompt, **arguments)
    if options.system is None:
        return generator.stream(prompt, **arguments)
    messages = [{"role": "system", "content": options.system}, {"role": "user", "content": prompt}]
    return generator.stream(messages, **arguments)


def _texts(stream: TextStream, options: argparse.Namespace) -> Iterator[str]:
    if not options.logprobs or options.json:
        return iter(stream)
    tokens = TokenStream(stream._native, stream._reader, stream._origin)
    return shading.terminal(shading.items(tokens), shading.colours(sys.stdout))


def _write_trace(stream: TextStream, path: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        json.dump(stream.completion().trace(), file)


def _result(stream: TextStream, logprobs: bool) -> dict[str, object]:
    result = stream.completion().to_dict()
    if not logprobs:
        del result["logprobs"]
    return result


def _stats(stream: TextStream) -> str:
    usage, timings = stream.usage, stream.timings
    parts = [f"{usage.prompt_tokens} tokens read, first answer after {timings.ttft_s or 0:.2f} s"]
    parts.append(f"{usage.completion_tokens} tokens written")
    if timings.generation_tps:
        parts[-1] += f", {timings.generation_tps:.1f} a second"
    if timings.recompute_s:
        parts.append(f"all tokens read again past the original context in {timings.recompute_s:.2f} s")
    return "; ".join([*parts, f"seed {stream.seed}"])
