"""What transformers' processors and warpers make of random logits: `golden/sampling.json`.

    python tests/data/make_sampling_golden.py       # needs torch, transformers 4.57, numpy

Each case has `ids` (prompt and generated), `n_prompt`, `logits`, the processor's name and arguments, and `expected`,
the logits it gives, null for -inf.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from transformers import (
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

GOLDEN = Path(__file__).resolve().parent / "golden"
VOCAB = 24
WORDS = [[3], [1, 2], [2, 1, 0], [0, 0, 1]]


def rounded(values: torch.Tensor) -> list[float | None]:
    return [None if np.isinf(v) else round(float(v), 6) for v in values[0].double().numpy()]


def main() -> None:
    rng = np.random.default_rng(20)
    cases = []
    for i in range(12):
        # Few different ids, so that they repeat.
        ids = rng.integers(0, 4, 6 + 5 * i).tolist()
        n_prompt = len(ids) // 2
        logits = (2.5 * rng.standard_normal(VOCAB)).round(6).tolist()
        common = {"ids": ids, "n_prompt": n_prompt, "logits": logits}
        for name, arguments, processor in (
            ("repetition", {"penalty": 1.3}, RepetitionPenaltyLogitsProcessor(1.3)),
            ("no_repeat_ngram", {"n": 1 + i % 4}, NoRepeatNGramLogitsProcessor(1 + i % 4)),
            ("bad_words", {"words": WORDS}, NoBadWordsLogitsProcessor(WORDS, eos_token_id=23)),
            (
                "min_tokens",
                {"minimum": 4 * i, "ends": [5, 6]},
                MinNewTokensLengthLogitsProcessor(n_prompt, 4 * i, [5, 6], device="cpu"),
            ),
            ("temperature", {"t": 0.7}, TemperatureLogitsWarper(0.7)),
            ("top_k", {"k": 1 + i}, TopKLogitsWarper(1 + i)),
            ("top_p", {"p": 0.3 + 0.05 * i}, TopPLogitsWarper(0.3 + 0.05 * i)),
            ("min_p", {"p": 0.02 * (i + 1)}, MinPLogitsWarper(0.02 * (i + 1))),
            ("typical", {"mass": 0.1 + 0.07 * i}, TypicalLogitsWarper(0.1 + 0.07 * i)),
        ):
            found = processor(torch.tensor([ids]), torch.tensor([logits], dtype=torch.float64))
            cases.append({**common, "name": name, "arguments": arguments, "expected": rounded(found)})
    (GOLDEN / "sampling.json").write_text(json.dumps(cases, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
