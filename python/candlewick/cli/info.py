"""Show what a model is and needs, or, without a model, what this installation is.

Of a model at the hub that is not in the cache only the header is read.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from candlewick import __version__, _native, threads
from candlewick.cli import options as parsed
from candlewick.cli.size import readable
from candlewick.generator import Generator

if TYPE_CHECKING:
    import argparse

EXAMPLES = """\
examples:
  candlewick info
  candlewick info demo
  candlewick info Phi-3-mini-4k-instruct-q4.gguf --n-ctx 2048
"""


def run(options: argparse.Namespace) -> int:
    """The command ``info``."""
    facts = _installation() if options.model is None else _model(options)
    if options.json:
        print(json.dumps(facts, ensure_ascii=False, default=os.fspath))
        return 0
    rows = facts if options.model is None else _rows(facts)
    for name, value in rows.items():
        print(f"{name:<12}{value}")
    return 0


def _installation() -> dict[str, Any]:
    features, tier = _native.cpu()
    return {
        "candlewick": __version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": " ".join(features) or "-",
        "tier": f"{tier}, the best of these that the engine makes use of",
        "threads": threads.usable_cpus(),
        "cache": _native.cache_dir(),
    }


def _model(options: argparse.Namespace) -> dict[str, Any]:
    estimate = Generator.estimate(options.model, **parsed.source(options), n_ctx=options.n_ctx)
    facts = {**asdict(estimate), "needed_bytes": estimate.needed_bytes}
    available = estimate.available_bytes
    if estimate.path is None or (available is not None and estimate.weight_bytes > available):
        return facts
    with Generator(options.model, **parsed.source(options), n_ctx=options.n_ctx) as generator:
        return {**generator.info, **facts}


def _rows(info: dict[str, Any]) -> dict[str, Any]:
    where = info["path"] or f"{info['filename']}, not fetched yet"
    rows = {
        "name": info["name"] or "-",
        "file": f"{where} ({readable(info['file_bytes'])})",
        "model": f"{info['architecture']}, mostly {info['quantization']}",
        "context": f"{info['model_n_ctx']:,} tokens, sliding window {info['sliding_window'] or 'off'}",
        "memory": f"{readable(info['weight_bytes'])} of weights, {readable(info['context_bytes'])} more for a context "
        f"of {info['n_ctx']:,} tokens",
        "here": _verdict(info),
    }
    if "engine" not in info:
        return rows
    rows |= {
        "layers": info["n_layers"],
        "vocabulary": f"{info['vocab_size']:,} tokens",
        "engine": f"{info['engine']} on {info['device']}, {info['n_threads']} threads"
        + (f"; slow, for it has no kernels for {', '.join(info['slow_types'])}" if info["slow_types"] else ""),
        "audit": f"{len(info['audit']['used'])} keys and tensors used, without effect: "
        f"{', '.join(info['audit']['harmless']) or 'none'}",
        "template": "in the file" if info["chat_template"] else "none in the file",
    }
    if info["topics"]:
        rows["topics"] = ", ".join(info["topics"])
    return rows


def _verdict(info: dict[str, Any]) -> str:
    if info["available_bytes"] is None:
        return "this system does not tell how much memory is available"
    found = f"{readable(info['available_bytes'])} are available: "
    return found + ("it fits" if info["fits"] else f"it does not fit; choose {', or '.join(info['advice'])}")
