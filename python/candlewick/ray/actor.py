"""The generator of one actor."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from candlewick.generator import Generator


def load(model: str | os.PathLike[str] | None, arguments: Mapping[str, Any] | None) -> Generator:
    """A generator that computes with as many threads as Ray has given CPUs to this actor."""
    return Generator(model, **{"n_threads": _cpus(), "progress": False, **(arguments or {})})


def _cpus() -> int | None:
    """Ray does not hold an actor to its CPUs: those of one machine would all take all of them."""
    # Where this is an actor, Ray is there; and where it is not there, it need not be installed.
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None
    context = ray.get_runtime_context()
    if context.get_actor_id() is None:
        return None
    cpus = context.get_assigned_resources().get("CPU")
    return None if cpus is None else max(1, int(cpus))
