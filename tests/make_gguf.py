"""Tiny phi3 and phi2 GGUF files for the tests, written with numpy and gguf alone.

    tiny_model(tmp_path / "m.gguf")                                       # a valid model
    tiny_model(path, dtype="Q4_K", kv_heads=2, sliding_window=16)         # random blocks of any type
    tiny_model(path, metadata={"phi3.rope.freq_base": None})              # a key left out
    tiny_model(path, drop_tensors=["output_norm.weight"])

The weights are random but wide, so that attention is not uniform and logits have a std around 2. Names,
metadata and vocabularies come from `scripts/phi3_gguf.py`; broken files are in `hostile_gguf.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from phi3_gguf import FILE_TYPE, Shape, Vocab, quantize, small_vocab, spm_vocab, write_arrays

__all__ = [
    "DTYPES",
    "Shape",
    "Vocab",
    "random_blocks",
    "small_vocab",
    "spm_vocab",
    "tiny_model",
    "tiny_parts",
]

DTYPES = tuple(FILE_TYPE)
"""Every type that `tiny_model` can write."""

Named = tuple[str, np.ndarray, str]
"""A tensor's name, its values or its blocks, and the name of its type."""

# Per block type: the offset of the f16 scale d, that of the f16 minimum (or None), minimum / d for a mean of
# zero, and the standard deviation of the values for d = 1 when all other bytes are uniform. The layouts are
# ggml-common.h's.
BLOCKS = {
    "Q4_0": (0, None, 0.0, 4.61),
    "Q4_1": (0, 2, -7.5, 4.61),
    "Q5_0": (0, None, 0.0, 9.23),
    "Q5_1": (0, 2, -15.5, 9.23),
    "Q8_0": (0, None, 0.0, 73.9),
    "Q2_K": (80, 82, 1.5, 13.9),
    "Q3_K": (108, None, 0.0, 43.3),
    "Q4_K": (0, 2, 7.5, 258.0),
    "Q5_K": (0, 2, 15.5, 527.0),
    "Q6_K": (208, None, 0.0, 1370.0),
}


def random_blocks(rng: np.random.Generator, kind: str, rows: int, cols: int, std: float) -> np.ndarray:
    """Rows of random blocks of type `kind`, uint8 (rows, bytes): values of mean 0 and about the given std.

    The scales differ from block to block by a factor of up to 3, and are negative in half the blocks where
    the format has no minimum (llama.cpp writes such scales), so a kernel that mixes up blocks or takes a
    scale for unsigned is caught.
    """
    per, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    if cols % per:
        raise ValueError(f"{kind} needs rows that are a multiple of {per}, got {cols}")
    n = rows * cols // per
    scale_at, min_at, ratio, unit = BLOCKS[kind]
    blocks = rng.integers(0, 256, size=(n, size), dtype=np.uint8)
    d = std / unit * rng.uniform(0.5, 1.5, size=(n, 1))
    if min_at is None:
        d *= rng.choice([-1.0, 1.0], size=(n, 1))
    else:
        blocks[:, min_at : min_at + 2] = (d * ratio).astype(np.float16).view(np.uint8)
    blocks[:, scale_at : scale_at + 2] = d.astype(np.float16).view(np.uint8)
    return blocks.reshape(rows, -1)


def tiny_parts(
    *,
    arch: str = "phi3",
    vocab: Vocab | None = None,
    layers: int = 2,
    embd: int | None = None,
    heads: int = 4,
    kv_heads: int | None = None,
    ffn: int | None = None,
    dtype: str | Callable[[str], str] = "F32",
    context: int = 512,
    original_context: int | None = None,
    sliding_window: int | None = None,
    rope_dim: int | None = None,
    rope_base: float = 10000.0,
    norm_eps: float = 1e-5,
    tied: bool = False,
    split_qkv: bool = False,
    biases: bool = False,
    longrope: tuple[Iterable[float], Iterable[float]] | None = None,
    attn_factor: float | None = None,
    seed: int = 0,
    metadata: Mapping[str, Any] | None = None,
    drop_tensors: Iterable[str] = (),
    reshape: Mapping[str, tuple[int, ...]] | None = None,
    tensors: Mapping[str, np.ndarray] | None = None,
) -> tuple[dict[str, Any], list[Named]]:
    """The metadata and the tensors that `tiny_model` writes; the arguments are described there."""
    vocab = vocab or small_vocab(320)
    type_of = dtype if callable(dtype) else lambda _: dtype
    k_quants = any(type_of(name).endswith("_K") for name in ("token_embd.weight", "blk.0.attn_qkv.weight"))
    embd = embd or (256 if k_quants else 64)
    ffn = ffn or (256 if k_quants else 128)
    head_dim = embd // heads
    kv_width = head_dim * (heads if kv_heads is None else kv_heads)
    shape = Shape(
        arch=arch,
        context=context,
        embd=embd,
        ffn=ffn,
        layers=layers,
        heads=heads,
        kv_heads=heads if kv_heads is None else kv_heads,
        rope_dim=head_dim if rope_dim is None else rope_dim,
        rope_base=rope_base,
        norm_eps=norm_eps,
        original_context=original_context,
        sliding_window=sliding_window,
        attn_factor=attn_factor,
        name="Phi-3 tiny test model",
    )
    keys = shape.metadata() | {"general.quantization_version": 2} | vocab.metadata()
    if isinstance(dtype, str):
        keys["general.file_type"] = int(FILE_TYPE[dtype])
    keys |= metadata or {}

    rng = np.random.default_rng(seed)
    phi2 = arch == "phi2"
    biases = biases or phi2
    drop, shapes, given = set(drop_tensors), dict(reshape or {}), dict(tensors or {})
    out: list[Named] = []

    def add(name: str, dims: tuple[int, ...], gain: float = 1.0) -> None:
        dims = shapes.pop(name, dims)
        if name in given:
            out.append((name, np.asarray(given.pop(name), dtype=np.float32), "F32"))
        elif len(dims) == 1:
            out.append((name, 1.0 + 0.3 * rng.standard_normal(dims), "F32"))
        elif (kind := type_of(name)) in BLOCKS:
            blocks = random_blocks(rng, kind, int(np.prod(dims[:-1])), dims[-1], gain / dims[-1] ** 0.5)
            out.append((name, blocks.reshape(*dims[:-1], -1), kind))
        else:
            values = (gain / dims[-1] ** 0.5 * rng.standard_normal(dims)).astype(np.float32)
            out.append((name, quantize(values, kind), kind))
        if name.endswith(".weight") and (phi2 if len(dims) == 1 else biases and name != "token_embd.weight"):
            out.append((name.removesuffix("weight") + "bias", 0.3 * rng.standard_normal(dims[0]), "F32"))

    # A tied embedding is the output matrix too: it takes that one's gain.
    add("token_embd.weight", (len(vocab), embd), gain=2.0 if tied else embd**0.5)
    add("output_norm.weight", (embd,))
    if not tied:
        add("output.weight", (len(vocab), embd), gain=2.0)
    for name, factors in zip(("long", "short"), longrope or (), strict=False):
        out.append((f"rope_factors_{name}.weight", np.array(list(factors)), "F32"))
    for i in range(layers):
        block = f"blk.{i}."
        add(block + "attn_norm.weight", (embd,))
        if split_qkv:
            add(block + "attn_q.weight", (embd, embd), gain=1.4)
            add(block + "attn_k.weight", (kv_width, embd), gain=1.4)
            add(block + "attn_v.weight", (kv_width, embd), gain=1.4)
        else:
            add(block + "attn_qkv.weight", (embd + 2 * kv_width, embd), gain=1.4)
        add(block + "attn_output.weight", (embd, embd), gain=1.4)
        if not phi2:
            add(block + "ffn_norm.weight", (embd,))
        add(block + "ffn_up.weight", (ffn if phi2 else 2 * ffn, embd), gain=1.2)
        add(block + "ffn_down.weight", (embd, ffn), gain=1.2)
    out += [(name, np.asarray(array, dtype=np.float32), "F32") for name, array in given.items()]
    known = {name for name, _, _ in out}
    if missing := (drop | set(shapes)) - known:
        raise ValueError(f"no such tensors: {sorted(missing)}")
    return keys, [named for named in out if named[0] not in drop]


def tiny_model(path: str | Path, *, split_tensors: int = 0, **parts: Any) -> Path:
    """Write a small model with random weights; returns the path.

    Args:
        path: the file to write.
        split_tensors: write several files of so many tensors each; the path returned is that of the first.
        arch: "phi3" or "phi2".
        vocab: a `Vocab`; by default `small_vocab(320)`.
        layers, embd, heads, kv_heads, ffn, context, original_context, rope_dim, rope_base, norm_eps: the
            model's numbers. `embd` and `ffn` are 64 and 128, or 256 each for the K-quants, whose blocks are
            that long. `kv_heads` is `heads` and `rope_dim` the whole head unless given.
        dtype: the type of the matrices, one of `DTYPES`, or a function that gives it for a tensor's name.
        sliding_window: None leaves the key out, 0 writes it as "off".
        tied: no output.weight.
        split_qkv: attn_q, attn_k and attn_v instead of attn_qkv, as some converters write them.
        biases: on every matrix, as phi2 always has them.
        longrope: the (long, short) factors; give `attn_factor` with it.
        seed: of the weights.
        metadata: keys to add or to replace; None removes one. `phi3_gguf.write_arrays` says how to choose a
            type.
        drop_tensors: names to leave out.
        reshape: other dimensions for a tensor, in numpy's order (rows, columns).
        tensors: values for a tensor, or further tensors, as F32.
    """
    arch = (parts.get("metadata") or {}).get("general.architecture", parts.get("arch", "phi3"))
    keys, tensors = tiny_parts(**parts)
    keys.pop("general.architecture", None)
    write_arrays(path, keys, tensors, arch=arch, split_tensors=split_tensors)
    path = Path(path)
    n_files = -(-len(tensors) // split_tensors) if split_tensors else 1
    return path if n_files == 1 else path.with_name(f"{path.stem}-00001-of-{n_files:05}.gguf")
