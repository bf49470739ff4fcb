"""The tests' own reference and file writers, against transformers' logits: without the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hostile_gguf import HOSTILE, ODD, hostile_bytes, odd_bytes, valid_bytes
from make_gguf import DTYPES, small_vocab, tiny_model
from reference import Reference

GOLDEN = Path(__file__).parent / "data" / "golden"


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("*.npz")))
def test_reference_agrees_with_transformers(name: str) -> None:
    golden = np.load(GOLDEN / f"{name}.npz")
    model = Reference(GOLDEN / f"{name}.gguf")
    for length in golden["prompts"]:
        ids = [*golden[f"prompt_{length}"], *golden[f"greedy_{length}"]]
        for i in (0, -1):
            logits = model.logits(ids[: length + golden["steps"][i]])
            # transformers makes its rope tables in float32: 3e-5 at position 350
            np.testing.assert_allclose(logits, golden[f"logits_{length}"][i], rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_random_blocks_make_lively_models(tmp_path: Path, dtype: str) -> None:
    model = Reference(tiny_model(tmp_path / "m.gguf", dtype=dtype))
    weight = model.weights["blk.0.ffn_up.weight"]
    assert weight.std() * weight.shape[1] ** 0.5 == pytest.approx(1.2, rel=0.1)
    assert 1.0 < model.logits(range(1, 60)).std() < 4.0


def test_raw_writer_writes_what_gguf_writes(tmp_path: Path) -> None:
    (tmp_path / "raw.gguf").write_bytes(valid_bytes())
    tiny_model(tmp_path / "m.gguf", vocab=small_vocab(293), layers=1, embd=32, heads=2, ffn=32, context=64)
    ids = [1, 5, 200, 280]
    raw, written = (Reference(tmp_path / name).logits(ids) for name in ("raw.gguf", "m.gguf"))
    np.testing.assert_array_equal(raw, written)


def test_each_changed_file_is_different() -> None:
    files = [hostile_bytes(name) for name in HOSTILE] + [odd_bytes(name) for name in ODD]
    assert len(set(files)) == len(files)
    assert odd_bytes("as it is") == valid_bytes()
