"""Parsed options -> a generator and the arguments of its streams."""

from __future__ import annotations

from typing import TYPE_CHECKING

from candlewick.generator import Generator

if TYPE_CHECKING:
    import argparse

    from candlewick.generator import Options


def generator(options: argparse.Namespace) -> Generator:
    """Loads the model that the options name."""
    return Generator(
        options.model,
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
    }
