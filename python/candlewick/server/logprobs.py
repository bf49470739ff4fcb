"""Log-probabilities as OpenAI's API has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from candlewick.stream import Token


def content(tokens: Sequence[Token]) -> list[dict[str, Any]]:
    """Those of a chat completion: the tokens' texts joined are the text."""
    return [token.to_dict() for token in tokens]


class Legacy:
    """Those of a completion: columns, with the place of each token in the text."""

    def __init__(self) -> None:
        self._offset = 0

    def columns(self, tokens: Sequence[Token]) -> dict[str, Any]:
        """The columns of the next tokens."""
        offsets = []
        for token in tokens:
            offsets.append(self._offset)
            self._offset += len(token.text)
        return {
            "tokens": [token.text for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [{other.text: other.logprob for other in token.top_logprobs} for token in tokens],
            "text_offset": offsets,
        }
