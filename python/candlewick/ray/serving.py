"""`deployment`: the server of `candlewick.server`, on Ray Serve."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from candlewick import models
from candlewick.ray.actor import load

if TYPE_CHECKING:
    import os

    from ray.serve import Application
    from starlette.applications import Starlette

    from candlewick.server import Limits

BUSY = 8
"""Requests at the same time that a replica answers about as quickly as one."""


def deployment(
    model: str | os.PathLike[str] | None = None,
    *,
    generator: Mapping[str, Any] | None = None,
    api_keys: Collection[str] = (),
    limits: Limits | None = None,
    cors_origins: Collection[str] = (),
    hosts: Collection[str] | None = None,
    **options: Any,
) -> Application:
    """An application for ``ray.serve.run``, whose replicas answer as OpenAI's API does (`create_app`).

    A replica is given at most ``limits.max_running`` requests at the same time; others wait until one is free. Where
    there are for a while more than 8 for each, Serve starts further ones, up to ``max_replicas``; one that is no
    longer needed finishes its answers before it ends.

    Args:
        model: As for `Generator`: a file or folder that every machine has under this path, a repository of the hub,
            or ``"demo"``. Requests call it by the file's name without ``.gguf``, or as it is given here.
        generator: More arguments of `Generator`. ``n_threads`` is the replica's ``num_cpus``, which Ray has as 1
            unless told otherwise.
        api_keys: As for `create_app`.
        limits: As for `create_app`, for each replica.
        cors_origins: As for `create_app`.
        hosts: As for `create_app`.
        **options: As for ``ray.serve.deployment``, such as ``ray_actor_options={"num_cpus": 8}`` and
            ``autoscaling_config={"min_replicas": 1, "max_replicas": 4}``; or ``num_replicas=4``, as many always.
    """
    from ray import serve

    from candlewick.server import Limits, create_app

    limits = limits or Limits()

    def app() -> Starlette:
        return create_app(
            load(model, generator),
            model=models.name(model),
            api_keys=api_keys,
            limits=limits,
            cors_origins=cors_origins,
            hosts=hosts,
        )

    if not isinstance(options.get("num_replicas"), int):
        options["autoscaling_config"] = {"target_ongoing_requests": BUSY, **options.get("autoscaling_config", {})}
    settings = {
        "name": "candlewick",
        "max_ongoing_requests": limits.max_running,
        "graceful_shutdown_timeout_s": limits.request_s,
        **options,
    }
    return serve.deployment(**settings)(serve.ingress(app)()).bind()
