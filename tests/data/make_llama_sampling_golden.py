"""What llama.cpp's DRY and XTC samplers make of random logits: `golden/llama_sampling.json`.

    python tests/data/make_llama_sampling_golden.py       # needs llama-cpp-python 0.3.36, numpy

The vocabulary is that of the golden models. Of DRY there are the ids that it has seen and what it takes from each
logit, by id; of XTC, which strikes always here, the ids that are left.
"""

from __future__ import annotations

import ctypes
import json
from pathlib import Path

import llama_cpp
import numpy as np

GOLDEN = Path(__file__).resolve().parent / "golden"
LETTERS = 289
"""The id of the letter a."""


def apply(sampler: object, logits: np.ndarray) -> dict[int, float]:
    """The logits that are left, by id."""
    data = (llama_cpp.llama_token_data * len(logits))()
    for i, logit in enumerate(logits):
        data[i].id, data[i].logit, data[i].p = i, float(logit), 0.0
    array = llama_cpp.llama_token_data_array(data=data, size=len(logits), selected=-1, sorted=False)
    llama_cpp.llama_sampler_apply(sampler, ctypes.byref(array))
    return {array.data[i].id: array.data[i].logit for i in range(array.size)}


def main() -> None:
    llama_cpp.llama_backend_init()
    parameters = llama_cpp.llama_model_default_params()
    parameters.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(GOLDEN / "mha-f32.gguf").encode(), parameters)
    vocab = llama_cpp.llama_model_get_vocab(model)
    n_vocab = llama_cpp.llama_vocab_n_tokens(vocab)
    rng = np.random.default_rng(21)
    letters = [LETTERS + ord(c) - ord("a") for c in "abcdehilno"]
    out: dict[str, list[dict[str, object]]] = {"dry": [], "xtc": []}
    # 13 is the line end, 61 the colon.
    for i in range(72):
        ids = rng.choice(letters[: 2 + i % 4], 5 + 3 * i).tolist()
        for at in rng.integers(0, len(ids), len(ids) // 12):
            ids[at] = int(rng.choice([13, 61]))
        arguments = {
            "multiplier": [0.8, 2.0, 0.5][i % 3],
            "base": [1.75, 1.0, 2.5][i // 3 % 3],
            "allowed": 1 + i % 4,
            "last_n": [4096, 20, 50][i // 5 % 3],
        }
        breakers = [[], ["\n"], ["\n", ":", '"', "*"], ["\n", "ab"]][i // 2 % 4]
        array = (ctypes.c_char_p * len(breakers))(*[b.encode() for b in breakers])
        sampler = llama_cpp.llama_sampler_init_dry(
            vocab,
            arguments["multiplier"],
            arguments["base"],
            arguments["allowed"],
            arguments["last_n"],
            array,
            len(breakers),
        )
        for token in ids:
            llama_cpp.llama_sampler_accept(sampler, token)
        left = apply(sampler, np.zeros(n_vocab))
        llama_cpp.llama_sampler_free(sampler)
        penalties = {str(token): -logit for token, logit in left.items() if logit != 0.0}
        out["dry"].append({"ids": ids, "breakers": breakers, **arguments, "penalties": penalties})
    for i in range(40):
        logits = (2.0 * rng.standard_normal(24)).round(3)
        threshold = 0.02 + 0.012 * i
        sampler = llama_cpp.llama_sampler_init_xtc(1.0, threshold, 0, 1)
        left = apply(sampler, logits)
        llama_cpp.llama_sampler_free(sampler)
        out["xtc"].append({"logits": logits.tolist(), "threshold": threshold, "left": sorted(left)})
    (GOLDEN / "llama_sampling.json").write_text(json.dumps(out, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
