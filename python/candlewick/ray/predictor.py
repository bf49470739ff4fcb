"""`Predictor`: the rows of a Ray data set, each with a text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from candlewick.errors import InvalidRequestError
from candlewick.ray import batches
from candlewick.ray.actor import load

if TYPE_CHECKING:
    import os

    from typing_extensions import Unpack

    from candlewick.generator import Options

RESULTS = ("text", "finish_reason", "prompt_tokens", "completion_tokens", "seed", "error")

AT_ONCE = 16
"""Rows that are written at the same time, and share each pass over the weights."""


class Predictor:
    """Writes a text for each row; for ``map_batches`` of a Ray data set, which makes one in each of its actors.

    A row has the same text wherever, with whatever others and however often it is computed: when a machine is lost,
    Ray computes its rows again on another, and nothing shows it. Batches may be dicts of NumPy arrays, pandas
    ``DataFrame``s or Arrow tables (``batch_format``); what is returned has the same form, the columns that were there,
    and those of the results.

    Args:
        model: As for `Generator`: a file or folder that every machine has under this path, a repository of the hub,
            or ``"demo"``.
        prompt_column: The column of the prompts: strings, lists of messages, or lists of token ids. In messages what
            is ``None`` counts as absent, because Arrow gives all rows' messages the same keys.
        seed_column: The column of the rows' seeds. Without one, a row's seed is made of ``seed`` (0 unless given) and
            its prompt, so that the same prompt has the same text.
        columns: Which results are kept, and the names of their columns, such as ``{"text": "answer"}``; ``None`` is
            all, under their own names (``"seed"`` not, where there is a ``seed_column``):

            - ``"text"``: a string.
            - ``"finish_reason"``: ``"stop"``, ``"length"``, ``"tool_calls"`` or ``"error"``.
            - ``"prompt_tokens"`` and ``"completion_tokens"``: how many.
            - ``"seed"``: with it ``gen.generate(prompt, seed=...)`` gives the row's text again; below 2**63.
            - ``"error"``: what went wrong with the row, empty if nothing did. Its text is empty then, and its counts
              are 0. Where this is not kept, an error is raised instead, which ends Ray's work.
        generator: More arguments of `Generator`. ``n_threads`` is the actor's ``num_cpus``, which Ray has as 1 unless
            told otherwise.
        **options: As for `Generator.stream`, for all rows.

    Raises:
        InvalidRequestError: An argument is out of range.
        ModelNotFoundError: There is no such model here; and what else `Generator` raises.

    Example:
        >>> from candlewick.ray import Predictor
        >>> import numpy as np
        >>> predictor = Predictor("demo", columns={"text": "haiku"}, temperature=0)
        >>> batch = predictor({"prompt": np.array(["Write a haiku about rain", "Write a haiku about fog"])})
        >>> ["rain" in batch["haiku"][0].lower(), "fog" in batch["haiku"][1].lower()]
        [True, True]
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        prompt_column: str = "prompt",
        seed_column: str | None = None,
        columns: Mapping[str, str] | None = None,
        generator: Mapping[str, Any] | None = None,
        **options: Unpack[Options],
    ) -> None:
        if columns is None:
            columns = {name: name for name in RESULTS if name != "seed" or seed_column is None}
        unknown = set(columns).difference(RESULTS)
        if unknown:
            raise InvalidRequestError(f"there is no result {min(unknown)!r}, expected some of {', '.join(RESULTS)}")
        self._prompt_column = prompt_column
        self._seed_column = seed_column
        self._columns = dict(columns)
        self._generator = load(model, generator)
        # What is wrong with the options is so for all rows, and is said at once.
        self._generator.stream([0], **options).cancel()
        self._seed = options.pop("seed", None) or 0
        self._options = options
        self._pool = ThreadPoolExecutor(AT_ONCE, "candlewick-rows")

    def __call__(self, batch: Any) -> Any:
        """The batch with its results."""
        prompts = batches.column(batch, self._prompt_column)
        seeds = batches.column(batch, self._seed_column) if self._seed_column else map(self._seed_of, prompts)
        rows = list(self._pool.map(self._row, prompts, seeds))
        return batches.with_columns(
            batch, {name: [row[result] for row in rows] for result, name in self._columns.items()}
        )

    def _row(self, prompt: Any, seed: Any) -> dict[str, Any]:
        try:
            done = self._generator.generate(prompt, **{**self._options, "seed": seed})
        except Exception as error:
            if "error" not in self._columns:
                raise
            said = f"{type(error).__name__}: {error}"
            return {**dict.fromkeys(RESULTS, 0), "text": "", "finish_reason": "error", "seed": seed, "error": said}
        return {
            "text": done.text,
            "finish_reason": done.finish_reason,
            "prompt_tokens": done.usage.prompt_tokens,
            "completion_tokens": done.usage.completion_tokens,
            "seed": seed,
            "error": "",
        }

    def _seed_of(self, prompt: Any) -> int:
        # `str` for what is no prompt, of which `generate` says so. 63 bits, because data sets know no unsigned numbers.
        said = json.dumps([self._seed, prompt], sort_keys=True, default=str)
        return int.from_bytes(hashlib.sha256(said.encode()).digest()[:8], "big") >> 1
