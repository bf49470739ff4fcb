"""How likely a model finds a text."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from candlewick import shading


@dataclass(frozen=True)
class Score:
    """The log-probability of each token of a text after those before it."""

    ids: tuple[int, ...] = field(repr=False)
    """The token ids, BOS included where the model has one."""
    tokens: tuple[str, ...] = field(repr=False)
    """Their texts, special tokens by their spelling; a character of several tokens is in the last of them."""
    logprobs: tuple[float | None, ...] = field(repr=False)
    """Natural-log probabilities under the model; ``None`` for the first token, which nothing is before."""

    @property
    def logprob(self) -> float:
        """The sum: the log-probability of the text after its first token."""
        return math.fsum(logprob for logprob in self.logprobs if logprob is not None)

    @property
    def perplexity(self) -> float:
        """``exp`` of the mean negative log-probability: among how many equally likely tokens each was chosen."""
        try:
            return math.exp(-self.logprob / (len(self.logprobs) - 1))
        except OverflowError:
            return math.inf

    def __repr__(self) -> str:
        return f"Score({len(self.tokens)} tokens, logprob={self.logprob:.2f}, perplexity={self.perplexity:.2f})"

    def _repr_html_(self) -> str:
        """The text with each token shaded by its probability, for notebooks."""
        return shading.html(map(shading.Item, self.ids, self.tokens, self.logprobs))
