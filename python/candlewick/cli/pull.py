"""Fetch a model into the cache, or find it there, and print where it is.

A download that broke off goes on from where it was. The cache is the one that huggingface_hub uses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from candlewick import models
from candlewick.cli import options as parsed

if TYPE_CHECKING:
    import argparse

EXAMPLES = """\
examples:
  candlewick pull
  candlewick pull microsoft/Phi-3-mini-4k-instruct-gguf:q4
  candlewick pull owner/name --filename model-Q5_K_M.gguf --revision v1.0
"""


def run(options: argparse.Namespace) -> int:
    """The command ``pull``."""
    hub = parsed.hub(options)
    tokenizer = models.resolve_tokenizer(None, hub, default=options.model is None)
    print(models.resolve(options.model, options.filename, hub))
    if tokenizer is not None:
        print(tokenizer)
    return 0
