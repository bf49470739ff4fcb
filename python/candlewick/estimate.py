"""`Estimate`: what a model will take, told before it is fetched or loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from candlewick import _native
from candlewick.errors import InvalidRequestError

if TYPE_CHECKING:
    from pathlib import Path

# A smaller context is of little use to anybody.
_SMALLEST = 256


@dataclass(frozen=True)
class Estimate:
    """What a model is and takes on the native engine, of its header alone; all sizes in bytes."""

    name: str | None
    """As its file says."""
    path: Path | None
    """Where it is; ``None`` while it has to be fetched."""
    filename: str
    """Of a split model the first part's; at the hub its path in the repository."""
    architecture: str
    quantization: str
    """The type of most of its weights."""
    file_bytes: int
    """Of a split model, all parts."""
    weight_bytes: int
    """Memory for the weights."""
    context_bytes: int
    """Memory for keys and values of one text that fills the context; with a sliding window, no more than it sees."""
    n_ctx: int
    model_n_ctx: int
    """The context the model was made for."""
    sliding_window: int | None
    kv_type: str
    available_bytes: int | None
    """What this process can still have; ``None`` where the system does not tell."""
    advice: tuple[str, ...]
    """What to choose instead, where it does not fit."""

    fits: bool | None
    """Whether weights and context do, with some memory left to others; ``None`` where the system does not tell."""

    @property
    def needed_bytes(self) -> int:
        """Weights and context."""
        return self.weight_bytes + self.context_bytes


def estimate(header: _native.Header, n_ctx: int | None, kv_type: str) -> Estimate:
    """What `header` says, and what follows from it here."""
    facts = header.facts
    model_n_ctx = facts["model_n_ctx"]
    n_ctx = model_n_ctx if n_ctx is None else n_ctx
    if not 1 <= n_ctx <= model_n_ctx:
        raise InvalidRequestError(f"n_ctx is {n_ctx}, expected 1 to {model_n_ctx} (what this model was made for)")
    context_bytes = header.context_bytes(n_ctx, kv_type)
    available = _native.available_memory()
    advice = [] if available is None else _advice(header, n_ctx, kv_type, available)
    path = facts["path"]
    return Estimate(
        **{**facts, "filename": facts["filename"] if path is None else path.name},
        context_bytes=context_bytes,
        n_ctx=n_ctx,
        kv_type="f16" if kv_type == "auto" else kv_type,
        available_bytes=available,
        advice=tuple(advice),
        fits=None if available is None else not advice,
    )


def _advice(header: _native.Header, n_ctx: int, kv_type: str, available: int) -> list[str]:
    facts = header.facts
    room = header.context_room(available) or 0
    if header.context_bytes(n_ctx, kv_type) <= room:
        return []
    advice = []
    smaller = _largest(header, n_ctx, kv_type, room)
    if smaller >= _SMALLEST:
        advice.append(f"n_ctx={smaller}")
    if kv_type != "q8_0":
        compact = _largest(header, n_ctx, "q8_0", room)
        if compact == n_ctx:
            advice.append('kv_type="q8_0"')
        elif compact >= _SMALLEST:
            advice.append(f'n_ctx={compact} with kv_type="q8_0"')
    # Other files' weights take the same share of them.
    share = facts["weight_bytes"] / facts["file_bytes"]
    left = available - header.context_bytes(n_ctx, kv_type)
    others = [(size, name) for name, size in header.others if size and size < facts["file_bytes"]]
    fitting = [(size, name) for size, name in others if size * share <= left]
    if fitting:
        size, name = max(fitting)
        advice.append(f"filename={name!r} ({size / 1e9:.2f} GB)")
    return advice or ["a machine with more memory, or a smaller model"]


def _largest(header: _native.Header, n_ctx: int, kv_type: str, room: int) -> int:
    """The largest context up to ``n_ctx`` whose keys and values take no more than ``room``; 0 for none."""
    low, high = 0, n_ctx
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if header.context_bytes(middle, kv_type) <= room else (low, middle - 1)
    return low
