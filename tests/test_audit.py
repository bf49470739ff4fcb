"""The audit: every name of the gguf package is known to be used, harmless or refused, and `info` shows it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gguf.constants import Keys
from make_gguf import tiny_model

from candlewick import Error, Generator


def constants(group: type, prefix: str) -> Iterator[str]:
    """All values under `prefix` in a class of constants and in the classes inside it."""
    for name, value in vars(group).items():
        if isinstance(value, str) and not name.startswith("__") and value.startswith(prefix):
            yield value
        elif isinstance(value, type) and not name.startswith("__"):
            yield from constants(value, prefix)


MODEL_KEYS = sorted(set(constants(Keys, "{arch}.")))
TOKENIZER_KEYS = sorted(set(constants(Keys, "tokenizer.ggml.")))


def test_the_constants_were_found() -> None:
    assert len(MODEL_KEYS) > 100
    assert len(TOKENIZER_KEYS) > 25


@pytest.mark.parametrize("arch", ["phi3", "phi2"])
@pytest.mark.parametrize("key", MODEL_KEYS)
def test_each_model_key_is_classified(tmp_path: Path, key: str, arch: str) -> None:
    check(tmp_path, key.format(arch=arch, dense="dense_2"), arch=arch)


@pytest.mark.parametrize("key", TOKENIZER_KEYS)
def test_each_tokenizer_key_is_classified(tmp_path: Path, key: str) -> None:
    check(tmp_path, key)


def check(folder: Path, key: str, **parts: Any) -> None:
    """A value that means nothing: the key is listed as harmless, or an error names it."""
    path = tiny_model(folder / "m.gguf", layers=1, metadata={key: "nonsense"}, **parts)
    try:
        audit = Generator(path).info["audit"]
    except Error as error:
        assert f"`{key}`" in str(error)
        assert "is not known" not in str(error), "not in the table"
    else:
        assert key in audit["harmless"] + audit["used"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("phi3.expert_count", 0),
        ("phi3.attention.causal", True),
        ("phi3.logit_scale", 1.0),
        ("phi3.vocab_size", 320),
        ("phi3.rope.scaling.finetuned", True),
        ("tokenizer.ggml.mask_token_id", 3),
        ("tokenizer.ggml.remove_extra_whitespaces", False),
    ],
)
def test_a_key_that_changes_nothing_is_listed(tmp_path: Path, key: str, value: object) -> None:
    audit = Generator(tiny_model(tmp_path / "m.gguf", metadata={key: value})).info["audit"]
    assert key in audit["harmless"]
    assert key not in audit["used"]


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("phi3.expert_count", 8, "is 8, and only 0 (off) is supported"),
        ("phi3.attention.causal", False, "is false, and only true (off) is supported"),
        ("phi3.final_logit_softcapping", 30.0, "is 30, and only 0 (off) is supported"),
        ("phi3.ssm.state_size", 16, "asks for a state-space model, which is not supported"),
        ("phi3.attention.new_thing", 1, "is not known and may change the result"),
        ("tokenizer.ggml.new_thing", 1, "is not known and may change the result"),
    ],
)
def test_a_key_that_would_change_the_result_is_refused(tmp_path: Path, key: str, value: object, words: str) -> None:
    with pytest.raises(Error, match=re.escape(f"`{key}` {words}")):
        Generator(tiny_model(tmp_path / "m.gguf", metadata={key: value}))


def test_keys_elsewhere_are_free(tmp_path: Path) -> None:
    metadata = {"general.new_thing": 1, "quantize.imatrix.file": "x", "vendor.thing": 2.0}
    audit = Generator(tiny_model(tmp_path / "m.gguf", metadata=metadata)).info["audit"]
    assert not set(metadata) & set(audit["used"] + audit["harmless"])


def test_tensors_and_keys_that_are_used(tmp_path: Path) -> None:
    audit = Generator(tiny_model(tmp_path / "m.gguf", layers=2, split_qkv=True)).info["audit"]
    assert {"blk.*.attn_q.weight", "output.weight", "phi3.rope.freq_base", "tokenizer.ggml.scores"} <= set(
        audit["used"]
    )
