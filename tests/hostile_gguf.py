"""Broken and odd GGUF files for the tests, as bytes.

    hostile_bytes("alignment 0")    # a name in HOSTILE: must be refused with an error, fast, in little memory
    odd_bytes("alignment 64")       # a name in ODD: legal though unusual; must load
    for data in truncations(valid_bytes()): ...
    for data in bit_flips(valid_bytes(), count=500): ...

Each starts from the same valid one-layer model and changes one thing, so that the file is refused for that
thing and not for another. `RawFile` writes whatever it is told, lies included, without gguf's own checks.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType
from make_gguf import small_vocab, tiny_parts

V = GGUFValueType
FORMATS = {
    V.UINT8: "<B",
    V.INT8: "<b",
    V.UINT16: "<H",
    V.INT16: "<h",
    V.UINT32: "<I",
    V.INT32: "<i",
    V.FLOAT32: "<f",
    V.BOOL: "<B",
    V.UINT64: "<Q",
    V.INT64: "<q",
    V.FLOAT64: "<d",
}


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def u64(value: int) -> bytes:
    return struct.pack("<Q", value % 2**64)


def text(value: str | bytes, length: int | None = None) -> bytes:
    """A GGUF string; `length` may lie."""
    raw = value.encode() if isinstance(value, str) else value
    return u64(len(raw) if length is None else length) + raw


def payload(kind: int, value: Any) -> bytes:
    """A metadata value without its type; bytes are taken as they are, if they are not a string."""
    if kind == V.STRING:
        return text(value)
    if isinstance(value, bytes):
        return value
    return struct.pack(FORMATS[GGUFValueType(kind)], value)


def array(item: int, items: list[Any], count: int | None = None) -> bytes:
    """The payload of an array; `count` may lie."""
    return u32(item) + u64(len(items) if count is None else count) + b"".join(payload(item, i) for i in items)


@dataclass
class RawTensor:
    """A tensor as the file describes it: dims innermost first, `offset` and `n_dims` true unless given."""

    name: str | bytes
    dims: list[int]
    kind: int
    data: bytes
    offset: int | None = None
    n_dims: int | None = None


@dataclass
class RawFile:
    """A GGUF file in pieces; `to_bytes` writes them without looking at them."""

    kv: list[tuple[str | bytes, int, bytes]] = field(default_factory=list)  # key, type, payload
    tensors: list[RawTensor] = field(default_factory=list)
    magic: bytes = b"GGUF"
    version: int = 3
    n_kv: int | None = None
    n_tensors: int | None = None
    alignment: int = 32

    def set(self, key: str, kind: int, value: Any) -> None:
        """Replace a key's value, or add the key."""
        entry = (key, kind, payload(kind, value))
        for i, (old, _, _) in enumerate(self.kv):
            if old == key:
                self.kv[i] = entry
                return
        self.kv.append(entry)

    def remove(self, key: str) -> None:
        self.kv = [entry for entry in self.kv if entry[0] != key]

    def tensor(self, name: str) -> RawTensor:
        return next(t for t in self.tensors if t.name == name)

    def to_bytes(self) -> bytes:
        head = [self.magic, u32(self.version)]
        head.append(u64(len(self.tensors) if self.n_tensors is None else self.n_tensors))
        head.append(u64(len(self.kv) if self.n_kv is None else self.n_kv))
        head += [text(key) + u32(kind) + value for key, kind, value in self.kv]
        data = b""
        for t in self.tensors:
            data += b"\0" * (-len(data) % self.alignment)
            offset = len(data) if t.offset is None else t.offset
            head.append(text(t.name) + u32(len(t.dims) if t.n_dims is None else t.n_dims))
            head += [u64(d) for d in t.dims]
            head += [u32(t.kind), u64(offset)]
            data += t.data
        out = b"".join(head)
        return out + b"\0" * (-len(out) % self.alignment) + data


def raw_model(**parts: Any) -> RawFile:
    """The model that `tiny_model(**parts)` would write, in pieces."""
    metadata, tensors = tiny_parts(**parts)
    raw = RawFile()
    raw.set("general.architecture", V.STRING, "phi3")
    for key, value in metadata.items():
        if isinstance(value, list):
            items = {str: V.STRING, float: V.FLOAT32, int: V.INT32}
            raw.set(key, V.ARRAY, array(items[type(value[0])], value))
        elif isinstance(value, bool):
            raw.set(key, V.BOOL, value)
        elif isinstance(value, int):
            raw.set(key, V.UINT32, value)
        else:
            raw.set(key, V.STRING if isinstance(value, str) else V.FLOAT32, value)
    for name, values, kind in tensors:
        values = values.astype({"F32": np.float32, "F16": np.float16}.get(kind, values.dtype))
        dims = list(values.shape[::-1])
        raw.tensors.append(RawTensor(name, dims, int(GGMLQuantizationType[kind]), values.tobytes()))
    return raw


def base() -> RawFile:
    """The smallest valid model, from which every file here is made."""
    return raw_model(vocab=small_vocab(293), layers=1, embd=32, heads=2, ffn=32, context=64)


def valid_bytes() -> bytes:
    return base().to_bytes()


Change = Callable[[RawFile], bytes | None]
"""Change the file in place, or return other bytes instead of it."""


def _set(kind: int, key: str, value: Any) -> Change:
    return lambda raw: raw.set(key, kind, value)


def _header(**values: Any) -> Change:
    def change(raw: RawFile) -> None:
        for name, value in values.items():
            setattr(raw, name, value)

    return change


def _tensor(name: str, **values: Any) -> Change:
    def change(raw: RawFile) -> None:
        for key, value in values.items():
            setattr(raw.tensor(name), key, value)

    return change


def _remove(key: str) -> Change:
    return lambda raw: raw.remove(key)


def _add_kv(key: str | bytes, kind: int, value: bytes) -> Change:
    return lambda raw: raw.kv.append((key, kind, value))


def _first_kv(key: str | bytes, kind: int, value: bytes) -> Change:
    return lambda raw: raw.kv.insert(0, (key, kind, value))


def _add_tensor(*tensor: Any) -> Change:
    return lambda raw: raw.tensors.append(RawTensor(*tensor))


def _nested_array(depth: int) -> bytes:
    return (u32(V.ARRAY) + u64(1)) * depth + u32(V.UINT8) + u64(1) + b"\0"


def _long_key(length: int) -> Change:
    """The first key says that it is `length` bytes long."""

    def change(raw: RawFile) -> bytes:
        counts = u64(len(raw.tensors)) + u64(len(raw.kv))
        return b"GGUF" + u32(3) + counts + text("general.architecture", length)

    return change


def _misplaced(raw: RawFile) -> None:
    """Every tensor's data at an offset that is no multiple of the alignment."""
    raw.alignment = 1
    raw.tensors[0].data += b"\0"


def _overlap(raw: RawFile) -> None:
    raw.tensor("output.weight").offset = 0


def _duplicate_tensor(raw: RawFile) -> None:
    first = raw.tensors[0]
    raw.tensors.append(RawTensor(first.name, first.dims, first.kind, first.data))


def _shorten_list(key: str, item: int, keep: int) -> Change:
    def change(raw: RawFile) -> None:
        old = next(value for name, _, value in raw.kv if name == key)
        size = 4 * keep
        raw.set(key, V.ARRAY, u32(item) + u64(keep) + old[12 : 12 + size])

    return change


F32 = int(GGMLQuantizationType.F32)
F16 = int(GGMLQuantizationType.F16)
Q4_K = int(GGMLQuantizationType.Q4_K)
Q8_0 = int(GGMLQuantizationType.Q8_0)
QKV, EMBD = "blk.0.attn_qkv.weight", "token_embd.weight"
LONG, SHORT = "rope_factors_long.weight", "rope_factors_short.weight"
P, T = "phi3.", "tokenizer.ggml."


def _factors(values: list[float], original: int | None = 32) -> Change:
    """Long rope with these factors in both lists."""

    def change(raw: RawFile) -> None:
        for name in (LONG, SHORT):
            raw.tensors.append(RawTensor(name, [len(values)], F32, struct.pack(f"<{len(values)}f", *values)))
        if original is None:
            raw.remove(P + "rope.scaling.original_context_length")
        else:
            raw.set(P + "rope.scaling.original_context_length", V.UINT32, original)

    return change


HOSTILE: dict[str, Change] = {
    # the header
    "empty": lambda raw: b"",
    "magic alone": lambda raw: b"GGUF",
    "wrong magic": _header(magic=b"GGML"),
    "html page": lambda raw: b"<!DOCTYPE html><html><body>404</body></html>",
    "git lfs pointer": lambda raw: b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64,
    "version 0": _header(version=0),
    "version 1": _header(version=1),
    "version 4": _header(version=4),
    "version of a big-endian file": _header(version=0x03000000),
    "2^63 keys": _header(n_kv=2**63),
    "2^64-1 keys": _header(n_kv=2**64 - 1),
    "one key too many": lambda raw: _header(n_kv=len(raw.kv) + 1)(raw),
    "one key too few": lambda raw: _header(n_kv=len(raw.kv) - 1)(raw),
    "2^63 tensors": _header(n_tensors=2**63),
    "2^32 tensors": _header(n_tensors=2**32),
    "one tensor too many": lambda raw: _header(n_tensors=len(raw.tensors) + 1)(raw),
    "no tensors": _header(tensors=[]),
    # strings and arrays
    "key of 2^63 bytes": _long_key(2**63),
    "key of 2^63-1 bytes": _long_key(2**63 - 1),
    "key of 2^64-1 bytes": _long_key(2**64 - 1),
    "key of 2^32 bytes": _long_key(2**32),
    "key that is not UTF-8": _first_kv(b"general.\xff\xfe", V.UINT32, u32(1)),
    "string of 2^62 bytes": _first_kv("x.y", V.STRING, text("abc", 2**62)),
    "string of 2^64-1 bytes": _first_kv("x.y", V.STRING, text("abc", 2**64 - 1)),
    "duplicate key": _add_kv(P + "block_count", V.UINT32, u32(1)),
    "value type 13": _first_kv("x.y", 13, b"\0" * 8),
    "value type 2^32-1": _first_kv("x.y", 2**32 - 1, b"\0" * 8),
    "array of 2^61 strings": _first_kv("x.y", V.ARRAY, array(V.STRING, [], 2**61)),
    "array of 2^63 bytes": _first_kv("x.y", V.ARRAY, array(V.UINT8, [], 2**63)),
    "array of 2^62 words": _first_kv("x.y", V.ARRAY, array(V.UINT32, [], 2**62)),
    "array of an unknown type": _first_kv("x.y", V.ARRAY, array(99, [], 1)),
    "array of 2^60 arrays": _first_kv("x.y", V.ARRAY, array(V.ARRAY, [], 2**60)),
    "arrays 100000 deep": _first_kv("x.y", V.ARRAY, _nested_array(100_000)),
    # alignment
    "alignment 0": _set(V.UINT32, "general.alignment", 0),
    "alignment 3": _set(V.UINT32, "general.alignment", 3),
    "alignment 48": _set(V.UINT32, "general.alignment", 48),
    "alignment 2^31": _set(V.UINT32, "general.alignment", 2**31),
    "alignment as text": _set(V.STRING, "general.alignment", "32"),
    # tensors
    "duplicate tensor": _duplicate_tensor,
    "no dimensions": _tensor(QKV, dims=[]),
    "5 dimensions": _tensor(QKV, dims=[32, 96, 1, 1, 1]),
    "2^32-1 dimensions": _tensor(QKV, n_dims=2**32 - 1),
    "zero dimension": _tensor(QKV, dims=[32, 0]),
    "both dimensions zero": _tensor(QKV, dims=[0, 0]),
    "dimension 2^63": _tensor(QKV, dims=[32, 2**63]),
    "dimension 2^64-1": _tensor(QKV, dims=[2**64 - 1, 2**64 - 1]),
    "product wraps to 0": _tensor(QKV, dims=[2**54, 3072]),
    "product wraps to the true size": _tensor(QKV, dims=[32 + 2**59, 96]),
    "byte size wraps": _tensor(QKV, dims=[2**31, 2**31]),
    "transposed": _tensor(QKV, dims=[96, 32]),
    "three dimensions": _tensor(QKV, dims=[32, 48, 2]),
    "tensor type 4 (removed)": _tensor(QKV, kind=4),
    "tensor type 999": _tensor(QKV, kind=999),
    "tensor type 2^32-1": _tensor(QKV, kind=2**32 - 1),
    "integer tensor": _tensor(QKV, kind=int(GGMLQuantizationType.I32)),
    "row shorter than a block": _tensor(QKV, kind=Q4_K),
    "quantized norm": _tensor("output_norm.weight", kind=Q8_0),
    "unaligned offset": _tensor(QKV, offset=33),
    "all offsets unaligned": _misplaced,
    "offset past the end": _tensor(QKV, offset=2**40),
    "offset 2^64-32": _tensor(QKV, offset=2**64 - 32),
    "offset 2^63": _tensor(QKV, offset=2**63),
    "overlapping tensors": _overlap,
    "last byte missing": lambda raw: raw.to_bytes()[:-1],
    "data missing": lambda raw: raw.to_bytes()[: -sum(len(t.data) for t in raw.tensors)],
    "tensor name that is not UTF-8": _add_tensor(b"\xff\xfe", [1], F32, b"\0" * 4),
    "unknown tensor in a block": _add_tensor("blk.0.attn_q_norm.weight", [96], F32, b"\0" * 384),
    "bias of a norm": _add_tensor("blk.0.attn_norm.bias", [32], F32, b"\0" * 128),
    "bias of another length": _add_tensor("blk.0.attn_qkv.bias", [95], F32, b"\0" * 380),
    "quantized bias": _add_tensor("blk.0.attn_qkv.bias", [96], Q8_0, b"\0" * 102),
    "queries beside the fused matrix": _add_tensor("blk.0.attn_q.weight", [32, 32], F32, b"\0" * 4096),
    "unknown tensor": _add_tensor("rope_freqs.weight", [8], F32, b"\0" * 32),
    "block beyond block_count": _add_tensor("blk.1.attn_norm.weight", [32], F32, b"\0" * 128),
    "one rope factor tensor of two": _add_tensor("rope_factors_long.weight", [8], F32, b"\0\0\x80?" * 8),
    # the model's numbers
    "no architecture": _remove("general.architecture"),
    "another architecture": _set(V.STRING, "general.architecture", "llama"),
    "architecture as a number": _set(V.UINT32, "general.architecture", 3),
    "no block count": _remove(P + "block_count"),
    "block count 0": _set(V.UINT32, P + "block_count", 0),
    "block count 2": _set(V.UINT32, P + "block_count", 2),
    "block count 2^32-1": _set(V.UINT32, P + "block_count", 2**32 - 1),
    "block count as text": _set(V.STRING, P + "block_count", "1"),
    "block count -1": _set(V.INT32, P + "block_count", -1),
    "no head count": _remove(P + "attention.head_count"),
    "head count 0": _set(V.UINT32, P + "attention.head_count", 0),
    "head count 3": _set(V.UINT32, P + "attention.head_count", 3),
    "head count for each layer": _set(V.ARRAY, P + "attention.head_count", array(V.UINT32, [2])),
    "kv head count 0": _set(V.UINT32, P + "attention.head_count_kv", 0),
    "more kv heads than heads": _set(V.UINT32, P + "attention.head_count_kv", 4),
    "kv head count 2^32-1": _set(V.UINT32, P + "attention.head_count_kv", 2**32 - 1),
    "embedding length 0": _set(V.UINT32, P + "embedding_length", 0),
    "embedding length 64": _set(V.UINT32, P + "embedding_length", 64),
    "embedding length 2^32-1": _set(V.UINT32, P + "embedding_length", 2**32 - 1),
    "embedding length 2^64-1": _set(V.UINT64, P + "embedding_length", 2**64 - 1),
    "feed-forward length 0": _set(V.UINT32, P + "feed_forward_length", 0),
    "feed-forward length 2^31": _set(V.UINT32, P + "feed_forward_length", 2**31),
    "context length 0": _set(V.UINT32, P + "context_length", 0),
    "no context length": _remove(P + "context_length"),
    "rope dimensions 0": _set(V.UINT32, P + "rope.dimension_count", 0),
    "rope dimensions odd": _set(V.UINT32, P + "rope.dimension_count", 7),
    "rope dimensions beyond the head": _set(V.UINT32, P + "rope.dimension_count", 18),
    "rope base 0": _set(V.FLOAT32, P + "rope.freq_base", 0.0),
    "rope base negative": _set(V.FLOAT32, P + "rope.freq_base", -10000.0),
    "rope base NaN": _set(V.FLOAT32, P + "rope.freq_base", math.nan),
    "rope base infinite": _set(V.FLOAT32, P + "rope.freq_base", math.inf),
    "epsilon negative": _set(V.FLOAT32, P + "attention.layer_norm_rms_epsilon", -1e-5),
    "epsilon NaN": _set(V.FLOAT32, P + "attention.layer_norm_rms_epsilon", math.nan),
    "no epsilon": _remove(P + "attention.layer_norm_rms_epsilon"),
    "sliding window negative": _set(V.INT32, P + "attention.sliding_window", -5),
    "attention factor NaN": _set(V.FLOAT32, P + "rope.scaling.attn_factor", math.nan),
    "attention factor 0": _set(V.FLOAT32, P + "rope.scaling.attn_factor", 0.0),
    "unknown model key": _set(V.FLOAT32, P + "attention.logit_softcapping", 30.0),
    "unknown rope scaling": _set(V.STRING, P + "rope.scaling.type", "yarn"),
    "long rope without factors": _set(V.STRING, P + "rope.scaling.type", "longrope"),
    "attention factor without factors": _set(V.FLOAT32, P + "rope.scaling.attn_factor", 1.19),
    "context beyond the original one without factors": _set(V.UINT32, P + "context_length", 65),
    "factors without the original context": _factors([1.0] * 8, original=None),
    "too few factors": _factors([1.0] * 7),
    "factor 0": _factors([1.0] * 7 + [0.0]),
    "factor NaN": _factors([1.0] * 7 + [math.nan]),
    "quantized factors": lambda raw: (_factors([1.0] * 8)(raw), _tensor(LONG, kind=F16, data=b"\0" * 16)(raw))[0],
    "factors of an original context of 0": _factors([1.0] * 8, original=0),
    # the vocabulary
    "no vocabulary": _remove(T + "tokens"),
    "empty vocabulary": _set(V.ARRAY, T + "tokens", array(V.STRING, [])),
    "vocabulary of numbers": _set(V.ARRAY, T + "tokens", array(V.UINT32, [1, 2, 3])),
    "no scores": _remove(T + "scores"),
    "fewer scores than tokens": _shorten_list(T + "scores", V.FLOAT32, 100),
    "fewer types than tokens": _shorten_list(T + "token_type", V.INT32, 100),
    "no tokenizer model": _remove(T + "model"),
    "unknown tokenizer model": _set(V.STRING, T + "model", "word-salad"),
    "unknown tokenizer key": _set(V.BOOL, T + "lower_case", True),
    "white space removed": _set(V.BOOL, T + "remove_extra_whitespaces", True),
    "bos id beyond the vocabulary": _set(V.UINT32, T + "bos_token_id", 293),
    "eos id 2^32-1": _set(V.UINT32, T + "eos_token_id", 2**32 - 1),
    "eos id -1": _set(V.INT32, T + "eos_token_id", -1),
    "template as a number": _set(V.UINT32, "tokenizer.chat_template", 1),
}
"""Files that must be refused with a `candlewick.Error`: no crash, hang, large allocation or wrong answer."""


def _aligned(alignment: int, kind: int = V.UINT32) -> Change:
    def change(raw: RawFile) -> None:
        raw.set("general.alignment", kind, alignment)
        raw.alignment = alignment

    return change


def _gap(raw: RawFile) -> None:
    """The data of the second tensor begins 4096 bytes later than it could."""
    raw.tensors[0].data += b"\0" * 4096


ODD: dict[str, Change] = {
    "as it is": lambda raw: None,
    "version 2": _header(version=2),
    "alignment 8": _aligned(8),
    "alignment 64": _aligned(64),
    "alignment 4096": _aligned(4096),
    "numbers as u64": _set(V.UINT64, P + "context_length", 64),
    "numbers as i32": _set(V.INT32, P + "attention.head_count", 2),
    "numbers as u16": _set(V.UINT16, P + "block_count", 1),
    "epsilon as f64": _set(V.FLOAT64, P + "attention.layer_norm_rms_epsilon", 1e-5),
    "kv head count left out": _remove(P + "attention.head_count_kv"),
    "rope base left out": _remove(P + "rope.freq_base"),
    "rope dimensions left out": _remove(P + "rope.dimension_count"),
    "original context left out": _remove(P + "rope.scaling.original_context_length"),
    "sliding window 0": _set(V.UINT32, P + "attention.sliding_window", 0),
    "sliding window 2^31": _set(V.UINT32, P + "attention.sliding_window", 2**31),
    "factors of 1": _factors([1.0] * 8, original=64),
    "no experts": _set(V.UINT32, P + "expert_count", 0),
    "scaling type none": _set(V.STRING, P + "rope.scaling.type", "none"),
    "no chat template": _remove("tokenizer.chat_template"),
    "a foreign key": _add_kv("general.quantized_by", V.STRING, text("someone")),
    "a foreign array": _add_kv("quantize.imatrix.chunks", V.ARRAY, array(V.INT32, [1, 2, 3])),
    "an empty foreign array": _add_kv("general.tags", V.ARRAY, array(V.STRING, [])),
    "arrays in an array": _add_kv("x.y", V.ARRAY, _nested_array(2)),
    "tensors in another order": lambda raw: raw.tensors.reverse(),
    "a gap between tensors": _gap,
    "bytes after the end": lambda raw: raw.to_bytes() + b"\0" * 1000,
}
"""Legal files that are unlike the usual; they must load and give the logits of "as it is"."""


def _bytes(changes: dict[str, Change], name: str) -> bytes:
    raw = base()
    changed = changes[name](raw)
    return raw.to_bytes() if changed is None else changed


hostile_bytes: Callable[[str], bytes] = partial(_bytes, HOSTILE)
odd_bytes: Callable[[str], bytes] = partial(_bytes, ODD)


def truncations(data: bytes, *, dense: int = 4096, steps: int = 60) -> Iterator[bytes]:
    """`data` cut short: at every 7th of its first bytes (where the structure is), then at `steps` places."""
    for end in range(0, min(dense, len(data)), 7):
        yield data[:end]
    for end in np.linspace(min(dense, len(data)), len(data) - 1, steps).astype(int).tolist():
        yield data[:end]


def bit_flips(data: bytes, *, count: int, seed: int = 0, within: int = 4096) -> Iterator[bytes]:
    """`data` with one random bit of its first `within` bytes inverted, `count` times."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        copy = bytearray(data)
        copy[rng.integers(min(within, len(data)))] ^= 1 << int(rng.integers(8))
        yield bytes(copy)
