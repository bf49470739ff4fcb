"""Files that are missing, damaged or lie: each is a `candlewick.Error` with the way out, and nothing else."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import pytest
from hostile_gguf import HOSTILE, ODD, hostile_bytes, odd_bytes, valid_bytes
from make_gguf import tiny_model

import candlewick
from candlewick import Generator, ModelFormatError, ModelNotFoundError, UnsupportedModelError


def write(folder: Path, data: bytes) -> Path:
    path = folder / "model.gguf"
    path.write_bytes(data)
    return path


def use(path: Path) -> None:
    """Loads a file that may be damaged and writes a few tokens with it."""
    with Generator(path) as gen:
        gen.generate([1, 2, 3], max_tokens=3, temperature=0)
        gen.tokenizer.decode(list(range(20)))


def test_no_such_file() -> None:
    with pytest.raises(ModelNotFoundError, match=r"no such file or folder: 'nothing\.gguf'.*expected a \.gguf file"):
        Generator("nothing.gguf")
    with pytest.raises(FileNotFoundError):
        Generator(Path("/nowhere/nothing.gguf"))


def test_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"no \.gguf file in the folder"):
        Generator(tmp_path)


def test_folder_with_one_model_several_and_a_choice(tmp_path: Path, tiny_path: Path) -> None:
    for name in ("a-Q8_0.gguf", "b-Q5_K_M.gguf"):
        (tmp_path / name).write_bytes(tiny_path.read_bytes())
    with pytest.raises(ModelNotFoundError, match=r"(?s)choose one with filename=.*a-Q8_0\.gguf  \(0\.00 GB\)"):
        Generator(tmp_path)
    assert Generator(tmp_path, filename="b-Q5_K_M.gguf").info["path"].name == "b-Q5_K_M.gguf"
    with pytest.raises(ModelNotFoundError, match=r"no 'c\.gguf' in"):
        Generator(tmp_path, filename="c.gguf")
    (tmp_path / "c-Q4_K_M.gguf").write_bytes(tiny_path.read_bytes())
    assert Generator(tmp_path).info["path"].name == "c-Q4_K_M.gguf"


def test_empty_file(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match=r"is empty \(0 bytes\).*download it again"):
        Generator(write(tmp_path, b""))


@pytest.mark.skipif(os.geteuid() == 0 if hasattr(os, "geteuid") else True, reason="root may read everything")
def test_unreadable_file(tmp_path: Path) -> None:
    path = write(tmp_path, valid_bytes())
    path.chmod(0)
    with pytest.raises(PermissionError, match=r"model\.gguf"):
        Generator(path)


@pytest.mark.parametrize("mmap", [True, False])
def test_cut_at_200_places(tmp_path: Path, mmap: bool) -> None:
    data = valid_bytes()
    places = random.Random(1).sample(range(1, len(data)), 200)
    for at in places:
        with pytest.raises(ModelFormatError, match=r"cut short|damaged|not a GGUF|download it again"):
            Generator(write(tmp_path, data[:at]), mmap=mmap)


def test_bits_flipped_at_500_places(tmp_path: Path) -> None:
    """A flip in the weights or in a name nobody reads may go unnoticed; all others are refused; none crashes."""
    data = valid_bytes()
    rng = random.Random(2)
    refused = 0
    for _ in range(500):
        # Half in the first 4 kB, where the structure is.
        at = rng.randrange(4096 if rng.random() < 0.5 else len(data))
        damaged = bytearray(data)
        damaged[at] ^= 1 << rng.randrange(8)
        try:
            use(write(tmp_path, bytes(damaged)))
        except candlewick.Error:
            refused += 1
    assert refused > 50, "the flips no longer reach the structure"


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises((ModelFormatError, UnsupportedModelError)) as caught:
        use(write(tmp_path, hostile_bytes(name)))
    assert "internal error" not in str(caught.value)
    assert "model.gguf" in str(caught.value), "the text names the file"


@pytest.mark.parametrize("name", ODD)
def test_odd_but_legal_file_gives_the_same_logits(tmp_path: Path, name: str) -> None:
    expected = Generator(write(tmp_path, odd_bytes("as it is")))._native.logits([1, 2, 3], 8)
    odd = tmp_path / "odd.gguf"
    odd.write_bytes(odd_bytes(name))
    assert Generator(odd)._native.logits([1, 2, 3], 8) == expected
    assert Generator(odd, mmap=False)._native.logits([1, 2, 3], 8) == expected


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"metadata": {"general.architecture": "llama"}}, UnsupportedModelError, "architecture is `llama`, supported"),
        ({"drop_tensors": ("blk.1.ffn_down.weight",)}, ModelFormatError, r"`blk.1.ffn_down.weight` is missing"),
        (
            {"reshape": {"blk.0.attn_output.weight": (32, 128)}},
            ModelFormatError,
            r"`blk.0.attn_output.weight` has shape \[32, 128\], expected \[64, 64\]",
        ),
        ({"metadata": {"phi3.attention.softcap": 3.0}}, UnsupportedModelError, "`phi3.attention.softcap`"),
        (
            {"split_qkv": True, "drop_tensors": ("blk.0.attn_k.weight",)},
            ModelFormatError,
            r"`blk.0.attn_k.weight` is missing",
        ),
        ({"arch": "phi2", "drop_tensors": ("output.bias",)}, ModelFormatError, r"`output.bias` is missing"),
        (
            {"longrope": ([1.0] * 8, [1.0] * 8), "drop_tensors": ("rope_factors_short.weight",)},
            ModelFormatError,
            r"`rope_factors_short.weight` is missing, and the other factors are there: convert the model again",
        ),
        (
            {"original_context": 128},
            ModelFormatError,
            r"`rope_factors_short.weight` is missing, and `phi3.context_length` 512 is longer than `phi3.rope.scaling",
        ),
        ({"heads": 4, "kv_heads": 3}, ModelFormatError, r"head_count` 4 is not a multiple of .*head_count_kv` 3"),
        (
            {"metadata": {"phi3.rope.scaling.factor": 4.0}},
            UnsupportedModelError,
            r"`phi3.rope.scaling.factor` is 4, and only 1 \(off\)",
        ),
    ],
)
def test_wrong_model_is_named(tmp_path: Path, change: dict, error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        Generator(tiny_model(tmp_path / "m.gguf", **change))


def test_vocabulary_smaller_than_the_embedding(tmp_path: Path) -> None:
    from make_gguf import small_vocab

    path = tiny_model(tmp_path / "m.gguf", vocab=small_vocab(320), reshape={"token_embd.weight": (340, 64)})
    with pytest.raises(ModelFormatError, match=r"vocabulary has 320 tokens and the embedding .* 340 rows"):
        Generator(path)


def test_a_type_that_candle_cannot_hold(tmp_path: Path) -> None:
    import struct

    from reference import Reference

    path = tiny_model(tmp_path / "m.gguf", dtype="Q4_0", layers=1)
    data = bytearray(path.read_bytes())
    # The same block size, another type: 2 (Q4_0) -> 20 (IQ4_NL), in the entries of two tensors.
    for name in (b"blk.0.ffn_down.weight", b"token_embd.weight"):
        at = data.index(name) + len(name) + 4 + 16
        assert struct.unpack_from("<I", data, at) == (2,)
        struct.pack_into("<I", data, at, 20)
    path.write_bytes(data)
    ids = [1, 5, 200, 280]
    expected = Reference(path).logits(ids)
    for engine in ("native", "candle"):
        found = Generator(path, engine=engine)._native.logits(ids, 8)
        # Candle and the kernels quantize activations to 8 bits.
        assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) < 0.1 * expected.std(), engine
    with pytest.raises(UnsupportedModelError, match=r"has type IQ4_NL, .* supported: F32.*engine=.candle. or .native."):
        Generator(path, engine="original")


def test_broken_template_is_an_error_at_the_first_call_that_needs_it(tmp_path: Path) -> None:
    path = tiny_model(tmp_path / "m.gguf", metadata={"tokenizer.chat_template": "{% for %}"})
    gen = Generator(path)
    assert gen.generate("raw text", raw=True, max_tokens=1).usage.completion_tokens == 1
    with pytest.raises(candlewick.Error, match="template"):
        gen.stream("Hello")


@pytest.mark.skipif(sys.platform == "win32", reason="a mapped file cannot be replaced there")
def test_file_replaced_by_rename_while_in_use(tmp_path: Path, tiny_path: Path) -> None:
    path = write(tmp_path, tiny_path.read_bytes())
    gen = Generator(path)
    before = gen.generate([1, 2, 3], max_tokens=5, temperature=0).text
    other = tmp_path / "other"
    other.write_bytes(b"nothing like it")
    other.replace(path)
    assert gen.generate([1, 2, 3], max_tokens=5, temperature=0).text == before
