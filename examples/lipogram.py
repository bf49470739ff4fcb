"""A haiku without the letter e: a logits processor forbids every token that has one."""

import numpy as np

from candlewick import Generator

gen = Generator("demo")
pieces = [gen.tokenizer.decode([id]) for id in range(gen.tokenizer.vocab_size)]
has_e = np.array(["e" in piece.lower() for piece in pieces])


def without_e(ids: list[int], logits: np.ndarray) -> None:
    logits[has_e] = -np.inf


answer = gen.generate("Write a haiku about a train", seed=6, logits_processor=without_e)
print(answer)
assert "e" not in answer.text.lower()
