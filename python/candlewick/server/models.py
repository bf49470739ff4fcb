"""``/v1/models``: the one model that is here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from candlewick.server.service import Service

_FACTS = (
    "name",
    "architecture",
    "quantization",
    "engine",
    "device",
    "isa",
    "n_threads",
    "n_ctx",
    "kv_type",
    "file_bytes",
    "weight_bytes",
    "kv_bytes_per_token",
    "topics",
)


def model(service: Service) -> dict[str, Any]:
    """The model in OpenAI's form, with what ``gen.info`` knows of it under ``"candlewick"``."""
    info = service.generator.info
    return {
        "id": service.model,
        "object": "model",
        "created": service.created,
        "owned_by": "candlewick",
        "candlewick": {name: info[name] for name in _FACTS},
    }
