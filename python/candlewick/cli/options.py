"""Parsed options -> a generator and the arguments of its streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from candlewick.generator import Generator
from candlewick.models import Hub

if TYPE_CHECKING:
    import argparse

    from candlewick.generator import Options


class Source(TypedDict):
    """Where a model comes from, as `Generator` takes it."""

    filename: str | None
    revision: str | None
    cache_dir: str | None
    local_files_only: bool | None


def source(options: argparse.Namespace) -> Source:
    """Which file of the model, and where it is kept."""
    return {
        "filename": options.filename,
        "revision": options.revision,
        "cache_dir": options.cache_dir,
        "local_files_only": options.offline or None,
    }


def hub(options: argparse.Namespace) -> Hub:
    """How to ask the hub."""
    return Hub(options.revision, options.cache_dir, options.offline or None)


def generator(options: argparse.Namespace) -> Generator:
    """Loads the model that the options name."""
    return Generator(
        options.model,
        **source(options),
        engine=options.engine,
        device=options.device,
        n_ctx=options.n_ctx,
        n_threads=options.threads,
    )


def generation(options: argparse.Namespace) -> Options:
    """The keyword arguments of `Generator.stream`."""
    return {
        "max_tokens": options.max_tokens,
        "temperature": options.temperature,
        "top_p": options.top_p,
        "top_k": options.top_k,
        "min_p": options.min_p,
        "repetition_penalty": options.repetition_penalty,
        "repeat_last_n": options.repeat_last_n,
        "frequency_penalty": options.frequency_penalty,
        "presence_penalty": options.presence_penalty,
        "stop": options.stop,
        "seed": options.seed,
        "typical_p": options.typical_p,
        "xtc_probability": options.xtc_probability,
        "xtc_threshold": options.xtc_threshold,
        "dry_multiplier": options.dry_multiplier,
        "no_repeat_ngram_size": options.no_repeat_ngram_size,
        "min_tokens": options.min_tokens,
        "bad_words": options.bad_word,
    }
