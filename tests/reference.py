"""The phi3 forward pass over a GGUF file in numpy float64: what an engine's logits are compared with.

Nothing here is fast and nothing is shared with the package. Matrices are dequantized by gguf's own Python
code, so an engine that quantizes activations differs by that, and by nothing else. Letters: S positions, D
dimensions of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize


class Reference:
    """A model read from a file; `logits(ids)` gives those after every position."""

    def __init__(self, path: str | Path) -> None:
        reader = GGUFReader(path)
        self.fields = reader.fields
        self.weights = {
            t.name: dequantize(t.data, t.tensor_type).astype(np.float64).reshape(t.shape.tolist()[::-1])
            for t in reader.tensors
        }

    def key(self, name: str, default: Any = None) -> Any:
        """The value of `phi3.NAME`."""
        found = self.fields.get(f"phi3.{name}")
        return default if found is None else found.contents()

    def logits(self, ids: Sequence[int], *, last_only: bool = True) -> np.ndarray:
        """ids (S,) -> logits (vocab,) after the last of them, or (S, vocab)."""
        w = self.weights
        heads = self.key("attention.head_count")
        kv_heads = self.key("attention.head_count_kv", heads)
        eps = self.key("attention.layer_norm_rms_epsilon")
        x = w["token_embd.weight"][np.asarray(ids)]
        rope, mask = self._rope(len(ids)), self._mask(len(ids))

        def norm(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
            return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * weight

        for i in range(self.key("block_count")):
            block = {name: w[f"blk.{i}.{name}.weight"] for name in ("attn_norm", "attn_output", "ffn_norm")}
            h = norm(x, block["attn_norm"])
            if f"blk.{i}.attn_qkv.weight" in w:
                qkv = h @ w[f"blk.{i}.attn_qkv.weight"].T
            else:
                qkv = np.concatenate([h @ w[f"blk.{i}.attn_{c}.weight"].T for c in "qkv"], axis=-1)
            d = x.shape[1] // heads
            q, k, v = np.split(qkv, [heads * d, (heads + kv_heads) * d], axis=-1)
            q, k, v = (a.reshape(len(ids), -1, d).transpose(1, 0, 2) for a in (q, k, v))  # (heads, S, D)
            q, k = _turn(q, *rope), _turn(k, *rope)
            k, v = (np.repeat(a, heads // kv_heads, axis=0) for a in (k, v))
            scores = np.where(mask, q @ k.transpose(0, 2, 1) / np.sqrt(d), -np.inf)
            scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
            mixed = (scores / scores.sum(axis=-1, keepdims=True)) @ v
            x = x + mixed.transpose(1, 0, 2).reshape(len(ids), -1) @ block["attn_output"].T
            gate, up = np.split(norm(x, block["ffn_norm"]) @ w[f"blk.{i}.ffn_up.weight"].T, 2, axis=-1)
            x = x + (gate / (1 + np.exp(-gate)) * up) @ w[f"blk.{i}.ffn_down.weight"].T
        x = norm(x[-1] if last_only else x, w["output_norm.weight"])
        return x @ w.get("output.weight", w["token_embd.weight"]).T

    def _rope(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """cos and sin, (S, rotated dimensions / 2); beyond the original context with the long factors."""
        head_dim = self.key("embedding_length") // self.key("attention.head_count")
        half = self.key("rope.dimension_count", head_dim) // 2
        inv_freq = self.key("rope.freq_base", 10000.0) ** (-np.arange(half) / half)
        if "rope_factors_long.weight" in self.weights:
            length = "long" if n > self.key("rope.scaling.original_context_length") else "short"
            inv_freq = inv_freq / self.weights[f"rope_factors_{length}.weight"]
        angle = np.arange(n)[:, None] * inv_freq
        factor = self.key("rope.scaling.attn_factor", 1.0)
        return np.cos(angle) * factor, np.sin(angle) * factor

    def _mask(self, n: int) -> np.ndarray:
        """(S, S): which keys a position sees, `window` of them with its own."""
        query, key = np.arange(n)[:, None], np.arange(n)
        window = self.key("attention.sliding_window", 0)
        return (key <= query) & (key > query - window if window else True)


def _turn(x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    """Rotate the first dimensions of x (heads, S, D), i paired with i + half; the others pass through."""
    half = cos.shape[1]
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin, rest], axis=-1)
