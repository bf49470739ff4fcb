"""Streams text from quantized Phi models.

>>> from candlewick import Generator
>>> gen = Generator("demo")
>>> for text in gen.stream("Write a haiku about ice hockey"):
...     print(text, end="", flush=True)  # doctest: +SKIP
"""

import logging

from candlewick._native import Tokenizer, __version__
from candlewick.chat import Chat
from candlewick.errors import (
    ContextLengthError,
    DownloadError,
    Error,
    InvalidRequestError,
    ModelFormatError,
    ModelNotFoundError,
    OutOfMemoryError,
    SessionError,
    UnsupportedModelError,
)
from candlewick.estimate import Estimate
from candlewick.generator import Generator, Stats
from candlewick.score import Score
from candlewick.stream import Completion, TextStream, Timings, Token, TokenStream, ToolCall, TopLogprob, Usage

__all__ = [
    "Chat",
    "Completion",
    "ContextLengthError",
    "DownloadError",
    "Error",
    "Estimate",
    "Generator",
    "InvalidRequestError",
    "ModelFormatError",
    "ModelNotFoundError",
    "OutOfMemoryError",
    "Score",
    "SessionError",
    "Stats",
    "TextStream",
    "Timings",
    "Token",
    "TokenStream",
    "Tokenizer",
    "ToolCall",
    "TopLogprob",
    "UnsupportedModelError",
    "Usage",
    "__version__",
]

# Silent unless the program asks for logs.
logging.getLogger(__name__).addHandler(logging.NullHandler())
