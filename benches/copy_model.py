"""A full-size model that copies: each of 25 tokens is followed by the next, so that a text of them goes round.

    python benches/copy_model.py phi3-mini-q4km.gguf copy.gguf

Takes a GGUF whose attention and feed-forward outputs are Q4_K or Q6_K, whose embedding is Q4_K and whose output matrix
is Q6_K (Q4_K_M as llama.cpp writes it), and changes a copy of it in place: what the blocks add is zero, and the output
rows are the embeddings of the tokens before them. Every byte of the weights is still read for each token, so its speed
is that of the file it was made of; what it says is what prompt lookup is made for. Needs gguf and numpy.
"""

import shutil
import sys

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize

FIRST, PERIOD = 1000, 25
# Bytes of a block of 256, and where its half-precision scales are.
SCALES = {"Q4_K": (144, slice(0, 4)), "Q5_K": (176, slice(0, 4)), "Q6_K": (210, slice(208, 210))}


def q6_k(rows: np.ndarray) -> np.ndarray:
    """rows (n, columns) -> Q6_K blocks, uint8 (n, bytes): nearest quants for scales from each 16's largest value."""
    x = rows.reshape(-1, 16, 16)
    largest = np.abs(x).max(axis=2)
    d = (largest.max(axis=1, keepdims=True) / (31 * 127)).astype(np.float16).astype(np.float32)
    scales = np.clip(np.rint(largest / 31 / d), 1, 127)
    q = np.clip(np.rint(x / (d * scales)[:, :, None]), -32, 31).astype(np.int64).reshape(-1, 2, 4, 32) + 32
    low = np.concatenate([q[:, :, :2] & 15 | (q[:, :, 2:] & 15) << 4], axis=2).reshape(-1, 128)
    high = (q[:, :, 0] >> 4 | q[:, :, 1] >> 4 << 2 | q[:, :, 2] >> 4 << 4 | q[:, :, 3] >> 4 << 6).reshape(-1, 64)
    d16 = d.astype(np.float16).view(np.uint8)
    return np.concatenate([low.astype(np.uint8), high.astype(np.uint8), scales.astype(np.uint8), d16], axis=1)


def main() -> None:
    source, target = sys.argv[1:]
    shutil.copyfile(source, target)
    tensors = {t.name: t for t in GGUFReader(target, "r+").tensors}
    for name, tensor in tensors.items():
        if name.endswith(("attn_output.weight", "ffn_down.weight")) or name == "output.weight":
            size, scales = SCALES[tensor.tensor_type.name]
            tensor.data.reshape(-1, size)[:, scales] = 0
    ids = np.arange(FIRST, FIRST + PERIOD)
    embedding, output = tensors["token_embd.weight"], tensors["output.weight"]
    rows = dequantize(embedding.data[ids], embedding.tensor_type)
    blocks = q6_k(rows).reshape(PERIOD, -1)
    worst = np.abs(dequantize(blocks, output.tensor_type) - rows).max() / rows.std()
    assert worst < 0.2, f"the output rows are off by {worst:.2f} of the embedding's deviation"
    output.data[np.roll(ids, -1)] = blocks


if __name__ == "__main__":
    main()
