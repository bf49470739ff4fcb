"""Write phi3 and phi2 GGUF files: from a transformers model, or from any set of named arrays.

This is the one place where the project spells the file's names and metadata. They are those of llama.cpp's
`convert_hf_to_gguf.py` (classes `Phi3MiniModel` and `Phi2Model`); the tokenizer part is what it writes for a
vocabulary in the style of SentencePiece: tokens, scores and types, no merges. Needs numpy and gguf. torch is not
imported: a model is anything with `.config` and `.state_dict()` whose values have `.detach().float().cpu().numpy()`.

    write_gguf("phi.gguf", model, small_vocab(320), dtype="F16")
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, LlamaFileType, TokenType, quants

SPACE = "\u2581"  # SentencePiece writes a space as this character

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') %}"
    "{{'<|user|>' + '\n' + message['content'] + '<|end|>' + '\n' + '<|assistant|>' + '\n'}}"
    "{% elif (message['role'] == 'assistant') %}{{message['content'] + '<|end|>' + '\n'}}{% endif %}"
    "{% endfor %}"
)
"""The template inside Microsoft's Phi-3-mini-4k GGUF, byte for byte: it has no place for a system message."""

SPECIALS = ("<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>")
"""Phi-3's special tokens in the order of their ids there (the placeholders between them left out)."""

SMALL_VOCAB_TEXT = (
    "once upon a time there was a little girl who lived near the forest with her mother and a very small dog "
    "every morning they went to the river to look for stones and she said that the water was singing to them "
    "one day the dog ran away into the trees and the girl could not find him so she asked the old man for "
    "help he told her to listen to the wind and then she heard the dog and they were happy and went home"
)
"""What `small_vocab` learns its merges from."""


@dataclass
class Vocab:
    """A tokenizer as a GGUF file carries it."""

    tokens: list[str]
    scores: list[float] | None = None
    types: list[int] | None = None
    bos_id: int | None = 1
    eos_id: int | None = None
    unk_id: int | None = 0
    pad_id: int | None = None
    add_bos: bool | None = True
    add_eos: bool | None = False
    add_space_prefix: bool | None = None
    model: str = "llama"
    pre: str | None = "default"
    merges: list[str] | None = None
    chat_template: str | None = CHAT_TEMPLATE

    def __len__(self) -> int:
        return len(self.tokens)

    def metadata(self) -> dict[str, Any]:
        """The `tokenizer.*` keys, in the order in which llama.cpp's converter writes them."""
        keys = {
            "tokenizer.ggml.model": self.model,
            "tokenizer.ggml.pre": self.pre,
            "tokenizer.ggml.tokens": self.tokens,
            "tokenizer.ggml.scores": self.scores,
            "tokenizer.ggml.token_type": self.types,
            "tokenizer.ggml.merges": self.merges,
            "tokenizer.ggml.bos_token_id": self.bos_id,
            "tokenizer.ggml.eos_token_id": self.eos_id,
            "tokenizer.ggml.unknown_token_id": self.unk_id,
            "tokenizer.ggml.padding_token_id": self.pad_id,
            "tokenizer.ggml.add_bos_token": self.add_bos,
            "tokenizer.ggml.add_eos_token": self.add_eos,
            "tokenizer.ggml.add_space_prefix": self.add_space_prefix,
            "tokenizer.chat_template": self.chat_template,
        }
        return {key: value for key, value in keys.items() if value is not None}

    @classmethod
    def from_gguf(cls, path: str | Path) -> Vocab:
        """The vocabulary of an existing GGUF file."""
        fields = GGUFReader(path).fields
        get = lambda key: fields[key].contents() if key in fields else None  # noqa: E731
        return cls(
            tokens=get("tokenizer.ggml.tokens"),
            scores=get("tokenizer.ggml.scores"),
            types=get("tokenizer.ggml.token_type"),
            bos_id=get("tokenizer.ggml.bos_token_id"),
            eos_id=get("tokenizer.ggml.eos_token_id"),
            unk_id=get("tokenizer.ggml.unknown_token_id"),
            pad_id=get("tokenizer.ggml.padding_token_id"),
            add_bos=get("tokenizer.ggml.add_bos_token"),
            add_eos=get("tokenizer.ggml.add_eos_token"),
            add_space_prefix=get("tokenizer.ggml.add_space_prefix"),
            model=get("tokenizer.ggml.model"),
            pre=get("tokenizer.ggml.pre"),
            merges=get("tokenizer.ggml.merges"),
            chat_template=get("tokenizer.chat_template"),
        )


def spm_vocab(
    pieces: Iterable[str],
    *,
    scores: Iterable[float] | None = None,
    size: int | None = None,
    specials: Iterable[str] = SPECIALS,
    chat_template: str | None = CHAT_TEMPLATE,
) -> Vocab:
    """A SentencePiece-BPE vocabulary with Phi-3's layout: unk, bos, eos, bytes, pieces, specials, padding.

    `pieces` come in the order in which BPE may merge them, best first; piece number i gets the score -i (the
    scores of the real vocabulary count the same way) unless `scores` are given. A piece of several characters
    that no two other pieces make up could never be reached by merging and is refused. `size` pads with
    `[PADn]` tokens.
    """
    pieces = list(pieces)
    known = set(pieces)
    if len(known) != len(pieces):
        raise ValueError(f"pieces written twice: {[p for p, n in Counter(pieces).items() if n > 1]}")
    for piece in pieces:
        splits = ((piece[:i], piece[i:]) for i in range(1, len(piece)))
        if len(piece) > 1 and not any(left in known and right in known for left, right in splits):
            raise ValueError(f"no two pieces merge into {piece!r}")
    specials = list(specials)
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *pieces, *specials]
    # The types and the scores of the specials are those of the real file, where <unk> is a control token (not
    # of the type UNKNOWN) and </s> is user-defined.
    types = [TokenType.CONTROL, TokenType.CONTROL, TokenType.USER_DEFINED]
    types += [TokenType.BYTE] * 256 + [TokenType.NORMAL] * len(pieces) + [TokenType.CONTROL] * len(specials)
    ranks = [-float(i) for i in range(len(pieces))] if scores is None else [float(s) for s in scores]
    all_scores = [-1000.0] * 3 + [0.0] * 256 + ranks + [-1000.0] * len(specials)
    if size is not None:
        if size < len(tokens):
            raise ValueError(f"{len(tokens)} tokens do not fit into a vocabulary of {size}")
        pad = size - len(tokens)
        tokens += [f"[PAD{i}]" for i in range(len(tokens), size)]
        types += [TokenType.UNUSED] * pad
        all_scores += [-10000.0] * pad
    end = tokens.index("<|endoftext|>") if "<|endoftext|>" in specials else 2
    return Vocab(
        tokens=tokens,
        scores=all_scores,
        types=[int(t) for t in types],
        eos_id=end,
        pad_id=end,
        chat_template=chat_template,
    )


def small_vocab(n: int = 320) -> Vocab:
    """A valid vocabulary of exactly `n` tokens: bytes, the letters a to z, and some merges.

    Everything else (capitals, digits, other scripts) goes through the byte tokens, which is what makes it a
    hard case for a detokenizer. `n` is at least 293.
    """
    letters = [SPACE, *(chr(c) for c in range(ord("a"), ord("z") + 1))]
    room = n - 3 - 256 - len(SPECIALS) - len(letters)
    if room < 2:
        raise ValueError(f"a small vocabulary needs at least {n + 2 - room} tokens, got {n}")
    words = Counter(tuple(SPACE + word) for word in SMALL_VOCAB_TEXT.split())
    merges: list[str] = []
    while len(merges) < room:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, count in words.items():
            for pair in itertools.pairwise(word):
                pairs[pair] += count
        if not pairs:
            break
        # ties by text, so that the vocabulary is the same everywhere
        left, right = min(pairs, key=lambda pair: (-pairs[pair], pair))
        if left + right not in merges:
            merges.append(left + right)
        words = Counter({_merge(word, left, right): count for word, count in words.items()})
    return spm_vocab(merges + letters, size=n)


def _merge(word: tuple[str, ...], left: str, right: str) -> tuple[str, ...]:
    out: list[str] = []
    for symbol in word:
        if out and out[-1] == left and symbol == right:
            out[-1] = left + right
        else:
            out.append(symbol)
    return tuple(out)


@dataclass
class Shape:
    """The numbers of a model, and the `phi3.*` or `phi2.*` metadata that states them."""

    context: int
    embd: int
    ffn: int
    layers: int
    heads: int
    kv_heads: int
    rope_dim: int
    rope_base: float = 10000.0
    norm_eps: float = 1e-5
    original_context: int | None = None
    sliding_window: int | None = None
    """None: no key in the file (Microsoft's own file has none); 0: written, off."""
    attn_factor: float | None = None
    arch: str = "phi3"
    name: str = "Phi-3 test model"
    """llama.cpp gives Phi-3's special tokens their `rstrip` if this contains "phi-3" or "phi3"."""

    @property
    def head_dim(self) -> int:
        return self.embd // self.heads

    def metadata(self) -> dict[str, Any]:
        keys = {
            "context_length": self.context,
            "rope.scaling.original_context_length": self.original_context or self.context,
            "embedding_length": self.embd,
            "feed_forward_length": self.ffn,
            "block_count": self.layers,
            "attention.head_count": self.heads,
            "attention.head_count_kv": self.kv_heads,
            "attention.layer_norm_rms_epsilon": self.norm_eps,
            "rope.dimension_count": self.rope_dim,
            "rope.freq_base": self.rope_base,
            "attention.sliding_window": self.sliding_window,
            "rope.scaling.attn_factor": self.attn_factor,
        }
        if self.arch == "phi2":
            # what the converter writes for it: the rope base is left to the reader
            keys["attention.layer_norm_epsilon"] = keys.pop("attention.layer_norm_rms_epsilon")
            del keys["rope.scaling.original_context_length"]
            if self.rope_base == 10000.0:
                del keys["rope.freq_base"]
        named = {f"{self.arch}.{key}": value for key, value in keys.items() if value is not None}
        return {"general.name": self.name} | named


FILE_TYPE = {
    "F32": LlamaFileType.ALL_F32,
    "F16": LlamaFileType.MOSTLY_F16,
    "BF16": LlamaFileType.MOSTLY_BF16,
    "Q4_0": LlamaFileType.MOSTLY_Q4_0,
    "Q4_1": LlamaFileType.MOSTLY_Q4_1,
    "Q5_0": LlamaFileType.MOSTLY_Q5_0,
    "Q5_1": LlamaFileType.MOSTLY_Q5_1,
    "Q8_0": LlamaFileType.MOSTLY_Q8_0,
    "Q2_K": LlamaFileType.MOSTLY_Q2_K,
    "Q3_K": LlamaFileType.MOSTLY_Q3_K_M,
    "Q4_K": LlamaFileType.MOSTLY_Q4_K_M,
    "Q5_K": LlamaFileType.MOSTLY_Q5_K_M,
    "Q6_K": LlamaFileType.MOSTLY_Q6_K,
}
"""`general.file_type` for a file whose matrices are of one type: informative only."""


def write_arrays(
    path: str | Path,
    metadata: Mapping[str, Any],
    tensors: Iterable[tuple[str, np.ndarray, str]],
    *,
    arch: str = "phi3",
    split_tensors: int = 0,
) -> None:
    """Write a GGUF from metadata and `(name, array, type name)` triples.

    With `split_tensors`, that many go into each of several files, STEM-00001-of-0000N.gguf and so on.

    The array of a quantized type is the uint8 blocks, (rows, bytes of a row); that of F32 and F16 holds
    values. A metadata value's GGUF type follows from its Python type (int: UINT32, float: FLOAT32, a list of
    ints: INT32); to choose another write `(value, GGUFValueType.UINT64)`, for an array `(value,
    GGUFValueType.ARRAY, item type)`. A value of None leaves the key out.
    """
    writer = GGUFWriter(path, arch, split_max_tensors=split_tensors)
    for key, value in metadata.items():
        if value is None:
            continue
        if isinstance(value, tuple):
            writer.add_key_value(key, *value)
        elif isinstance(value, list):
            item = GGUFValueType.get_type(value[0]) if value else GGUFValueType.STRING
            writer.add_key_value(key, value, GGUFValueType.ARRAY, item)
        elif isinstance(value, int) and not isinstance(value, bool):
            writer.add_key_value(key, int(value), GGUFValueType.UINT32)
        else:
            writer.add_key_value(key, value, GGUFValueType.get_type(value))
    for name, array, kind in tensors:
        if kind == "F32":
            writer.add_tensor(name, np.ascontiguousarray(array, dtype=np.float32))
        elif kind == "F16":
            writer.add_tensor(name, np.ascontiguousarray(array, dtype=np.float16))
        else:
            writer.add_tensor(name, np.ascontiguousarray(array), raw_dtype=GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def quantize(array: np.ndarray, kind: str) -> np.ndarray:
    """Values as the bytes of type `kind`, for what gguf can quantize: BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0."""
    if kind in ("F32", "F16"):
        return array
    return quants.quantize(np.ascontiguousarray(array, dtype=np.float32), GGMLQuantizationType[kind])


def shape_of(config: Any) -> Shape:
    """The `Shape` of a transformers `Phi3Config` or `PhiConfig` (4.5x)."""
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if head_dim * config.num_attention_heads != config.hidden_size:
        raise ValueError(f"a head of {head_dim} does not divide the width {config.hidden_size} evenly")
    if config.model_type == "phi":
        if config.qk_layernorm or config.tie_word_embeddings or config.hidden_act != "gelu_new":
            raise ValueError("norms of queries, a tied output or another activation have no GGUF form in phi2")
        return Shape(
            arch="phi2",
            context=config.max_position_embeddings,
            embd=config.hidden_size,
            ffn=config.intermediate_size,
            layers=config.num_hidden_layers,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            rope_dim=int(head_dim * config.partial_rotary_factor),
            rope_base=float(config.rope_theta),
            norm_eps=float(config.layer_norm_eps),
        )
    original = getattr(config, "original_max_position_embeddings", None) or config.max_position_embeddings
    scaling = getattr(config, "rope_scaling", None)
    attn_factor = None
    if scaling:
        kind = scaling.get("rope_type", scaling.get("type"))
        if kind not in ("longrope", "su"):
            raise ValueError(f"rope_scaling of type {kind!r} has no GGUF form here, expected 'longrope'")
        attn_factor = scaling.get("attention_factor")
        if attn_factor is None:
            scale = config.max_position_embeddings / original
            attn_factor = 1.0 if scale <= 1.0 else math.sqrt(1 + math.log(scale) / math.log(original))
    return Shape(
        context=config.max_position_embeddings,
        embd=config.hidden_size,
        ffn=config.intermediate_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        rope_dim=int(head_dim * getattr(config, "partial_rotary_factor", 1.0)),
        rope_base=float(config.rope_theta),
        norm_eps=float(config.rms_norm_eps),
        original_context=original,
        # The converter writes 0 for "off", which tells Phi-4 from a Phi-3 that merely lacks the key.
        sliding_window=config.sliding_window or 0,
        attn_factor=attn_factor,
    )


PHI3_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_qkv": "self_attn.qkv_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_up": "mlp.gate_up_proj",
    "ffn_down": "mlp.down_proj",
}
PHI2_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.dense",
    "ffn_up": "mlp.fc1",
    "ffn_down": "mlp.fc2",
}
"""The parts of a block: in the file, and in transformers."""


def write_gguf(
    path: str | Path,
    model: Any,
    vocab: Vocab,
    *,
    dtype: str | Callable[[str], str] = "F32",
    context_length: int | None = None,
    split_qkv: bool | None = None,
    name: str = "Phi-3 test model",
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Export a transformers `Phi3ForCausalLM` or `PhiForCausalLM` as a GGUF file of architecture phi3 or phi2.

    Args:
        path: the file to write.
        model: the model; its weights may be of any float type. Biases are written where it has them.
        vocab: as many tokens as the model's embedding has rows.
        dtype: the type of every matrix (F32, F16, BF16, Q8_0, Q5_1, Q5_0, Q4_1, Q4_0), or a function that
            gives it for a tensor's name. Norms, biases and rope factors are always F32.
        context_length: instead of the config's `max_position_embeddings`. (The attention factor of longrope
            stays that of the config.)
        split_qkv: attn_q, attn_k and attn_v in place of attn_qkv; None leaves them as the model has them.
        name: `general.name`; see `Shape.name`.
        extra: metadata to add or to replace; a value of None removes the key. Types as in `write_arrays`.
    """
    config = model.config
    weights = {key: value.detach().float().cpu().numpy() for key, value in model.state_dict().items()}
    rows = weights["model.embed_tokens.weight"].shape[0]
    if len(vocab) != rows:
        raise ValueError(f"the vocabulary has {len(vocab)} tokens, the embedding {rows} rows")
    shape = shape_of(config)
    shape.name = name
    if context_length is not None:
        shape.context = context_length
    type_of = dtype if callable(dtype) else lambda _: dtype

    tensors: list[tuple[str, np.ndarray, str]] = []

    def add(target: str, source: str, values: np.ndarray | None = None, bias: np.ndarray | None = None) -> None:
        """A norm or a matrix, and its bias if it has one."""
        values = weights[source + ".weight"] if values is None else values
        bias = weights.get(source + ".bias") if bias is None else bias
        kind = "F32" if values.ndim == 1 else type_of(target + ".weight")
        tensors.append((target + ".weight", quantize(values, kind), kind))
        if bias is not None:
            tensors.append((target + ".bias", bias, "F32"))

    def add_fused(block: str, parts: list[tuple[np.ndarray, np.ndarray | None]]) -> None:
        """Queries, keys and values as one matrix."""
        biases = [bias for _, bias in parts if bias is not None]
        fused = np.concatenate([values for values, _ in parts])
        add(block + "attn_qkv", "", fused, np.concatenate(biases) if biases else None)

    add("token_embd", "model.embed_tokens")
    add("output_norm", "model.norm" if shape.arch == "phi3" else "model.final_layernorm")
    if not config.tie_word_embeddings:
        add("output", "lm_head")
    if shape.attn_factor is not None:
        for length in ("long", "short"):
            factors = config.rope_scaling[f"{length}_factor"]
            if len(factors) != shape.rope_dim // 2:
                raise ValueError(f"{len(factors)} {length} rope factors, expected {shape.rope_dim // 2}")
            tensors.append((f"rope_factors_{length}.weight", np.array(factors), "F32"))
    widths = np.array([shape.heads, shape.kv_heads, shape.kv_heads]) * shape.head_dim
    for i in range(shape.layers):
        block, theirs = f"blk.{i}.", f"model.layers.{i}."
        for target, source in (PHI3_NAMES if shape.arch == "phi3" else PHI2_NAMES).items():
            source = theirs + source
            if target == "attn_qkv" and split_qkv:
                bias = weights.get(source + ".bias")
                values = np.split(weights[source + ".weight"], widths.cumsum()[:-1])
                biases = [None] * 3 if bias is None else np.split(bias, widths.cumsum()[:-1])
                for letter, v, b in zip("qkv", values, biases, strict=True):
                    add(f"{block}attn_{letter}", "", v, b)
            elif target == "attn_q" and split_qkv is False:
                names = [theirs + PHI2_NAMES[f"attn_{letter}"] for letter in "qkv"]
                add_fused(block, [(weights[n + ".weight"], weights.get(n + ".bias")) for n in names])
            elif target not in ("attn_k", "attn_v") or split_qkv is not False:
                add(block + target, source)

    metadata = shape.metadata() | {"general.quantization_version": 2} | vocab.metadata()
    if isinstance(dtype, str):
        metadata["general.file_type"] = int(FILE_TYPE[dtype])
    write_arrays(path, metadata | dict(extra or {}), tensors, arch=shape.arch)
