"""Make the golden blocks in `golden/blocks.gguf`: every tensor type, dequantized by the `gguf` package.

    python tests/data/make_blocks_golden.py         # needs gguf 0.19 and numpy

The file is a GGUF, and holds:

    NAME            a few blocks of the type NAME, for each type that the package has a number for
    NAME.f32        (weights,) F32      what they stand for
    grid.NAME       (points, 4 or 8) I8 the whole code book of an IQ type; blocks of a reasonable number would not
                                        come by every point
    scales.NAME     (256,) F32          the 8-bit scale of each byte, halved, of MXFP4 and NVFP4

The first blocks of a type sweep through the byte values, with scales of 1 and the smallest subnormal; the others are
random, with the scales of `EDGES` in turn. No result is NaN; MXFP4, Q8_K and F64 have some that overflow to infinity.

`gguf.quants.dequantize` says what is expected, which calculates in float32. It does not know Q8_1, Q8_K, Q1_0, F64 and
the integers; for these, `expected` has the formulas of ggml's C code, or a cast.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter, quants

GOLDEN = Path(__file__).resolve().parent / "golden" / "blocks.gguf"
N_BLOCKS = 7
N_SWEPT = 2
N_PLAIN = 64

# The package has the size that this type had before its two f32 became f16.
GGML_QUANT_SIZES[GGMLQuantizationType.Q8_1] = (32, 36)

EDGES = np.array([0x3C00, 0x0001, 0x83FF, 0x0000, 0x8000, 0xFBFF, 0x2E66], dtype=np.uint16).view(np.float16)
"""Scales: 1, the smallest and a large negative subnormal, zeros, the lowest number, and about 0.1."""
E8M0_EDGES = [127, 0, 1, 2, 254, 255, 120]

F16_AT: dict[str, list[int]] = {
    "Q4_0": [0],
    "Q4_1": [0, 2],
    "Q5_0": [0],
    "Q5_1": [0, 2],
    "Q8_0": [0],
    "Q8_1": [0, 2],
    "Q2_K": [80, 82],
    "Q3_K": [108],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
    "IQ1_S": [0],
    "IQ2_XXS": [0],
    "IQ2_XS": [0],
    "IQ2_S": [0],
    "IQ3_XXS": [0],
    "IQ3_S": [0],
    "IQ4_NL": [0],
    "IQ4_XS": [0],
    "TQ1_0": [52],
    "TQ2_0": [64],
    "Q1_0": [0],
}
"""Where the f16 of a block are. IQ1_M's is in four parts, and the microscaling types and Q8_K have none."""

GRIDS = ["IQ1_S", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"]


def scaled_blocks(name: str, rng: np.random.Generator) -> np.ndarray:
    """(N_BLOCKS, block bytes) uint8: blocks of a type with scales."""
    size = GGML_QUANT_SIZES[GGMLQuantizationType[name]][1]
    blocks = rng.integers(0, 256, size=(N_BLOCKS, size), dtype=np.uint8)
    swept = np.arange(N_SWEPT * size).reshape(N_SWEPT, size)
    # 37 is odd, so every byte value comes, and neighbours differ in both halves
    blocks[:N_SWEPT] = (37 * swept + 11) % 256
    for i, block in enumerate(blocks):
        for k, at in enumerate(F16_AT.get(name, [])):
            block[at : at + 2] = np.frombuffer(EDGES[(i + 2 * k) % len(EDGES)].tobytes(), dtype=np.uint8)
        if name == "IQ1_M":
            bits = int(EDGES[i].view(np.uint16))
            for k in range(4):
                block[49 + 2 * k] = (block[49 + 2 * k] & 0x0F) | (bits >> (4 * k) & 15) << 4
        elif name == "MXFP4":
            block[0] = E8M0_EDGES[i]
        elif name == "Q8_K":
            d = [1.0, 1e-45, -2.5e-39, 0.0, -0.0, -3e38, 0.1][i]
            block[:4] = np.frombuffer(np.float32(d).tobytes(), dtype=np.uint8)
    return blocks


def plain_blocks(name: str, rng: np.random.Generator) -> np.ndarray:
    """(N_PLAIN, element bytes) uint8: elements of a type without scales, none of them NaN."""
    size = GGML_QUANT_SIZES[GGMLQuantizationType[name]][1]
    blocks = rng.integers(0, 256, size=(N_PLAIN, size), dtype=np.uint8)
    if name == "F64":
        half_ulp = 2.0**-24
        edges = [0.0, -0.0, 0.1, 1e300, -1e300, 1e-300, 1e-40, 1.5e-45, 1 + half_ulp, 1 + 3 * half_ulp, -1 - 1e-8]
        values = np.concatenate([edges, rng.normal(size=N_PLAIN - len(edges))])
        return values.reshape(-1, 1).view(np.uint8)
    if name in ("F16", "F32", "BF16"):
        # an exponent of all ones is an infinity or NaN: clear its lowest bit, and keep two infinities
        bits = blocks.reshape(-1).view(f"<u{size}")
        top = {"F16": 0x7C00, "BF16": 0x7F80, "F32": 0x7F800000}[name]
        low = {"F16": 0x0400, "BF16": 0x0080, "F32": 0x00800000}[name]
        bits[(bits & top) == top] ^= low
        sign = 1 << (8 * size - 1)
        edges = [0, sign, 1, sign | 1, low - 1, low, top - 1, top, sign | top]
        bits[: len(edges)] = edges
        return bits.reshape(-1, 1).view(np.uint8)
    blocks[0], blocks[1] = 0, 255
    return blocks


def expected(name: str, blocks: np.ndarray) -> np.ndarray:
    """(blocks, block bytes) uint8 -> the weights, (n,) float32."""
    ty = GGMLQuantizationType[name]
    with np.errstate(over="ignore"):
        if name in ("I8", "I16", "I32", "I64", "F64"):
            out = blocks.view(f"<{name[0].lower()}{GGML_QUANT_SIZES[ty][1]}").astype(np.float32)
        elif name == "Q8_1":
            out = blocks[:, :2].copy().view(np.float16).astype(np.float32) * blocks[:, 4:].view(np.int8)
        elif name == "Q8_K":
            out = blocks[:, :4].copy().view(np.float32) * blocks[:, 4:260].view(np.int8).astype(np.float32)
        elif name == "Q1_0":
            d = blocks[:, :2].copy().view(np.float16).astype(np.float32)
            out = np.where(np.unpackbits(blocks[:, 2:], axis=1, bitorder="little") == 1, d, -d)
        else:
            out = quants.dequantize(blocks, ty)
    assert out.dtype == np.float32
    return out.reshape(-1)


def grid(name: str) -> np.ndarray:
    """The code book of an IQ type, (points, coordinates) int8."""
    traits = quants._type_traits[GGMLQuantizationType[name]]
    traits.init_grid()
    assert traits.grid is not None
    return traits.grid.reshape(traits.grid_shape).astype(np.int8)


def main() -> None:
    writer = GGUFWriter(GOLDEN, "blocks")
    for ty in GGMLQuantizationType:
        rng = np.random.default_rng(int(ty))
        blocks = (plain_blocks if GGML_QUANT_SIZES[ty][0] == 1 else scaled_blocks)(ty.name, rng)
        if GGML_QUANT_SIZES[ty][0] == 1:
            blocks = blocks.reshape(1, -1)
        weights = expected(ty.name, blocks)
        assert not np.isnan(weights).any(), ty.name
        writer.add_tensor(ty.name, blocks, raw_dtype=ty)
        writer.add_tensor(f"{ty.name}.f32", weights)
    for name in GRIDS:
        writer.add_tensor(f"grid.{name}", grid(name))
    every = np.arange(256, dtype=np.uint8)
    e8m0 = quants.MXFP4.e8m0_to_fp32_half(every)
    writer.add_tensor("scales.MXFP4", e8m0)
    writer.add_tensor("scales.NVFP4", quants.NVFP4.ue4m3_to_fp32(every).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(f"{GOLDEN.name}: {GOLDEN.stat().st_size} bytes")


if __name__ == "__main__":
    main()
