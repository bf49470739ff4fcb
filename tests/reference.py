"""The forward pass of phi3 and phi2 files in numpy float64: what an engine's logits are compared with.

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
        self.arch = self.fields["general.architecture"].contents()
        self.types = {t.name: t.tensor_type for t in reader.tensors}
        self.weights = {
            t.name: dequantize(t.data, t.tensor_type).astype(np.float64).reshape(t.shape.tolist()[::-1])
            for t in reader.tensors
        }

    def key(self, name: str, default: Any = None) -> Any:
        """The value of `ARCHITECTURE.NAME`."""
        found = self.fields.get(f"{self.arch}.{name}")
        return default if found is None else found.contents()

    def linear(self, x: np.ndarray, name: str) -> np.ndarray:
        """x (..., inputs) -> (..., outputs), with the bias if there is one."""
        return x @ self.weights[f"{name}.weight"].T + self.weights.get(f"{name}.bias", 0.0)

    def norm(self, x: np.ndarray, name: str) -> np.ndarray:
        """LayerNorm where there is a bias, RMSNorm elsewhere."""
        weight, bias = self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias")
        if bias is None:
            eps = self.key("attention.layer_norm_rms_epsilon")
            return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * weight
        eps = self.key("attention.layer_norm_epsilon")
        x = x - x.mean(axis=-1, keepdims=True)
        return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * weight + bias

    def feed_forward(self, x: np.ndarray, block: str) -> np.ndarray:
        """With a gate in phi3, without in phi2."""
        up = self.linear(x, block + "ffn_up")
        if self.arch == "phi2":
            hidden = 0.5 * up * (1 + np.tanh(np.sqrt(2 / np.pi) * (up + 0.044715 * up**3)))
        else:
            gate, up = np.split(up, 2, axis=-1)
            hidden = gate / (1 + np.exp(-gate)) * up
        return self.linear(hidden, block + "ffn_down")

    def logits(self, ids: Sequence[int], *, last_only: bool = True) -> np.ndarray:
        """ids (S,) -> logits (vocab,) after the last of them, or (S, vocab)."""
        w = self.weights
        heads = self.key("attention.head_count")
        kv_heads = self.key("attention.head_count_kv", heads)
        x = w["token_embd.weight"][np.asarray(ids)]
        d = x.shape[1] // heads
        rope, mask = self._rope(len(ids)), self._mask(len(ids))
        for i in range(self.key("block_count")):
            block = f"blk.{i}."
            h = self.norm(x, block + "attn_norm")
            if f"{block}attn_qkv.weight" in w:
                qkv = self.linear(h, block + "attn_qkv")
            else:
                qkv = np.concatenate([self.linear(h, f"{block}attn_{c}") for c in "qkv"], axis=-1)
            q, k, v = np.split(qkv, [heads * d, (heads + kv_heads) * d], axis=-1)
            q, k, v = (a.reshape(len(ids), -1, d).transpose(1, 0, 2) for a in (q, k, v))  # (heads, S, D)
            q, k = _turn(q, *rope), _turn(k, *rope)
            k, v = (np.repeat(a, heads // kv_heads, axis=0) for a in (k, v))
            scores = np.where(mask, q @ k.transpose(0, 2, 1) / np.sqrt(d), -np.inf)
            scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
            mixed = (scores / scores.sum(axis=-1, keepdims=True)) @ v
            x = x + self.linear(mixed.transpose(1, 0, 2).reshape(len(ids), -1), block + "attn_output")
            # phi2's two halves read the same norm
            x = x + self.feed_forward(h if self.arch == "phi2" else self.norm(x, block + "ffn_norm"), block)
        x = self.norm(x[-1] if last_only else x, "output_norm")
        return x @ w.get("output.weight", w["token_embd.weight"]).T + w.get("output.bias", 0.0)

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


class Rounding:
    """A matrix whose inputs are rounded as the engine rounds them: to 127 steps each way, per block."""

    __array_ufunc__ = None

    def __init__(self, weight: np.ndarray, block: int) -> None:
        self.weight, self.block, self.T = weight, block, self

    def __rmatmul__(self, x: np.ndarray) -> np.ndarray:
        blocks = x.reshape(-1, self.block)
        largest = np.abs(blocks).max(axis=1, keepdims=True)
        rounded = np.rint(blocks * (127 / largest)) * (largest / 127)
        return rounded.reshape(x.shape) @ self.weight.T
