"""The native engine: the same bits whatever computes them, and close to the weights it was given.

Law 2 is compared for equality, logits and ids: tiers, threads, chunks and scalar code.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from make_gguf import DTYPES, tiny_model, tiny_parts
from phi3_gguf import write_arrays
from reference import Reference

from candlewick import Generator

# Runs in a process of its own: the tier is chosen at load, from the environment.
SCRIPT = """
import hashlib, json, sys
import numpy as np
from candlewick import Generator
path, n_threads, chunk, kv_type = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
gen = Generator(path, n_threads=n_threads, kv_type=kv_type)
prompt = np.random.default_rng(3).integers(3, 300, 520).tolist()
digest = hashlib.sha256()
for n in (1, 7, 65, 520):
    digest.update(np.array(gen._native.logits(prompt[:n], chunk), dtype=np.float32).tobytes())
options = {"max_tokens": 200, "ignore_eos": True}
greedy = [t.id for t in gen.stream_tokens(prompt[:100], temperature=0, **options)]
sampled = [t.id for t in gen.stream_tokens(prompt[:100], seed=5, temperature=1.1, top_p=0.95, **options)]
print(json.dumps([gen.info["isa"], digest.hexdigest(), greedy, sampled]))
"""


def run(path: Path, isa: str = "", n_threads: int = 1, chunk: int = 64, kv_type: str = "f16") -> list:
    environment = {**os.environ, "CANDLEWICK_ISA": isa}
    command = [sys.executable, "-c", SCRIPT, str(path), str(n_threads), str(chunk), kv_type]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600, check=True)
    found, *rest = json.loads(done.stdout)
    assert found == isa or not isa
    return rest


def tiers() -> list[str]:
    """What this CPU has, as the error for an unknown name lists it."""
    environment = {**os.environ, "CANDLEWICK_ISA": "mmx"}
    command = [sys.executable, "-c", "from candlewick import Generator; Generator('demo')"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    text = done.stderr.strip().splitlines()[-1]
    assert "InvalidRequestError" in text and 'CANDLEWICK_ISA is "mmx", which is no tier' in text
    return text.rpartition("this one has ")[2].split(", ")


TIERS = tiers()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small models of the two quantizations people use most: Q4_K_M is Q4_K, Q5_K and Q6_K mixed."""
    folder = tmp_path_factory.mktemp("models")
    shape = {"embd": 256, "ffn": 512, "heads": 8, "kv_heads": 4, "layers": 2, "context": 1024}

    def mixed(name: str) -> str:
        return "Q5_K" if "attn_qkv" in name else "Q6_K" if "ffn_down" in name or "output." in name else "Q4_K"

    return {
        "Q4_K_M": tiny_model(folder / "k.gguf", dtype=mixed, **shape),
        "Q8_0": tiny_model(folder / "q8.gguf", dtype="Q8_0", sliding_window=100, **shape),
    }


@pytest.mark.parametrize("name", ["Q4_K_M", "Q8_0"])
def test_law_2_every_tier_thread_count_and_chunk_gives_the_same(models: dict[str, Path], name: str) -> None:
    expected = run(models[name], isa="scalar")
    for isa in TIERS[1:]:
        assert run(models[name], isa=isa) == expected, isa
    for n_threads in (2, 3):
        assert run(models[name], n_threads=n_threads) == expected, f"{n_threads} threads"
    for chunk in (1, 7, 512):
        assert run(models[name], chunk=chunk) == expected, f"chunks of {chunk}"


@pytest.mark.parametrize("kv_type", ["f32", "q8_0"])
def test_law_2_holds_for_every_kv_type(models: dict[str, Path], kv_type: str) -> None:
    expected = run(models["Q8_0"], isa="scalar", kv_type=kv_type)
    for isa in TIERS[1:]:
        assert run(models["Q8_0"], isa=isa, n_threads=2, chunk=7, kv_type=kv_type) == expected, isa


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


@pytest.mark.parametrize("dtype", DTYPES)
def test_logits_are_those_of_the_dequantized_weights(tmp_path: Path, dtype: str) -> None:
    """With float weights the inputs stay floats; with others, rounding them to a byte is the one difference.

    Beyond it, float32 arithmetic can make a quant fall on the other side of a half, which was seen to cost 0.06; a
    wrong scale, offset or order moves the logits (of standard deviation 2) by as much as they are.
    """
    path = tiny_model(tmp_path / "m.gguf", dtype=dtype)
    ids = np.random.default_rng(1).integers(3, 300, 70).tolist()
    found = np.array(Generator(path, kv_type="f32")._native.logits(ids, 64))
    reference = Reference(path)
    exact = reference.logits(ids)
    if dtype in ("F32", "F16", "BF16"):
        assert np.abs(found - exact).max() < 1e-3
        return
    block = 256 if dtype.endswith("_K") else 32
    for name, weight in reference.weights.items():
        if weight.ndim == 2 and name != "token_embd.weight":
            reference.weights[name] = Rounding(weight, block)  # type: ignore[assignment]
    expected = reference.logits(ids)
    own, rounding = np.abs(found - expected).max(), np.abs(exact - expected).max()
    print(f"{dtype}: {own:.4f} beside {rounding:.4f} that rounding the inputs costs")
    assert own < 0.1


# Types without kernels of their own, dequantized tile by tile and multiplied as floats, and two that have some: where
# the half-precision scale of a block is.
SCALE_AT = {
    "IQ1_S": 0,
    "IQ2_XXS": 0,
    "IQ2_XS": 0,
    "IQ2_S": 0,
    "IQ3_XXS": 0,
    "IQ3_S": 0,
    "TQ1_0": 52,
    "TQ2_0": 64,
    "IQ4_NL": 0,
    "IQ4_XS": 0,
}


@pytest.mark.parametrize("dtype", [*SCALE_AT, "IQ1_M", "MXFP4"])
def test_types_that_few_use_run_too(tmp_path: Path, dtype: str) -> None:
    keys, tensors = tiny_parts(embd=256, ffn=256)
    rng = np.random.default_rng(0)
    per, size = GGML_QUANT_SIZES[GGMLQuantizationType[dtype]]

    def exotic(name: str, values: np.ndarray, kind: str) -> tuple[str, np.ndarray, str]:
        if not name.endswith(("attn_output.weight", "ffn_down.weight", "output.weight")):
            return name, values, kind
        blocks = rng.integers(0, 256, size=(values.size // per, size), dtype=np.uint8)
        if dtype in SCALE_AT:
            at = SCALE_AT[dtype]
            scales = rng.choice([-1, 1], len(blocks)) * rng.uniform(0.002, 0.006, len(blocks))
            blocks[:, at : at + 2] = scales.astype(np.float16).reshape(-1, 1).view(np.uint8)
        elif dtype == "IQ1_M":
            # The four parts of 0.0039 in half precision, 0x1c00.
            blocks[:, 49::2] &= 0x0F
            blocks[:, 53] |= 0xC0
            blocks[:, 55] |= 0x10
        else:
            blocks[:, 0] = rng.integers(118, 121, len(blocks))
        return name, blocks.reshape(values.shape[0], -1), dtype

    path = tmp_path / "m.gguf"
    write_arrays(path, keys, [exotic(*tensor) for tensor in tensors])
    ids = rng.integers(3, 300, 40).tolist()
    found = np.array(Generator(path, kv_type="f32")._native.logits(ids, 16))
    expected = Reference(path).logits(ids)
    # Where there is a kernel, rounding the inputs shows.
    tolerance = 0.2 if dtype.startswith("IQ4") else 1e-3
    assert np.abs(found - expected).max() < tolerance * expected.std()


def test_an_unknown_tier_is_refused_at_load_and_a_lacking_one_too() -> None:
    lacking = [isa for isa in ("amx", "neon") if isa not in TIERS]
    script = "from candlewick import Generator; Generator('demo')"
    environment = {**os.environ, "CANDLEWICK_ISA": lacking[0]}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=60)
    assert f'CANDLEWICK_ISA is "{lacking[0]}", which this CPU lacks: this one has scalar' in done.stderr
