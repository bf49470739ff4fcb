"""Every tensor type that the `gguf` package dequantizes runs, in both engines, with the weights that it gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants
from make_gguf import BLOCKS, tiny_model, tiny_parts
from phi3_gguf import write_arrays
from reference import Reference, Rounding

from candlewick import Generator

# Where the half-precision scale of a block is.
SCALE_AT = {
    "IQ1_S": 0,
    "IQ2_XXS": 0,
    "IQ2_XS": 0,
    "IQ2_S": 0,
    "IQ3_XXS": 0,
    "IQ3_S": 0,
    "IQ4_NL": 0,
    "IQ4_XS": 0,
    "TQ1_0": 52,
    "TQ2_0": 64,
}
FLOATS = ("F32", "F16", "BF16")
# What an engine has products for, with inputs that are rounded to bytes; the other types become floats.
PRODUCTS = {"candle": set(BLOCKS), "native": {*BLOCKS, "IQ4_NL", "IQ4_XS"}}


def is_known(kind: GGMLQuantizationType) -> bool:
    """Whether the package dequantizes it."""
    try:
        quants.dequantize(np.zeros((1, GGML_QUANT_SIZES[kind][1]), dtype=np.uint8), kind)
    except NotImplementedError:
        return False
    return True


TYPES = [kind.name for kind in GGMLQuantizationType if is_known(kind)]


def random_model(path: Path, dtype: str) -> Path:
    """A model with some matrices, the output among them, of random blocks whose weights are of a reasonable size."""
    if dtype in FLOATS or dtype in BLOCKS:
        return tiny_model(path, dtype=dtype)
    keys, tensors = tiny_parts(embd=256, ffn=256)
    rng = np.random.default_rng(0)
    per, size = GGML_QUANT_SIZES[GGMLQuantizationType[dtype]]

    def exotic(name: str, values: np.ndarray, kind: str) -> tuple[str, np.ndarray, str]:
        if not name.endswith(("attn_output.weight", "ffn_down.weight", "output.weight", "token_embd.weight")):
            return name, values, kind
        blocks = rng.integers(0, 256, size=(values.size // per, size), dtype=np.uint8)
        if dtype in SCALE_AT:
            at = SCALE_AT[dtype]
            scales = rng.choice([-1, 1], len(blocks)) * rng.uniform(0.002, 0.006, len(blocks))
            scales /= 32 if dtype == "IQ4_XS" else 1
            blocks[:, at : at + 2] = scales.astype(np.float16).reshape(-1, 1).view(np.uint8)
        elif dtype == "IQ1_M":
            # The four parts of 0.0039 in half precision, 0x1c00.
            blocks[:, 49::2] &= 0x0F
            blocks[:, 53] |= 0xC0
            blocks[:, 55] |= 0x10
        elif dtype == "MXFP4":
            blocks[:, 0] = rng.integers(118, 121, len(blocks))
        else:
            assert dtype == "NVFP4", f"{dtype}: where are its scales?"
            blocks[:, :4] = rng.integers(4, 12, (len(blocks), 4))
        return name, blocks.reshape(values.shape[0], -1), dtype

    write_arrays(path, keys, [exotic(*tensor) for tensor in tensors])
    return path


def test_the_package_knows_the_types_that_are_tested() -> None:
    assert len(TYPES) >= 25 and {"Q4_K", "IQ1_M", "TQ2_0", "MXFP4"} <= set(TYPES)


@pytest.mark.parametrize("engine", ["native", "candle"])
@pytest.mark.parametrize("dtype", TYPES)
def test_logits_are_those_of_the_weights_that_gguf_gives(tmp_path: Path, dtype: str, engine: str) -> None:
    """With floats the inputs stay floats; where they are rounded to a byte, that is the one difference.

    Beyond it, float32 arithmetic can make an input fall on the other side of a half, and Candle keeps some scales in
    half precision: 0.07 of the logits' standard deviation were seen. A wrong scale, offset or order moves the logits by
    as much as they are.
    """
    path = random_model(tmp_path / "m.gguf", dtype)
    ids = np.random.default_rng(1).integers(3, 300, 70).tolist()
    found = np.array(Generator(path, kv_type="f32", engine=engine)._native.logits(ids, 64))
    reference = Reference(path)
    exact = reference.logits(ids)
    if dtype not in PRODUCTS[engine]:
        assert np.abs(found - exact).max() < 1e-3 * exact.std()
        return
    for name, weight in reference.weights.items():
        if reference.types[name].name == dtype and name != "token_embd.weight":
            reference.weights[name] = Rounding(weight, GGML_QUANT_SIZES[reference.types[name]][0])
    expected = reference.logits(ids)
    own, rounding = np.abs(found - expected).max(), np.abs(exact - expected).max()
    print(f"{dtype}, {engine}: {own:.4f} beside {rounding:.4f} that rounding the inputs costs, of {expected.std():.2f}")
    assert own < 0.1 * expected.std()


@pytest.mark.parametrize("dtype", TYPES)
def test_types_without_kernels_are_told(tmp_path: Path, dtype: str) -> None:
    """In `info`, by the engine that dequantizes them anew for each step; Candle's keeps them as floats."""
    slow = [] if dtype in FLOATS or dtype in PRODUCTS["native"] else [dtype]
    path = random_model(tmp_path / "m.gguf", dtype)
    assert Generator(path, engine="native").info["slow_types"] == slow
    assert Generator(path, engine="candle").info["slow_types"] == []
