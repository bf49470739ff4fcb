"""Generate a recorded text again, and say whether every token is the same.

Exit codes: 0 if it is, 1 if not, with the first difference on standard output.
"""

from __future__ import annotations

import math
import os
import sys
from typing import TYPE_CHECKING, Any

from candlewick import __version__, trace
from candlewick.cli import options as parsed
from candlewick.errors import InvalidRequestError
from candlewick.generator import Generator

if TYPE_CHECKING:
    import argparse

EXAMPLES = """\
examples:
  candlewick run --model demo --trace rain.json "Write a haiku about rain"
  candlewick replay rain.json
  candlewick replay rain.json --model other.gguf
"""


def run(options: argparse.Namespace) -> int:
    """The command ``replay``."""
    recorded = trace.load(options.trace)
    with _generator(recorded, options) as generator:
        for note in _notes(recorded, generator):
            print(note, file=sys.stderr)
        difference = trace.replay(recorded, generator)
        if difference is None:
            print(f"the same {len(recorded['ids'])} tokens")
            return 0
        print(_shown(difference, generator))
    return 1


def _generator(recorded: dict[str, Any], options: argparse.Namespace) -> Generator:
    model = options.model
    if model is None:
        model = recorded["model"]["path"]
        if not os.path.exists(model):
            raise InvalidRequestError(f"the trace was made with `{model}`, which is not here: name it with --model")
    engine = recorded["engine"]
    return Generator(
        model,
        **parsed.source(options),
        engine=engine["engine"],
        device=engine["device"],
        kv_type=engine["kv_type"],
        n_ctx=engine["n_ctx"],
        n_threads=options.threads,
    )


def _notes(recorded: dict[str, Any], generator: Generator) -> list[str]:
    """What is not as it was: a difference may come of it."""
    notes = []
    expected, found = recorded["model"]["sha256"], generator._native.sha256
    if expected != found:
        notes.append(f"another model: SHA-256 {found}, and the trace was made with {expected}")
    if recorded.get("candlewick") != __version__:
        notes.append(f"another version: candlewick {__version__}, and the trace is of {recorded.get('candlewick')}")
    isa, recorded_isa = generator.info["isa"], recorded["engine"]["isa"]
    if isa != recorded_isa and generator.info["engine"] != "native":
        notes.append(
            f"another CPU: {isa}, and the trace is of {recorded_isa}; only the native engine is the same on all"
        )
    return notes


def _shown(difference: trace.Difference, generator: Generator) -> str:
    expected, found = "the end", "the end"
    if difference.expected is not None:
        expected = _token(difference.expected, difference.expected_logprob, generator)
    if difference.found is not None:
        found = _token(difference.found.id, difference.found.logprob, generator)
    return f"token {difference.position} differs: expected {expected}, found {found}"


def _token(id: int, logprob: float | None, generator: Generator) -> str:
    known = 0 <= id < generator.tokenizer.vocab_size
    text = repr(generator.tokenizer.decode([id], skip_special_tokens=False)) if known else "not in the vocabulary"
    share = "" if logprob is None else f", logprob {logprob:.4f}, {100 * math.exp(logprob):.3g} %"
    return f"{id} ({text}{share})"
