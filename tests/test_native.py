"""The native engine: the same bits whatever computes them.

Law 2 is compared for equality, logits and ids: tiers, threads, chunks and scalar code.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from make_gguf import tiny_model

# More threads here would only start more programs, which share nothing.
pytestmark = pytest.mark.thread_unsafe(reason="tests programs")

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


def test_an_unknown_tier_is_refused_at_load_and_a_lacking_one_too() -> None:
    lacking = [isa for isa in ("amx", "neon") if isa not in TIERS]
    script = "from candlewick import Generator; Generator('demo')"
    environment = {**os.environ, "CANDLEWICK_ISA": lacking[0]}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=60)
    assert f'CANDLEWICK_ISA is "{lacking[0]}", which this CPU lacks: this one has scalar' in done.stderr
