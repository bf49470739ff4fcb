"""Samplers in NumPy float64, written from their papers' and libraries' descriptions: what the package is compared with.

Logits are (vocab,); what is forbidden is -inf. `tests/data/golden/sampling.json` and `llama_sampling.json` hold what
transformers and llama.cpp make of the same cases, and test_samplers.py compares these functions with them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Ids = Sequence[int]


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def repetition(logits: np.ndarray, recent: Ids, penalty: float) -> np.ndarray:
    out = logits.copy()
    for i in set(recent):
        out[i] = out[i] / penalty if out[i] >= 0 else out[i] * penalty
    return out


def frequency(logits: np.ndarray, generated: Ids, frequency: float, presence: float) -> np.ndarray:
    out = logits.copy()
    for i in set(generated):
        out[i] -= frequency * list(generated).count(i) + presence
    return out


def dry(
    logits: np.ndarray,
    ids: Ids,
    multiplier: float,
    base: float = 1.75,
    allowed: int = 2,
    last_n: int = -1,
    breakers: Sequence[Ids] = (),
) -> np.ndarray:
    """Quadratic and literal: every earlier place is compared with the end, backwards."""
    ids = list(ids)[-last_n:] if last_n > 0 else list(ids)
    if last_n == 0 or len(ids) <= allowed:
        return logits
    limit = len(ids)
    for start in reversed(range(len(ids))):
        ends = [len(b) for b in breakers if ids[start : start + len(b)] == list(b)]
        if ends:
            limit = len(ids) - start - max(ends)
            break
    if limit < allowed:
        return logits
    longest: dict[int, int] = {}
    for end in range(1, len(ids)):
        n = 0
        while n < end and ids[end - 1 - n] == ids[-1 - n]:
            n += 1
        n = min(n, limit)
        if n >= allowed:
            longest[ids[end]] = max(longest.get(ids[end], 0), n)
    out = logits.copy()
    for i, n in longest.items():
        if [i] not in [list(b) for b in breakers]:
            exponent = n - allowed
            if base > 1.000001:
                exponent = min(exponent, int(88.7228391 / np.log(base)))
            out[i] -= multiplier * base**exponent
    return out


def no_repeat_ngram(logits: np.ndarray, ids: Ids, n: int) -> np.ndarray:
    out, ids = logits.copy(), list(ids)
    seen = {tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)}
    begun = ids[len(ids) - n + 1 :] if n > 1 else []
    for i in range(len(out)):
        if (*begun, i) in seen:
            out[i] = -np.inf
    return out


def bad_words(logits: np.ndarray, ids: Ids, words: Sequence[Ids]) -> np.ndarray:
    out, ids = logits.copy(), list(ids)
    for *before, last in words:
        if not before or ids[-len(before) :] == before:
            out[last] = -np.inf
    return out


def min_tokens(logits: np.ndarray, n_generated: int, minimum: int, ends: Ids) -> np.ndarray:
    out = logits.copy()
    if n_generated < minimum:
        out[list(ends)] = -np.inf
    return out


def top_k(logits: np.ndarray, k: int) -> np.ndarray:
    order = np.argsort(-logits, kind="stable")
    out = np.full_like(logits, -np.inf)
    out[order[:k]] = logits[order[:k]]
    return out


def top_p(logits: np.ndarray, p: float) -> np.ndarray:
    order = np.argsort(-logits, kind="stable")
    before = np.cumsum(softmax(logits)[order]) - softmax(logits)[order]
    return np.where(np.isin(np.arange(len(logits)), order[before < p]), logits, -np.inf)


def min_p(logits: np.ndarray, p: float) -> np.ndarray:
    probabilities = softmax(logits)
    return np.where(probabilities >= p * probabilities.max(), logits, -np.inf)


def typical(logits: np.ndarray, mass: float) -> np.ndarray:
    p = softmax(logits)
    surprise = np.full_like(p, np.inf)
    surprise[p > 0] = -np.log(p[p > 0])
    distance = np.abs(surprise - np.sum(p[p > 0] * surprise[p > 0]))
    order = np.argsort(distance, kind="stable")
    reached = np.cumsum(p[order])
    last = min(int((reached < mass).sum()), len(p) - 1)
    return np.where(distance <= distance[order[last]], logits, -np.inf)


def without_top_choices(logits: np.ndarray, threshold: float) -> np.ndarray:
    """XTC when it strikes."""
    p = softmax(logits)
    choices = [i for i in np.argsort(-p, kind="stable") if p[i] >= threshold]
    out = logits.copy()
    out[choices[:-1]] = -np.inf
    return out
