"""Make the golden logits in `golden/`: small random phi3 and phi2 models, run by transformers.

    python tests/data/make_golden.py [NAME ...]     # needs torch, transformers 4.57, numpy, gguf

For each model NAME there is `golden/NAME.gguf` and `golden/NAME.npz` (no pickle), which holds for the prompt
lengths L of `prompts`:

    prompts      (n,) int32             the prompt lengths
    steps        (s,) int32             the steps whose logits are kept; step k: the prompt and k greedy ids
    prompt_L     (L,) int32             random ids
    greedy_L     (50,) int32            greedy_L[k] is the id of the largest logit of step k
    margin_L     (50,) float32          by how much, over the second largest
    logits_L     (s, vocab) float32     at the last position

and `golden/models.json` says what each model is for and how far its logits move (the largest difference of
any logit at the end of a prompt) when one thing is done wrongly. A test's tolerance has to lie far below
these numbers; they are checked against `TOLERANCE` here.

The weights are drawn wide enough that attention is far from uniform; with the usual 0.02 a wrong rope or mask
hides in the noise. The models in F16 files have their weights rounded to f16 before the reference runs, so
the file and the reference are the same model. Greedy paths were chosen, out of many random prompts, for the
widest smallest margin and for not ending on one of the end tokens.

Everything runs in float64 except for what transformers casts to float32 by itself (softmax, the norm's mean,
the rope tables): the logits are good to about 3e-5. They are computed twice, by whole forward passes without
a cache and step by step with transformers' own cache, and the two must agree.

The sliding window, as transformers 4.57 has it: `masking_utils.sliding_window_overlay` allows
`kv > q - window`, so a position sees `window` keys with its own among them;
`cache_utils.DynamicSlidingWindowLayer` keeps the last window - 1 keys before a step. The
key `phi3.attention.sliding_window` is that number.

Long rope: transformers takes the long factors when the sequence is longer than
`original_max_position_embeddings`, for all of its positions, so the logits of a step are those of the whole
sequence with one table; a cache filled under the short factors is thrown away
(`prepare_inputs_for_generation`).
"""

from __future__ import annotations

import contextlib
import copy
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from transformers import DynamicCache, Phi3Config, Phi3ForCausalLM, PhiConfig, PhiForCausalLM
from transformers.models.phi import modeling_phi
from transformers.models.phi3 import modeling_phi3

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from phi3_gguf import small_vocab, write_gguf  # noqa: E402

GOLDEN = Path(__file__).resolve().parent / "golden"
VOCAB = small_vocab(320)
END_IDS = {0, 1, 2, *range(VOCAB.tokens.index("<|endoftext|>"), len(VOCAB))}
GREEDY = 50
STEPS = [0, 1, 10, 20, 30, 40, 50]
TOLERANCE = 1e-3
"""What an engine in float32 is expected to keep; every mistake must cost at least 20 times that."""
MIN_MARGIN = 0.03


@dataclass
class Model:
    """One golden model: its configuration, and the mistakes that its logits must show."""

    name: str
    dtypes: tuple[str, ...]
    why: str
    config: dict[str, Any] = field(default_factory=dict)
    embed_std: float = 1.0
    prompts: tuple[int, ...] = (1, 7, 300)
    mistakes: dict[str, Any] = field(default_factory=dict)
    phi2: bool = False
    biases: bool = False
    """Biases on queries, keys, values and output, which transformers' Phi-3 has no option for."""
    split_qkv: bool | None = None


Net = Phi3ForCausalLM | PhiForCausalLM

SHORT = [1.0 + 0.1 * i for i in range(8)]
LONG = [2.0 + 3.0 * i for i in range(8)]


def longrope(short: list[float], long: list[float]) -> dict[str, Any]:
    return {"rope_scaling": {"type": "longrope", "short_factor": short, "long_factor": long}}


COMMON = {
    "gate and up swapped": "swap_gate",
    "rope over neighbours": "interleave",
    "rope base": {"rope_theta": 500.0},
}

MODELS = [
    Model("mha", ("F32", "F16"), "plain multi-head attention, rope base 10000, no window", mistakes=COMMON),
    Model(
        "gqa",
        ("F32", "F16"),
        "2 key heads for 4, rope base 250000 and an epsilon of 1e-3 (neither may be hard-coded)",
        {"num_key_value_heads": 2, "rope_theta": 250000.0, "rms_norm_eps": 1e-3},
        embed_std=0.1,
        mistakes=COMMON
        | {
            "rope base": {"rope_theta": 10000.0},
            "heads grouped the other way round": "tile",
            "epsilon": {"rms_norm_eps": 1e-5},
        },
    ),
    Model(
        "window",
        ("F16",),
        "a sliding window of 64 keys, the own one among them",
        {"sliding_window": 64, "num_key_value_heads": 2},
        prompts=(1, 7, 300, 63, 64, 65),
        mistakes={
            "window one longer": {"sliding_window": 65},
            "window one shorter": {"sliding_window": 63},
            "no window": {"sliding_window": None},
        },
    ),
    Model(
        "partial",
        ("F16",),
        "only the first 12 of a head's 16 dimensions are rotated",
        {"partial_rotary_factor": 0.75},
        mistakes={"the whole head rotated": {"partial_rotary_factor": 1.0}},
    ),
    Model(
        "tied",
        ("F16",),
        "no output.weight: the embedding is the output matrix",
        {"tie_word_embeddings": True},
        embed_std=0.25,
        mistakes=COMMON,
    ),
    Model(
        "longrope",
        ("F16",),
        "long and short rope factors, attention factor, the switch beyond 128 positions",
        longrope(SHORT, LONG) | {"original_max_position_embeddings": 128},
        prompts=(1, 7, 100, 300),
        mistakes={
            "no attention factor": "no_attn_factor",
            "short factors only": longrope(SHORT, SHORT),
            "long factors only": longrope(LONG, LONG),
        },
    ),
    Model(
        "stretched",
        ("F16",),
        "all that Phi-4-mini has: long rope with 64 original positions, 12 of 16 dimensions rotated, grouped heads, "
        "tied output; prompts on both sides of the boundary and on it",
        longrope(SHORT[:6], LONG[:6])
        | {
            "original_max_position_embeddings": 64,
            "partial_rotary_factor": 0.75,
            "num_key_value_heads": 2,
            "tie_word_embeddings": True,
        },
        embed_std=0.25,
        prompts=(1, 63, 64, 65, 150),
        mistakes={
            "no attention factor": "no_attn_factor",
            "short factors only": longrope(SHORT[:6], SHORT[:6]),
            "long factors only": longrope(LONG[:6], LONG[:6]),
            "the boundary one later": {"original_max_position_embeddings": 65},
        },
    ),
    Model(
        "split",
        ("F16",),
        "attn_q, attn_k and attn_v with biases, 2 key heads for 4, a bias on the attention's output",
        {"num_key_value_heads": 2},
        biases=True,
        split_qkv=True,
        mistakes=COMMON | {"no biases": "no_biases", "heads grouped the other way round": "tile"},
    ),
    Model(
        "phi2",
        ("F16",),
        "LayerNorm and biases, attention and feed-forward layer side by side, GELU, 6 of 16 dimensions rotated, an "
        "epsilon of 1e-2",
        {"layer_norm_eps": 1e-2, "partial_rotary_factor": 0.4},
        embed_std=0.5,
        phi2=True,
        prompts=(1, 7, 200),
        mistakes={
            "the whole head rotated": {"partial_rotary_factor": 1.0},
            "epsilon": {"layer_norm_eps": 1e-5},
            "no biases": "no_biases",
            "one after the other": "sequential",
            "means not taken out": "no_means",
            "silu": {"hidden_act": "silu"},
        },
    ),
    Model(
        "phi2-fused",
        ("F16",),
        "as phi2, with attn_qkv",
        {"partial_rotary_factor": 0.5},
        phi2=True,
        split_qkv=False,
        prompts=(1, 7, 100),
        mistakes={"the whole head rotated": {"partial_rotary_factor": 1.0}, "no biases": "no_biases"},
    ),
]


def with_biases(net: Net) -> Net:
    """The model with a bias on queries, keys, values and output."""
    for layer in net.model.layers:
        for name in ("qkv_proj", "o_proj"):
            old = getattr(layer.self_attn, name)
            setattr(layer.self_attn, name, torch.nn.Linear(old.in_features, old.out_features))
    return net


def build(model: Model, seed: int) -> Net:
    """A random model in float32, its matrices so wide that scores and logits have a std around 2."""
    config = (PhiConfig if model.phi2 else Phi3Config)(
        **{
            "vocab_size": len(VOCAB),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 512,
            **({} if model.phi2 else {"original_max_position_embeddings": 512}),
            "bos_token_id": 1,
            "eos_token_id": VOCAB.eos_id,
            "pad_token_id": VOCAB.pad_id,
            "attn_implementation": "eager",
            **model.config,
        }
    )
    net = (PhiForCausalLM if model.phi2 else Phi3ForCausalLM)(config).eval()
    if model.biases:
        with_biases(net)
    generator = torch.Generator().manual_seed(seed)
    gains = {"qkv_proj": 1.4, "o_proj": 1.4, "gate_up_proj": 1.2, "down_proj": 1.2, "lm_head": 2.0}
    gains |= {"q_proj": 1.4, "k_proj": 1.4, "v_proj": 1.4, "dense": 1.4, "fc1": 1.2, "fc2": 1.6}
    with torch.no_grad():
        for name, weight in net.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if name.endswith("bias"):
                weight.copy_(0.3 * noise)
            elif "norm" in name:
                weight.copy_(1.0 + 0.3 * noise)
            elif "embed_tokens" in name:
                weight.copy_(model.embed_std * noise)
            else:
                weight.copy_(gains[name.split(".")[-2]] / weight.shape[1] ** 0.5 * noise)
    return net


@torch.no_grad()
def logits_of(net: Net, ids: torch.Tensor) -> torch.Tensor:
    """ids (batch, seq) -> logits (batch, vocab) at the last position, by one pass without a cache."""
    return net(input_ids=ids, use_cache=False, logits_to_keep=1).logits[:, -1]


@torch.no_grad()
def greedy_cached(net: Net, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """ids (batch, seq) -> greedy ids (batch, GREEDY), logits of steps 0..GREEDY (batch, steps, vocab)."""
    original = net.config.original_max_position_embeddings if net.config.rope_scaling else None
    cache = DynamicCache(config=net.config)
    out, chosen, seen = [], [], 0
    for step in range(GREEDY + 1):
        if original is not None and seen <= original < ids.shape[1]:
            cache, seen = DynamicCache(config=net.config), 0
        position = torch.arange(seen, ids.shape[1])
        fed = net(input_ids=ids[:, seen:], past_key_values=cache, cache_position=position, logits_to_keep=1)
        seen = ids.shape[1]
        out.append(fed.logits[:, -1])
        if step < GREEDY:
            chosen.append(out[-1].argmax(-1, keepdim=True))
            ids = torch.cat([ids, chosen[-1]], dim=1)
    return torch.cat(chosen, dim=1), torch.stack(out, dim=1)


def margins_of(logits: torch.Tensor) -> torch.Tensor:
    """By how much the largest logit leads, over the last axis."""
    top = logits.topk(2, dim=-1).values
    return top[..., 0] - top[..., 1]


def choose_prompt(net: Net, length: int, rng: np.random.Generator) -> np.ndarray:
    """The prompt, out of many random ones, whose greedy path has the widest smallest margin."""
    count = {1: len(VOCAB), 7: 1500}.get(length, 192)
    candidates = rng.integers(0, len(VOCAB), size=(count, length))
    if length == 1:
        candidates = np.arange(len(VOCAB))[:, None]
    best, best_margin = None, -1.0
    for batch in np.array_split(candidates, max(1, count * length // 6000)):
        greedy, logits = greedy_cached(net, torch.from_numpy(batch))
        smallest = margins_of(logits[:, :GREEDY]).amin(dim=1)
        for prompt, ids, margin in zip(batch, greedy.tolist(), smallest.tolist(), strict=True):
            # a path that goes round in a small circle shows little
            if margin > best_margin and len(set(ids)) >= 20 and not END_IDS & set(ids):
                best, best_margin = prompt, margin
    if best is None or best_margin < MIN_MARGIN:
        raise SystemExit(f"no prompt of {length} ids with a margin above {MIN_MARGIN}: {best_margin:.4f}")
    return best


def interleaved_rope(q: Any, k: Any, cos: Any, sin: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The rope of GPT-J, which pairs neighbouring dimensions: what a wrong `rope_type` gives."""
    half = cos.shape[-1] // 2
    cos, sin = cos[..., :half].unsqueeze(1), sin[..., :half].unsqueeze(1)

    def turn(x: torch.Tensor) -> torch.Tensor:
        even, odd = x[..., : 2 * half : 2], x[..., 1 : 2 * half : 2]
        turned = torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1).flatten(-2)
        return torch.cat([turned, x[..., 2 * half :]], dim=-1)

    return turn(q), turn(k)


def sequential(layer: Any, hidden_states: torch.Tensor, **kwargs: Any) -> tuple[torch.Tensor]:
    """A block of Phi-2 whose feed-forward layer sees what the attention gave."""
    attended, _ = layer.self_attn(hidden_states=layer.input_layernorm(hidden_states), **kwargs)
    hidden_states = hidden_states + attended
    return (hidden_states + layer.mlp(layer.input_layernorm(hidden_states)),)


def no_means(norm: torch.nn.LayerNorm, x: torch.Tensor) -> torch.Tensor:
    """RMSNorm in place of LayerNorm."""
    return x / (x.pow(2).mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight + norm.bias


@contextlib.contextmanager
def mistaken(net: Net, mistake: Any) -> Iterator[Net]:
    """A copy of the model that makes one mistake: other configuration values, or one of the named ones."""
    if isinstance(mistake, dict):
        config = copy.deepcopy(net.config)
        for key, value in mistake.items():
            setattr(config, key, value)
        wrong = type(net)._from_config(config, attn_implementation="eager").eval()
        if "model.layers.0.self_attn.o_proj.bias" in net.state_dict():
            with_biases(wrong)
        wrong = wrong.double()
        wrong.load_state_dict(net.state_dict())
        yield wrong
        return
    wrong = copy.deepcopy(net)
    patch: Any = contextlib.nullcontext()
    if mistake == "swap_gate":
        for layer in wrong.model.layers:
            weight = layer.mlp.gate_up_proj.weight
            weight.data = torch.cat(weight.data.chunk(2)[::-1])
    elif mistake == "no_attn_factor":
        wrong.model.rotary_emb.attention_scaling = 1.0
    elif mistake == "no_biases":
        with torch.no_grad():
            for name, weight in wrong.named_parameters():
                if name.endswith("bias"):
                    weight.zero_()
    elif mistake == "sequential":
        patch = mock.patch.object(modeling_phi.PhiDecoderLayer, "forward", sequential)
    elif mistake == "no_means":
        patch = mock.patch.object(torch.nn.LayerNorm, "forward", no_means)
    elif mistake == "interleave":
        patch = mock.patch.object(modeling_phi3, "apply_rotary_pos_emb", interleaved_rope)
    elif mistake == "tile":
        patch = mock.patch.object(modeling_phi3, "repeat_kv", lambda x, n: x.repeat(1, n, 1, 1))
    else:
        raise ValueError(mistake)
    with patch:
        yield wrong


def make(model: Model, dtype: str, seed: int) -> dict[str, Any]:
    """Write one model's files; returns its entry of `models.json`."""
    name = f"{model.name}-{dtype.lower()}"
    net = build(model, seed)
    if dtype == "F16":
        with torch.no_grad():
            for weight in net.parameters():
                if weight.ndim > 1:
                    weight.copy_(weight.half().float())
    write_gguf(
        GOLDEN / f"{name}.gguf",
        net,
        VOCAB,
        dtype=dtype,
        split_qkv=model.split_qkv,
        name=f"{'Phi-2' if model.phi2 else 'Phi-3'} golden {name}",
    )
    single, net = net, copy.deepcopy(net).double()
    rng = np.random.default_rng(seed)
    arrays: dict[str, np.ndarray] = {
        "prompts": np.array(model.prompts, dtype=np.int32),
        "steps": np.array(STEPS, dtype=np.int32),
    }
    entry: dict[str, Any] = {"why": model.why}
    entry |= {key: {} for key in ("min_margin", "logit_std", "float32_error", "mistakes")}
    for length in model.prompts:
        prompt = torch.from_numpy(choose_prompt(single, length, rng))[None]
        greedy, cached = greedy_cached(net, prompt)
        whole = torch.cat([prompt, greedy], dim=1)
        plain = torch.stack([logits_of(net, whole[:, : length + k])[0] for k in range(GREEDY + 1)])
        gap = (plain - cached[0]).abs().max().item()
        assert gap < 1e-4, f"{name}: with and without a cache differ by {gap}"
        assert (plain[:GREEDY].argmax(-1) == greedy[0]).all()
        margin = margins_of(plain[:GREEDY])
        assert margin.min() > MIN_MARGIN, f"{name}: margin {margin.min()}"
        at_prompt = plain[0]
        arrays[f"prompt_{length}"] = prompt[0].numpy().astype(np.int32)
        arrays[f"greedy_{length}"] = greedy[0].numpy().astype(np.int32)
        arrays[f"margin_{length}"] = margin.numpy().astype(np.float32)
        arrays[f"logits_{length}"] = plain[STEPS].numpy().astype(np.float32)
        entry["min_margin"][length] = round(margin.min().item(), 4)
        entry["logit_std"][length] = round(at_prompt.std().item(), 2)
        error = (logits_of(single, prompt)[0] - at_prompt).abs().max()
        entry["float32_error"][length] = float(f"{error:.1e}")
        for label, mistake in model.mistakes.items():
            with mistaken(net, mistake) as wrong:
                moved = (logits_of(wrong, prompt)[0] - at_prompt).abs().max().item()
            entry["mistakes"].setdefault(label, {})[length] = round(moved, 4)
    for label, moved in entry["mistakes"].items():
        assert max(moved.values()) > 20 * TOLERANCE, f"{name}: {label} moves the logits by only {moved}"
    np.savez_compressed(GOLDEN / f"{name}.npz", **arrays)
    return entry


def main() -> None:
    torch.set_num_threads(1)
    GOLDEN.mkdir(exist_ok=True)
    only = set(sys.argv[1:])
    path = GOLDEN / "models.json"
    index = json.loads(path.read_text()) if only else {}
    for i, model in enumerate(MODELS):
        if only and model.name not in only:
            continue
        for dtype in model.dtypes:
            name = f"{model.name}-{dtype.lower()}"
            index[name] = make(model, dtype, seed=100 + i)
            print(name, json.dumps(index[name], indent=1))
    path.write_text(json.dumps(index, indent=1) + "\n")


if __name__ == "__main__":
    main()
